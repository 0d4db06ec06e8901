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
from ..locks import LOCK_FILE
from .config import DemoConfig

STATE_FILE = "demo.json"
# What a demo that has not ended yet may have written.
_ARTIFACTS = (
    *(STATE_FILE, f"{STATE_FILE}.partial", "recordings", "episodes.json", "lam", "hilam", "corpora", "pretraining"),
    *("finetuning", "evaluation", "figures", "report.json", "report.html"),
)
_SHOWN = 5


class DemoRun:
    """A folder in which the steps of one demo leave their artifacts and results; whoever makes one holds its lock.

    Args:
        config: What the demo does.
        folder: Where it works.
        overwrite: Remove the demo that is in the folder.
        console: Where the account of each step goes.

    Raises:
        ValueError: If the folder holds a demo of other options, or something else; with `overwrite`, if it holds files
            besides the demo's.
    """

    def __init__(self, config: DemoConfig, folder: Path, *, overwrite: bool, console: Console):
        self.config = config
        self.folder = folder
        self.console = console
        self.steps: dict[str, dict[str, Any]] = {}
        self.files: list[str] | None = None
        options = dataclasses.asdict(config)
        state_file = folder / STATE_FILE
        if state_file.exists() and overwrite:
            self._remove(_read_state(state_file))
        if state_file.exists():
            state = _read_state(state_file)
            if state["config"] != options:
                raise ValueError(f"{folder} holds a demo with other options; choose another --out, or pass --overwrite")
            self.steps, self.files = state["steps"], state.get("files")
            if self.steps:
                console.print(f"Going on with the run in {folder}; done so far: {', '.join(self.steps)}.")
        elif folder.exists() and any(path.name != LOCK_FILE for path in folder.iterdir()):
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

    def finish(self) -> None:
        """Notes which files the demo has written, so that a later one removes no others."""
        if self.files is None:
            self.files = _files(self.folder)
            self._save()

    def _remove(self, state: dict[str, Any]) -> None:
        if self.config.videos is not None and Path(self.config.videos).resolve().is_relative_to(self.folder.resolve()):
            raise ValueError(
                f"{self.config.videos} lies in {self.folder}, which is to be removed; choose another --out"
            )
        written, found = state.get("files"), _files(self.folder)
        if written is None:
            foreign = [name for name in found if name.partition("/")[0] not in _ARTIFACTS]
        else:
            foreign = sorted({*found} - {*written, STATE_FILE})
        if foreign:
            more = f" and {len(foreign) - _SHOWN} more" if len(foreign) > _SHOWN else ""
            raise ValueError(
                f"{self.folder} holds files that are not the demo's: {', '.join(foreign[:_SHOWN])}{more}; move them, "
                "or choose another --out. Nothing was removed"
            )
        for path in self.folder.iterdir():
            # The lock is held until the end.
            if path.name != LOCK_FILE:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def _save(self) -> None:
        state = {"config": dataclasses.asdict(self.config), "steps": self.steps, "files": self.files}
        partial = self.folder / f"{STATE_FILE}.partial"
        partial.write_text(json.dumps(state, indent=1))
        partial.replace(self.folder / STATE_FILE)


def _read_state(file: Path) -> dict[str, Any]:
    state = read_json(file)
    if not isinstance(state.get("steps"), dict) or "config" not in state:
        raise ValueError(f"{file}: not the state of a demo; choose another --out")
    return state


def _files(folder: Path) -> list[str]:
    """Files and links below a folder, but for locks: a writer that was killed leaves its own."""
    paths = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return [path.relative_to(folder).as_posix() for path in paths if path.name != LOCK_FILE]
