import hashlib
import json
import math
import os
import random
import re
import shutil
from pathlib import Path

import pytest

from hilam_hf.data import (
    Episode,
    held_out_rows,
    possible_fraction,
    resolve_stride,
    scan_videos,
    split_episodes,
)
from tests.numbered_videos import MakeVideo, write_video_at


def write_metadata(folder: Path, *rows: dict | str) -> Path:
    file = folder / "metadata.jsonl"
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return file


def scan(folder: Path, **options):
    return scan_videos(folder, progress=False, **options)


def test_mixed_folder(tmp_path: Path, make_video: MakeVideo) -> None:
    make_video("b/two.mp4", num_frames=5, fps=10)
    make_video("a/one.webm", num_frames=8, fps=25, height=32, width=40)
    make_video("three.AVI".lower(), num_frames=3, fps=5)
    root = tmp_path / "videos"
    (root / "three.avi").rename(root / "three.AVI")
    (root / "notes.txt").write_text("not a video")
    found = scan(root)
    assert [episode.id for episode in found.episodes] == ["a/one", "b/two", "three"]
    one = found.episodes[0]
    assert (one.num_frames, one.fps, one.height, one.width) == (8, 25.0, 32, 40)
    assert (one.language, one.source, one.metadata) == (None, None, {})
    assert one.path == str(root / "a/one.webm")
    assert found.rejected == [] and len(found) == 3


def test_metadata_describes_and_overrides_the_rate(tmp_path: Path, make_video: MakeVideo) -> None:
    make_video("x/one.mp4", fps=10)
    make_video("two.mp4", fps=10)
    root = tmp_path / "videos"
    row = {"file_name": "x/one.mp4", "language": "open it", "source": "toy", "fps": 15, "verb": "open"}
    write_metadata(root, row, "", {"file_name": "./two.mp4", "language": None})
    two, one = scan(root).episodes
    assert (one.language, one.source, one.fps, one.metadata) == ("open it", "toy", 15.0, {"verb": "open"})
    assert (two.id, two.language, two.fps) == ("two", None, 10.0)


def test_metadata_below_the_folder(tmp_path: Path, make_video: MakeVideo) -> None:
    make_video("x/y/one.mp4")
    write_metadata(tmp_path / "videos" / "x", {"file_name": "y/one.mp4", "language": "go"})
    assert scan(tmp_path / "videos").episodes[0].language == "go"


def test_bad_files_are_set_aside(tmp_path: Path, make_video: MakeVideo) -> None:
    root = tmp_path / "videos"
    make_video("good.mp4")
    make_video("single.mp4", num_frames=1)
    cut = make_video("cut.mp4")
    cut.write_bytes(cut.read_bytes()[:-100])
    (root / "empty.mov").touch()
    (root / "text.webm").write_text("hello " * 100)
    (root / "old.wmv").write_bytes(b"123")
    write_metadata(root, {"file_name": "gone.mp4"}, {"file_name": "../outside.mp4"}, {"file_name": "old.wmv"})
    found = scan(root)
    assert [episode.id for episode in found.episodes] == ["good"]
    reasons = {}
    for item in found.rejected:
        reasons.setdefault(item.path.removeprefix(f"{root}/"), []).append(item.reason)
    assert set(reasons) == {"single.mp4", "cut.mp4", "empty.mov", "text.webm", "old.wmv", "gone.mp4", "../outside.mp4"}
    assert "1 frame; at least 2" in reasons["single.mp4"][0]
    assert "truncated" in reasons["cut.mp4"][0]
    assert "empty (0 bytes)" in reasons["empty.mov"][0]
    assert "not a video" in reasons["text.webm"][0]
    assert any("convert it" in reason for reason in reasons["old.wmv"])
    assert "line 1, but there is no such file" in reasons["gone.mp4"][0]
    assert "outside the folder" in reasons["../outside.mp4"][0]
    assert [item.path for item in found.rejected] == sorted(item.path for item in found.rejected)


def test_linked_folders_are_followed_once_and_hidden_ones_are_not(tmp_path: Path, make_video: MakeVideo) -> None:
    make_video("here/one.mp4")
    make_video(".trash/two.mp4")
    make_video("here/.three.mp4")
    root = tmp_path / "videos"
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(root / ".trash", elsewhere)
    (root / "linked").symlink_to(elsewhere)
    (root / "again").symlink_to(root / "here")
    (root / "here" / "loop").symlink_to(root)
    (root / "itself.mp4").symlink_to(root / "itself.mp4")
    assert [episode.id for episode in scan(root).episodes] == ["here/one", "linked/two"]
    write_metadata(root, {"file_name": ".trash/two.mp4"})
    assert "but hidden: names that begin with a dot are not read" in scan(root).rejected[0].reason


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_metadata_of_other_programs(tmp_path: Path, make_video: MakeVideo, name: str, encoding: str) -> None:
    make_video("one.mp4")
    make_video("two.mp4")
    texts = {
        "metadata.jsonl": '{"file_name": "one.mp4", "language": "ouvre l\u2019\u00e9tui", "fps": 5}\r\n',
        "metadata.csv": "file_name,language,fps,verb\r\none.mp4,ouvre l\u2019\u00e9tui,5,\r\ntwo.mp4,,,open\r\n",
    }
    (tmp_path / "videos" / name).write_bytes(texts[name].encode(encoding))
    one, two = scan(tmp_path / "videos").episodes
    assert (one.language, one.fps, one.metadata) == ("ouvre l\u2019\u00e9tui", 5.0, {})
    assert (two.language, two.fps) == (None, 10.0)
    assert two.metadata == ({"verb": "open"} if name == "metadata.csv" else {})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.jsonl", b'{"file_name": "a.mp4"}\n{"language": "\xe9"}', r"line 2: this is not UTF-8 \(byte 0xe9\)"),
        ("metadata.csv", b"file_name,language\n\xe9,x\n", r"line 2: this is not UTF-8 \(byte 0xe9\)"),
        ("metadata.csv", b"file,language\na.mp4,x\n", r"line 1: got columns file, language, expected file_name"),
        ("metadata.csv", b"file_name,language\na.mp4\n", r"line 2: expected 2 cells"),
        ("metadata.csv", b"file_name,language\na.mp4,x,y\n", r"line 2: expected 2 cells"),
        ("metadata.csv", b"file_name,fps\na.mp4,fast\n", r"line 2: fps: got 'fast', expected frames a second"),
        ("metadata.jsonl", b'{"file_name": "a.mp4", "language": "\\ud83d"}', r"line 1: holds \\ud83d, which is half"),
        ("metadata.jsonl", b'{"file_name": "a.mp4", "deep": ' + b"[" * 200_000, r"line 1: this is not JSON"),
        ("metadata.jsonl", b'{"file_name": "a.mp4", "tags": ["\\udc00"]}', r"line 1: holds \\udc00, which is half"),
    ],
)
def test_unreadable_metadata_is_named(
    tmp_path: Path, make_video: MakeVideo, name: str, content: bytes, message: str
) -> None:
    make_video()
    (tmp_path / "videos" / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}, {message}"):
        scan(tmp_path / "videos")


def test_a_name_that_is_not_unicode_is_set_aside(tmp_path: Path, make_video: MakeVideo) -> None:
    good = make_video("good.mp4")
    shutil.copy(good, os.fsdecode(os.fsencode(good.parent) + b"/caf\xe9.mp4"))
    found = scan(good.parent)
    assert [episode.id for episode in found.episodes] == ["good"]
    assert found.rejected[0].path.endswith(r"caf\xe9.mp4") and "rename it" in found.rejected[0].reason


def test_ids_are_unique_whatever_the_suffixes(tmp_path: Path, make_video: MakeVideo) -> None:
    for name in ("v.mp4", "v.webm", "v.mp4.mp4", "v.mp4.webm.mp4", "w.mp4.mp4"):
        make_video(name)
    ids = [episode.id for episode in scan(tmp_path / "videos").episodes]
    assert ids == ["v.mp4", "v.mp4.mp4", "v.mp4.webm", "v.webm", "w.mp4"]


@pytest.mark.parametrize("extension", [".mp4", ".webm"])
def test_a_variable_frame_rate_is_set_aside(tmp_path: Path, make_video: MakeVideo, extension: str) -> None:
    """0.3 seconds were 0.2 to 0.6 s in such a file; a rate in the metadata says that frames are evenly spaced."""
    make_video("good.mp4")
    root = tmp_path / "videos"
    write_video_at(root / f"phone{extension}", [0, 1, 2, 4, 6, 8, 9])
    found = scan(root)
    assert [episode.id for episode in found.episodes] == ["good"]
    assert "its frames are 0.1 to 0.2 s apart (a variable frame rate" in found.rejected[0].reason
    write_metadata(root, {"file_name": f"phone{extension}", "fps": 5})
    assert [(episode.id, episode.fps) for episode in scan(root).episodes] == [("good", 10.0), ("phone", 5.0)]


def test_min_frames(tmp_path: Path, make_video: MakeVideo) -> None:
    make_video("a.mp4", num_frames=5)
    make_video("b.mp4", num_frames=6)
    found = scan(tmp_path / "videos", min_frames=6)
    assert [episode.id for episode in found.episodes] == ["b"]
    assert "5 frames; at least 6" in found.rejected[0].reason


def test_check_all_finds_damage_in_the_middle(tmp_path: Path, make_video: MakeVideo) -> None:
    make_video("good.mp4")
    bad = make_video("bad.mp4", num_frames=40)
    content = bytearray(bad.read_bytes())
    start = content.index(b"mdat") + 4
    middle = start + int.from_bytes(content[start - 8 : start - 4], "big") // 2
    content[middle - 150 : middle + 150] = b"\xff" * 300
    bad.write_bytes(content)
    found = scan(tmp_path / "videos", check="all")
    assert [episode.id for episode in found.episodes] == ["good"]
    assert "cannot be decoded" in found.rejected[0].reason
    with pytest.raises(ValueError, match='expected "ends" or "all"'):
        scan(tmp_path / "videos", check="some")


def test_same_name_with_two_suffixes_keeps_ids_unique(tmp_path: Path, make_video: MakeVideo) -> None:
    for name in ("a.mp4", "a.webm", "b.mp4"):
        make_video(name)
    assert [episode.id for episode in scan(tmp_path / "videos").episodes] == ["a.mp4", "a.webm", "b"]


def test_order_does_not_depend_on_the_file_system(tmp_path: Path, make_video: MakeVideo) -> None:
    names = [f"{letter}/{number}.mp4" for letter in "cab" for number in (2, 10, 1)]
    for name in names:
        make_video(name, num_frames=2)
    ids = [episode.id for episode in scan(tmp_path / "videos", num_workers=3).episodes]
    assert ids == sorted(name.removesuffix(".mp4") for name in names)


@pytest.mark.parametrize("content", [None, "notes.txt"])
def test_no_videos(tmp_path: Path, content: str | None) -> None:
    if content:
        (tmp_path / content).write_text("x")
    with pytest.raises(ValueError, match=r"no videos here; expected files ending in \.mp4, \.webm, \.avi, \.mov"):
        scan(tmp_path)


def test_nothing_usable_says_why(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    with pytest.raises(ValueError, match=r"none of the 1 videos here can be used .*a\.mp4: it is empty"):
        scan(tmp_path)


def test_missing_folder_and_file_instead_of_folder(tmp_path: Path, make_video: MakeVideo) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        scan(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="expected a folder of videos, got a file"):
        scan(make_video())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "line 2: this is not JSON"),
        ("[1, 2]", "line 2: expected a JSON object"),
        ('{"language": "x"}', 'line 2: expected a JSON object with "file_name"'),
        ('{"file_name": "b.mp4", "language": 3}', "line 2: language: got 3"),
        ('{"file_name": "b.mp4", "fps": 0}', "line 2: fps: got 0"),
        ('{"file_name": "b.mp4", "fps": "fast"}', "line 2: fps: got 'fast'"),
        ('{"file_name": "b.mp4", "fps": NaN}', "line 2: fps: got nan"),
        ('{"file_name": "sub/../clip.mp4"}', "line 2: .*already described at .*line 1"),
    ],
)
def test_malformed_metadata(tmp_path: Path, make_video: MakeVideo, line: str, message: str) -> None:
    make_video("clip.mp4")
    write_metadata(tmp_path / "videos", {"file_name": "clip.mp4"}, line)
    with pytest.raises(ValueError, match=rf"metadata\.jsonl, {message}"):
        scan(tmp_path / "videos")


def fake_episodes(count: int) -> list[Episode]:
    return [Episode(f"e{i:03d}", f"{i}.mp4", None, None, 10.0, 5, 8, 8) for i in range(count)]


def test_ids_are_held_out_by_their_own_hash() -> None:
    # The SHA-256 of "e4", "e5" and "e9" begin with 0x44, 0x43 and 0x0b, those of the others with at least 0x5c.
    names = [f"e{i}" for i in range(10)]
    assert held_out_rows(names, 0x45 / 256) == [4, 5, 9]
    assert held_out_rows(names[::-1], 0x45 / 256) == [0, 4, 5]
    # sha256("e9") = 0b227dd238234a0b...: below the next number of eight bytes, and not below itself.
    first = 0x0B227DD238234A0B / 2**64
    assert held_out_rows(names, math.nextafter(first, 1)) == [9]
    with pytest.raises(ValueError, match="holds out none of 10 episodes"):
        held_out_rows(names, first)
    assert held_out_rows(names, 0) == []


def test_more_episodes_and_larger_fractions_move_no_episode_back() -> None:
    few, many = fake_episodes(50), fake_episodes(500)
    for fraction in (0.1, 0.2, 0.5):
        held_out = {e.id for e in split_episodes(many, fraction)[1]}
        assert {e.id for e in split_episodes(few, fraction)[1]} == held_out & {e.id for e in few}
        # A binomial draw of 500 is within four standard deviations of its mean.
        assert abs(len(held_out) - 500 * fraction) < 4 * math.sqrt(500 * fraction * (1 - fraction))
    assert {e.id for e in split_episodes(many, 0.1)[1]} < {e.id for e in split_episodes(many, 0.2)[1]}


def test_split_is_a_partition_in_the_order_of_the_input() -> None:
    episodes = random.Random(0).sample(fake_episodes(50), 50)
    train, held_out = split_episodes(episodes, 0.2)
    assert [e for e in episodes if e in held_out] == held_out and [e for e in episodes if e in train] == train
    assert len(train) + len(held_out) == 50 and held_out
    assert split_episodes(episodes, 0.0) == (episodes, [])


def test_a_split_without_one_side_names_the_fraction_that_has_both() -> None:
    # e000 to e002 lie at 0.4412, 0.2979 and 0.9781.
    with pytest.raises(ValueError, match=r"0\.1 holds out none of 3 episodes: the smallest .* is 0\.298; use"):
        split_episodes(fake_episodes(3), 0.1)
    with pytest.raises(ValueError, match=r"0\.99 holds out all of 3 episodes: .* is 0\.298; use"):
        split_episodes(fake_episodes(3), 0.99)
    assert [e.id for e in split_episodes(fake_episodes(3), 0.298)[1]] == ["e001"]
    # Of these two, four digits do not tell which is lower.
    near = ["e2", neighbour("e2")]
    with pytest.raises(ValueError, match="holds out none of 2") as error:
        held_out_rows(near, 0.1)
    (named,) = re.findall(r"holds one out is (\S+);", str(error.value))
    assert len(held_out_rows(near, float(named))) == 1
    for fraction in (0.1, 0.9):
        with pytest.raises(ValueError, match="of 1 episodes: it takes at least 2"):
            split_episodes(fake_episodes(1), fraction)
    for fraction in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"held_out_fraction: got .* expected a number in"):
            split_episodes(fake_episodes(3), fraction)


def test_the_fraction_of_few_episodes_is_moved_until_both_sides_have_one() -> None:
    ids = [e.id for e in fake_episodes(3)]
    assert [possible_fraction(ids, fraction) for fraction in (0.0, 0.1, 0.5)] == [0.298, 0.298, 0.5]
    assert held_out_rows(ids, possible_fraction(ids, 0.99)) == [0, 1]
    with pytest.raises(ValueError, match="takes at least 2 episodes, got 1"):
        possible_fraction(ids[:1], 0.5)
    with pytest.raises(ValueError, match="held_out_fraction: got 1"):
        possible_fraction(ids, 1)


def neighbour(name: str) -> str:
    """Another id whose hash, as a fraction of all, has the same first four digits."""

    def digits(text: str) -> int:
        return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) * 10_000 // 2**64

    return next(other for other in map(str, range(1_000_000)) if digits(other) == digits(name))


def test_resolve_stride() -> None:
    assert resolve_stride(30, seconds=0.5) == 15
    assert resolve_stride(15, seconds=0.5) == 8
    assert resolve_stride(10, seconds=0.01) == 1
    assert resolve_stride(10, frames=4) == 4
    for options in ({}, {"frames": 1, "seconds": 1.0}, {"frames": 0}, {"seconds": 0.0}, {"seconds": float("nan")}):
        with pytest.raises(ValueError, match="stride"):
            resolve_stride(10, **options)
