"""Two evaluations compared on the episodes that they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..provenance import lighting_warning
from ..statistics import PairedCounts
from .journal import differences
from .results import load_results

_Key = tuple[str, int | None, int]
# What two policies may differ in, and what follows from which episodes there are.
_EXPECTED_DIFFERENCES = (
    "policy.",
    "training_data",
    "run.",
    "tasks",
    "episodes",
    "initial_states",
    "seeds",
    "videos_per_task",
    "warnings",
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Evaluation b compared with evaluation a, on the episodes that both have.

    Attributes:
        first: Name of a's policy.
        second: Name of b's policy.
        counts: Outcomes of the shared episodes.
        tasks: The same of each task.
        unpaired_first: Episodes of a that b has not.
        unpaired_second: Episodes of b that a has not.
        warnings: What else differs between the two, and so may be the reason of a difference.
        confidence: Coverage of the intervals.
    """

    first: str
    second: str
    counts: PairedCounts
    tasks: dict[str, PairedCounts]
    unpaired_first: int
    unpaired_second: int
    warnings: tuple[str, ...]
    confidence: float = 0.95

    @property
    def difference(self) -> float:
        """Success rate of b minus that of a, -1 to 1."""
        return self.counts.difference

    @property
    def interval(self) -> tuple[float, float]:
        """Interval of the difference, see `PairedCounts.interval`."""
        return self.counts.interval(self.confidence)

    @property
    def p_value(self) -> float:
        """Exact McNemar test of no difference."""
        return self.counts.p_value

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {
            "first": self.first,
            "second": self.second,
            **self._record(self.counts),
            "confidence": self.confidence,
            "tasks": {task: self._record(counts) for task, counts in self.tasks.items()},
            "unpaired_first": self.unpaired_first,
            "unpaired_second": self.unpaired_second,
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        """A table with a row a task, in per cent; then the warnings."""
        rows: list[tuple[str, ...]] = [
            ("task", "pairs", "a", "b", "b - a", f"{100 * self.confidence:g} % interval", "p")
        ]
        rows += [self._row(task, counts) for task, counts in self.tasks.items()]
        rows += [self._row("all", self.counts)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [f"a: {self.first}", f"b: {self.second}", ""]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        lines += [f"warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)

    def _record(self, counts: PairedCounts) -> dict[str, Any]:
        return {
            "pairs": counts.pairs,
            "success_rates": [_rates(counts)[0], _rates(counts)[1]],
            "difference": counts.difference,
            "interval": list(counts.interval(self.confidence)),
            "p_value": counts.p_value,
            "both": counts.both,
            "only_first": counts.only_a,
            "only_second": counts.only_b,
            "neither": counts.neither,
        }

    def _row(self, name: str, counts: PairedCounts) -> tuple[str, ...]:
        first, second = _rates(counts)
        low, high = counts.interval(self.confidence)
        return (
            name,
            str(counts.pairs),
            f"{100 * first:.1f}",
            f"{100 * second:.1f}",
            f"{100 * counts.difference:+.1f}",
            f"{100 * low:+.1f} to {100 * high:+.1f}",
            f"{counts.p_value:.3f}",
        )


def compare(a: str | Path, b: str | Path, *, confidence: float = 0.95) -> Comparison:
    """Compare two evaluations on the episodes that both have.

    Episodes are the same where task, initial state and seed are. Pairing takes out of the difference what some initial
    states are harder than others, so that it is known better than two separate intervals tell.

    Args:
        a: Folder or `results.json` of the first evaluation.
        b: The second, whose gain over the first is told.
        confidence: Coverage of the intervals.

    Raises:
        FileNotFoundError: There are no results.
        ValueError: A file holds no results, or the two share no episode.

    Example:
        >>> print(compare("results/flat", "results/hierarchical"))  # doctest: +SKIP
    """
    records = [load_results(path) for path in (a, b)]
    outcomes = [_outcomes(record) for record in records]
    shared = [key for key in outcomes[0] if key in outcomes[1]]
    if not shared:
        raise ValueError(
            f"{a} and {b} share no episode (task, initial state and seed), so there is nothing to compare; evaluate "
            f"both with the same protocol, tasks, episodes and seed"
        )
    tasks: dict[str, list[_Key]] = {}
    for key in shared:
        tasks.setdefault(key[0], []).append(key)
    unpaired = [len(outcome) - len(shared) for outcome in outcomes]
    return Comparison(
        first=_policy_name(records[0], a),
        second=_policy_name(records[1], b),
        counts=_counts(outcomes, shared),
        tasks={task: _counts(outcomes, keys) for task, keys in tasks.items()},
        unpaired_first=unpaired[0],
        unpaired_second=unpaired[1],
        warnings=tuple(_warnings(records, unpaired)),
        confidence=confidence,
    )


def _outcomes(record: Mapping[str, Any]) -> dict[_Key, bool]:
    return {
        (episode["task"], episode["initial_state"], episode["seed"]): episode["success"]
        for episode in record["episode_results"]
    }


def _counts(outcomes: list[dict[_Key, bool]], keys: list[_Key]) -> PairedCounts:
    pairs = [(outcomes[0][key], outcomes[1][key]) for key in keys]
    return PairedCounts(*(pairs.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False))))


def _rates(counts: PairedCounts) -> tuple[float, float]:
    return (counts.both + counts.only_a) / counts.pairs, (counts.both + counts.only_b) / counts.pairs


def _policy_name(record: Mapping[str, Any], path: str | Path) -> str:
    policy = record["provenance"]["policy"]
    return f"{policy.get('name') or policy['class']} ({path})"


def _warnings(records: list[dict[str, Any]], unpaired: list[int]) -> list[str]:
    warnings = [
        f"{count} episodes of {name} have no partner in the other and are left out"
        for name, count in zip("ab", unpaired, strict=True)
        if count
    ]
    warnings += [
        f"faults of the simulator in {name} count as failures"
        for name, record in zip("ab", records, strict=True)
        if any(fault["counted_as_failed"] for fault in record["faults"])
    ]
    changed = [f"protocol.{change}" for change in differences(*(record["protocol"] for record in records))]
    changed += [
        change
        for change in differences(*(record["provenance"] for record in records))
        if not change.startswith(_EXPECTED_DIFFERENCES)
    ]
    warnings += [f"differs: {change}" for change in changed]
    versions = [record["provenance"]["simulator"].get("mujoco") for record in records]
    if found := lighting_warning(*versions):
        warnings.append(found)
    return warnings
