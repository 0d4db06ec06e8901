"""The protocol of rollouts in Meta-World."""

from __future__ import annotations

from ..protocols import EvaluationProtocol

METAWORLD = EvaluationProtocol(
    name="metaworld",
    simulator="metaworld",
    source="hilam-hf: initial states by seed, success at any step ends the episode",
    episodes_per_task=20,
    initial_states="random",
    settle_steps=0,
    settle_action=(0.0,) * 4,
    max_steps={"": 200},
    image_size=128,
    image_transform="none",
    cameras=("corner2",),
    proprioception="ee_gripper",
)
