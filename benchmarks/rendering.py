"""Drawing Meta-World: the "fast" quality against MuJoCo's defaults, the same scene, size and steps in one process.

A picture's time is that of a control step with it, less that of a control step without.

python benchmarks/rendering.py [--frames 30] [--rounds 5] [--json]
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from _measure import Claim, Timing, interleave, spread_cell, spread_of, time_until_steady

from hilam_hf.envs import get_protocol, renderer_provenance
from hilam_hf.envs.metaworld import MetaWorldEnv

IMAGE_SIZE = 128
AIM = 8.0
UNDRAWN = "undrawn"


def make_environments(max_steps: int) -> dict[str, MetaWorldEnv]:
    """The same scene in both qualities and without pictures."""
    protocol = get_protocol("metaworld").with_options(image_size=IMAGE_SIZE, cameras=("corner2",))
    kinds = {"fast": {"quality": "fast"}, "exact": {"quality": "exact"}, UNDRAWN: {"render": False}}
    return {
        name: MetaWorldEnv("drawer-open", protocol=protocol, max_steps=max_steps, **options)
        for name, options in kinds.items()
    }


def play(environment: MetaWorldEnv, steps: int) -> None:
    """Stand still for some control steps."""
    for _ in range(steps):
        environment.step(np.zeros(4, dtype=np.float32))


def time_pictures(environments: Mapping[str, MetaWorldEnv], frames: int, rounds: int) -> dict[str, Timing]:
    """Seconds of `frames` pictures of each quality, in turns."""
    for environment in environments.values():
        environment.reset(seed=0)
    tasks = {name: partial(play, environment, frames) for name, environment in environments.items()}
    return less_undrawn(interleave(tasks, rounds, torch.device("cpu")))


def less_undrawn(timings: Mapping[str, Timing]) -> dict[str, Timing]:
    """Seconds of the pictures alone."""
    undrawn = timings[UNDRAWN].median
    return {
        name: Timing(tuple(seconds - undrawn for seconds in timing.seconds))
        for name, timing in timings.items()
        if name != UNDRAWN
    }


def main() -> None:
    """Measures both qualities and prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=30, help="frames to draw at each quality in a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of both qualities")
    parser.add_argument("--json", action="store_true", help="print a JSON line for the claim, last")
    options = parser.parse_args()
    # One more round warms up.
    environments = make_environments(options.frames * (options.rounds + 1))
    timings = time_until_steady(
        lambda: time_pictures(environments, options.frames, options.rounds), "fast", "exact", AIM
    )
    for environment in environments.values():
        environment.close()
    ours, peer = (1000 * timings[quality].median / options.frames for quality in ("fast", "exact"))
    claim = Claim("rendering", peer / ours, AIM, ours, peer, "ms/frame", spread_of(timings, ("fast", "exact")))
    renderer = renderer_provenance()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {renderer['backend']} ({renderer['gl_renderer']})"
    print(f"fast {ours:.1f} ms, exact {peer:.1f} ms a frame of {IMAGE_SIZE} px: {claim.ratio:.1f}x ", end="")
    print(f"({spread_cell(claim.ratio, AIM, claim.spread or 0.0)}) on {machine}")
    if options.json:
        print(claim.json_line(machine))


if __name__ == "__main__":
    main()
