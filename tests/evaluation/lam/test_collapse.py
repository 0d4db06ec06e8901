"""Every fault is told from its numbers, with a reason and a remedy, and a sound model has none."""

import re
from dataclasses import replace
from typing import Any

import pytest

from hilam_hf.evaluation.lam.collapse import STILL_CHANGE, find_problems
from hilam_hf.evaluation.lam.decoding import DecodingErrors
from hilam_hf.evaluation.lam.latents import AppearanceStatistics, CodeStatistics, LatentStatistics
from hilam_hf.evaluation.lam.probe import MotionProbe, NoProbe

ERRORS = DecodingErrors(
    num_pairs=100,
    next_frame_error=0.4,
    copy_error=1.0,
    shuffled_error=0.9,
    constant_error=0.7,
    constant_latent="mean",
    shuffled_within_episode=0,
    error_vs_copy_interval=(0.3, 0.5),
    shuffled_vs_own_interval=(2.0, 2.5),
    episodes=(),
)
LATENTS = LatentStatistics(
    num_latents=100,
    num_not_finite=0,
    width=8,
    std=(1.0,) * 8,
    relative_spread=0.8,
    dead_dimensions=0,
    participation_ratio=5.0,
    entropy_rank=6.0,
    variance_shares=(0.3, 0.7),
)
CODES = CodeStatistics(
    num_latents=100,
    codebook_size=8,
    num_positions=2,
    counts=((50, 50) + (0,) * 6,) * 2,
    perplexity=(6.0, 5.0),
    used=(8, 7),
    dead_codes=(),
    distinct_sequences=40,
    possible_sequences=64,
    sequence_perplexity=30.0,
)
APPEARANCE = AppearanceStatistics(still_share=0.1, between_episode_share=0.2, between_episode_share_by_chance=0.1)
PROBE = MotionProbe(
    names=("x",),
    constant_dimensions=(),
    unit="m",
    kind="positions",
    source="positions",
    r2=0.8,
    r2_per_dimension=(0.8,),
    pixels_r2=0.6,
    pixels_r2_per_dimension=(0.6,),
    control_r2=0.0,
    regularisation=1.0,
    num_fitted_episodes=7,
    num_held_out_episodes=3,
    num_fitted_pairs=70,
    num_held_out_pairs=30,
    num_episodes_without_motion=0,
)
SOUND: dict[str, Any] = {
    "mean_change": 1.0,
    "latents": LATENTS,
    "codes": None,
    "errors": ERRORS,
    "appearance": APPEARANCE,
    "probe": PROBE,
    "num_episodes": 10,
}


@pytest.mark.parametrize("changes", [{}, {"errors": None}, {"codes": CODES}, {"probe": NoProbe(reason="unknown")}])
def test_a_sound_model_has_no_findings(changes: dict[str, Any]) -> None:
    assert find_problems(**SOUND | changes) == []


@pytest.mark.parametrize(
    ("changes", "code", "severity", "reason"),
    [
        ({"mean_change": STILL_CHANGE}, "nothing_moves", "warning", "less than half a step of 8 bits"),
        ({"num_episodes": 1}, "one_video", "note", "shuffled within it"),
        ({"latents": replace(LATENTS, num_not_finite=3)}, "latents_not_finite", "warning", "3 of 100"),
        ({"latents": replace(LATENTS, relative_spread=0.002)}, "constant_latents", "warning", "2.0e-03 of their norm"),
        ({"latents": replace(LATENTS, relative_spread=None)}, "constant_latents", "warning", "all but the same"),
        ({"latents": replace(LATENTS, entropy_rank=1.4)}, "low_rank", "warning", "of 8 dimensions .* use 1.4"),
        ({"codes": replace(CODES, perplexity=(1.0, 1.6))}, "codebook_collapse", "warning", "1.3 of 8 codes"),
        ({"codes": replace(CODES, dead_codes=(0, 1, 2, 3, 4))}, "dead_codes", "warning", "5 of 8 codes never"),
        ({"errors": replace(ERRORS, next_frame_error=1.1)}, "worse_than_copy", "warning", "1.10 times the error"),
        ({"errors": replace(ERRORS, shuffled_error=0.404)}, "decoder_ignores_latents", "warning", "1.010 times"),
        ({"errors": replace(ERRORS, shuffled_error=0.5)}, "decoder_listens_little", "note", "17% is lost"),
        ({"errors": replace(ERRORS, next_frame_error=float("nan"))}, "predictions_not_finite", "warning", "NaN"),
        ({"errors": replace(ERRORS, next_frame_error=float("inf"))}, "predictions_not_finite", "warning", "NaN"),
        ({"appearance": replace(APPEARANCE, still_share=0.9)}, "latents_describe_looks", "note", "0.90 times"),
        ({"probe": replace(PROBE, r2=-0.5)}, "motion_not_readable", "note", "R² -0.50"),
        ({"probe": replace(PROBE, pixels_r2=0.9)}, "probe_below_pixels", "note", "0.80.*0.90"),
    ],
)
def test_each_fault_is_found_with_its_numbers(changes: dict[str, Any], code: str, severity: str, reason: str) -> None:
    found = {finding.code: finding for finding in find_problems(**SOUND | changes)}
    assert code in found
    assert found[code].severity == severity
    assert re.search(reason, found[code].reason)
    assert found[code].remedy


def test_a_small_codebook_is_not_asked_for_more_than_it_has() -> None:
    binary = replace(CODES, codebook_size=2, perplexity=(1.9, 2.0))
    assert find_problems(**SOUND | {"codes": binary}) == []
    large = replace(CODES, codebook_size=1024, num_latents=10, perplexity=(4.5, 4.5), dead_codes=tuple(range(1000)))
    # Twenty codes were seen: that most of 1024 are missing says nothing yet.
    assert find_problems(**SOUND | {"codes": large}) == []


def test_discrete_latents_are_judged_by_their_codes_not_by_their_rank() -> None:
    flat = replace(LATENTS, entropy_rank=1.0, relative_spread=0.0)
    assert find_problems(**SOUND | {"latents": flat, "codes": CODES}) == []


def test_where_nothing_moves_the_decoder_is_not_judged() -> None:
    errors = replace(ERRORS, next_frame_error=1.0, shuffled_error=1.0)
    found = [finding.code for finding in find_problems(**SOUND | {"mean_change": 0.0, "errors": errors})]
    assert found == ["nothing_moves"]


def test_warnings_come_before_notes() -> None:
    changes = {"num_episodes": 1, "errors": replace(ERRORS, shuffled_error=0.4)}
    assert [finding.severity for finding in find_problems(**SOUND | changes)] == ["warning", "note"]
