"""One writer a recording: a second one is refused, and one that was killed is followed by another."""

import re
import signal
from pathlib import Path

import pytest

from hilam_hf.data import load_demonstrations, write_videos
from hilam_hf.locks import LOCK_FILE, FolderInUseError, FolderLock
from tests.other_writers import writing
from tests.robot_recordings import EVERY_FORMAT, WRITERS, demonstration


def whole(root: Path, seeds: list[int]) -> bool:
    """Whether every demonstration is there, once, with all its frames, and no lock is left."""
    loaded = load_demonstrations(root)
    lengths = {demonstration(seed=seed).id: 5 for seed in seeds}
    shown = {each.id: len(each.frames(each.cameras[0])) for each in loaded}
    return len(loaded) == len(seeds) and shown == lengths and not list(root.rglob(LOCK_FILE))


@EVERY_FORMAT
def test_a_second_writer_is_refused_and_the_first_goes_on(tmp_path: Path, kind: str) -> None:
    with WRITERS[kind](tmp_path) as first:
        first.add(demonstration(seed=0))
        with pytest.raises(FolderInUseError, match=re.escape(str(tmp_path)) + r".* in use by .*a recording, process"):
            WRITERS[kind](tmp_path)
        first.add(demonstration(seed=1))
    assert whole(tmp_path, [0, 1])
    with pytest.raises(ValueError, match="a recording was closed: open another one"):
        first.add(demonstration(seed=2))
    with WRITERS[kind](tmp_path) as second:
        assert second.has(demonstration(seed=1).id)
        second.add(demonstration(seed=2))
    assert whole(tmp_path, [0, 1, 2])


@EVERY_FORMAT
def test_after_a_writer_that_was_killed_another_goes_on(tmp_path: Path, kind: str) -> None:
    program = f"""
        from tests.robot_recordings import WRITERS, demonstration
        writer = WRITERS[{kind!r}](sys.argv[1])
        writer.add(demonstration(seed=0))
    """
    with writing(program, tmp_path) as process:
        with pytest.raises(FolderInUseError, match=rf"process {process.pid} on"):
            WRITERS[kind](tmp_path)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert list(tmp_path.rglob(LOCK_FILE))
    with WRITERS[kind](tmp_path) as writer:
        assert writer.has(demonstration(seed=0).id)
        writer.add(demonstration(seed=1))
    assert whole(tmp_path, [0, 1])


@pytest.mark.parametrize("kind", ["lerobot", "videos"])
def test_a_writer_that_cannot_begin_holds_nothing(tmp_path: Path, kind: str) -> None:
    """HDF5's reads no file before it is asked for a demonstration."""
    with WRITERS[kind](tmp_path) as writer:
        writer.add(demonstration(seed=0))
    damaged = next(file for name in ("info.json", "metadata.jsonl") for file in tmp_path.rglob(name))
    text = damaged.read_text()
    damaged.write_text("{\n")
    with pytest.raises(ValueError, match=damaged.name) as caught:
        WRITERS[kind](tmp_path)
    # Also while the error, and with it the writer, is still there.
    assert caught.value
    damaged.write_text(text)
    with WRITERS[kind](tmp_path) as writer:
        writer.add(demonstration(seed=1))
    assert whole(tmp_path, [0, 1])


def test_a_second_writer_of_a_folder_of_videos_is_refused(tmp_path: Path) -> None:
    with WRITERS["hdf5"](tmp_path / "robot") as writer:
        writer.add(demonstration(seed=0))
    demonstrations = load_demonstrations(tmp_path / "robot")
    with (
        FolderLock(tmp_path / "videos", "a writer of videos"),
        pytest.raises(FolderInUseError, match=re.escape(str(tmp_path / "videos"))),
    ):
        write_videos(demonstrations, tmp_path / "videos", progress=False)
    write_videos(demonstrations, tmp_path / "videos", progress=False)
    assert not (tmp_path / "videos" / LOCK_FILE).exists()
