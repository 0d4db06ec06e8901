"""What an evaluation leaves behind: outcomes of episodes, `results.json`, and a table per task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ...files import read_json, write_text
from ..statistics import SuccessRate

SCHEMA_VERSION = 2
_PARTS = {"protocol": dict, "episode_results": list, "provenance": dict}
RESULTS_FILE, TABLE_FILE = "results.json", "results.md"

FaultKind = Literal["died", "hung", "error", "not finite"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One attempt at an episode that ended because of the simulator and not of the policy.

    Attributes:
        kind: `died`: the process ended; `hung`: no answer in time; `error`: it raised an error; `not finite`: an
            observation or a reward was NaN or infinite.
        message: What happened, and at which step.
    """

    kind: FaultKind
    message: str


@dataclass(frozen=True, kw_only=True)
class EpisodeResult:
    """One finished episode.

    Attributes:
        task: Name of the task.
        index: Number of the episode among those of its task.
        seed: Seed of the reset.
        initial_state: Number of the benchmark's initial state, or None where the seed drew it.
        instruction: What the task asks for in words.
        success: Whether the task was solved within the allowed steps.
        steps: Control steps taken.
        total_reward: Sum of the environment's rewards.
        video: Path of its video relative to the results, or None.
        faults: Attempts that the simulator spoilt. After two the episode counts as failed.
        completed: Whether an attempt came to its end.
    """

    task: str
    index: int
    seed: int
    initial_state: int | None = None
    instruction: str = ""
    success: bool = False
    steps: int = 0
    total_reward: float = 0.0
    video: str | None = None
    faults: tuple[Fault, ...] = ()
    completed: bool = True

    @property
    def attempts(self) -> int:
        """How often it was begun."""
        return len(self.faults) + self.completed

    @property
    def key(self) -> tuple[str, int | None, int]:
        """What decides how it starts: task, initial state, seed."""
        return self.task, self.initial_state, self.seed

    def to_dict(self) -> dict[str, Any]:
        """Return the episode's entry in `results.json`."""
        record = asdict(self) | {"attempts": self.attempts}
        for field in ("instruction", "faults", "completed"):
            del record[field]
        return record

    def fault_records(self) -> list[dict[str, Any]]:
        """Return the entries of `faults` in `results.json`."""
        where = {name: getattr(self, name) for name in ("task", "index", "seed", "initial_state")}
        return [
            where | {"attempt": number, **asdict(fault), "counted_as_failed": not self.completed}
            for number, fault in enumerate(self.faults, start=1)
        ]

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> EpisodeResult:
        """Read what `dataclasses.asdict` wrote."""
        return cls(**{**record, "faults": tuple(Fault(**fault) for fault in record.get("faults", ()))})


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """Outcome of an evaluation.

    Attributes:
        episodes: The episodes in the order of tasks and numbers.
        protocol: The protocol's record, see `EvaluationProtocol.to_dict`.
        provenance: What has to be known to repeat it; what may differ when it is repeated is under `run`.
    """

    episodes: tuple[EpisodeResult, ...]
    protocol: dict[str, Any]
    provenance: dict[str, Any]

    @property
    def overall(self) -> SuccessRate:
        """Success over all episodes."""
        return _success_rate(self.episodes)

    @property
    def tasks(self) -> dict[str, SuccessRate]:
        """Success of each task."""
        return {task: _success_rate(episodes) for task, episodes in self._by_task().items()}

    @property
    def faults(self) -> list[dict[str, Any]]:
        """Attempts that the simulator spoilt, as records."""
        return [record for episode in self.episodes for record in episode.fault_records()]

    def to_dict(self) -> dict[str, Any]:
        """Return what `results.json` holds: `success_rate` overall and per task (0 to 1), episodes, provenance."""
        instructions = {
            task: next((episode.instruction for episode in episodes if episode.instruction), "")
            for task, episodes in self._by_task().items()
        }
        return {
            "schema_version": SCHEMA_VERSION,
            "protocol": self.protocol,
            **self.overall.to_dict(),
            "tasks": {task: {"instruction": instructions[task], **rate.to_dict()} for task, rate in self.tasks.items()},
            "episode_results": [episode.to_dict() for episode in self.episodes],
            "faults": self.faults,
            "provenance": self.provenance,
        }

    def to_markdown(self) -> str:
        """Return a table with a row a task, intervals and what went wrong."""
        policy = self.provenance.get("policy", {})
        lines = [
            f"# {policy.get('name') or policy.get('class') or 'policy'}: {self.overall}",
            "",
            f"Protocol {self.protocol['name']} ({self.protocol['source']}), quality {self.provenance.get('quality')}.",
            "",
            "| task | instruction | success | episodes | 95 % interval |",
            "| --- | --- | ---: | ---: | ---: |",
        ]
        lines += [_table_row(task, record) for task, record in self.to_dict()["tasks"].items()]
        lines += [_table_row("**all**", self.overall.to_dict())]
        if self.faults:
            lines += ["", f"The simulator spoilt {len(self.faults)} attempts:", ""]
            lines += [f"- {fault['kind']}: {fault['message'].splitlines()[0]}" for fault in self.faults]
        return "\n".join(lines) + "\n"

    def save(self, folder: str | Path) -> None:
        """Write `results.json` and `results.md` into a folder, each whole or not at all."""
        write_text(Path(folder) / TABLE_FILE, self.to_markdown())
        write_text(Path(folder) / RESULTS_FILE, json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")

    def _by_task(self) -> dict[str, list[EpisodeResult]]:
        names = dict.fromkeys(episode.task for episode in self.episodes)
        return {name: [episode for episode in self.episodes if episode.task == name] for name in names}


def load_results(path: str | Path) -> dict[str, Any]:
    """Read the `results.json` of an evaluation.

    Args:
        path: The file, or the folder that it is in.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no evaluation's, of another version, or only a part of one.
    """
    file = Path(path)
    file = file / RESULTS_FILE if file.is_dir() else file
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; expected the results of `hilam eval --out`")
    record = read_json(file)
    version = record.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{file}: expected results of an evaluation with schema_version {SCHEMA_VERSION}, got {version}; "
            f"evaluate again"
        )
    for name, kind in _PARTS.items():
        if not isinstance(record.get(name), kind):
            raise ValueError(f"{file}: {name} is missing or of another kind; evaluate again")
    keys = {"task", "initial_state", "seed", "success"}
    for number, episode in enumerate(record["episode_results"]):
        if not isinstance(episode, dict) or not keys <= episode.keys():
            raise ValueError(
                f"{file}: episode_results[{number}] lacks one of {', '.join(sorted(keys))}; evaluate again"
            )
    return record


def _success_rate(episodes: Sequence[EpisodeResult]) -> SuccessRate:
    return SuccessRate(sum(episode.success for episode in episodes), len(episodes))


def _table_row(task: str, record: dict[str, Any]) -> str:
    low, high = record["interval"]
    cells = (
        task,
        record.get("instruction", ""),
        f"{100 * record['success_rate']:.1f} %",
        f"{record['successes']}/{record['episodes']}",
        f"{100 * low:.1f}-{100 * high:.1f} %",
    )
    return f"| {' | '.join(cells)} |"
