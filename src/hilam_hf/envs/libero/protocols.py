"""The protocols that published numbers on LIBERO use."""

from __future__ import annotations

from dataclasses import replace

from ...libero_conventions import CAMERAS
from ..protocols import EvaluationProtocol

_OPEN = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)
_STILL = (0.0,) * 7

OPENVLA = EvaluationProtocol(
    name="openvla",
    simulator="libero",
    source="Kim et al. 2024, OpenVLA (arXiv:2406.09246): experiments/robot/libero/run_libero_eval.py",
    episodes_per_task=50,
    initial_states="fixed",
    settle_steps=10,
    settle_action=_OPEN,
    max_steps={"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520, "libero_90": 400},
    image_size=256,
    image_transform="rotate_180",
    cameras=CAMERAS,
    proprioception="ee_axis_angle_gripper",
    seed=7,
)
LEROBOT = replace(
    OPENVLA,
    name="lerobot",
    source="Hugging Face LeRobot: src/lerobot/envs/libero.py",
    max_steps={**OPENVLA.max_steps, "libero_spatial": 280},
    seed=1000,
)
LIBERO = EvaluationProtocol(
    name="libero",
    simulator="libero",
    source="Liu et al. 2023, LIBERO (arXiv:2306.03310): libero/lifelong/metric.py",
    episodes_per_task=20,
    initial_states="fixed",
    settle_steps=5,
    settle_action=_STILL,
    max_steps={"": 600},
    image_size=128,
    image_transform="none",
    cameras=CAMERAS,
    proprioception="gripper_joints",
    seed=10000,
)
BAKU = replace(
    LIBERO,
    name="baku",
    source="Haldar et al. 2024, BAKU (arXiv:2406.07539): baku/suite/libero.py; most steps as in LIBERO's own",
    episodes_per_task=10,
    initial_states="random",
    settle_steps=0,
    image_transform="flip_vertical",
    proprioception="joints_gripper",
    seed=2,
)

PROTOCOLS = (OPENVLA, LEROBOT, LIBERO, BAKU)
"""LIBERO's protocols; the first is the one that is used where none is named."""
