"""Skills straight from videos: files, decoders and arrays, against the corpora's path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchcodec.decoders import VideoDecoder
from torchcodec.encoders import VideoEncoder

from hilam_hf.data import load_corpus, load_episode_frames, scan_videos, unpack_boundaries
from hilam_hf.data.corpora.extraction import extract_latent_actions, extract_skill_corpus
from hilam_hf.models.hilam import HiLAMModel
from hilam_hf.models.hilam.video_input import FRAMES_PER_PIECE, FrameSource, prepare_frames
from tests.models.hilam.test_hilam import DIM, make_model
from tests.models.hilam.test_streaming import assert_same_extraction, tiny_idm_config
from tests.numbered_videos import write_video_at

SIZE = 16
FPS = 10.0


@pytest.fixture
def model() -> HiLAMModel:
    return make_model(idm_config=tiny_idm_config(), stride=3)


def moving_frames(num_frames: int, height: int = 36, width: int = 48) -> Tensor:
    """A bright square that moves over a gradient, uint8 (T, 3, H, W)."""
    ramp = torch.linspace(0, 120, width).expand(3, height, width)
    frames = ramp.repeat(num_frames, 1, 1, 1)
    for t in range(num_frames):
        left = (3 * t) % (width - 8)
        frames[t, t % 3, 8:20, left : left + 8] = 250
    return frames.to(torch.uint8)


def write(path: Path, num_frames: int, fps: float = FPS, **size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    VideoEncoder(moving_frames(num_frames, **size), frame_rate=fps).to_file(
        path, codec="libx264", pixel_format="yuv420p", crf=10
    )
    return path


def test_a_file_gives_what_both_corpora_give(model: HiLAMModel, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    write(videos / "a.mp4", 30)
    write(videos / "b.mp4", FRAMES_PER_PIECE + 9, height=16, width=16)
    options = {"root": videos, "model_name": "m", "progress": False}
    episodes = scan_videos(videos, progress=False).episodes
    latents = extract_latent_actions(model.idm, episodes, tmp_path / "latents", stride=3, **options)
    corpus = {"train": load_corpus(latents.folder)}
    skills = extract_skill_corpus(
        model, corpus, latents.info, tmp_path / "skills", model_name="m", progress=False, batch_size=1
    )
    for row in load_corpus(skills.folder):
        extraction = model.extract_skills(videos / row["video"])
        np.testing.assert_allclose(row["latent_actions"], extraction.stages[0].skills, atol=1e-5)
        for stage in (1, 2):
            boundaries = unpack_boundaries(row, stage)
            np.testing.assert_array_equal(boundaries, extraction.stages[stage].boundaries)
            np.testing.assert_allclose(row[f"stage{stage}_skills"], extraction.stages[stage].skills, atol=1e-4)


def test_paths_decoders_and_arrays_agree(model: HiLAMModel, tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4", 20)
    frames = load_episode_frames(scan_videos(tmp_path, progress=False).episodes[0])
    expected = model.extract_skills(path)
    alike: list[Any] = [
        str(path),
        VideoDecoder(path),
        VideoDecoder(path, dimension_order="NHWC"),
        frames,
        frames.numpy(),
        frames.permute(0, 2, 3, 1),
        frames.permute(0, 2, 3, 1).numpy(),
    ]
    together = model.extract_skills(alike, batch_size=4)
    for inputs, extraction in zip(alike, together, strict=True):
        assert_same_extraction(extraction, expected)
        assert_same_extraction(model.extract_skills(inputs), expected)
    # Floats are resized as they are, without rounding to 8 bits.
    in_floats = model.extract_skills(frames.numpy().astype(np.float32) / 255)
    torch.testing.assert_close(in_floats.stages[0].skills, expected.stages[0].skills, rtol=0, atol=0.02)
    latents = expected.stages[0].skills
    assert_same_extraction(model.extract_skills([path, latents, latents.numpy()])[2], expected)


def test_a_stride_in_seconds_takes_the_files_rate(tmp_path: Path) -> None:
    model = make_model(idm_config=tiny_idm_config(), stride=None, stride_seconds=0.4)
    path = write(tmp_path / "clip.mp4", 20)
    assert len(model.extract_skills(path)) == 20 - 4
    assert len(model.extract_skills(path, fps=20)) == 20 - 8
    uneven = write_video_at(tmp_path / "uneven.mp4", [0, 1, 2, 4, *range(6, 30)])
    with pytest.raises(ValueError, match=r"uneven\.mp4: its frames are 0\.1 to 0\.2 s apart"):
        model.extract_skills(uneven)
    with pytest.raises(ValueError, match=r"inputs: its frames are 0\.1 to 0\.2 s apart .*; or give fps"):
        model.extract_skills(VideoDecoder(uneven))
    for video in (uneven, VideoDecoder(uneven)):
        assert len(model.extract_skills(video, fps=10)) == 28 - 4
    assert len(model.extract_skills(VideoDecoder(path))) == 20 - 4
    with pytest.raises(ValueError, match="fps: got none"):
        model.extract_skills(moving_frames(20))


def test_frames_come_in_pieces(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4", 23)
    source = FrameSource(path, SIZE)
    pieces = list(source.pieces(10))
    assert [tuple(piece.shape) for piece in pieces] == [(10, 3, SIZE, SIZE), (10, 3, SIZE, SIZE), (3, 3, SIZE, SIZE)]
    assert (len(source), source.fps) == (23, FPS)
    assert all(piece.dtype == torch.uint8 for piece in pieces)
    torch.testing.assert_close(torch.cat(pieces), torch.cat(list(FrameSource(path, SIZE).pieces())), rtol=0, atol=0)


def test_only_a_piece_is_decoded_at_a_time(model: HiLAMModel, tmp_path: Path) -> None:
    class CountingDecoder:
        """A decoder that notes how many frames are asked for at a time."""

        def __init__(self, path: Path) -> None:
            self.decoder, self.metadata, self.asked = VideoDecoder(path), VideoDecoder(path).metadata, []

        def __len__(self) -> int:
            return len(self.decoder)

        def get_frames_at(self, indices: list[int]) -> Any:
            self.asked.append(len(indices))
            return self.decoder.get_frames_at(indices)

    decoder = CountingDecoder(write(tmp_path / "clip.mp4", 150))
    assert len(model.extract_skills(decoder)) == 147
    assert decoder.asked == [64, 64, 22]


def test_a_video_that_cannot_be_used_says_why(model: HiLAMModel, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4: there is no such video file"):
        model.extract_skills(tmp_path / "gone.mp4")
    garbage = tmp_path / "garbage.mp4"
    garbage.write_bytes(b"this is no video" * 100)
    with pytest.raises(ValueError, match=r"garbage\.mp4: it cannot be opened as a video"):
        model.extract_skills(garbage)
    short = write(tmp_path / "short.mp4", 3)
    with pytest.raises(ValueError, match=r"short\.mp4: it holds 3 frames, expected more than 3"):
        model.extract_skills(short)
    whole = write(tmp_path / "whole.mp4", 60).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.mp4: it is truncated"):
        model.extract_skills(tmp_path / "cut.mp4")
    with pytest.raises(ValueError, match="no inverse dynamics model"):
        make_model().extract_skills(short)


def test_damage_inside_a_video_is_an_error(model: HiLAMModel) -> None:
    class Damaged:
        metadata = type("Metadata", (), {"average_fps": FPS})()

        def __len__(self) -> int:
            return 20

        def get_frames_at(self, indices: list[int]) -> Any:
            raise RuntimeError("Could not decode frame\nsomewhere in C++")

    with pytest.raises(ValueError, match=r"inputs: frames 0 to 19 cannot be decoded \(Could not decode frame\)"):
        model.extract_skills(Damaged())


def test_arrays_that_are_no_frames_say_why(model: HiLAMModel) -> None:
    with pytest.raises(ValueError, match=r"expected \(T, 3, H, W\) or \(T, H, W, 3\)"):
        model.extract_skills(torch.zeros(9, 16, 16, 4))
    with pytest.raises(ValueError, match=r"float values from 0 to 255"):
        model.extract_skills(torch.linspace(0, 255, 9).view(9, 1, 1, 1).expand(9, 3, 8, 8))
    with pytest.raises(ValueError, match="check for NaN"):
        model.extract_skills(torch.full((9, 3, 8, 8), torch.nan))
    with pytest.raises(ValueError, match=r"got frames of torch\.int64"):
        model.extract_skills(torch.zeros(9, 3, 8, 8, dtype=torch.long))
    with pytest.raises(ValueError, match="got a dict, expected the path"):
        model.extract_skills([{"frames": 1}])
    with pytest.raises(ValueError, match="it holds 0 frames"):
        model.extract_skills(torch.zeros(0, 3, 8, 8))
    with pytest.raises(ValueError, match=rf"expected \(T, {DIM}\)"):
        model.extract_skills(torch.zeros(8))


def test_frames_whose_sides_could_all_be_channels_are_read_as_channels_first() -> None:
    frames = torch.rand(2, 3, 5, 3)
    torch.testing.assert_close(prepare_frames(frames, None), frames)
    torch.testing.assert_close(prepare_frames(frames.permute(0, 2, 3, 1)[..., :3], None), frames)
