"""Extraction and streaming with a stand-in that has no more than a `Segmenter`, and boundaries that are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hilam_hf.models.hilam import HiLAMConfig, SkillStream
from hilam_hf.models.hilam.extraction import extract
from hilam_hf.models.hnet import HNetConfig, LevelCache, SequenceLayout
from hilam_hf.models.hnet.modeling_hnet import StageTokens


class SignSegmenter:
    """One chunking stage: a segment starts where the latent action is negative; features are ten times the latents."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        backbone = HNetConfig(
            arch_layout=["m1", ["m1"], "m1"],
            d_model=[1, 1],
            d_intermediate=[0, 0],
            num_heads=[1, 1],
            rotary_emb_dim=[0, 0],
            window_size=[-1, -1],
            ssm_cfg={"headdim": 1},
        )
        self.config = HiLAMConfig(
            hnet_config=backbone, latent_dim=1, target_ratios=[2.0], skill_stage=1, skill_token="last"
        )
        self.pieces: list[int] = []

    def check_latents(self, sequence: Tensor) -> Tensor:
        return sequence

    def new_cache(self, batch_size: int) -> LevelCache:
        return LevelCache()

    def segment_rows(
        self, rows: Tensor, layout: SequenceLayout, cache: LevelCache | None = None
    ) -> tuple[StageTokens, ...]:
        self.pieces.append(len(rows))
        return (StageTokens(layout, 10 * rows, rows[:, 0] < 0),)


LATENTS = torch.tensor([-1.0, 2.0, 3.0, -4.0, -5.0, 6.0])[:, None]
BOUNDARIES = [True, False, False, True, True, False]


@pytest.mark.parametrize(("piece_length", "pieces"), [(6, [6]), (4, [4, 2])])
def test_extraction_of_known_segments(piece_length: int, pieces: list[int]) -> None:
    model = SignSegmenter()
    (extraction,) = extract(model, [LATENTS], piece_length)
    assert model.pieces == pieces
    assert extraction.stages[1].boundaries.tolist() == BOUNDARIES
    assert extraction.stages[1].skills.flatten().tolist() == [30, -40, 60]


def test_streaming_of_known_segments() -> None:
    stream = SkillStream(SignSegmenter())
    steps = [stream.push(latent) for latent in LATENTS]
    assert [step.boundary.item() for step in steps] == BOUNDARIES
    assert [step.segment_id.item() for step in steps] == [1, 1, 1, 2, 3, 3]
    assert [step.skill.item() for step in steps] == [-10, 20, 30, -40, -50, 60]
