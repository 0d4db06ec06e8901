"""Latent actions from videos: our extraction against a plain loop over pairs, with the same weights on the same clips.

The plain loop reads a clip, then computes both frames of every pair, a batch of pairs at a time. One process, tasks
timed in turns, outputs compared. Weights are random, at published sizes. `make bench` runs this at a size for two
cores.

.venv/bin/python benchmarks/extraction.py [--videos FOLDER] [--weights dinov2 uniskill] [--json]
.venv/bin/python benchmarks/extraction.py --device cuda --videos FOLDER --clips 40 --json
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from _extraction_models import BUILDERS, drifting_frames, write_clips
from _measure import (
    Claim,
    Task,
    Timing,
    high_water_bytes,
    interleave,
    machine,
    spread_cell,
    spread_of,
    table,
    time_until_steady,
)
from transformers.utils import logging

from hilam_hf.data import scan_videos
from hilam_hf.data.corpora.extraction import encode_episodes
from hilam_hf.data.corpora.frame_batches import EpisodeFrames
from hilam_hf.data.episodes import Episode, RejectedVideo, resolve_stride
from hilam_hf.models.latent_actions.batch_size import resolve_batch_size
from hilam_hf.models.latent_actions.dynamics import InverseDynamicsModel
from hilam_hf.video import VideoReader, as_float_frames
from hilam_hf.video.video_file import write_video

SPEED_AIM, HIDDEN_AIM = 1.9, 0.8
# Memory that does not grow, but for noise.
MEMORY_AIM = 0.9
TOLERANCE = 1e-5
LONG_FPS, LONG_SIZE, LONG_STRIDE = 10, 64, 6
# Reading these takes about as long as computing: there is much to hide.
HIDDEN_CLIPS, HIDDEN_SIZE = 4, (720, 1280)


@dataclass(frozen=True)
class Run:
    """What the command line asks for."""

    device: torch.device
    weights: tuple[str, ...]
    repetitions: int
    clips: list[Episode]
    strides: list[int]
    folder: Path
    quick: bool = False

    def with_videos(self, folder: Path) -> Run:
        """The same with all the clips of a folder, at a stride of one frame."""
        episodes = scan_videos(folder, progress=False).episodes
        return replace(self, clips=episodes, strides=[1] * len(episodes))

    @property
    def num_frames(self) -> int:
        """Frames of all clips."""
        return sum(clip.num_frames for clip in self.clips)

    @property
    def best_ratio(self) -> float:
        """Frames that a loop over pairs computes, for each one that there is."""
        return 2 * sum(clip.num_frames - k for clip, k in zip(self.clips, self.strides, strict=True)) / self.num_frames

    def idm(self, name: str) -> InverseDynamicsModel:
        """A model with random weights, on the device."""
        return BUILDERS[name](self.folder / name, self.quick).to(self.device)

    def time(self, tasks: dict[str, Task]) -> dict[str, Timing]:
        """Times tasks in turns; they have run before."""
        return interleave(tasks, self.repetitions, self.device, warmup=0)


def ours(run: Run, idm: InverseDynamicsModel, batch_size: int) -> list[torch.Tensor]:
    """Latent actions of each clip."""
    found = list(encode_episodes(idm, run.clips, run.strides, batch_size))
    refused = [item for item in found if isinstance(item, RejectedVideo)]
    if refused:
        raise RuntimeError(f"{refused[0].path}: {refused[0].reason}. Give other clips.")
    return [item for item in found if not isinstance(item, RejectedVideo)]


@torch.no_grad()
def plain(run: Run, idm: InverseDynamicsModel, batch_size: int) -> list[torch.Tensor]:
    """The same by a loop over pairs, with as many frames at a time."""
    found, num_pairs = [], max(1, batch_size // 2)
    for clip, k in zip(run.clips, run.strides, strict=True):
        frames = VideoReader(clip.path, idm.config.image_size).read()
        parts = []
        for start in range(0, len(frames) - k, num_pairs):
            stop = min(start + num_pairs, len(frames) - k)
            pairs = frames[start:stop], frames[start + k : stop + k]
            parts.append(idm.encode(*(as_float_frames(side.to(idm.device)) for side in pairs)))
        found.append(torch.cat(parts).cpu())
    return found


def largest_difference(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> float:
    """Over all clips.

    Raises:
        RuntimeError: If it is above what rounding explains, or a clip has another number of latent actions.
    """
    if [item.shape for item in first] != [item.shape for item in second]:
        raise RuntimeError("ours and the plain loop: got different numbers of latent actions.")
    found = max((one - two).abs().max().item() for one, two in zip(first, second, strict=True))
    if not found <= TOLERANCE:
        raise RuntimeError(f"ours and the plain loop: latent actions differ by {found:.1e}, expected {TOLERANCE:.0e}.")
    return found


def compare_speed(run: Run) -> list[Claim]:
    """Frames a second against the plain loop."""
    claims, rows = [], []
    for name in run.weights:
        idm = run.idm(name)
        batch_size = resolve_batch_size(idm, "auto")
        work = {"ours": partial(ours, run, idm, batch_size), "plain": partial(plain, run, idm, batch_size)}
        difference = largest_difference(*(task() for task in work.values()))
        timings = time_until_steady(lambda work=work: run.time(dict(work)), "ours", "plain", SPEED_AIM)
        first, second = (run.num_frames / timings[name].median for name in work)
        spread = spread_of(timings, list(work))
        cells = [name, f"{idm.config.image_size}", f"{batch_size}", f"{first:,.2f}", f"{second:,.2f}"]
        rows.append(
            [*cells, f"**{first / second:.2f}**", spread_cell(first / second, SPEED_AIM, spread), f"{difference:.0e}"]
        )
        claims.append(Claim(f"extraction-{name}", first / second, SPEED_AIM, first, second, "frames/s", spread))
    print(f"{len(run.clips)} clips, {run.num_frames} frames, of which pairs compute {run.best_ratio:.2f} times as many")
    print("Frames/s (median; spread: half of the range, worst column)\n")
    print(table(["weights", "px", "batch", "ours", "pairs", "ratio", "spread", "largest difference"], rows))
    return claims


def measure_decoding(run: Run) -> list[Claim]:
    """How much of the time for reading, or for computing where that is less, passes during the other."""
    threads = torch.get_num_threads()
    if run.device.type == "cpu":
        # Reading needs a core of its own to be hidden in.
        torch.set_num_threads(max(1, threads - 1))
    idm = run.idm("light")
    batch_size = resolve_batch_size(idm, "auto")
    run = run.with_videos(write_clips(run.folder / "hidden", HIDDEN_CLIPS, 12 if run.quick else 100, *HIDDEN_SIZE))
    source = EpisodeFrames(run.clips, run.strides, idm.config.image_size)
    batches = list(source.batches(batch_size))
    tasks: dict[str, Task] = {
        "reading": lambda: [None for _ in source.batches(batch_size)],
        "computing": lambda: [latents.cpu() for _, latents in idm.encode_batches(batches)],
        "both": partial(ours, run, idm, batch_size),
    }
    timings = interleave(tasks, run.repetitions, run.device)
    torch.set_num_threads(threads)
    medians = [timings[name].median for name in tasks]
    share = hidden_share(*medians)
    height, width = HIDDEN_SIZE
    print(f"Seconds for {run.num_frames} frames of {width} x {height}, weights light, a core less for computing\n")
    cells = [f"{seconds:.2f}" for seconds in medians] + [f"**{share:.0%}**"]
    print(table(["reading alone", "computing alone", "together", "hidden, of the shorter"], [cells]))
    return [Claim("extraction-hidden", share / HIDDEN_AIM, 1.0, share, HIDDEN_AIM, "of the shorter of the two")]


def hidden_share(reading: float, computing: float, both: float) -> float:
    """The part of the shorter of two tasks that passes during the longer one: 0 one after the other, 1 at once."""
    return (reading + computing - both) / min(reading, computing)


def measure_memory(run: Run) -> list[Claim]:
    """Memory of a process that takes latent actions from a minute and from an hour of video."""
    found = {}
    for name, seconds in {"minute": 60, "hour": 120 if run.quick else 3600}.items():
        path = write_long_video(run.folder / name / "long.mp4", seconds)
        command = [sys.executable, __file__, "--peak-of", str(path), "--device", str(run.device)]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        found[name] = int(output.split()[-1]) / 2**20
    minute, hour = found["minute"], found["hour"]
    frames = 3600 * LONG_FPS * 3 * LONG_SIZE**2 / 2**20
    print(
        f"Memory of the whole process at its highest, MiB; {LONG_FPS} frames/s, in an hour {frames:,.0f} MiB of bytes\n"
    )
    print(table(["minute", "hour", "ratio"], [[f"{minute:,.0f}", f"{hour:,.0f}", f"**{minute / hour:.2f}**"]]))
    return [Claim("extraction-memory", minute / hour, MEMORY_AIM, hour, minute, "MiB, an hour and a minute")]


def write_long_video(path: Path, seconds: int) -> Path:
    """A video of the same minute over and over."""
    path.parent.mkdir(parents=True)
    minute = drifting_frames(60 * LONG_FPS, LONG_SIZE, LONG_SIZE)
    write_video(path, minute.repeat(seconds // 60, 1, 1, 1), LONG_FPS, crf=40)
    return path


def peak_of(path: Path, device: torch.device) -> int:
    """The most bytes that a process holds that takes latent actions from the video."""
    # How much the model computes does not matter here; latent actions of 4 numbers, which are kept, count little.
    idm = BUILDERS["light"](path.parent, True).to(device)
    for _ in encode_episodes(idm, scan_videos(path.parent, progress=False).episodes, [LONG_STRIDE]):
        pass
    return high_water_bytes()


SECTIONS: dict[str, Callable[[Run], list[Claim]]] = {
    "speed": compare_speed,
    "decoding": measure_decoding,
    "memory": measure_memory,
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, help="folder of clips (default: made on the fly)")
    parser.add_argument("--clips", type=int, help="how many of them, evenly chosen (default: 2, or 40 on CUDA)")
    parser.add_argument("--stride", type=int, help="k in frames (default: 1, as in UniSkill's own extraction); or")
    parser.add_argument("--stride-seconds", type=float, help="in seconds")
    parser.add_argument("--weights", nargs="+", choices=BUILDERS, help="default: dinov2, on CUDA uniskill as well")
    parser.add_argument("--repetitions", type=int, help="timed runs of each task (default: 3)")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="sections to run")
    parser.add_argument("--device", default="cpu", type=torch.device, help="cpu or cuda")
    parser.add_argument("--threads", type=int, help="CPU threads (default: as torch has it)")
    parser.add_argument(
        "--quick", action="store_true", help="tiny weights and clips: tries the script, measures nothing"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON line for each claim, last")
    parser.add_argument("--peak-of", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def run_of(options: argparse.Namespace, folder: Path) -> Run:
    """The run that the options ask for; clips and weights are put in the folder."""
    on_cuda = options.device.type == "cuda"
    count = options.clips or (40 if on_cuda else 2)
    videos = options.videos or write_clips(folder / "clips", count, num_frames=12 if options.quick else 60)
    episodes = scan_videos(videos, progress=False).episodes
    clips = [episodes[index * len(episodes) // count] for index in range(min(count, len(episodes)))]
    stride = options.stride if options.stride or options.stride_seconds else 1
    return Run(
        device=options.device,
        weights=tuple(options.weights or (("dinov2", "uniskill") if on_cuda else ("dinov2",))),
        repetitions=options.repetitions or (1 if options.quick else 3),
        clips=clips,
        strides=[resolve_stride(clip.fps, frames=stride, seconds=options.stride_seconds) for clip in clips],
        folder=folder,
        quick=options.quick,
    )


def main() -> None:
    """Runs the sections and prints their tables, then the claims."""
    options = parse()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.peak_of is not None:
        print(peak_of(options.peak_of, options.device))
        return
    with tempfile.TemporaryDirectory() as folder:
        run = run_of(options, Path(folder))
        where = machine(run.device, torch.get_num_threads())
        print(f"{where}, float32, stride {min(run.strides)} to {max(run.strides)}\n")
        claims = list(itertools.chain.from_iterable(SECTIONS[name](run) for name in options.only))
    if options.json:
        print("\n".join(claim.json_line(where) for claim in claims))


if __name__ == "__main__":
    main()
