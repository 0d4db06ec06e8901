"""What is wrong with a latent action model, told from its numbers: each fault with its reason and a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ...video.pixels import MAX_LEVEL
from .decoding import DecodingErrors
from .latents import AppearanceStatistics, CodeStatistics, LatentStatistics
from .probe import MotionProbe, NoProbe

STILL_CHANGE = (0.5 / MAX_LEVEL) ** 2
"""Mean squared change of a pixel, half a step of 8 bits: below it a video shows rounding and compression, no motion."""
CONSTANT_SPREAD = 1e-2
"""Spread relative to the latents' norm. Trained models normalise their latents or keep them near zero (0.3 to 1); with
1 % around a constant, half-precision inference already rounds away most of what differs."""
LOW_RANK = 2.0
"""Effective number of directions. An arm alone moves in three, a camera in more."""
MIN_PERPLEXITY = (1.5, 4.0)
"""The least perplexity of a position lies between these, at a quarter of the codebook where that falls between: less
than 1.5 is one code nearly always, and 4 tell apart four directions however large the codebook is."""
MIN_CODE_USE = 0.5
"""Share of the codebook that must come up. Published codebooks of 8 to 64 entries are used whole."""
LATENTS_PER_CODE = 10
"""Codes are called unused only with this many latent actions an entry: fewer may miss rare ones."""
IGNORED_RATIO = 1.05
"""Error with another video's latent action over that with the own one. A decoder that does not listen has exactly 1;
5 % more is little for the wrong action."""
SMALL_LOSS = 0.25
"""Share of the decoder's gain over copying that is lost with another video's latent action; below it the decoder owes
most of its gain to the current frame."""
STILL_SHARE = 0.5
"""Share of the latents' variance that frames without motion have, too: from half on, looks outweigh motion."""
NO_MOTION_R2 = 0.1
"""R² below which next to nothing of the true motion can be read from latents linearly."""
PIXELS_MARGIN = 0.05
"""How far R² must lie below that of pixel differences to be told: other held-out videos move it by about as much."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something a reader of the report must know.

    Attributes:
        code: A short name that stays the same, such as "decoder_ignores_latents".
        severity: "warning" where the model, or what is said of it, is not to be trusted; "note" otherwise.
        reason: What was found, with its numbers.
        remedy: What to do.
    """

    code: str
    severity: Literal["warning", "note"]
    reason: str
    remedy: str


def find_problems(
    *,
    mean_change: float,
    latents: LatentStatistics,
    codes: CodeStatistics | None,
    errors: DecodingErrors | None,
    appearance: AppearanceStatistics,
    probe: MotionProbe | NoProbe,
    num_episodes: int,
) -> list[Finding]:
    """Looks for every fault that the numbers of a report can show.

    Args:
        mean_change: Mean squared difference of the two frames of a pair, pixels in [0, 1].
        latents: Spread of the latent vectors.
        codes: Use of the codebook; None where latent actions are continuous.
        errors: Next-frame errors; None without a forward dynamics model.
        appearance: What latents say of looks.
        probe: Linear probe to true motion.
        num_episodes: Videos that pairs come from.

    Returns:
        Warnings, then notes.
    """
    findings = [
        *_of_data(mean_change, num_episodes),
        *_of_latents(latents, is_discrete=codes is not None),
        *(_of_codes(codes) if codes is not None else ()),
        *(_of_decoder(errors, moves=mean_change > STILL_CHANGE) if errors is not None else ()),
        *_of_appearance(appearance),
        *(_of_probe(probe) if isinstance(probe, MotionProbe) else ()),
    ]
    return sorted(findings, key=lambda finding: finding.severity == "note")


def _of_data(mean_change: float, num_episodes: int) -> Iterator[Finding]:
    if mean_change <= STILL_CHANGE:
        yield Finding(
            code="nothing_moves",
            severity="warning",
            reason=f"the two frames of a pair differ by {mean_change:.1e} (mean squared), less than half a step of 8 "
            "bits: copying is almost perfect, and a ratio to its error says nothing",
            remedy="use a larger stride, or videos in which something moves",
        )
    if num_episodes == 1:
        yield Finding(
            code="one_video",
            severity="note",
            reason="there is one video: latent actions were shuffled within it, and there is neither an interval nor a "
            "transfer",
            remedy="give more videos",
        )


def _of_latents(latents: LatentStatistics, *, is_discrete: bool) -> Iterator[Finding]:
    if latents.num_not_finite:
        yield Finding(
            code="latents_not_finite",
            severity="warning",
            reason=f"{latents.num_not_finite} of {latents.num_latents} latent actions hold NaN or an infinity; all "
            "statistics leave them out, the errors of the decoder do not",
            remedy="train with a lower learning rate or in 32 bits; look for the first step whose loss is not finite",
        )
    if is_discrete or latents.num_not_finite == latents.num_latents:
        return
    if (latents.relative_spread or 0.0) < CONSTANT_SPREAD:
        yield Finding(
            code="constant_latents",
            severity="warning",
            reason=f"latent actions are all but the same: they spread by {latents.relative_spread or 0.0:.1e} of their "
            "norm",
            remedy="train longer, lower the learning rate or weight decay, and make sure that the decoder can only "
            "learn the change through the latent action",
        )
    elif latents.width > LOW_RANK and latents.entropy_rank is not None and latents.entropy_rank < LOW_RANK:
        yield Finding(
            code="low_rank",
            severity="warning",
            reason=f"of {latents.width} dimensions the latent actions use {latents.entropy_rank:.1f} directions",
            remedy="train longer and on videos with more kinds of motion; compare with a smaller latent_dim",
        )


def _of_codes(codes: CodeStatistics) -> Iterator[Finding]:
    low, high = MIN_PERPLEXITY
    least = min(max(codes.codebook_size / 4, low), high)
    mean = sum(codes.perplexity) / len(codes.perplexity)
    remedy = "train with codebook refresh, a smaller codebook, or a lower learning rate of the encoder"
    if mean < least:
        yield Finding(
            code="codebook_collapse",
            severity="warning",
            reason=f"a position uses as much as {mean:.1f} of {codes.codebook_size} codes (mean perplexity; at least "
            f"{least:.1f} is expected), and {codes.distinct_sequences} different latent actions come up in "
            f"{codes.num_latents}",
            remedy=remedy,
        )
    enough = codes.num_latents * codes.num_positions >= LATENTS_PER_CODE * codes.codebook_size
    if enough and 1 - len(codes.dead_codes) / codes.codebook_size < MIN_CODE_USE:
        yield Finding(
            code="dead_codes",
            severity="warning",
            reason=f"{len(codes.dead_codes)} of {codes.codebook_size} codes never come up at any position",
            remedy=remedy,
        )


def _of_decoder(errors: DecodingErrors, *, moves: bool) -> Iterator[Finding]:
    if not errors.next_frame_error < float("inf"):
        yield Finding(
            code="predictions_not_finite",
            severity="warning",
            reason="predicted frames hold NaN or infinities, so their error is unknown",
            remedy="look whether the latent actions are finite; if so, the forward dynamics model's training broke",
        )
        return
    if not moves:
        return
    if errors.error_vs_copy is not None and errors.error_vs_copy >= 1:
        yield Finding(
            code="worse_than_copy",
            severity="warning",
            reason=f"predicted frames have {errors.error_vs_copy:.2f} times the error of repeating the current frame",
            remedy="train the forward dynamics model longer, and see that stride, frame size and scale are those of "
            "its training; models that sample pay for sharpness, so look at their pictures, too",
        )
    if errors.shuffled_vs_own is not None and errors.shuffled_vs_own < IGNORED_RATIO:
        yield Finding(
            code="decoder_ignores_latents",
            severity="warning",
            reason=f"with the latent action of another video the error is {errors.shuffled_vs_own:.3f} times that with "
            "the own one: the forward dynamics model makes no use of the right one",
            remedy="train longer or with a larger stride, so that the frame alone does not tell the next one; for a "
            "model that samples, raise its guidance scale",
        )
    elif errors.improvement_lost_shuffled is not None and errors.improvement_lost_shuffled < SMALL_LOSS:
        yield Finding(
            code="decoder_listens_little",
            severity="note",
            reason=f"of what the decoder gains over copying, {errors.improvement_lost_shuffled:.0%} is lost with the "
            "latent action of another video: it guesses most of the change from the current frame",
            remedy="where the videos show few tasks that is to be expected; measure on more varied ones",
        )


def _of_appearance(appearance: AppearanceStatistics) -> Iterator[Finding]:
    if appearance.still_share is not None and appearance.still_share > STILL_SHARE:
        yield Finding(
            code="latents_describe_looks",
            severity="note",
            reason=f"the latent actions of pairs without any motion vary {appearance.still_share:.2f} times as much as "
            "the others: much of a latent action says what the video looks like",
            remedy="compare the probe's R² with that of pixel differences; train on more varied videos, with a smaller "
            "latent_dim, or with augmentation that is shared by the two frames",
        )


def _of_probe(probe: MotionProbe) -> Iterator[Finding]:
    if probe.r2 < NO_MOTION_R2:
        yield Finding(
            code="motion_not_readable",
            severity="note",
            reason=f"a linear probe finds next to nothing of the true motion in latent actions (R² {probe.r2:.2f})",
            remedy="look at the other numbers: the motion may be there in another form, be too small for the frame "
            "size, or be hidden by other things that move",
        )
    elif probe.r2 < probe.pixels_r2 - PIXELS_MARGIN:
        yield Finding(
            code="probe_below_pixels",
            severity="note",
            reason=f"the true motion is read less well from latent actions (R² {probe.r2:.2f}) than from as many "
            f"principal components of plain pixel differences ({probe.pixels_r2:.2f})",
            remedy="where the camera stands still that is a strong baseline; train longer, and compare on videos of "
            "several views",
        )
