"""A run that is small enough to be started, killed and resumed many times: a line behind dropout fitted to points."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers.utils import ModelOutput

from hilam_hf.training import Callback, TrainingConfig, TrainingState


class Points(Dataset[dict[str, Tensor]]):
    """Samples of y = 2 x - 1."""

    def __init__(self, count: int = 23):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        x = torch.tensor([index / 10])
        return {"x": x, "y": 2 * x - 1}


class Line(nn.Module):
    """A line behind dropout, so that resuming needs the same random numbers, too."""

    def __init__(self, dropout: float = 0.2):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.line = nn.Linear(1, 1)

    def forward(self, x: Tensor, y: Tensor) -> ModelOutput:
        error = self.line(self.dropout(x)) - y
        return ModelOutput(loss=error.square().mean(), parts=torch.stack([error.mean(), error.abs().mean()]))


class StopAfter(Callback):
    """Ends a run early, as a crash would."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, state: TrainingState) -> None:
        if state.step == self.step:
            raise KeyboardInterrupt


class Watcher(Callback):
    """Keeps the weights after every step."""

    def __init__(self) -> None:
        self.seen: list[list[Tensor]] = []

    def on_step_end(self, state: TrainingState) -> dict[str, float]:
        self.seen.append(weights(state.model))
        return {"watched": 10.0 * state.step}


def make_line(dropout: float = 0.2) -> Line:
    torch.manual_seed(3)
    return Line(dropout)


def options(**changes: Any) -> TrainingConfig:
    values = {"max_steps": 12, "global_batch_size": 4, "learning_rate": 0.05, "warmup_steps": 2, "log_every": 3}
    return TrainingConfig(**values | changes)


def weights(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything that a run left, but for what says when and by whom."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json" and not path.name.startswith(".")
    }
