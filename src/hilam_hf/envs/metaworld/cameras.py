"""Where Meta-World's tasks are seen from. Positions are in metres in the simulator's world frame."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CameraView:
    """Where a camera stands.

    Attributes:
        model_camera: Name of a camera of Meta-World's model; None for a pose given by the other fields.
        upside_down: The model's camera is mounted upside down: its picture has to be turned by 180 degrees.
        lookat: Point that the camera looks at, in metres.
        distance: Distance from that point in metres.
        azimuth: Direction in the table's plane that it looks in, in degrees.
        elevation: Angle to the table's plane in degrees; negative looks down.
    """

    model_camera: str | None = None
    upside_down: bool = False
    lookat: tuple[float, float, float] = (0.0, 0.0, 0.0)
    distance: float = 1.0
    azimuth: float = 90.0
    elevation: float = -45.0


CAMERAS: dict[str, CameraView] = {
    "corner": CameraView("corner", upside_down=True),
    "corner2": CameraView("corner2", upside_down=True),
    # corner2 moved to (0.75, 0.075, 0.7), a pose in common use; the model calls it corner4.
    "corner2_close": CameraView("corner4", upside_down=True),
    "corner3": CameraView("corner3", upside_down=True),
    "topview": CameraView("topview"),
    "behindGripper": CameraView("behindGripper"),
    "gripperPOV": CameraView("gripperPOV"),
    # From corner2's side, near enough for the gripper and the object to show at 64 pixels.
    "workspace": CameraView(lookat=(0.0, 0.66, 0.14), distance=1.08, azimuth=135.0, elevation=-30.0),
}
"""The views, by the names that protocols give them."""
