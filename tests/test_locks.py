"""One writer a folder: who comes second is refused, a process that died holds nothing, and no file stays behind."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from hilam_hf import locks
from hilam_hf.locks import LOCK_FILE, FolderInUseError, FolderLock
from tests.other_writers import command, run_python, writing


def test_two_in_one_process(tmp_path: Path) -> None:
    with FolderLock(tmp_path, "a training run") as first:
        second = FolderLock(str(tmp_path), "an evaluation")
        with pytest.raises(FolderInUseError) as caught:
            second.acquire()
        assert first.held and not second.held
        holder = (
            rf"a training run, process {os.getpid()} on {re.escape(socket.gethostname())}, since \d{{4}}-\d\d-\d\d "
        )
        told = (
            re.escape(str(tmp_path)) + rf" is in use by another writer \({holder}.* close it first, .* another folder"
        )
        assert re.match(told, str(caught.value))
    with second:
        assert second.held and not first.held
    assert list(tmp_path.iterdir()) == []


def test_another_process_is_named_until_it_is_killed(tmp_path: Path) -> None:
    with writing("lock = FolderLock(sys.argv[1], 'hilam extract')\nlock.acquire()", tmp_path) as process:
        with pytest.raises(
            FolderInUseError, match=rf"hilam extract, process {process.pid} on .* wait until it has end"
        ):
            FolderLock(tmp_path, "b").acquire()
        assert (tmp_path / LOCK_FILE).exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
        # The file of who was killed is still there, and is taken over.
        assert (tmp_path / LOCK_FILE).exists()
        with FolderLock(tmp_path, "b"), pytest.raises(FolderInUseError, match=r"\(b, process"):
            FolderLock(tmp_path, "c").acquire()
    assert list(tmp_path.iterdir()) == []


def test_a_forked_child_has_no_lock_and_takes_none_away(tmp_path: Path) -> None:
    """Neither by its end, nor by releasing its copy; nor does it keep the lock of a parent that is killed."""
    run_python(
        """
        lock = FolderLock(sys.argv[1], "a")
        lock.acquire()
        def refused():
            try:
                FolderLock(sys.argv[1], "b").acquire()
            except FolderInUseError:
                return True
            return False
        if os.fork() == 0:
            assert not lock.held and refused()
            lock.release()
            assert refused()
            sys.exit()
        assert os.wait()[1] == 0 and lock.held and refused()
        if child := os.fork():
            pathlib.Path(sys.argv[1], "child").write_text(str(child))
            os.kill(os.getpid(), signal.SIGKILL)
        os.closerange(0, 3)
        time.sleep(600)
        """,
        tmp_path,
        code=-signal.SIGKILL,
    )
    with FolderLock(tmp_path, "c"):
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


def test_a_lock_that_nobody_released_leaves_nothing(tmp_path: Path) -> None:
    for end in ("del lock", "sys.exit()", "raise KeyboardInterrupt"):
        code = 0 if "raise" not in end else -signal.SIGINT
        run_python(f"lock = FolderLock(sys.argv[1], 'a')\nlock.acquire()\n{end}", tmp_path / "out", code=code)
        assert list(tmp_path.iterdir()) == []


def test_many_at_once_never_write_together(tmp_path: Path) -> None:
    """Each adds one to a number, slowly: two at a time would lose some. The folder comes and goes all the while."""
    program = """
        done = 0
        while done < 40:
            try:
                with FolderLock(sys.argv[1] + "/out", "a"):
                    count = pathlib.Path(sys.argv[1], "count")
                    number = int(count.read_text()) if count.exists() else 0
                    time.sleep(0.0005)
                    count.write_text(str(number + 1))
                    done += 1
            except FolderInUseError:
                pass
    """
    processes = [subprocess.Popen(command(program, tmp_path)) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert (tmp_path / "count").read_text() == "160"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["count"]


def test_a_file_that_was_replaced_meanwhile_is_not_taken_for_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if another process had removed the file between its opening and its locking, and a third locked a new one."""
    path, sign, seen = tmp_path / LOCK_FILE, locks._sign, []

    def replace_once(*arguments: object) -> None:
        if not seen:
            path.rename(tmp_path / "old")
            path.touch()
        seen.append(path.stat().st_ino)
        sign(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(locks, "_sign", replace_once)
    with FolderLock(tmp_path, "a"):
        assert len(seen) == 2 and path.stat().st_ino == seen[1]


def test_the_file_of_another_holder_is_left_alone(tmp_path: Path) -> None:
    """Where somebody removed the file of the first, who therefore held nothing any more."""
    first, second = FolderLock(tmp_path, "a"), FolderLock(tmp_path, "b")
    first.acquire()
    (tmp_path / LOCK_FILE).unlink()
    second.acquire()
    first.release()
    with pytest.raises(FolderInUseError, match=r"\(b, process"):
        FolderLock(tmp_path, "c").acquire()


def test_the_lock_is_of_exactly_one_folder_or_file(tmp_path: Path) -> None:
    with (
        FolderLock(tmp_path, "the demo"),
        FolderLock(tmp_path / "recordings", "a recording"),
        FolderLock(tmp_path, "a page", file="a.html"),
        FolderLock(tmp_path, "a page", file="b.html"),
        pytest.raises(FolderInUseError, match=r"a\.html is in use by another writer \(a page"),
    ):
        FolderLock(tmp_path, "a page", file="a.html").acquire()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_made_goes_when_nothing_was_written(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with FolderLock(folder, "a"):
        assert folder.is_dir()
    assert not folder.exists()
    with FolderLock(folder, "a"):
        (folder / "written").touch()
    assert [path.name for path in folder.iterdir()] == ["written"]
    (tmp_path / "empty").mkdir()
    with FolderLock(tmp_path / "empty", "a"):
        pass
    assert (tmp_path / "empty").is_dir()


def test_a_relative_folder_is_released_from_another_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with FolderLock("out", "a"):
        Path("out/written").touch()
        monkeypatch.chdir("/")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["written"]


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_in_the_folders_place_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=rf"{name}: expected a folder for an evaluation, got a file: choose"):
        FolderLock(tmp_path / name, "an evaluation").acquire()


def test_a_folder_that_cannot_be_written_is_named() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run_python(
            """
            os.chdir(sys.argv[1])
            os.chmod(".", 0o555)
            if os.getuid() == 0:
                os.setuid(65534)
            for folder in (".", "new"):
                try:
                    FolderLock(folder, "an evaluation").acquire()
                    sys.exit("was written")
                except PermissionError as error:
                    told = f"{folder}: cannot be written (Permission denied): choose another folder for an evaluation"
                    assert str(error).startswith(told), error
            """,
            Path(folder),
        )


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", flock)
    with FolderLock(tmp_path, "a") as lock:
        assert lock.held
    assert f"{tmp_path}: this file system has no locks ([Errno {code}] {os.strerror(code)})" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_what_was_closed_writes_no_more(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path, "a recording")
    with lock:
        lock.check_held()
    with pytest.raises(ValueError, match=r": a recording was closed: open another one to go on writing"):
        lock.check_held()
