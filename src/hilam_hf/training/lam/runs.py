"""A latent action model from a folder of videos: what `hilam train lam` and `examples/train_lam.py` do."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...data.episodes import scan_videos
from ...plugins import DEFAULT_LATENT_ACTION_KIND
from ..config import TrainingConfig
from ..held_out import check_held_out
from ..loop import TrainingResult
from ..processes import process_state
from ..run_folder import open_run_folder
from .data import frame_pairs, lam_episodes
from .models import new_latent_action_model
from .train import WRITES, train_lam

DEFAULT_STRIDE_SECONDS = 0.6
logger = logging.getLogger(__name__)


def train_lam_on_videos(
    videos: str | Path,
    config: TrainingConfig,
    *,
    output_dir: str | Path,
    kind: str = DEFAULT_LATENT_ACTION_KIND,
    image_size: int | None = None,
    model_options: Mapping[str, Any] | None = None,
    stride: int | None = None,
    stride_seconds: float | None = None,
    stride_range: tuple[int, int] | None = None,
    stride_seconds_range: tuple[float, float] | None = None,
    skip_front: float = 0.0,
    held_out_fraction: float = 0.0,
    corpus: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> TrainingResult:
    """Trains a new latent action model on the frames of a folder of videos; bad videos are set aside and logged.

    The models' configurations keep strides and fraction as `training_data`.

    Args:
        videos: The folder.
        config: Training options.
        output_dir: Folder for checkpoints, pictures of validations and the models; see [`train_lam`].
        kind: Name of the kind; this and the next two are those of [`new_latent_action_model`].
        image_size: Side in pixels of the frames that the models see.
        model_options: Fields of the models' configurations.
        stride: k in frames; or
        stride_seconds: in seconds; or
        stride_range: its smallest and largest value in frames, between which it is drawn for each pair, as UniSkill
            does; or
        stride_seconds_range: in seconds. None of them: 0.6 s, as LAPA.
        skip_front: Fraction of each video's frames that is cut at its front, in [0, 1).
        held_out_fraction: Fraction of the videos to validate on every `config.validate_every` steps.
        corpus: Hub id or folder of a corpus made from these videos: only its episodes are used.
        resume: Go on with the run that is in `output_dir`.
        overwrite: Replace it.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If no video can be used, or an option is not valid.
        OSError: If a published network can't be had.
    """
    is_main_process = process_state().is_main_process
    strides: dict[str, Any] = {
        "stride": stride,
        "stride_seconds": stride_seconds,
        "stride_range": stride_range,
        "stride_seconds_range": stride_seconds_range,
    }
    if all(value is None for value in strides.values()):
        strides["stride_seconds"] = DEFAULT_STRIDE_SECONDS
    strides["skip_front"] = skip_front
    check_held_out(config, held_out_fraction, may_have_split=corpus is not None)
    inputs = [videos, corpus]
    with open_run_folder(output_dir, resume=resume, overwrite=overwrite, inputs=inputs, writes=WRITES) as folder:
        found = scan_videos(videos, progress=is_main_process)
        if is_main_process:
            for video in found.rejected:
                logger.warning("set aside %s: %s", video.path, video.reason)
        training, held_out = lam_episodes(found.episodes, **strides, held_out_fraction=held_out_fraction, corpus=corpus)
        idm, fdm = new_latent_action_model(kind, image_size=image_size, options=model_options, seed=config.seed)
        for model in (idm, fdm):
            # What they learn from is part of what they are, and travels with them.
            model.config.training_data = {**strides, "held_out_fraction": held_out_fraction, "episodes": len(training)}
        return train_lam(
            idm,
            fdm,
            frame_pairs(training, idm, fdm, **strides),
            config,
            output_dir=folder,
            # A few pairs are looked at, so nothing is gained by decoding all of them.
            held_out=frame_pairs(held_out, idm, fdm, **strides, cache_bytes=0) if held_out else None,
        )
