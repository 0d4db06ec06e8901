"""HiLAM's prediction and segmentation on held-out sequences."""

from types import SimpleNamespace

import pytest
import torch

from hilam_hf.evaluation.hilam import evaluate_hilam
from hilam_hf.models.hilam.configuration_hilam import HiLAMConfig
from hilam_hf.models.hilam.modeling_hilam import HiLAMModel


def make_model() -> HiLAMModel:
    torch.manual_seed(0)
    model = HiLAMModel(HiLAMConfig.preset("tiny", latent_dim=2, target_ratios=[4.0, 2.0])).eval()
    model.set_latent_statistics(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.5]))
    return model


def test_errors_are_in_standard_deviations_and_weigh_every_step_equally() -> None:
    model = make_model()
    long, short = torch.randn(9, 2), torch.randn(3, 2)
    summary = evaluate_hilam(model, [long, short, torch.randn(1, 2)])
    scale = torch.tensor([2.0, 0.5])
    repeated = [((s[1:] - s[:-1]) / scale).abs() for s in (long, short)]
    predicted = [((s[1:] - model(s[None]).predictions[0, :-1]) / scale).abs() for s in (long, short)]
    assert summary.repeat_error == pytest.approx(torch.cat(repeated).mean().item(), rel=1e-5)
    assert summary.next_latent_error == pytest.approx(torch.cat(predicted).mean().item(), rel=1e-5)
    assert summary.error_vs_repeat == pytest.approx(summary.next_latent_error / summary.repeat_error)


def test_rates_and_lengths_count_segments() -> None:
    model, sequences = make_model(), [torch.randn(20, 2), torch.randn(11, 2)]
    summary = evaluate_hilam(model, sequences)
    extractions = model.extract_skills(sequences)
    counts = [sum(int(e.stages[stage].boundaries.sum()) for e in extractions) for stage in (1, 2)]
    assert [stage.num_segments for stage in summary.stages] == counts
    assert summary.stages[0].boundary_rate == pytest.approx(counts[0] / 31)
    assert summary.stages[1].boundary_rate == pytest.approx(counts[1] / counts[0])
    assert summary.stages[1].mean_segment_length == pytest.approx(31 / counts[1])
    assert [stage.target_rate for stage in summary.stages] == [0.25, 0.5]


def test_lengths_tell_a_collapse_from_even_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stage 1: nine segments of one step and one of eleven; stage 2: four of five. Boundaries are put in by hand."""
    model = make_model()
    stages = {1: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 2: [0, 5, 10, 15]}

    def extract(sequences: list[torch.Tensor]) -> list[SimpleNamespace]:
        segmented = [SimpleNamespace(skills=sequences[0])]
        for starts in stages.values():
            boundaries = torch.zeros(20, dtype=torch.bool)
            boundaries[starts] = True
            segmented.append(SimpleNamespace(skills=torch.zeros(len(starts), 2), boundaries=boundaries))
        return [SimpleNamespace(stages=segmented)]

    monkeypatch.setattr(model, "extract_skills", extract)
    first, second = evaluate_hilam(model, [torch.randn(20, 2)]).stages
    assert (first.one_step_share, first.median_length, first.length_90) == (0.9, 1, 1)
    assert first.segments_per_episode == 10
    assert "90% of the segments are one step long" in str(first.warning)
    assert (second.one_step_share, second.median_length, second.length_90, second.warning) == (0, 5, 5, None)


def test_sequences_without_a_next_latent_are_refused() -> None:
    with pytest.raises(ValueError, match="no sequence has two latent actions"):
        evaluate_hilam(make_model(), [torch.randn(1, 2)])
