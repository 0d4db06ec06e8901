"""Pictures of a report: which pairs they show, and what latent actions make of other frames."""

from pathlib import Path

import numpy as np
import torch

from hilam_hf.data.episodes import scan_videos
from hilam_hf.data.samples.frame_pairs import load_episode_frames
from hilam_hf.evaluation.lam.pictures import LamPictures, pick_pairs, predict_pairs, transfer_latents, vary_latents
from tests.evaluation.lam.stand_ins import BrightnessFDM, BrightnessIDM, make_pairs, walk_videos


def four_pairs():
    return make_pairs(
        [0, 0, 1, 2],
        [[0.1], [0.2], [-0.2], [0.3]],
        frames=[51, 102, 153, 0],
        next_frames=[60, 153, 102, 80],
        changes=np.array([0.1, 0.3, 0.2, 0.4]),
    )


def grey(frames: torch.Tensor) -> list[float]:
    return [round(frame.mean().item(), 3) for frame in frames]


def test_the_pair_of_each_video_in_which_most_changes_is_shown() -> None:
    assert pick_pairs(four_pairs(), 5).tolist() == [1, 2, 3]
    assert pick_pairs(four_pairs(), 2).tolist() == [1, 3]
    assert pick_pairs(four_pairs(), 1).tolist() == [1]


def test_predictions_have_their_own_latent_action_and_same_frame_that_of_others() -> None:
    rows = np.array([1, 2])
    own = predict_pairs(BrightnessFDM(), four_pairs(), rows, seed=0)
    assert own.episodes == ("e0", "e1")
    assert (grey(own.frames), grey(own.predicted), grey(own.next_frames)) == ([0.4, 0.6], [0.6, 0.4], [0.6, 0.4])
    same = vary_latents(BrightnessFDM(), four_pairs(), rows, seed=0)
    assert grey(same.frame[None]) == [0.4]
    assert grey(same.predicted) == [0.6, 0.2]
    assert same.latents[:, 0].tolist() == torch.tensor([0.2, -0.2]).tolist()


def test_latents_of_one_video_move_a_frame_of_another_one_after_another(tmp_path: Path) -> None:
    episodes = scan_videos(walk_videos(tmp_path, [12, 5, 9, 3]), progress=False).episodes
    idm, fdm = BrightnessIDM(image_size=8), BrightnessFDM(image_size=12)
    transfers, rejected = transfer_latents(idm, fdm, episodes, [2, 2, 2, 1], count=2, length=3)
    assert rejected == []
    # Sources in the middle of each half, targets half of all videos further.
    assert [(t.source, t.target) for t in transfers] == [("01", "03"), ("03", "01")]
    assert [(t.first_frame, t.target_frame, t.stride) for t in transfers] == [(0, 1, 2), (0, 2, 1)]
    for transfer in transfers:
        source, target = (
            load_episode_frames(next(e for e in episodes if e.id == name), 12).float() / 255
            for name in (transfer.source, transfer.target)
        )
        expected = source[:: transfer.stride].mean((1, 2, 3))
        assert transfer.source_frames.shape[-1] == 12
        # The decoder knows the answer, so the source comes back and the target moves along.
        torch.testing.assert_close(transfer.own.mean((1, 2, 3)), expected, atol=1e-3, rtol=0)
        start = target[transfer.target_frame].mean()
        moved = start + expected - expected[0]
        torch.testing.assert_close(transfer.transferred.mean((1, 2, 3)), moved, atol=1e-3, rtol=0)


def test_long_videos_are_taken_from_their_middle(tmp_path: Path) -> None:
    episodes = scan_videos(walk_videos(tmp_path, [21, 21]), progress=False).episodes
    transfers, _ = transfer_latents(BrightnessIDM(), BrightnessFDM(), episodes, [2, 2], count=1, length=3)
    assert (transfers[0].first_frame, transfers[0].target_frame) == (7, 10)
    assert len(transfers[0].own) == 4


def test_one_video_gives_no_transfer_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    episodes = scan_videos(walk_videos(tmp_path, [6, 6, 6, 6]), progress=False).episodes
    options = {"count": 1, "length": 2}
    assert transfer_latents(BrightnessIDM(), BrightnessFDM(), episodes[:1], [1], **options) == ([], [])
    (tmp_path / "02.mp4").write_bytes(b"no video")
    transfers, rejected = transfer_latents(BrightnessIDM(), BrightnessFDM(), episodes, [1] * 4, **options)
    assert [Path(video.path).name for video in rejected] == ["02.mp4", "02.mp4"]
    assert [(t.source, t.target) for t in transfers] == [("01", "03")]


def test_every_picture_has_its_place_and_names_its_videos(tmp_path: Path) -> None:
    episodes = scan_videos(walk_videos(tmp_path, [6, 6]), progress=False).episodes
    pairs, rows, fdm = four_pairs(), np.array([1, 2]), BrightnessFDM()
    transfers, _ = transfer_latents(BrightnessIDM(), fdm, episodes, [1, 1], count=2, length=3)
    pictures = LamPictures(
        predictions=predict_pairs(fdm, pairs, rows, 0),
        same_frame=vary_latents(fdm, pairs, rows, 0),
        transfers=tuple(transfers),
    )
    figures = pictures.figures()
    assert [*figures] == ["decoding/next_frames", "decoding/same_frame", "transfer/1", "transfer/2"]
    assert "e0, e1" in figures["decoding/next_frames"][1]
    figure, caption = figures["transfer/1"]
    assert caption == "Latent actions of 00, from frame 1 on, applied to frame 2 of 01."
    # Three rows of the first frame and what three latent actions make of it.
    assert len(figure.axes) == 3 * 4
    assert [axes.get_title(loc="center") for axes in figure.axes[:4]] == ["$t$", "$t$ + 1", "$t$ + 2", "$t$ + 3"]
