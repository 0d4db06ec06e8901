"""A format of demonstrations in a few lines: one .npz file an episode, `<task>.<name>.npz`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hilam_hf.data import Demonstration, DemonstrationFormat
from hilam_hf.fingerprint import file_fingerprint
from hilam_hf.robots import RobotDescription

ROBOT = RobotDescription(
    name="toy arm", environment="toy lab", action_dim=3, proprioception={"joints": 2}, layouts={"joints": ("joints",)}
)


@dataclass(frozen=True)
class NpzFrames:
    file: Path

    def read(self, camera: str, indices: Sequence[int]) -> NDArray[np.uint8]:
        return np.load(self.file)[f"frames_{camera}"][list(indices)]

    def fingerprint(self, camera: str) -> str:
        return file_fingerprint(self.file)


def read(path: Path) -> list[Demonstration]:
    return [read_file(file) for file in sorted(path.glob("*.npz"))]


def read_file(file: Path) -> Demonstration:
    task, name, _ = file.name.split(".")
    values = np.load(file)
    return Demonstration(
        id=f"{task}/{name}",
        task=task,
        language=str(values["language"]),
        fps=5.0,
        actions=values["actions"],
        proprioception={"joints": values["joints"]},
        robot=ROBOT,
        phases=None,
        source="human",
        cameras=("side",),
        reader=NpzFrames(file),
        stored_transform="none",
        image_transform="none",
    )


FORMAT = DemonstrationFormat(
    name="toy_npz", looks_like="files <task>.<name>.npz", recognises=lambda path: any(path.glob("*.npz")), read=read
)
