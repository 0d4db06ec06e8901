import numpy as np
import pytest

from hilam_hf.video.orientation import orient_frames
from tests.robot_recordings import pictures

# A picture whose four corners are 1 2 / 3 4, as the renderer gives it, and as it lies after each transform.
CORNERS = {
    "none": [[1, 2], [3, 4]],
    "flip_vertical": [[3, 4], [1, 2]],
    "rotate_180": [[4, 3], [2, 1]],
}


@pytest.mark.parametrize("stored", CORNERS)
@pytest.mark.parametrize("wanted", CORNERS)
def test_every_orientation_from_every_other(stored: str, wanted: str) -> None:
    def picture(name: str) -> np.ndarray:
        corners = np.array(CORNERS[name], np.uint8)
        frame = np.zeros((2, 4, 6, 3), np.uint8)
        for row, column in np.ndindex(2, 2):
            frame[:, -row, -column] = corners[row, column]
        return frame

    np.testing.assert_array_equal(orient_frames(picture(stored), stored, wanted), picture(wanted))


def test_rotation_is_that_of_published_data() -> None:
    # OpenVLA, LeRobot and others write `image[::-1, ::-1]`, BAKU `image[::-1]`.
    frames = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(orient_frames(frames, "none", "rotate_180")[1], frames[1][::-1, ::-1])
    np.testing.assert_array_equal(orient_frames(frames, "none", "flip_vertical")[1], frames[1][::-1])
    np.testing.assert_array_equal(orient_frames(frames, "rotate_180", "flip_vertical")[1], frames[1][:, ::-1])


def test_unknown_orientation() -> None:
    with pytest.raises(
        ValueError, match="image_transform: got 'upright', expected one of none, flip_vertical, rotate_180"
    ):
        orient_frames(pictures(1), "none", "upright")  # type: ignore[arg-type]
