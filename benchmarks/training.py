"""Our training loop against a plain PyTorch loop and transformers' Trainer: the same model, samples, order and weights.

What is timed are steps after the first few, in one process, loops in turns; all loops end in the same weights, or the
script fails. Also: waiting for samples, peak memory, and for how long a checkpoint stops training. `make bench` runs
this at a size for two cores.

.venv/bin/python benchmarks/training.py [--only loop waiting memory checkpoints] [--json]
.venv/bin/python benchmarks/training.py --only loop --cpu-time --json
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _measure import (
    Claim,
    Clock,
    Task,
    Timing,
    machine,
    peak_bytes,
    spread_cell,
    spread_of,
    table,
    time_until_steady,
)
from _training_loops import LOOPS, OnOurs, Watch, Work, hilam, light, ours
from transformers.utils import logging

from hilam_hf.training import Callback, TrainingState, train
from hilam_hf.training.checkpoints.store import STATE_FILE, checkpoints_in

# At most 5 % slower than either loop; the same of memory.
LOOP_AIM, MEMORY_AIM = 0.95, 0.95
WAITING_AT_MOST = 0.05
# A checkpoint in the background copies in main memory what a usual one hashes and writes to a disk.
BACKGROUND_AIM = 4.0
TOLERANCE = 1e-6
SKIPPED = 5
WORKERS = (0, 2)
SAVE_EVERY = 25


@dataclass(frozen=True)
class Run:
    """What the command line asks for."""

    device: torch.device
    works: dict[str, Callable[[], Work]]
    large: Callable[[], Work]
    steps: int
    repetitions: int
    checkpoints: int
    clock: Clock = time.perf_counter
    quick: bool = False

    def watch(self) -> Watch:
        """A watch for one run."""
        return Watch(SKIPPED, self.steps, self.device, self.clock)


def compare_loops(run: Run) -> list[Claim]:
    """Samples a second of each loop."""
    claims, rows = [], []
    for make in run.works.values():
        work = make()
        difference = largest_difference(run, work)
        timings = time_until_steady(partial(time_loops, run, work), "ours", "plain", LOOP_AIM)
        samples = (run.steps - SKIPPED) * work.batch_size
        rates = {name: samples / timing.median for name, timing in timings.items()}
        first, second, third = (rates[name] for name in LOOPS)
        for peer, name in (("plain", "loop"), ("trainer", "trainer")):
            ratio, spread = first / rates[peer], spread_of(timings, ["ours", peer])
            name = f"training-{name}-{work.name}"
            claims.append(Claim(name, ratio, LOOP_AIM, first, rates[peer], "samples/s", spread))
        step = 1000 * timings["ours"].median / (run.steps - SKIPPED)
        cells = [work.name, f"{step:.1f}", f"{first:.2f}", f"{second:.2f}", f"**{first / second:.3f}**"]
        cells += [spread_cell(first / second, LOOP_AIM, claims[-2].spread or 0.0), f"{third:.2f}"]
        rows.append([*cells, f"{first / third:.3f}", f"{difference:.0e}"])
    print(f"Samples/s of {run.steps - SKIPPED} steps (median of {run.repetitions} runs; spread: half of the range)\n")
    header = [
        "model",
        "our step, ms",
        "ours",
        "plain loop",
        "ratio",
        "spread",
        "Trainer",
        "ratio",
        "largest difference",
    ]
    print(table(header, rows))
    return claims


def time_loops(run: Run, work: Work) -> dict[str, Timing]:
    """Seconds of the same steps in each loop, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in LOOPS}
    for _ in range(run.repetitions):
        for name, loop in LOOPS.items():
            watch = run.watch()
            loop(work, work.config(run.steps), watch)
            seconds[name].append(watch.seconds)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def largest_difference(run: Run, work: Work) -> float:
    """Of the weights that the loops end in.

    Raises:
        RuntimeError: It is above what rounding explains, or nothing was learnt.
    """
    start, *trained = (
        dict(model.cpu().named_parameters())
        for model in (
            deepcopy(work.model),
            *(loop(work, work.config(run.steps), run.watch()) for loop in LOOPS.values()),
        )
    )
    first, *others = trained
    moved = max((first[name] - start[name]).abs().max().item() for name in start)
    found = max((other[name] - first[name]).abs().max().item() for other in others for name in first)
    if not found <= TOLERANCE < moved:
        raise RuntimeError(f"{work.name}: weights moved by {moved:.1e} and differ by {found:.1e} between the loops.")
    return found


def measure_waiting(run: Run) -> list[Claim]:
    """The share of the time in which our loop waits for samples that are in memory."""
    claims, rows = [], []
    for make in run.works.values():
        work = make()
        for workers in WORKERS:
            watch = OnOurs(run.watch())
            ours(work, work.config(run.steps, num_workers=workers), run.watch(), callbacks=[watch])
            share = watch.share_waiting
            rows.append([work.name, f"{workers}", f"**{share:.1%}**"])
            name = f"training-waiting-{work.name}-{workers}-workers"
            # As a ratio above 1 shall be better, and a share may be as good as 0.
            ratio = WAITING_AT_MOST / max(share, 1e-4)
            claims.append(Claim(name, ratio, 1.0, share, WAITING_AT_MOST, "of the time"))
    print(f"Waiting for samples, of the time of a step (aim: at most {WAITING_AT_MOST:.0%})\n")
    print(table(["model", "workers", "waiting"], rows))
    return claims


def measure_memory(run: Run) -> list[Claim]:
    """Peak memory of a run of either loop, in a fresh process each."""
    found = {}
    for name in ("ours", "plain"):
        command = [sys.executable, __file__, "--peak-of", name, "--device", str(run.device)]
        command += ["--threads", str(torch.get_num_threads())] + (["--quick"] if run.quick else [])
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        found[name] = int(output.split()[-1]) / 2**20
    first, second = found["ours"], found["plain"]
    print(f"Peak memory of training {run.large().name}, MiB\n")
    print(table(["ours", "plain loop", "ratio"], [[f"{first:,.0f}", f"{second:,.0f}", f"**{second / first:.2f}**"]]))
    return [Claim("training-memory", second / first, MEMORY_AIM, first, second, "MiB")]


def peak_of(run: Run, name: str) -> int:
    """Peak memory of one loop."""

    def prepare() -> Task:
        work = run.large()
        return lambda: LOOPS[name](work, work.config(3), run.watch())

    return peak_bytes(prepare, run.device)


def compare_checkpoints(run: Run) -> list[Claim]:
    """For how long a checkpoint stops training, written in the background and not."""
    work, rows = run.large(), []
    stops: dict[str, list[float]] = {"background": [], "usual": []}
    seconds: dict[str, list[float]] = {name: [] for name in stops}
    for _ in range(run.repetitions):
        hashes = {}
        for name in stops:
            with tempfile.TemporaryDirectory() as folder:
                stop, whole = stopped_by_checkpoints(run, work, Path(folder), in_background=name == "background")
                hashes[name], size = files_of_last(Path(folder))
            stops[name].append(stop)
            seconds[name].append(whole)
        if hashes["background"] != hashes["usual"]:
            raise RuntimeError("checkpoints written in the background and usual ones hold other tensors.")
    timings = {name: Timing(tuple(values)) for name, values in stops.items()}
    first, second = (timings[name].median for name in stops)
    for name in stops:
        cells = [name, f"{timings[name].median:.3f}", f"±{timings[name].spread:.0%}"]
        rows.append([*cells, f"{statistics.median(seconds[name]):.1f}"])
    ratio, spread = second / first, spread_of(timings, list(stops))
    print(f"A checkpoint of {work.name}, {size / 2**20:,.0f} MiB: seconds for which it stops training\n")
    print(table(["checkpoint", "stops training for, s", "spread", f"run with {run.checkpoints}, s"], rows))
    print(f"ratio **{ratio:.1f}** {spread_cell(ratio, BACKGROUND_AIM, spread)}\n")
    return [Claim("training-checkpoint-stop", ratio, BACKGROUND_AIM, first, second, "s", spread)]


def stopped_by_checkpoints(
    run: Run, work: Work, folder: Path, *, in_background: bool, clock: Clock = time.perf_counter
) -> tuple[float, float]:
    """Seconds for which a checkpoint stops training, and seconds of the whole run.

    That is the time between steps beyond the usual one, over all steps, so that what is left to do later counts, too.
    """
    # Nearly as many steps follow the last checkpoint as the others, so that it is not waited for at the end alone.
    steps = SAVE_EVERY * (run.checkpoints + 1) - 1
    config = work.config(steps, save_every=SAVE_EVERY, log_every=1, async_checkpoints=in_background)
    model = deepcopy(work.model)
    gaps = Gaps(run.device, clock)
    hook = model.register_forward_pre_hook(lambda *_: gaps.begin_step())
    started = clock()
    with redirect_stderr(io.StringIO()):
        train(model, work.samples, config, collate_fn=work.collate, output_dir=folder, callbacks=[gaps])
    whole = clock() - started
    hook.remove()
    usual = statistics.median(gaps.seconds)
    return sum(each - usual for each in gaps.seconds) / run.checkpoints, whole


class Gaps(Callback):
    """Seconds between the end of a step and the beginning of the next one's forward pass."""

    def __init__(self, device: torch.device, clock: Clock):
        self.device, self.clock = device, clock
        self.seconds: list[float] = []
        self._ended: float | None = None

    def begin_step(self) -> None:
        if self._ended is not None:
            self.seconds.append(self._now() - self._ended)

    def on_step_end(self, state: TrainingState) -> None:
        self._ended = self._now()

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.clock()


def files_of_last(folder: Path) -> tuple[dict[str, Any], int]:
    """The hashes of the files of a run's last checkpoint, and their bytes together."""
    files = json.loads((checkpoints_in(folder)[-1] / STATE_FILE).read_text())["files"]
    return {name: each["sha256"] for name, each in files.items()}, sum(each["size"] for each in files.values())


SECTIONS: dict[str, Callable[[Run], list[Claim]]] = {
    "loop": compare_loops,
    "waiting": measure_waiting,
    "memory": measure_memory,
    "checkpoints": compare_checkpoints,
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="sections to run")
    parser.add_argument("--steps", type=int, help="steps of a run of a loop, of which 5 are not timed (default: 45)")
    parser.add_argument("--repetitions", type=int, help="timed runs of each loop (default: 5)")
    parser.add_argument("--checkpoints", type=int, help="checkpoints of a run (default: 2)")
    parser.add_argument("--device", default="cpu", type=torch.device, help="cpu or cuda")
    parser.add_argument("--threads", type=int, help="CPU threads (default: as torch has it)")
    parser.add_argument("--cpu-time", action="store_true", help="one thread, its CPU time: for a machine that is busy")
    parser.add_argument("--quick", action="store_true", help="tiny models: tries the script, measures nothing")
    parser.add_argument("--json", action="store_true", help="print a JSON line for each claim, last")
    parser.add_argument("--peak-of", choices=("ours", "plain"), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def run_of(options: argparse.Namespace, folder: Path) -> Run:
    """The run that the options ask for; clips are put in the folder."""
    quick = options.quick
    works: dict[str, Callable[[], Work]] = {
        "hilam": partial(hilam, batch_size=2, longest=8) if quick else hilam,
        "light": partial(light, folder, batch_size=2, num_frames=8) if quick else partial(light, folder),
    }
    # Short sequences, so that there is time for several checkpoints: these depend on the weights alone.
    large = partial(hilam, "small" if quick else "base", batch_size=1, longest=16)
    return Run(
        device=options.device,
        works=works,
        large=large,
        steps=options.steps or (SKIPPED + 3 if quick else SKIPPED + 40),
        repetitions=options.repetitions or (1 if quick else 5),
        checkpoints=options.checkpoints or (1 if quick else 2),
        clock=time.process_time if options.cpu_time else time.perf_counter,
        quick=quick,
    )


def main() -> None:
    """Runs the sections and prints their tables, then the claims."""
    options = parse()
    logging.set_verbosity_error()
    if options.device.type == "cpu":
        # Our loop otherwise takes the fastest device that there is.
        os.environ["ACCELERATE_USE_CPU"] = "true"
    if options.cpu_time or options.threads is not None:
        torch.set_num_threads(options.threads or 1)
    with tempfile.TemporaryDirectory() as folder:
        run = run_of(options, Path(folder))
        if options.peak_of is not None:
            print(peak_of(run, options.peak_of))
            return
        where = machine(run.device, torch.get_num_threads())
        print(f"{where}, float32" + (", seconds of loops are CPU time" if options.cpu_time else "") + "\n")
        claims = list(itertools.chain.from_iterable(SECTIONS[name](run) for name in options.only))
    if options.json:
        print("\n".join(claim.json_line(where) for claim in claims))


if __name__ == "__main__":
    main()
