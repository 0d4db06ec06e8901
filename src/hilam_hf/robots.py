"""What a robot is, as far as recordings, simulators and policies must agree upon it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .video.orientation import ImageTransform, check_image_transform

EE_POSITIONS = "ee_positions"
"""The part of every robot's proprioception that says where its end effector is: 3 numbers, in metres."""

GRIPPER = "gripper"
"""The name in `action_names` of the number that opens the gripper at the least value, and closes it at the greatest."""


@dataclass(frozen=True, kw_only=True)
class RobotDescription:
    """A robot in its surroundings: actions, proprioception and cameras.

    Attributes:
        name: Name of the robot, such as "panda".
        environment: Simulator or laboratory that it stands in, such as "libero": elsewhere the same robot may have
            other actions and cameras.
        action_dim: A, numbers in an action.
        action_names: A names, or none where they are not known.
        action_range: Least and greatest value of every number in an action, or None where that is not known.
        proprioception: Width of each part of what the robot says of itself, by name; a recording may lack some.
        layouts: What `agent_pos` may be made of: tuples of parts by name, the usual layout first.
        cameras: Names of the cameras, in the order in which policies take them; none where each recording chooses.
        image_transforms: Ways in which policies take its pictures, compared with what the renderer gives; the usual
            way first.

    Raises:
        ValueError: Names and numbers do not fit each other.
    """

    name: str
    environment: str
    action_dim: int
    action_names: tuple[str, ...] = ()
    action_range: tuple[float, float] | None = None
    proprioception: Mapping[str, int] = field(default_factory=dict)
    layouts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cameras: tuple[str, ...] = ()
    image_transforms: tuple[ImageTransform, ...] = ("none",)

    def __post_init__(self) -> None:
        if self.action_dim < 1 or len(self.action_names) not in (0, self.action_dim):
            raise ValueError(
                f"robot {self.name}: got action_dim {self.action_dim} and {len(self.action_names)} action_names, "
                "expected at least 1, and as many names or none"
            )
        if not self.layouts or not self.image_transforms:
            raise ValueError(f"robot {self.name}: expected at least one of layouts and of image_transforms")
        for layout, parts in self.layouts.items():
            if unknown := [part for part in parts if part not in self.proprioception]:
                raise ValueError(
                    f"robot {self.name}: layout {layout} has {', '.join(unknown)}; expected parts of the "
                    f"proprioception, which are {', '.join(self.proprioception)}"
                )
        for transform in self.image_transforms:
            check_image_transform(transform)

    @property
    def default_layout(self) -> str:
        """The usual layout of `agent_pos`."""
        return next(iter(self.layouts))

    def layout_parts(self, layout: str) -> tuple[str, ...]:
        """Names of the parts of a layout of `agent_pos`, in order.

        Raises:
            ValueError: The robot has no such layout.
        """
        if layout not in self.layouts:
            raise ValueError(f"proprioception: got {layout!r}, expected one of {', '.join(self.layouts)}")
        return self.layouts[layout]

    def agent_pos(self, parts: Mapping[str, NDArray[Any]], layout: str) -> NDArray[np.float32]:
        """`agent_pos` in a layout.

        Args:
            parts: (..., width) by name, those that the layout needs.
            layout: Name of the layout.

        Returns:
            float32 (..., P).

        Raises:
            ValueError: The robot has no such layout.
        """
        return np.concatenate([parts[part] for part in self.layout_parts(layout)], axis=-1).astype(np.float32)

    def agent_pos_dim(self, layout: str) -> int:
        """P, how many numbers a layout of `agent_pos` has.

        Raises:
            ValueError: The robot has no such layout.
        """
        return sum(self.proprioception[part] for part in self.layout_parts(layout))

    def check_image_transform(self, transform: str) -> None:
        """Sees that policies take the robot's pictures in a way.

        Raises:
            ValueError: They do not.
        """
        if transform not in self.image_transforms:
            raise ValueError(f"image_transform: got {transform!r}, expected one of {', '.join(self.image_transforms)}")

    def to_dict(self) -> dict[str, Any]:
        """The description as plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RobotDescription:
        """The description that `to_dict` gave, which may have been through JSON."""
        layouts = {name: tuple(parts) for name, parts in values["layouts"].items()}
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **lists, "layouts": layouts})
