import errno
import itertools
import os
import pickle
import random
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from hilam_hf.video import damage
from hilam_hf.video.containers import declared_size
from hilam_hf.video.video_file import VideoError, VideoReader, check_video, write_video
from tests.numbered_videos import MakeVideo, frame_numbers, numbered_frames

CODECS = {".mp4": "h264", ".webm": "vp9", ".avi": "mpeg4", ".mov": "h264", ".mkv": "h264"}


@pytest.mark.parametrize("extension", CODECS)
def test_info_and_frames_of_every_format(make_video: MakeVideo, extension: str) -> None:
    path = make_video(f"clip{extension}", num_frames=12, fps=10)
    reader = VideoReader(path)
    assert (len(reader), reader.info.num_frames, reader.info.fps) == (12, 12, 10.0)
    assert (reader.info.height, reader.info.width, reader.info.codec) == (48, 64, CODECS[extension])
    frames = reader.read()
    assert frames.shape == (12, 3, 48, 64) and frames.dtype == torch.uint8 and frames.is_contiguous()
    assert frame_numbers(frames) == list(range(12))


@pytest.mark.parametrize("extension", CODECS)
def test_declared_size_is_the_size_of_a_whole_file(make_video: MakeVideo, extension: str) -> None:
    path = make_video(f"clip{extension}")
    assert declared_size(path) == path.stat().st_size


def test_reads_any_order_with_repeats(make_video: MakeVideo) -> None:
    reader = VideoReader(make_video())
    assert frame_numbers(reader.read([7, 0, 7, 3, 11])) == [7, 0, 7, 3, 11]
    assert frame_numbers(reader.read(torch.tensor([5, 4]))) == [5, 4]
    assert reader.read([]).shape == (0, 3, 48, 64)


def test_reads_more_frames_than_one_decoding_batch(make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hilam_hf.video.video_file._DECODE_BATCH", 5)
    assert frame_numbers(VideoReader(make_video()).read()) == list(range(12))


@pytest.mark.parametrize("index", [-1, 12, 1000])
def test_index_out_of_range(make_video: MakeVideo, index: int) -> None:
    with pytest.raises(IndexError, match=rf"clip\.mp4: frame index {index} is outside 0\.\.11"):
        VideoReader(make_video()).read([0, index])


def test_chunks_cover_the_video_once(make_video: MakeVideo) -> None:
    chunks = list(VideoReader(make_video()).chunks(5))
    assert [len(chunk) for chunk in chunks] == [5, 5, 2]
    assert frame_numbers(torch.cat(chunks)) == list(range(12))
    with pytest.raises(ValueError, match="chunk_size"):
        next(VideoReader(make_video()).chunks(0))


def test_resizes_to_exactly_the_size(make_video: MakeVideo) -> None:
    path = make_video()
    square, oblong = VideoReader(path, size=16), VideoReader(path, size=(20, 10))
    assert square.read([3]).shape == (1, 3, 16, 16) and square.frame_shape == (3, 16, 16)
    assert oblong.read([3]).shape == (1, 3, 20, 10)
    assert square.info.height == 48


@pytest.mark.parametrize("size", [0, -4, (8, 0), (8, 8, 8), 8.5, True])
def test_bad_size(make_video: MakeVideo, size: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        VideoReader(make_video(), size=size)


def test_reader_can_be_pickled(make_video: MakeVideo) -> None:
    reader = pickle.loads(pickle.dumps(VideoReader(make_video(), size=16)))
    assert frame_numbers(reader.read([4, 2])) == [4, 2]


def test_readers_work_in_forked_workers(make_video: MakeVideo) -> None:
    reader = VideoReader(make_video())
    reader.read([0])
    loader = torch.utils.data.DataLoader(
        [0, 1, 2, 3, 4, 5],
        batch_size=2,
        num_workers=2,
        collate_fn=lambda batch: (reader.read(batch), reader._owner == os.getpid()),
        multiprocessing_context="fork",
    )
    frames, opened_by_itself = zip(*loader, strict=True)
    assert frame_numbers(torch.cat(frames)) == [0, 1, 2, 3, 4, 5]
    assert all(opened_by_itself), "an inherited decoder shares its file position with the other processes"


def test_missing_file() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.mp4"):
        VideoReader("nowhere.mp4")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"these are words, not a video\n" * 40, "not a video"), (bytes(range(256)) * 20, "not a video")],
)
def test_not_a_video(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=rf"bad\.mp4: .*{reason}") as caught:
        VideoReader(path)
    assert caught.value.path == str(path) and "bad.mp4: " not in caught.value.reason.split(" (")[0]
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("extension", CODECS)
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.97])
def test_truncated_file(make_video: MakeVideo, extension: str, kept: float) -> None:
    path = make_video(f"clip{extension}", num_frames=30)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(VideoError, match=rf"clip\{extension}: it (is truncated|cannot be opened)"):
        check_video(path)


def test_truncated_mp4_whose_index_comes_first(make_video: MakeVideo) -> None:
    """Such a file opens, with fewer frames than it had: only its declared size tells."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        pytest.skip("needs the ffmpeg program")
    path = make_video(num_frames=30)
    front = path.with_name("front.mp4")
    subprocess.run([ffmpeg, "-v", "error", "-i", path, "-c", "copy", "-movflags", "+faststart", front], check=True)
    content = front.read_bytes()
    assert check_video(front).num_frames == 30
    front.write_bytes(content[:-200])
    with pytest.raises(VideoError, match=rf"truncated: it has {len(content) - 200} of the {len(content)} bytes"):
        check_video(front)


def test_damage_in_the_middle_is_named(make_video: MakeVideo) -> None:
    path = make_video(num_frames=30)
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    length = int.from_bytes(content[start - 8 : start - 4], "big")
    middle = start + length // 2
    content[middle - 150 : middle + 150] = b"\xff" * 300
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"clip\.mp4: frames \d+ to \d+ cannot be decoded .*damaged"):
        check_video(path, every_frame=True)


def test_no_video_stream(tmp_path: Path) -> None:
    from torchcodec.encoders import AudioEncoder

    path = tmp_path / "sound.mp4"
    AudioEncoder(torch.zeros(1, 16000), sample_rate=16000).to_file(path)
    with pytest.raises(VideoError, match=r"sound\.mp4: it holds no video stream"):
        VideoReader(path)


def test_folder_instead_of_file(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="not a file"):
        VideoReader(tmp_path)


def test_one_frame_clip_is_readable(make_video: MakeVideo) -> None:
    assert VideoReader(make_video(num_frames=1)).read().shape == (1, 3, 48, 64)


def test_written_video_is_near_the_frames_and_seeks_fast(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    smooth = F.interpolate(torch.rand(9, 1, 6, 6, generator=generator) * 255, size=(48, 48), mode="bicubic")
    frames = smooth.clamp(0, 255).to(torch.uint8).repeat(1, 3, 1, 1)
    write_video(tmp_path / "a.mp4", frames, 7.5, gop=3)
    reader = VideoReader(tmp_path / "a.mp4")
    assert reader.info.fps == 7.5
    assert (reader.read().float() - frames.float()).abs().mean() < 2
    key_frames = [*reader._decoder._get_key_frame_indices().tolist(), 9]
    assert all(after - before <= 3 for before, after in itertools.pairwise(key_frames))
    write_video(tmp_path / "b.mp4", frames, 7.5, crf=40)
    assert (tmp_path / "b.mp4").stat().st_size < (tmp_path / "a.mp4").stat().st_size


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 0, 255), (200, 120, 40)])
def test_colours_keep_their_channels_and_range(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    frames = torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1).repeat(3, 1, 32, 32)
    write_video(tmp_path / "a.mp4", frames, 10)
    assert (VideoReader(tmp_path / "a.mp4").read().float() - frames).abs().max() <= 3


@pytest.mark.parametrize(
    ("name", "frames", "options", "message"),
    [
        ("a.mp4", numbered_frames(2, 47, 64), {}, "47x64.*even"),
        ("a.mp4", numbered_frames(2, 48, 63), {}, "48x63.*even"),
        ("a.mp4", numbered_frames(0), {}, "T >= 1"),
        ("a.mp4", numbered_frames(2).float(), {}, "torch.uint8"),
        ("a.mp4", numbered_frames(2)[:, :1], {}, r"\(T, 3, H, W\)"),
        ("a.webm", numbered_frames(2), {}, r"expected \.mp4"),
        ("a.mp4", numbered_frames(2), {"fps": 0}, "fps"),
        ("a.mp4", numbered_frames(2), {"crf": 52}, "crf"),
        ("a.mp4", numbered_frames(2), {"gop": 0}, "gop"),
    ],
)
def test_write_rejects(tmp_path: Path, name: str, frames: torch.Tensor, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / name, frames, **{"fps": 10, **options})
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, numbered_frames(3), 10)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"disk is full.*a\.mp4") as caught:
        write_video(path, numbered_frames(9), 10)
    assert caught.value.errno == errno.ENOSPC
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"] and path.read_bytes() == before


def test_other_write_errors_pass_unchanged(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((FileExistsError, NotADirectoryError)):
        write_video(tmp_path / "file" / "a.mp4", numbered_frames(2), 10)


def test_missing_ffmpeg_is_not_taken_for_a_bad_video(make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video()
    monkeypatch.setitem(__import__("sys").modules, "torchcodec.decoders", None)
    with pytest.raises(ImportError, match="apt-get install -y ffmpeg"):
        VideoReader(path)


@pytest.mark.parametrize(
    "playlist",
    [
        "ffconcat version 1.0\nfile secret.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nsecret.mp4\n#EXT-X-ENDLIST\n",
        '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>\n',
    ],
)
def test_a_playlist_under_a_videos_name_opens_no_other_file(make_video: MakeVideo, playlist: str) -> None:
    secret = make_video("secret.mp4")
    path = secret.with_name("clip.mp4")
    path.write_text(playlist)
    with pytest.raises(VideoError, match=r"clip\.mp4: it cannot be opened as a video \(it does not begin as one\)"):
        VideoReader(path)


@pytest.mark.parametrize("name", ["pipe:0.mp4", "http:.mp4", "concat:a.mp4"])
def test_a_name_like_a_protocols_is_a_files(make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    video = make_video("a.mp4")
    video.rename(video.with_name(name))
    monkeypatch.chdir(video.parent)
    assert frame_numbers(VideoReader(name).read()) == list(range(12))


@pytest.mark.parametrize("name", ["a.ts", "a.mpg", "a.flv", "a.ogv", "a.gif", "a.wmv"])
def test_less_usual_containers_are_opened_as_before(make_video: MakeVideo, name: str) -> None:
    path = make_video("a.mp4")
    options = ["-c:v", "libtheora"] if name == "a.ogv" else []
    command = ["ffmpeg", "-loglevel", "error", "-i", str(path), "-r", "25", *options, str(path.with_name(name))]
    subprocess.run(command, check=True)
    assert VideoReader(path.with_name(name)).read([0]).shape == (1, 3, 48, 64)


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    """With several threads libx264 encoded 2 to 4 of 150 otherwise on a busy machine."""
    frames = torch.randint(256, (24, 3, 128, 128), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    encoded, clip = set(), tmp_path / "clip.mp4"
    for _ in range(20):
        write_video(clip, frames, fps=10)
        encoded.add(clip.read_bytes())
    assert len(encoded) == 1
    # x264 writes its settings into the stream.
    assert b" threads=1 " in clip.read_bytes()


def test_the_same_small_frames_give_the_same_bytes(tmp_path: Path) -> None:
    """By its SIMD code libx264 encoded 12 to 25 of 150 otherwise, whatever the threads."""
    noise = torch.randint(255, (5, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    frames = F.interpolate(noise[..., :4, :4].float(), size=(32, 32), mode="bilinear").byte()
    encoded, clip = set(), tmp_path / "clip.mp4"
    for _ in range(150):
        write_video(clip, frames, fps=10)
        encoded.add(clip.read_bytes())
    assert len(encoded) == 1


def moving_picture(num_frames: int = 24) -> torch.Tensor:
    coarse = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    picture = (255 * F.interpolate(coarse, size=(96, 96), mode="bilinear")[0]).byte()
    return torch.stack([picture.roll(2 * shift, dims=2) for shift in range(num_frames)])


def test_damage_that_the_decoder_hides_is_found(tmp_path: Path) -> None:
    """A bare decoder gives other pictures for nearly each of these files and reports nothing."""
    clip = tmp_path / "clip.mp4"
    write_video(clip, moving_picture(), fps=10)
    whole, frames = clip.read_bytes(), VideoReader(clip).read()
    assert check_video(clip, every_frame=True).num_frames == 24
    start, numbers = whole.index(b"mdat") + 1000, random.Random(0)
    hidden = found = 0
    for _ in range(12):
        damaged, position = bytearray(whole), numbers.randrange(start, len(whole) - 3000)
        damaged[position : position + 64] = bytes(64)
        clip.write_bytes(damaged)
        try:
            hidden += not torch.equal(VideoReader(clip).read(), frames)
            check_video(clip, every_frame=True)
        except VideoError:
            found += 1
    assert hidden >= 9 and found >= 8


def test_without_the_program_damage_is_not_claimed_to_be_looked_for(
    make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    damage._ffmpeg.cache_clear()
    monkeypatch.setenv("PATH", "")
    assert check_video(make_video(), every_frame=True).num_frames == 12
    assert "the program ffmpeg is not installed" in caplog.text
    damage._ffmpeg.cache_clear()
