"""What the scripts share: interleaved timing, peak memory, claims as JSON lines, Markdown tables."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

Task = Callable[[], object]
Clock = Callable[[], float]
STATUS = Path("/proc/self/status")
MEASURED_AT_MOST = 3


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated runs of one task."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median run."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the distance of the fastest and the slowest run, as a fraction of the median."""
        return (max(self.seconds) - min(self.seconds)) / 2 / self.median


@dataclass(frozen=True)
class Claim:
    """A comparison with an aim; a ratio above 1 means that ours is better.

    `spread` is that of the less steady of the two; None where nothing was timed.
    """

    name: str
    ratio: float
    aim: float
    ours: float
    peer: float
    unit: str
    spread: float | None = None

    @property
    def unsteady(self) -> bool:
        """Whether the runs differ by more than lies between the ratio and its aim, so that they decide nothing."""
        return self.spread is not None and is_unsteady(self.ratio, self.aim, self.spread)

    def json_line(self, machine: str) -> str:
        """The claim as one line of JSON."""
        return json.dumps(asdict(self) | {"unsteady": self.unsteady, "machine": machine})


def is_unsteady(ratio: float, aim: float, spread: float) -> bool:
    """Whether a spread, a fraction, is larger than the distance of a ratio to its aim."""
    return spread > abs(ratio - aim) / aim


def spread_cell(ratio: float, aim: float, spread: float) -> str:
    """What a table says of the spread."""
    return f"±{spread:.0%}" + (" unsteady" if is_unsteady(ratio, aim, spread) else "")


def spread_of(timings: Mapping[str, Timing], names: Sequence[str]) -> float:
    """The spread of the least steady of some tasks."""
    return max(timings[name].spread for name in names)


def time_until_steady(measure: Callable[[], dict[str, Timing]], ours: str, peer: str, aim: float) -> dict[str, Timing]:
    """Times tasks up to `MEASURED_AT_MOST` times, until the spread leaves no doubt on which side of an aim they are.

    Args:
        measure: Times them once.
        ours: Name of our task.
        peer: Name of the one that it is compared with, on the same work.
        aim: The ratio of the peer's time to ours that is aimed at.

    Returns:
        The first steady timings, or else those with the least spread.
    """
    measured: list[dict[str, Timing]] = []
    for _ in range(MEASURED_AT_MOST):
        timings = measure()
        measured.append(timings)
        ratio = timings[peer].median / timings[ours].median
        if not is_unsteady(ratio, aim, spread_of(timings, (ours, peer))):
            return timings
    return min(measured, key=lambda timings: spread_of(timings, (ours, peer)))


def interleave(
    tasks: Mapping[str, Task],
    repetitions: int,
    device: torch.device,
    warmup: int = 1,
    clock: Clock = time.perf_counter,
) -> dict[str, Timing]:
    """Times tasks in turns (A B C, A B C, ...), so that a machine that slows down slows all of them alike.

    Args:
        tasks: What to time, by name.
        repetitions: Timed runs of each task.
        device: Where the tasks run; a GPU is waited for.
        warmup: Runs of each task before the first timed one.
        clock: What tells the seconds of tasks on a CPU.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for repetition in range(warmup + repetitions):
        for name, task in tasks.items():
            elapsed = elapsed_seconds(task, device, clock)
            if repetition >= warmup:
                seconds[name].append(elapsed)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def elapsed_seconds(task: Task, device: torch.device, clock: Clock = time.perf_counter) -> float:
    """Seconds of one run: between two events in the stream of a GPU, by the clock elsewhere."""
    if device.type != "cuda":
        start = clock()
        task()
        return clock() - start
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    before.record()
    task()
    after.record()
    torch.cuda.synchronize(device)
    return before.elapsed_time(after) / 1000


def peak_bytes(prepare: Callable[[], Task], device: torch.device) -> int:
    """Memory at its highest while a task is prepared and run twice, above what the process held before.

    Meant for a process of its own: on a CPU the high-water mark of the process counts.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    else:
        before, earlier_peak = resident_bytes(), high_water_bytes()
    task = prepare()
    task()
    task()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) - before
    if high_water_bytes() <= earlier_peak:
        raise RuntimeError("peak memory: the task stayed below what the imports took. Measure a larger one.")
    return high_water_bytes() - before


def high_water_bytes() -> int:
    """The most memory that this process has held so far."""
    # Linux counts in getrusage what the parent process held when it started this one.
    if STATUS.exists():
        return status_bytes("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_bytes() -> int:
    """Memory that this process holds now; where the system does not say (no /proc), the most it has held."""
    return status_bytes("VmRSS") if STATUS.exists() else high_water_bytes()


def status_bytes(name: str) -> int:
    """A size in the process's status, which is in units of 1024 bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def machine(device: torch.device, threads: int) -> str:
    """The machine in words."""
    build = f"torch {torch.__version__}"
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {build}"
    return f"{platform.machine()} {processor()}, {os.cpu_count()} cores, {threads} threads, {build}"


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)) + "\n"
