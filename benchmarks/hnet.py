"""Our HiLAM and H-Net against the PyPI packages HiLAM and h-net-dynamic-chunking, and against plain transformers.

Same width, depth, heads, lengths, dtype, batch, optimizer, threads and boundaries, one process; tasks are timed in
turns. `make bench` makes the environment that holds the peers, .venv-bench, and runs this at a size for two cores.

.venv-bench/bin/python benchmarks/hnet.py [--full] [--only training ragged] [--json]
.venv-bench/bin/python benchmarks/hnet.py --full --device cuda --dtype bfloat16 --compile --json
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from _hnet_models import (
    Batch,
    Contender,
    Setting,
    equal_batch,
    equal_flops_layers,
    isotropic,
    isotropic_flops,
    our_chunker,
    our_flops,
    ours,
    peer,
    peer_chunker,
    ragged_batch,
    ragged_lengths,
    streaming_model,
)
from _measure import (
    Claim,
    Clock,
    Task,
    Timing,
    interleave,
    machine,
    peak_bytes,
    spread_cell,
    spread_of,
    table,
    time_until_steady,
)

BATCH = 8
QUICK_LENGTHS, FULL_LENGTHS = (64, 256, 1024), (64, 128, 256, 512, 1024, 2048, 4096)
LONGEST, RAGGED_BATCHES = 512, 4
# Quantiles, 5 % apart, of the numbers of frames of 339 episodes of DROID and Bridge, cut off at LONGEST.
CLIP_LENGTHS = (20, 40, 51, 59, 68, 71, 77, 82, 88, 93, 102, 107, 115, 131, 143, 158, 171, 204, 254, 391, LONGEST)
LENGTH_QUANTILES = {"clips": CLIP_LENGTHS, "uniform": (16, LONGEST)}
PLAIN_LAYERS = 14
EQUAL_AIM = {"cpu": 1.0, "cuda": 3.0}
RAGGED_AIM = {"cpu": 2.0, "cuda": 3.0}
CHUNKING_SHARE, STREAMING_RATE = 0.10, 300.0
# A cost that is linear but for measurement noise.
LINEAR_AIM = 0.9
WINDOW, WINDOW_LENGTHS, WINDOW_TOKENS = 128, (512, 4096), 4096
STREAM_STEPS, STREAM_PART = 5000, 500


Rates = tuple[float, float, float]
"""Tokens a second of ours and of the peer, and the spread."""


@dataclass(frozen=True)
class Run:
    """What the command line asks for."""

    device: torch.device
    dtype: torch.dtype
    compile_mode: str | None
    lengths: tuple[int, ...]
    repetitions: int
    clock: Clock = time.perf_counter
    peer_flash: bool = True
    setting: Setting = field(default_factory=Setting)

    @property
    def precision(self) -> AbstractContextManager:
        """Autocast to the dtype; weights and optimizer stay in float32, for every model alike."""
        if self.dtype == torch.float32:
            return nullcontext()
        # Cached casts would outlive the optimizer step that they are stale after.
        return torch.autocast(self.device.type, self.dtype, cache_enabled=False)

    def ours(self, setting: Setting | None = None) -> Contender:
        """Our model, compiled in the mode without host synchronisation if that is asked for."""
        setting = setting or self.setting
        if self.compile_mode is not None:
            setting = replace(setting, chunk_capacity=0.5)
        return ours(setting, self.device, self.compile_mode)

    def peer(self) -> Contender:
        """The peer, with the faster of its attention kernels. Its shapes depend on data, so it is never compiled."""
        return peer(self.setting, self.device, attn_flash=self.peer_flash)

    def isotropic(self, layers: int) -> Contender:
        """A plain transformer."""
        return isotropic(self.setting, layers, self.device, self.compile_mode)

    def time(self, tasks: dict[str, Task]) -> dict[str, Timing]:
        """Times tasks in turns, in this run's precision."""
        # Compilation and the recording of CUDA graphs take the first runs.
        warmup = 1 if self.compile_mode is None else 4
        with self.precision:
            return interleave(tasks, self.repetitions, self.device, warmup, self.clock)

    def time_steadily(self, tasks: dict[str, Task], aim: float) -> dict[str, Timing]:
        """Times tasks, of which the first is ours and the second the peer's, again while they decide nothing."""
        ours, peer = list(tasks)[:2]
        return time_until_steady(lambda: self.time(tasks), ours, peer, aim)


def compare_equal_lengths(run: Run) -> list[Claim]:
    """Training step and inference at equal lengths, ours against HiLAM and plain layers."""
    rows: dict[str, list[list[str]]] = {"train_step": [], "infer": []}
    rates: dict[str, list[Rates]] = {"train_step": [], "infer": []}
    aim = EQUAL_AIM[run.device.type]
    for length in run.lengths:
        torch.compiler.reset()
        batch = equal_batch(run.setting, BATCH, length, run.device)
        layers = equal_flops_layers(run.setting, length)
        contenders = [run.ours(), run.peer(), run.isotropic(layers), run.isotropic(PLAIN_LAYERS)]
        check_rates(run, contenders, batch)
        # Per operation, so that the rounding of the number of layers does not count.
        flops_ratio = our_flops(run.setting, length) / isotropic_flops(run.setting, layers, length)
        for mode, found in rates.items():
            tasks: dict[str, Task] = {item.name: partial(getattr(item, mode), batch) for item in contenders}
            timings = run.time_steadily(tasks, aim)
            first, second, equal, plain = (batch.num_tokens / timings[item.name].median for item in contenders)
            spread = spread_of(timings, [item.name for item in contenders[:2]])
            found.append((first, second, spread))
            cells = [
                length,
                f"{first:,.0f}",
                f"{second:,.0f}",
                f"**{first / second:.2f}**",
                f"{equal / flops_ratio:,.0f}",
            ]
            cells += [f"{first * flops_ratio / equal:.2f}", f"{plain:,.0f}", spread_cell(first / second, aim, spread)]
            rows[mode].append([str(cell) for cell in cells])
    header = ["T", "ours", "HiLAM", "ratio", "plain layers, equal FLOPs", "ours / it", f"{PLAIN_LAYERS} plain layers"]
    for mode, title in (("train_step", "Training step"), ("infer", "Inference")):
        print(f"{title}, B {BATCH}, equal lengths, tokens/s (median; spread: half of the range, worst column)\n")
        print(table([*header, "spread"], rows[mode]))
    return [
        worst_of("hnet-training", rates["train_step"], aim),
        worst_of("hnet-inference", rates["infer"], aim),
    ]


def worst_of(name: str, rates: list[Rates], aim: float) -> Claim:
    """The claim at the length where ours compares worst."""
    first, second, spread = min(rates, key=lambda rate: rate[0] / rate[1])
    return Claim(name, first / second, aim, first, second, "tokens/s", spread)


def check_rates(run: Run, contenders: list[Contender], batch: Batch) -> None:
    """Refuses to compare models that do not have the wanted share of boundaries."""
    wanted = batch.boundaries.float().mean().item()
    for item in contenders:
        with torch.no_grad(), run.precision:
            found = wanted if item.rate is None else item.rate(batch)
        if abs(found - wanted) > 0.01:
            raise RuntimeError(f"{item.name}: got {found:.3f} boundaries a position, expected {wanted:.3f}.")


def compare_ragged(run: Run) -> list[Claim]:
    """Training step and inference on ragged batches, with the lengths of real clips and with uniform ones."""
    claims, rows, aim = [], [], RAGGED_AIM[run.device.type]
    for name, quantiles in LENGTH_QUANTILES.items():
        lengths = ragged_lengths(RAGGED_BATCHES, BATCH, quantiles)
        tokens, padded = sum(map(sum, lengths)), sum(BATCH * max(item) for item in lengths)
        for mode, (first, second, spread) in time_ragged(run, lengths).items():
            cells = [name, mode, f"{tokens / padded:.0%}", f"{first:,.0f}", f"{second:,.0f}"]
            ratio = first / second
            rows.append([*cells, f"**{ratio:.2f}**", spread_cell(ratio, aim, spread)])
            claims.append(Claim(f"hnet-ragged-{name}-{mode}", ratio, aim, first, second, "valid tokens/s", spread))
    print(f"Ragged batches: {RAGGED_BATCHES} of B {BATCH} with each kind of lengths, seed 0. Valid tokens/s\n")
    print(table(["lengths", "", "valid of padded", "ours", "HiLAM, padded", "ratio", "spread"], rows))
    return claims


def time_ragged(run: Run, lengths: list[list[int]]) -> dict[str, Rates]:
    """Valid tokens a second of ours and the peer, and the spread. The peer takes no mask: it gets padded batches."""
    torch.compiler.reset()
    # One graph for all batches needs one shape.
    padded_to = LONGEST if run.compile_mode is not None else None
    our_batches = [ragged_batch(run.setting, item, run.device, padded_to=padded_to) for item in lengths]
    batches = [ragged_batch(run.setting, item, run.device) for item in lengths]
    tokens = sum(batch.num_tokens for batch in batches)
    contenders = [run.ours(), run.peer()]
    work = list(zip(contenders, (our_batches, batches), strict=True))

    def on_all(step: Callable[[Batch], None], batches: list[Batch]) -> None:
        for batch in batches:
            step(batch)

    found = {}
    for mode, title in (("train_step", "training"), ("infer", "inference")):
        tasks: dict[str, Task] = {item.name: partial(on_all, getattr(item, mode), given) for item, given in work}
        timings = run.time_steadily(tasks, RAGGED_AIM[run.device.type])
        first, second = (tokens / timings[item.name].median for item in contenders)
        found[title] = first, second, spread_of(timings, list(tasks))
    return found


def compare_chunkers(run: Run) -> list[Claim]:
    """Routing, chunking and smoothing back, forward and backward: against the peer's, and as a share of our step."""
    rows, shares, rates = [], [], []
    for length in run.lengths:
        torch.compiler.reset()
        batch = equal_batch(run.setting, BATCH, length, run.device)
        states = torch.randn(BATCH, length, run.setting.width, device=run.device).requires_grad_()
        tasks: dict[str, Task] = {
            "ours": our_chunker(run.setting, batch, states),
            "peer": peer_chunker(run.setting, batch, states),
            "step": partial(run.ours().train_step, batch),
        }
        timings = run.time_steadily(tasks, 1.0)
        first, second, step = (timings[name].median for name in tasks)
        shares.append(first / step)
        rates.append((batch.num_tokens / first, batch.num_tokens / second, spread_of(timings, ("ours", "peer"))))
        cells = [f"{length}", f"{1000 * first:.1f}", f"{1000 * second:.1f}", f"**{second / first:.2f}**"]
        rows.append([*cells, f"{first / step:.1%}"])
    print(f"Chunking alone (routing, chunk, dechunk, forward and backward), B {BATCH}, ms\n")
    print(table(["T", "ours", "h-net-dynamic-chunking", "ratio", "share of our training step"], rows))
    share = max(shares)
    claim = Claim("hnet-chunking-share", CHUNKING_SHARE / share, 1.0, share, CHUNKING_SHARE, "of a training step")
    return [claim, worst_of("hnet-chunker", rates, 1.0)]


def compare_memory(run: Run) -> list[Claim]:
    """Peak memory of two training steps, each model in a process of its own."""
    length = min(run.lengths[-1], 2048)
    found = {name: peak_in_subprocess(name, length) for name in ("ours", "peer")}
    first, second = (found[name] / 2**20 for name in ("ours", "peer"))
    print(f"Peak memory of a training step (weights, gradients, optimizer, activations), B {BATCH}, T {length}, MiB\n")
    print(table(["ours", "HiLAM", "ratio"], [[f"{first:,.0f}", f"{second:,.0f}", f"**{second / first:.2f}**"]]))
    return [Claim("hnet-memory", second / first, 1.0, first, second, "MiB")]


def peak_in_subprocess(name: str, length: int) -> int:
    """Bytes that this script, started again with the same options, measures for one model."""
    command = [sys.executable, *sys.argv, "--peak-of", name, "--lengths", str(length)]
    return int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[-1])


def peak_of(run: Run, name: str) -> int:
    """Peak bytes of a training step of one model in this process."""

    def prepare(setting: Setting, length: int) -> Task:
        contender = replace(run, setting=setting).ours() if name == "ours" else replace(run, setting=setting).peer()
        return partial(contender.train_step, equal_batch(setting, BATCH, length, run.device))

    with run.precision:
        # A small model first, so that what libraries load at first use does not count.
        prepare(replace(run.setting, width=64, mlp=128, main=1), 32)()
        return peak_bytes(partial(prepare, run.setting, run.lengths[0]), run.device)


def measure_linear_cost(run: Run) -> list[Claim]:
    """Tokens a second with an attention window, the same number of tokens in short and in long sequences."""
    torch.compiler.reset()
    contender = run.ours(replace(run.setting, window=WINDOW))
    tasks: dict[str, Task] = {}
    for length in WINDOW_LENGTHS:
        batch = equal_batch(run.setting, WINDOW_TOKENS // length, length, run.device)
        tasks[str(length)] = partial(contender.train_step, batch)
    timings = run.time(tasks)
    short, long = (WINDOW_TOKENS / timings[str(length)].median for length in WINDOW_LENGTHS)
    header = [f"T {length}" for length in WINDOW_LENGTHS]
    print(f"Training step, window {WINDOW}, {WINDOW_TOKENS} tokens a batch, tokens/s\n")
    print(table([*header, "ratio"], [[f"{short:,.0f}", f"{long:,.0f}", f"**{long / short:.2f}**"]]))
    return [Claim("hnet-linear-cost", long / short, LINEAR_AIM, long, short, "tokens/s")]


def measure_streaming(run: Run) -> list[Claim]:
    """Latents a second through `HiLAMModel.stream()`, preset small, one at a time on one CPU core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    width = run.setting.latent_dim
    stream = streaming_model("small", width, STREAM_STEPS, run.setting.chunk_length).stream()
    times = [run.clock()]
    for latent in torch.randn(STREAM_STEPS, width, generator=torch.Generator().manual_seed(0)):
        stream.push(latent)
        times.append(run.clock())
    torch.set_num_threads(threads)
    parts = [(0, STREAM_PART), (STREAM_STEPS - STREAM_PART, STREAM_STEPS)]
    early, late = ((stop - start) / (times[stop] - times[start]) for start, stop in parts)
    print(f"Streaming, preset small, one CPU core, a boundary in {run.setting.chunk_length} positions, latents/s\n")
    header = [f"latents {start + 1}-{stop}" for start, stop in parts]
    print(table([*header, "late / early"], [[f"{early:,.0f}", f"{late:,.0f}", f"**{late / early:.2f}**"]]))
    slower = min(early, late)
    return [Claim("hnet-streaming", slower / STREAMING_RATE, 1.0, slower, STREAMING_RATE, "latents/s")]


SECTIONS: dict[str, Callable[[Run], list[Claim]]] = {
    "equal": compare_equal_lengths,
    "ragged": compare_ragged,
    "chunking": compare_chunkers,
    "memory": compare_memory,
    "linear": measure_linear_cost,
    "streaming": measure_streaming,
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help=f"T in {FULL_LENGTHS}, more repetitions")
    parser.add_argument("--lengths", type=int, nargs="+", help=f"T of the equal lengths (default: {QUICK_LENGTHS})")
    parser.add_argument("--repetitions", type=int, help="timed runs of each task (default: 3, or 7 with --full)")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="sections to run")
    parser.add_argument("--device", default="cpu", type=torch.device, help="cpu or cuda")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="bfloat16 is by autocast")
    parser.add_argument("--compile", action="store_true", help="compile ours and the plain layers, whole graph")
    parser.add_argument("--compile-mode", default="default", help="mode of torch.compile, such as reduce-overhead")
    parser.add_argument("--peer-default", action="store_true", help="HiLAM's own default attention, the slower one")
    parser.add_argument("--threads", type=int, help="CPU threads (default: as torch has it)")
    parser.add_argument("--cpu-time", action="store_true", help="one thread, its CPU time: for a machine that is busy")
    parser.add_argument("--json", action="store_true", help="print a JSON line for each claim, last")
    parser.add_argument("--peak-of", choices=("ours", "peer"), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def run_of(options: argparse.Namespace) -> Run:
    """The run that the options ask for."""
    default_lengths = FULL_LENGTHS if options.full else QUICK_LENGTHS
    return Run(
        device=options.device,
        dtype=getattr(torch, options.dtype),
        compile_mode=options.compile_mode if options.compile else None,
        lengths=tuple(sorted(options.lengths or default_lengths)),
        repetitions=options.repetitions or (7 if options.full else 3),
        clock=time.process_time if options.cpu_time else time.perf_counter,
        peer_flash=not options.peer_default,
    )


def main() -> None:
    """Runs the sections and prints their tables, then the claims."""
    options = parse()
    torch.manual_seed(0)
    if options.cpu_time or options.threads is not None:
        torch.set_num_threads(options.threads or 1)
    run = run_of(options)
    if options.peak_of is not None:
        print(peak_of(run, options.peak_of))
        return
    where = machine(run.device, torch.get_num_threads())
    busy = ", seconds are CPU time" if options.cpu_time else ""
    sizes = {"ours": run.ours().num_parameters, "HiLAM": run.peer().num_parameters}
    print(f"{where}, {options.dtype}" + (f", compiled ({run.compile_mode})" if run.compile_mode else "") + busy)
    print(", ".join(f"{name} {count / 1e6:.2f} M parameters" for name, count in sizes.items()) + "\n")
    claims = list(itertools.chain.from_iterable(SECTIONS[name](run) for name in options.only))
    if options.json:
        print("\n".join(claim.json_line(where) for claim in claims))


if __name__ == "__main__":
    main()
