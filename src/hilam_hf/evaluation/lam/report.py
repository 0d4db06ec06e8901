"""The report on a latent action model: what its numbers and pictures say of it, as JSON and as one page.

Shapes: N pairs of frames; k the stride in frames.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...data.demonstrations.loader import load_demonstrations
from ...data.demonstrations.videos import VIDEOS, demonstration_videos
from ...data.episodes import Episode, RejectedVideo, resolve_stride, scan_videos, split_episodes
from ...files import write_text
from ...locks import FolderLock
from ...models.latent_actions.auto import load_latent_action_model
from ...models.latent_actions.dynamics import ForwardDynamicsModel, InverseDynamicsModel
from ...publishing import public_name
from ..provenance import machine, package_versions
from .collapse import Finding, find_problems
from .decoding import DecodingErrors, decoding_errors, psnr
from .latents import (
    AppearanceStatistics,
    CodeStatistics,
    LatentStatistics,
    appearance_statistics,
    code_statistics,
    latent_statistics,
)
from .page import write_lam_page
from .pairs import EncodedPairs, encode_pairs
from .pictures import LamPictures, pick_pairs, predict_pairs, transfer_latents, vary_latents
from .probe import Motion, MotionProbe, NoProbe, probe_motion, recorded_motion, recording_of

PACKAGES = ("hilam-hf", "torch", "transformers", "diffusers", "numpy", "scikit-learn", "torchcodec")
NO_DECODER = "this model has no forward dynamics model"


@dataclass(frozen=True, kw_only=True)
class LamReportOptions:
    """Options of a report.

    Attributes:
        stride: k in frames; or
        stride_seconds: k in seconds, which gives each video its own k from its rate.
        max_pairs: The most pairs that are encoded, sampled evenly over the videos.
        max_decoded_pairs: The most of them that are decoded, three times each. A diffusion model may take seconds a
            frame: lower it.
        num_examples: Pairs shown in pictures, each of another video.
        num_transfers: Pictures of one video's latent actions applied to another's frame.
        transfer_length: Latent actions applied one after another in each.
        batch_size: Pairs decoded, encoded and predicted at a time.
        seed: Fixes what is sampled: shuffling, models that sample, intervals.
        held_out_fraction: Above 0, only the videos that training with this fraction has held out.
    """

    stride: int | None = None
    stride_seconds: float | None = None
    max_pairs: int = 2000
    max_decoded_pairs: int = 512
    num_examples: int = 6
    num_transfers: int = 3
    transfer_length: int = 6
    batch_size: int = 32
    seed: int = 0
    held_out_fraction: float = 0.0

    def __post_init__(self) -> None:
        resolve_stride(1.0, frames=self.stride, seconds=self.stride_seconds)
        least = {"max_pairs": 2, "max_decoded_pairs": 2, "num_transfers": 0}
        for name in ("num_examples", "transfer_length", "batch_size", *least):
            value = getattr(self, name)
            if value < least.get(name, 1):
                raise ValueError(f"{name}: got {value}, expected at least {least.get(name, 1)}")


@dataclass(frozen=True, kw_only=True)
class LamReport:
    """What is known of a latent action model.

    Attributes:
        title: Title of the page.
        findings: Warnings, then notes.
        num_videos: Videos that pairs come from.
        num_pairs: N.
        mean_change: Mean squared difference of the two frames of a pair, pixels in [0, 1].
        rejected: Videos that were set aside, with the reason.
        errors: Next-frame errors; None without a forward dynamics model.
        latents: Spread of the latent vectors.
        codes: Use of the codebook; None where latent actions are continuous.
        appearance: What latents say of looks.
        probe: Linear probe to true motion, or why there is none.
        pictures: None without a forward dynamics model; not in the JSON.
        provenance: What has to be known to repeat the measurement.
    """

    title: str
    findings: tuple[Finding, ...]
    num_videos: int
    num_pairs: int
    mean_change: float
    rejected: tuple[RejectedVideo, ...]
    errors: DecodingErrors | None
    latents: LatentStatistics
    codes: CodeStatistics | None
    appearance: AppearanceStatistics
    probe: MotionProbe | NoProbe
    pictures: LamPictures | None
    provenance: dict[str, Any]

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that are warnings."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    def to_dict(self) -> dict[str, Any]:
        """What `report.json` holds: plain values, None for what is not known or not finite."""
        return {
            "title": self.title,
            "findings": plain(self.findings),
            "videos": {
                "num_videos": self.num_videos,
                "num_pairs": self.num_pairs,
                "mean_change": plain(self.mean_change),
                "rejected": plain(self.rejected),
            },
            "decoding": {"reason": NO_DECODER} if self.errors is None else _decoding_record(self.errors),
            "latents": plain(self.latents),
            "codes": plain(self.codes),
            "appearance": plain(self.appearance),
            "probe": plain(self.probe),
            "provenance": plain(self.provenance),
        }

    def write(self, folder: str | Path) -> Path:
        """Writes `report.json` and `report.html`, which replace those that are there.

        Returns:
            The page.
        """
        folder, record = Path(folder), self.to_dict()
        write_text(folder / "report.json", json.dumps(record, indent=2, allow_nan=False) + "\n")
        figures = {} if self.pictures is None else self.pictures.figures()
        return write_lam_page(folder / "report.html", record, figures)

    def text(self) -> str:
        """The report in a few lines for the terminal."""
        lines = [f"{self.num_pairs} pairs of frames of {self.num_videos} videos, {len(self.rejected)} set aside"]
        if self.errors is None:
            lines.append(f"{NO_DECODER}: its latent actions are measured, nothing is decoded")
        elif self.errors.error_vs_copy is not None and math.isfinite(self.errors.error_vs_copy):
            listens = self.errors.shuffled_vs_own
            lines.append(f"next-frame error {self.errors.error_vs_copy:.0%} of copying's")
            if listens is not None:
                lines[-1] += f", {listens:.2f} times as much with another video's latent action"
        if self.codes is not None:
            mean = sum(self.codes.perplexity) / len(self.codes.perplexity)
            lines.append(f"perplexity {mean:.1f} of {self.codes.codebook_size} codes a position")
        elif self.latents.entropy_rank is not None:
            lines.append(f"latent actions use {self.latents.entropy_rank:.1f} of {self.latents.width} directions")
        if isinstance(self.probe, MotionProbe):
            lines.append(f"R² of a linear probe to true motion {self.probe.r2:.2f} (pixels {self.probe.pixels_r2:.2f})")
        else:
            lines.append(f"no probe: {self.probe.reason}")
        lines += [f"{finding.severity}: {finding.reason}; {finding.remedy}" for finding in self.findings]
        return "\n".join(lines)


def write_lam_report(
    model: str | Path,
    videos: str | Path,
    out: str | Path,
    options: LamReportOptions,
    *,
    motion: Motion | None = None,
    device: str | torch.device = "cpu",
    revision: str | None = None,
    progress: bool = True,
) -> LamReport:
    """Measures a latent action model on a folder of videos and writes `out/report.json` and `out/report.html`.

    Args:
        model: Hub id or folder of the model, see `load_latent_action_model`.
        videos: Folder of videos; or a recording that `load_demonstrations` opens, or its videos, whose true motion is
            then found by itself.
        out: Folder of the report, and of videos of a recording that has none.
        options: Stride, limits and seed.
        motion: True motion of the videos, where it is known otherwise.
        device: Where to run the model.
        revision: Branch, tag or commit of the model on the Hub.
        progress: Show a progress bar while the videos are checked.

    Raises:
        FileNotFoundError: If there is no such folder or model.
        ValueError: If no video can be used, or the motion does not fit the videos.
        FolderInUseError: If another report is written there.

    Example:
        >>> report = write_lam_report("lam", "videos", "lam-report", LamReportOptions(stride=5))  # doctest: +SKIP
        >>> print(report.text())  # doctest: +SKIP
    """
    with FolderLock(out, "hilam lam-report"):
        folder, recording = Path(videos), recording_of(videos)
        if recording is not None:
            demonstrations = load_demonstrations(recording)
            motion = recorded_motion(demonstrations) if motion is None else motion
            if folder == recording:
                written = Path(out) / VIDEOS
                folder = demonstration_videos(recording, demonstrations, written, overwrite=True, progress=progress)
        found = scan_videos(folder, progress=progress)
        idm, fdm = load_latent_action_model(model, revision=revision)
        modules: list[torch.nn.Module] = [idm] if fdm is None else [idm, fdm]
        for module in modules:
            module.to(device)
        report = lam_report(
            idm,
            fdm,
            found.episodes,
            options,
            motion=motion,
            model_name=str(model),
            revision=revision,
            videos=found.root,
            rejected=found.rejected,
        )
        report.write(out)
        return report


def lam_report(
    idm: InverseDynamicsModel,
    fdm: ForwardDynamicsModel | None,
    episodes: Sequence[Episode],
    options: LamReportOptions,
    *,
    motion: Motion | None = None,
    model_name: str | None = None,
    revision: str | None = None,
    videos: str | None = None,
    rejected: Sequence[RejectedVideo] = (),
) -> LamReport:
    """Measures a latent action model.

    Args:
        idm: Inverse dynamics model, on the device to use.
        fdm: Forward dynamics model, perhaps the same one; None leaves out what needs it.
        episodes: Videos; those without a pair at the stride are set aside.
        options: Stride, limits and seed.
        motion: True motion of some or all videos.
        model_name: Hub id or folder of the model, for the record.
        revision: Its revision, for the record.
        videos: Folder of the videos, for the record.
        rejected: Videos that were set aside before, for the record.

    Raises:
        ValueError: If no video can be used, or the motion does not fit the videos.
    """
    usable, strides, short = _with_pairs(episodes, options)
    with _evaluating(idm, fdm):
        pairs = encode_pairs(
            idm,
            usable,
            strides,
            kept_size=None if fdm is None else fdm.config.image_size,
            max_pairs=options.max_pairs,
            max_kept=options.max_decoded_pairs,
            batch_size=options.batch_size,
        )
        errors, pictures = None, None
        late: list[RejectedVideo] = []
        if fdm is not None:
            errors = decoding_errors(fdm, pairs, batch_size=options.batch_size, seed=options.seed)
            pictures, late = _pictures(idm, fdm, pairs, options)
    finite, codebook = pairs.finite, idm.codebook
    measured: dict[str, Any] = {
        "mean_change": float(pairs.changes.mean()),
        "errors": errors,
        "latents": latent_statistics(pairs.vectors),
        "codes": None if codebook is None else code_statistics(pairs.latents.numpy(), len(codebook)),
        "appearance": appearance_statistics(pairs.vectors[finite], pairs.still_vectors, pairs.episode[finite]),
        "probe": probe_motion(pairs, motion, seed=options.seed),
    }
    return LamReport(
        title="Latent action model report",
        findings=tuple(find_problems(num_episodes=len(pairs.episodes), **measured)),
        num_videos=len(pairs.episodes),
        num_pairs=len(pairs),
        rejected=(*rejected, *short, *pairs.rejected, *late),
        pictures=pictures,
        provenance={
            "model": {
                "name": model_name and public_name(model_name),
                "revision": revision,
                "inverse_dynamics": type(idm).__name__,
                "forward_dynamics": None if fdm is None else type(fdm).__name__,
                "device": str(idm.device),
                "dtype": str(idm.dtype).removeprefix("torch."),
            },
            "videos": videos and public_name(videos),
            "strides_in_frames": sorted(set(pairs.strides)),
            "options": dataclasses.asdict(options),
            "packages": package_versions(PACKAGES),
            "machine": machine(),
        },
        **measured,
    )


@contextlib.contextmanager
def _evaluating(*models: torch.nn.Module | None) -> Iterator[None]:
    """Models in evaluation mode, and afterwards in the mode that they were in."""
    modes = {model: model.training for model in models if model is not None}
    try:
        for model in modes:
            model.eval()
        yield
    finally:
        for model, mode in modes.items():
            model.train(mode)


def _with_pairs(
    episodes: Sequence[Episode], options: LamReportOptions
) -> tuple[list[Episode], list[int], list[RejectedVideo]]:
    """Episodes with a pair, their strides, and those that are too short for one."""
    usable: list[Episode] = []
    short: list[RejectedVideo] = []
    for episode in episodes:
        k = _stride(episode, options)
        if episode.num_frames > k:
            usable.append(episode)
        else:
            reason = f"it holds {episode.num_frames} frames; a latent action spans {k}: use a smaller stride"
            short.append(RejectedVideo(episode.path, reason))
    if not usable:
        first = f"; the first: {short[0].path}: {short[0].reason}" if short else ""
        raise ValueError(f"none of the {len(episodes)} videos has a pair of frames at this stride{first}")
    if options.held_out_fraction:
        _, usable = split_episodes(usable, options.held_out_fraction)
    strides = [_stride(episode, options) for episode in usable]
    if sum(episode.num_frames - k for episode, k in zip(usable, strides, strict=True)) < 2:
        raise ValueError("the videos have one pair of frames at this stride; use a smaller stride or more videos")
    return usable, strides, short


def _stride(episode: Episode, options: LamReportOptions) -> int:
    return resolve_stride(episode.fps, frames=options.stride, seconds=options.stride_seconds)


def _pictures(
    idm: InverseDynamicsModel, fdm: ForwardDynamicsModel, pairs: EncodedPairs, options: LamReportOptions
) -> tuple[LamPictures, list[RejectedVideo]]:
    rows = pick_pairs(pairs, options.num_examples)
    transfers, rejected = transfer_latents(
        idm,
        fdm,
        pairs.episodes,
        pairs.strides,
        count=options.num_transfers,
        length=options.transfer_length,
        seed=options.seed,
    )
    pictures = LamPictures(
        predictions=predict_pairs(fdm, pairs, rows, options.seed),
        same_frame=vary_latents(fdm, pairs, rows, options.seed),
        transfers=tuple(transfers),
    )
    return pictures, rejected


def _decoding_record(errors: DecodingErrors) -> dict[str, Any]:
    """The errors with what follows from them."""
    derived = (
        "error_vs_copy",
        "shuffled_vs_own",
        "constant_vs_own",
        "improvement_lost_shuffled",
        "improvement_lost_constant",
    )
    record = {
        **dataclasses.asdict(errors),
        **{name: getattr(errors, name) for name in derived},
        "psnr": psnr(errors.next_frame_error),
        "copy_psnr": psnr(errors.copy_error),
    }
    episodes = [{**vars(episode), "error_vs_copy": episode.error_vs_copy} for episode in errors.episodes]
    return plain({**record, "episodes": episodes})


def plain(value: Any) -> Any:
    """A value as JSON knows it: mappings and lists of numbers, text and None, which stands for what is not finite."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [plain(child) for child in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value
