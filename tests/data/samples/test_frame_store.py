import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from hilam_hf.data import load_demonstrations
from hilam_hf.data.samples.frame_store import CameraSource, FrameStore
from tests.data.demonstrations.lerobot.test_lerobot import write_published
from tests.robot_recordings import EVERY_FORMAT, read_pictures, record_two_tasks


@EVERY_FORMAT
def test_frames_are_the_same_from_memory_and_file(tmp_path: Path, kind: str) -> None:
    demonstrations = load_demonstrations(record_two_tasks(tmp_path, kind))
    sources = [CameraSource(each, "agentview") for each in demonstrations]
    needed = 26 * 3 * 16 * 24
    memory = FrameStore(sources, (16, 24), cache_bytes=needed, progress=False)
    file = FrameStore(sources, (16, 24), cache_bytes=needed - 1, progress=False)
    assert memory.in_memory and not file.in_memory and memory.num_bytes == needed
    for episode, indices in ((0, [0]), (4, [3, 1, 1]), (2, [])):
        expected = demonstrations[episode].frames("agentview", indices)
        if indices:
            resized = F.interpolate(expected, size=(16, 24), mode="bilinear", antialias=True)
            torch.testing.assert_close(memory.read(episode, indices), resized)
        torch.testing.assert_close(memory.read(episode, indices), file.read(episode, indices))
    for store in (memory, file):
        with pytest.raises(IndexError, match=r"'close/seed_0': frame index 4 is outside 0\.\.3"):
            store.read(0, [4])
        # A copy: what is done to it does not reach the store.
        store.read(1, [0]).zero_()
        assert store.read(1, [0]).any()


def test_episodes_of_one_file_are_read_into_memory_at_once(tmp_path: Path) -> None:
    write_published(tmp_path)
    demonstrations = load_demonstrations(tmp_path)
    sources = [CameraSource(each, "agentview") for each in demonstrations] * 4
    store = FrameStore(sources, (32, 48), num_workers=4, progress=False)
    assert store.in_memory
    for number, source in enumerate(sources):
        expected = source.demonstration.frames("agentview")
        torch.testing.assert_close(store.read(number, range(source.num_frames)), expected, rtol=0, atol=0)


def test_several_sizes_of_a_demonstration(tmp_path: Path) -> None:
    (source, *_) = (CameraSource(each, "agentview") for each in load_demonstrations(record_two_tasks(tmp_path, "hdf5")))
    for cache_bytes in (0, 10**9):
        store = FrameStore([source], (32, 48), other_sizes=[16], cache_bytes=cache_bytes, progress=False)
        whole, small = store.read_sizes(0, [2, 1])
        assert read_pictures(whole.permute(0, 2, 3, 1).numpy())[0] == [2, 1] and small.shape == (2, 3, 16, 16)


@EVERY_FORMAT
def test_the_fingerprint_is_that_of_the_frames_in_any_folder(tmp_path: Path, kind: str) -> None:
    def store(
        root: Path, size: int = 16, camera: str = "agentview", rows: Sequence[int] = range(5), **options: Any
    ) -> FrameStore:
        demonstrations = load_demonstrations(root, **options)
        return FrameStore([CameraSource(demonstrations[row], camera) for row in rows], size, progress=False)

    root = record_two_tasks(tmp_path / "recording", kind)
    shutil.copytree(root, tmp_path / "copy")
    told = store(root).fingerprint()
    assert store(tmp_path / "copy").fingerprint() == told
    assert store(root).select(range(5)).fingerprint() == told
    assert store(root).select([3, 1]).fingerprint() == store(root, rows=[3, 1]).fingerprint()
    others = [
        store(root, size=24),
        store(root, camera="robot0_eye_in_hand"),
        store(root, rows=[1, 0, 2, 3, 4]),
        store(root, rows=range(4)),
        store(root, image_transform="none"),
    ]
    assert len({told, *(other.fingerprint() for other in others)}) == 6


@EVERY_FORMAT
def test_readers_tell_episodes_cameras_and_changed_files_apart(tmp_path: Path, kind: str) -> None:
    demonstrations = load_demonstrations(record_two_tasks(tmp_path, kind))

    def told() -> list[str]:
        return [each.reader.fingerprint(camera) for each in demonstrations for camera in demonstrations.cameras]

    before = told()
    # As videos, episodes of one length have the same pictures and so the same files; in HDF5 each has its place.
    assert len(set(before)) == (10 if kind == "hdf5" else 6)
    for path in tmp_path.rglob("*"):
        if path.suffix in (".hdf5", ".mp4", ".parquet"):
            path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert not set(told()) & set(before)


@EVERY_FORMAT
def test_selected_episodes_come_from_the_same_frames(tmp_path: Path, kind: str) -> None:
    demonstrations = load_demonstrations(record_two_tasks(tmp_path, kind))
    for cache_bytes in (0, 10**9):
        whole = FrameStore(
            [CameraSource(each, "agentview") for each in demonstrations], 16, cache_bytes=cache_bytes, progress=False
        )
        chosen = whole.select([4, 0])
        assert chosen.num_bytes == (demonstrations[4].num_frames + demonstrations[0].num_frames) * 3 * 16 * 16
        for row, original in enumerate((4, 0)):
            torch.testing.assert_close(chosen.read(row, [3, 0]), whole.read(original, [3, 0]), rtol=0, atol=0)
