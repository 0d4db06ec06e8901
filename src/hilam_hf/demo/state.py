"""What steps of the demo have been done, so that an interrupted run goes on where it stopped."""

import dataclasses
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from ..files import read_json
from .config import DemoConfig

STATE_FILE = "demo.json"


class DemoRun:
    """A folder in which the steps of one demo leave their artifacts and results.

    Args:
        config: What the demo does.
        folder: Where it works.
        overwrite: Drop what is in the folder.
        console: Where the account of each step goes.

    Raises:
        ValueError: If the folder holds a demo of other options, or something else.
    """

    def __init__(self, config: DemoConfig, folder: Path, *, overwrite: bool, console: Console):
        self.config = config
        self.folder = folder
        self.console = console
        self.steps: dict[str, dict[str, Any]] = {}
        options = dataclasses.asdict(config)
        state_file = folder / STATE_FILE
        if state_file.exists() and overwrite:
            shutil.rmtree(folder)
        if state_file.exists():
            state = read_json(state_file)
            if not isinstance(state.get("steps"), dict):
                raise ValueError(f"{state_file} is no demo's; choose another --out")
            if state.get("config") != options:
                raise ValueError(f"{folder} holds a demo with other options; choose another --out, or pass --overwrite")
            self.steps = state["steps"]
            if self.steps:
                console.print(f"Going on with the run in {folder}; done so far: {', '.join(self.steps)}.")
        elif folder.exists() and any(folder.iterdir()):
            raise ValueError(f"{folder} is not empty and holds no demo; choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
        self._save()

    def step(self, name: str, account: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Does one step, unless an earlier run has, and keeps its results.

        Args:
            name: Name of the step.
            account: What it does, in plain words.
            work: Does it and returns JSON-serialisable results; a key "detail" becomes the step's line in the report.
        """
        if name not in self.steps:
            self.console.rule(f"{len(self.steps) + 1}. {name}", align="left")
            self.console.print(account, style="dim")
            start = time.perf_counter()
            result = work()
            seconds = time.perf_counter() - start
            self.steps[name] = {"seconds": round(seconds, 1), "result": result}
            self._save()
            self.console.print(f"{result['detail']} ({seconds:.0f} s)\n", highlight=False)
        return self.steps[name]["result"]

    def _save(self) -> None:
        state = {"config": dataclasses.asdict(self.config), "steps": self.steps}
        partial = self.folder / f"{STATE_FILE}.partial"
        partial.write_text(json.dumps(state, indent=1))
        partial.replace(self.folder / STATE_FILE)
