"""Drawing Meta-World: the "fast" quality against MuJoCo's defaults, the same scene, size and steps in one process.

python benchmarks/rendering.py [--frames 30] [--json]
"""

import argparse
import json
import os
import platform
import time

import numpy as np

from hilam_hf.envs import get_protocol, renderer_provenance
from hilam_hf.envs.metaworld import MetaWorldEnv

IMAGE_SIZE = 128
AIM = 8.0


def milliseconds_per_frame(quality: str, frames: int) -> float:
    """Median time of a control step with its picture, less that of a control step without."""
    return 1000 * (_seconds_per_step(frames, quality=quality) - _seconds_per_step(frames, render=False))


def _seconds_per_step(frames: int, **options: object) -> float:
    protocol = get_protocol("metaworld").with_options(image_size=IMAGE_SIZE, cameras=("corner2",))
    env = MetaWorldEnv("drawer-open", protocol=protocol, **options)
    env.reset(seed=0)
    action, seconds = np.zeros(4, dtype=np.float32), []
    for _ in range(frames + 3):
        start = time.perf_counter()
        env.step(action)
        seconds.append(time.perf_counter() - start)
    env.close()
    # The first frames create the renderer.
    return float(np.median(seconds[3:]))


def main() -> None:
    """Measures both qualities and prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=30, help="frames to draw at each quality")
    parser.add_argument("--json", action="store_true", help="print a JSON line for the claim, last")
    options = parser.parse_args()
    ours, peer = (milliseconds_per_frame(quality, options.frames) for quality in ("fast", "exact"))
    renderer = renderer_provenance()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {renderer['backend']} ({renderer['gl_renderer']})"
    print(f"fast {ours:.1f} ms, exact {peer:.1f} ms a frame of {IMAGE_SIZE} px: {peer / ours:.1f}x on {machine}")
    if options.json:
        claim = {"name": "rendering", "ratio": peer / ours, "aim": AIM, "ours": ours, "peer": peer, "unit": "ms/frame"}
        print(json.dumps(claim | {"machine": machine}))


if __name__ == "__main__":
    main()
