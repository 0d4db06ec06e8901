"""LIBERO's own environment, run in a process of its own: what it gives is what ours is compared with.

Usage: python reference.py ASSETS OUT TASK SEED INITIAL_STATE (or -) STEPS
"""

import sys
from pathlib import Path

import numpy as np

from hilam_hf.envs.libero.initial_states import read_initial_states
from hilam_hf.envs.libero.package import import_libero
from hilam_hf.envs.libero.suites import parse_task

SIZE = 128


def actions(steps: int, seed: int) -> np.ndarray:
    """Settling, then random actions, with gripper and rotation at rest now and then."""
    generator = np.random.default_rng(seed)
    drawn = generator.normal(0.0, 0.6, (steps, 7))
    drawn[::3, 3:6] = 0.0
    drawn[:3] = [0.0] * 6 + [-1.0]
    return drawn.clip(-1.0, 1.0)


def main(assets: str, out: str, task_name: str, seed: str, initial_state: str, steps: str) -> None:
    """Run the episode and write what LIBERO shows of it."""
    envs = import_libero(Path(assets), drawing=True)
    task = parse_task(task_name)
    env = envs.OffScreenRenderEnv(bddl_file_name=str(task.bddl_file), camera_heights=SIZE, camera_widths=SIZE)
    # LIBERO keeps the samplers of every earlier reset, which draw as well.
    env.env.object_property_initializers.clear()
    env.seed(int(seed))
    observation = env.reset()
    if initial_state != "-":
        observation = env.set_init_state(read_initial_states(task.initial_states_file)[int(initial_state)])
    rows = [(observation, env.get_sim_state(), False)]
    for action in actions(int(steps), int(seed)):
        observation, _, done, _ = env.step(action)
        rows.append((observation, env.get_sim_state(), done))
    keys = [name for name in observation if name.endswith("_image") or name.startswith("robot0_")]
    arrays = {key: np.stack([row[key] for row, _, _ in rows]) for key in keys}
    states, done = np.stack([state for _, state, _ in rows]), np.array([done for _, _, done in rows])
    np.savez(out, states=states, done=done, fixtures=env.sim.model.body_pos, **arrays)
    env.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
