"""What was logged, kept and written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...files import write_text
from .base import Callback, TrainingState


class History(Callback):
    """Keeps every logged metric as (step, value) pairs, and writes them to `history.json` in the output folder."""

    def __init__(self) -> None:
        self.entries: dict[str, list[tuple[int, float]]] = {}

    def on_log(self, state: TrainingState) -> None:
        for name, value in state.metrics.items():
            self.entries.setdefault(name, []).append((state.step, value))

    def on_train_end(self, state: TrainingState) -> None:
        if state.is_main_process and state.output_dir is not None:
            write_text(state.output_dir / "history.json", json.dumps(self.entries))

    def state_dict(self) -> dict[str, Any]:
        return {"entries": self.entries}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.entries = {name: [(step, value) for step, value in pairs] for name, pairs in state["entries"].items()}
