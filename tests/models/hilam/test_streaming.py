"""Skills while a sequence arrives, against the whole sequence at once; and whole sequences piece by piece."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from hilam_hf.models.hilam import HiLAMConfig, HiLAMModel, SegmentPieces, SkillExtraction, StreamedStep
from hilam_hf.models.hilam.extraction import extract
from hilam_hf.models.hnet import HNetConfig
from hilam_hf.models.uniskill import UniSkillIDMConfig
from tests.models.hilam.test_hilam import DIM, make_config, make_model

TOKENS = ["first", "last", "mean"]


def windowed(**changes: Any) -> dict[str, Any]:
    """Changes of `make_config` that give every stage a short attention window."""
    backbone = make_config().hnet_config.to_dict()
    return {"hnet_config": HNetConfig(**{**backbone, "window_size": [5, 4, 3]}), **changes}


def tiny_idm_config() -> UniSkillIDMConfig:
    return UniSkillIDMConfig.preset(
        "light", image_size=16, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, latent_dim=DIM
    )


def assert_same_extraction(actual: SkillExtraction, expected: SkillExtraction) -> None:
    for left, right in zip(actual.stages, expected.stages, strict=True):
        assert torch.equal(left.boundaries, right.boundaries)
        torch.testing.assert_close(left.skills, right.skills, rtol=0, atol=1e-5)


def assert_streamed(steps: list[StreamedStep], extraction: SkillExtraction, row: int = 0) -> None:
    """Every step of the stream's sequence `row` against the extraction's row of the same time."""
    assert [step.time for step in steps] == list(range(len(extraction)))
    for number, stage in enumerate(extraction.stages):
        at_stage = [step.stages[number] for step in steps]
        assert torch.equal(torch.stack([s.boundary[row] for s in at_stage]), stage.boundaries)
        assert torch.equal(torch.stack([s.segment_id[row] for s in at_stage]), stage.segment_ids)


def run_stream(model: HiLAMModel, batch: Tensor, **options: Any) -> list[StreamedStep]:
    """The steps of a stream over (B, T, ...), those without a partner left out."""
    stream = model.stream(batch_size=len(batch), **options)
    steps = [stream.push(batch[:, time]) for time in range(batch.shape[1])]
    return [step for step in steps if step is not None]


def brute_force_skills(model: HiLAMModel, sequence: Tensor, token: str) -> list[Tensor]:
    """The skills of each stage, by a loop over segments of the stage's own tokens, in float64."""
    skills = []
    for stage in model(sequence[None]).stages:
        features, mask = stage.encoder_states[0].double(), stage.boundary_mask[0]
        starts = [*mask.nonzero()[:, 0].tolist(), len(features)]
        rows = []
        for first, end in pairwise(starts):
            segment = features[first:end]
            rows.append({"first": segment[0], "last": segment[-1], "mean": segment.mean(0)}[token])
        skills.append(torch.stack(rows).float())
    return skills


@pytest.mark.parametrize("token", TOKENS)
def test_skill_tokens_equal_a_loop_over_segments(token: str) -> None:
    model = make_model(skill_token=token)
    for length in (1, 2, 40):
        sequence = torch.randn(length, DIM)
        extraction = model.extract_skills(sequence)
        for number, expected in enumerate(brute_force_skills(model, sequence, token), start=1):
            torch.testing.assert_close(extraction.stages[number].skills, expected, rtol=0, atol=1e-5)


def test_the_three_tokens_differ_and_leave_the_segments_alone() -> None:
    sequence = torch.randn(40, DIM)
    first, last, mean = (make_model(skill_token=token).extract_skills(sequence) for token in TOKENS)
    assert torch.equal(first.stages[2].boundaries, mean.stages[2].boundaries)
    assert not torch.allclose(first.stages[1].skills, mean.stages[1].skills)
    assert not torch.allclose(last.stages[1].skills, mean.stages[1].skills)


@pytest.mark.parametrize("token", TOKENS)
def test_segments_in_pieces_equal_segments_at_once(token: Any) -> None:
    features, boundaries = torch.randn(50, 3), torch.rand(50) < 0.2
    boundaries[0] = True
    whole, parts = SegmentPieces(token), SegmentPieces(token)
    whole.add(features, boundaries)
    for start, end in ((0, 1), (1, 1), (1, 20), (20, 23), (23, 50)):
        parts.add(features[start:end], boundaries[start:end])
    torch.testing.assert_close(parts.tokens(), whole.tokens(), rtol=0, atol=1e-6)
    assert len(whole.tokens()) == int(boundaries.sum())


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("changes", [{}, windowed()], ids=["unlimited", "windowed"])
def test_long_sequences_in_pieces_equal_one_go(token: str, changes: dict[str, Any]) -> None:
    model = make_model(skill_token=token, **changes)
    sequences = [torch.randn(length, DIM) for length in (37, 1, 16, 24)]
    whole = extract(model, sequences, piece_length=64)
    for piece_length in (1, 7, 16):
        for actual, expected in zip(extract(model, sequences, piece_length), whole, strict=True):
            assert_same_extraction(actual, expected)


def test_extraction_does_not_limit_the_number_of_chunks() -> None:
    backbone = make_config().hnet_config.to_dict()
    model, limited = make_model(), make_model(hnet_config=HNetConfig(**{**backbone, "chunk_capacity": [0.05, 0.05]}))
    sequence = torch.randn(60, DIM)
    assert limited(sequence[None]).dropped_boundaries[0] > 0
    assert_same_extraction(limited.extract_skills(sequence), model.extract_skills(sequence))


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("changes", [{}, windowed()], ids=["unlimited", "windowed"])
def test_streamed_latents_equal_the_batch(token: str, changes: dict[str, Any]) -> None:
    model = make_model(skill_token=token, **changes)
    batch = torch.randn(3, 30, DIM)
    steps = run_stream(model, batch)
    for row, extraction in enumerate(model.extract_skills(batch)):
        assert_streamed(steps, extraction, row)
        for number, stage in enumerate(extraction.stages):
            streamed = torch.stack([step.stages[number].skill[row] for step in steps])
            # "last" and "mean" are those of the segment so far: they are final at its last step.
            is_last = torch.cat((stage.boundaries[1:], torch.tensor([True])))
            rows = slice(None) if token == "first" or number == 0 else is_last
            torch.testing.assert_close(streamed[rows], stage.unfold()[rows], rtol=0, atol=1e-5)
    step = steps[-1]
    assert torch.equal(step.skill, step.stages[2].skill)
    assert torch.equal(step.segment_id, step.stages[2].segment_id)
    assert torch.equal(step.boundary, step.stages[2].boundary)


def test_the_value_so_far_is_that_of_the_tokens_so_far() -> None:
    model = make_model(skill_token="mean")
    sequence = torch.randn(20, DIM)
    for step in run_stream(model, sequence[None]):
        so_far = model.extract_skills(sequence[: step.time + 1])
        for number in (1, 2):
            torch.testing.assert_close(
                step.stages[number].skill[0], so_far.stages[number].skills[-1], rtol=0, atol=1e-5
            )


@pytest.mark.parametrize("stride", [1, 3])
def test_streamed_frames_equal_the_batch(stride: int) -> None:
    model = make_model(idm_config=tiny_idm_config(), stride=stride)
    frames = torch.randint(0, 256, (2, 12, 20, 24, 3), dtype=torch.uint8)
    stream = model.stream(batch_size=2)
    steps = [stream.push(frames[:, time]) for time in range(12)]
    assert steps[:stride] == [None] * stride
    for row in range(2):
        extraction = model.extract_skills(frames[row])
        assert_streamed(steps[stride:], extraction, row)
        latents = torch.stack([step.stages[0].skill[row] for step in steps[stride:]])
        torch.testing.assert_close(latents, extraction.stages[0].skills, rtol=0, atol=1e-5)
        skills = torch.stack([step.skill[row] for step in steps[stride:]])
        torch.testing.assert_close(skills, extraction.unfold(), rtol=0, atol=1e-5)


def test_each_frames_features_are_computed_once() -> None:
    model = make_model(idm_config=tiny_idm_config(), stride=2)
    seen, extract_features = [], model.idm.extract_features
    model.idm.extract_features = lambda frames: seen.append(len(frames)) or extract_features(frames)
    run_stream(model, torch.rand(1, 9, 3, 16, 16))
    assert seen == [1] * 9


def test_memory_of_a_stream_does_not_grow() -> None:
    model = make_model(idm_config=tiny_idm_config(), stride=2, **windowed())
    stream = model.stream()

    def held(value: Any, seen: set[int]) -> int:
        """Numbers in all tensors that `value` holds, the model's own left out."""
        if id(value) in seen or isinstance(value, torch.nn.Module):
            return 0
        seen.add(id(value))
        if isinstance(value, Tensor):
            return value.numel()
        children = list(value) if isinstance(value, (list, tuple)) or hasattr(value, "maxlen") else []
        children += list(value.values()) if isinstance(value, dict) else list(getattr(value, "__dict__", {}).values())
        return sum(held(child, seen) for child in children)

    sizes = []
    for _ in range(60):
        stream.push(torch.rand(3, 16, 16))
        sizes.append(held(stream, set()))
    assert sizes[30] > 0
    assert sizes[-1] == sizes[30]


def test_a_stream_starts_anew() -> None:
    model = make_model()
    stream, sequence = model.stream(), torch.randn(9, DIM)
    first = [stream.push(latents) for latents in sequence]
    stream.reset()
    for step, again in zip(first, (stream.push(latents) for latents in sequence), strict=True):
        assert again.time == step.time
        assert torch.equal(again.segment_id, step.segment_id)
        assert torch.equal(again.skill, step.skill)


def test_a_stream_refuses_what_does_not_fit() -> None:
    model = make_model()
    with pytest.raises(ValueError, match="batch_size: got 0"):
        model.stream(batch_size=0)
    stream = model.stream(batch_size=2)
    for wrong in (torch.randn(DIM), torch.randn(3, DIM)):
        with pytest.raises(ValueError, match=r"expected \(2, 6\) latent actions or 2 frames"):
            stream.push(wrong)
    with pytest.raises(ValueError, match="NaN"):
        stream.push(torch.full((2, DIM), torch.nan))
    with pytest.raises(ValueError, match="no inverse dynamics model"):
        stream.push(torch.rand(2, 3, 16, 16))
    in_seconds = make_model(idm_config=tiny_idm_config(), stride=None, stride_seconds=0.2)
    with pytest.raises(ValueError, match="fps: got none"):
        in_seconds.stream().push(torch.rand(3, 16, 16))
    with pytest.raises(ValueError, match="set_latent_statistics"):
        HiLAMModel(make_config()).stream()


def test_a_stream_refuses_times_that_are_not_its_rates() -> None:
    """Pairs 0.2 s apart at 10 frames a second: a frame that comes 0.1 s late, or twice, would make others."""
    model = make_model(idm_config=tiny_idm_config(), stride=None, stride_seconds=0.2)
    frames = torch.rand(8, 3, 16, 16)
    stream, untimed = model.stream(fps=10), model.stream(fps=10)
    for number, frame in enumerate(frames):
        # A clock that starts anywhere, and a camera that is up to 20 ms early or late.
        seconds = 1e3 + number / 10 + 0.01 * (-1) ** number
        if number == 5:
            for wrong in (seconds + 0.1, seconds - 0.1):
                with pytest.raises(ValueError, match=r"s have passed in 2 steps, expected 0\.2 s at 10 a second"):
                    stream.push(frame, seconds=wrong)
            with pytest.raises(ValueError, match="earlier steps had theirs"):
                stream.push(frame)
            with pytest.raises(ValueError, match="got nan"):
                stream.push(frame, seconds=float("nan"))
        step, expected = stream.push(frame, seconds=seconds), untimed.push(frame)
        assert (step is None) == (expected is None) == (number < 2)
        if step is not None:
            assert torch.equal(step.skill, expected.skill)
    with pytest.raises(ValueError, match="s have passed in 2 steps"):
        stream.push(frames[0], seconds=2e3)
    stream.reset()
    assert stream.push(frames[0], seconds=2e3) is None
    with pytest.raises(ValueError, match=r"s have passed in 1 steps, expected 0\.1 s"):
        stream.push(frames[1], seconds=2e3 + 0.2)
    with pytest.raises(ValueError, match="no rate to hold it against"):
        make_model().stream().push(torch.randn(DIM), seconds=0.0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e30])
def test_a_stream_goes_on_after_bad_input_as_if_it_had_not_come(bad: float) -> None:
    model = make_model(idm_config=tiny_idm_config(), stride=2)
    good = {"latents": torch.randn(6, DIM), "frames": torch.rand(6, 3, 16, 16)}
    for name, inputs in good.items():
        stream, undisturbed = model.stream(), model.stream()
        for item in inputs:
            with pytest.raises(ValueError, match="NaN"):
                stream.push(torch.full_like(item, bad))
            step, expected = stream.push(item), undisturbed.push(item)
            assert (step is None) == (expected is None), name
            if step is not None:
                assert step.time == expected.time
                assert torch.equal(step.skill, expected.skill)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_streams_and_extracts_finite_skills(dtype: torch.dtype) -> None:
    model = make_model(idm_config=tiny_idm_config(), stride=2, **windowed()).to(dtype)
    frames = torch.randint(0, 256, (30, 3, 16, 16), dtype=torch.uint8)
    extraction = model.extract_skills(frames)
    assert torch.isfinite(extraction.unfold()).all()
    steps = run_stream(model, frames[None])
    assert torch.isfinite(torch.stack([step.skill for step in steps])).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_constant_video_and_one_of_two_frames_give_finite_skills(dtype: torch.dtype) -> None:
    model = make_model(idm_config=tiny_idm_config(), stride=1).to(dtype)
    for length in (2, 40):
        extraction = model.extract_skills(torch.full((length, 3, 16, 16), 128, dtype=torch.uint8))
        assert len(extraction) == length - 1
        assert extraction.stages[2].boundaries[0]
        assert torch.isfinite(extraction.unfold()).all()


def test_twenty_thousand_latents_give_finite_skills() -> None:
    torch.manual_seed(0)
    model = HiLAMModel(HiLAMConfig.preset("tiny", latent_dim=DIM, hnet_config=windowed()["hnet_config"])).eval()
    model.set_latent_statistics(torch.zeros(DIM), torch.ones(DIM))
    extraction = model.extract_skills(torch.randn(20_000, DIM).cumsum(0) / 50)
    assert len(extraction) == 20_000
    assert torch.isfinite(extraction.unfold()).all()
