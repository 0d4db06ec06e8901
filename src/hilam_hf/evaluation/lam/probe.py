"""A linear probe from latent actions to true motion, with what it has to be held against.

Shapes: T frames of an episode, N pairs, V width of a latent vector, G numbers of a thumbnail, P dimensions of the
motion; k the stride in frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ...data.demonstrations.demonstration import Demonstration
from ...data.demonstrations.formats import find_format
from ...data.demonstrations.video_recording import DEMONSTRATIONS
from ...data.demonstrations.videos import VIDEOS
from ...data.episodes import held_out_rows, possible_fraction
from ...robots import EE_POSITIONS
from .errors import ProbeResult, linear_probe
from .pairs import EncodedPairs

HELD_OUT_FRACTION = 0.3
REGULARISATIONS = (0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)
"""Ridge weights among which cross-validation chooses; the inputs are standardised."""
DEFAULT_REGULARISATION = 1.0
FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class Motion:
    """What truly moved, for some or all episodes.

    Attributes:
        values: For each episode's id (T, P): a state at each frame, or the action that each frame's observation was
            answered with (T or T - 1 of them).
        names: P names of the dimensions.
        unit: Unit of the values, for the page.
        kind: "positions", whose change over a pair is the motion; or "actions", whose sum over it is.
        source: Where they come from, in words.
    """

    values: Mapping[str, NDArray[np.floating]]
    names: tuple[str, ...]
    unit: str
    kind: Literal["positions", "actions"] = "positions"
    source: str = "given by the caller"

    def __post_init__(self) -> None:
        if self.kind not in ("positions", "actions"):
            raise ValueError(f'kind: got {self.kind!r}, expected "positions" or "actions"')
        for name, values in self.values.items():
            shape = np.shape(values)
            if len(shape) != 2 or shape[1] != len(self.names):
                raise ValueError(
                    f"motion of episode {name!r}: got shape {shape}, expected (T, {len(self.names)}): one row a frame, "
                    f"one column for each of {', '.join(self.names)}"
                )
            if not np.isfinite(values).all():
                raise ValueError(f"motion of episode {name!r} has NaN or infinite values; leave the episode out")

    def over_pairs(self, episode: str, num_frames: int, index: NDArray[np.int64], k: int) -> NDArray[np.float64]:
        """The motion (N, P) from the frames `index` (N,) to those `k` later.

        Raises:
            ValueError: If the values do not belong to an episode of `num_frames` frames.
        """
        values = np.asarray(self.values[episode], dtype=np.float64)
        allowed = (num_frames,) if self.kind == "positions" else (num_frames, num_frames - 1)
        if len(values) not in allowed:
            raise ValueError(
                f"motion of episode {episode!r}: got {len(values)} rows for a video of {num_frames} frames, expected "
                f"{' or '.join(map(str, allowed))}: one row a frame"
            )
        if self.kind == "actions":
            values = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
        return values[index + k] - values[index]


def recording_of(videos: str | Path) -> Path | None:
    """The recording of demonstrations that a folder is, or is the videos of, if any.

    Args:
        videos: A folder of videos; a recording, in any format that `load_demonstrations` opens; or the folder of one
            camera's videos in what `hilam record` wrote.
    """
    path = Path(videos)
    if find_format(path) is not None:
        return path
    is_recorded = path.name.startswith(VIDEOS) and (path.parent / DEMONSTRATIONS).is_dir()
    return path.parent if is_recorded else None


def recorded_motion(demonstrations: Iterable[Demonstration]) -> Motion | None:
    """The end effector's positions in demonstrations, or None where none tells them."""
    told = [each for each in demonstrations if EE_POSITIONS in each.proprioception]
    if not told:
        return None
    return Motion(
        values={each.id: each.proprioception[EE_POSITIONS].astype(np.float64) for each in told},
        names=("x", "y", "z"),
        unit="m",
        source="displacement of the end effector, recorded with the videos",
    )


@dataclass(frozen=True, kw_only=True)
class MotionProbe:
    """Ridge regression from latent vectors to true motion, fitted and measured on different videos.

    Attributes:
        names: Dimensions of the motion that are probed.
        constant_dimensions: Those left out, as they do not vary on the videos it is measured on.
        unit: Unit of the motion.
        kind: "positions" or "actions", see `Motion`.
        source: Where the motion comes from.
        r2: Coefficient of determination on the videos that were held out, the mean over the dimensions: 1 is perfect,
            0 is no better than the mean motion.
        r2_per_dimension: The same for each.
        pixels_r2: Of the same probe on the difference of the two frames at 16 x 16 pixels, its principal components
            as many as a latent vector is wide: what is to be had without a model.
        pixels_r2_per_dimension: The same for each.
        control_r2: Of the same probe fitted to the motion of other pairs, at random: what chance gives.
        regularisation: Weight of the ridge penalty for latents, chosen by cross-validation over the videos it is fitted
            to.
        num_fitted_episodes: Videos it is fitted to.
        num_held_out_episodes: Videos it is measured on.
        num_fitted_pairs: Pairs it is fitted to.
        num_held_out_pairs: Pairs it is measured on.
        num_episodes_without_motion: Videos without known motion, which are left out.
    """

    names: tuple[str, ...]
    constant_dimensions: tuple[str, ...]
    unit: str
    kind: str
    source: str
    r2: float
    r2_per_dimension: tuple[float, ...]
    pixels_r2: float
    pixels_r2_per_dimension: tuple[float, ...]
    control_r2: float
    regularisation: float
    num_fitted_episodes: int
    num_held_out_episodes: int
    num_fitted_pairs: int
    num_held_out_pairs: int
    num_episodes_without_motion: int


@dataclass(frozen=True, kw_only=True)
class NoProbe:
    """Why there is no probe.

    Attributes:
        reason: In words.
    """

    reason: str


def probe_motion(pairs: EncodedPairs, motion: Motion | None, *, seed: int = 0) -> MotionProbe | NoProbe:
    """Probes latent vectors for true motion.

    Args:
        pairs: Pairs and their latent actions; those whose vector is not finite are left out.
        motion: What truly moved.
        seed: Chooses the order of the control.

    Raises:
        ValueError: If an episode's motion does not belong to its video.
    """
    if motion is None:
        return NoProbe(reason="no actions or positions are known for these videos")
    known = [row for row, episode in enumerate(pairs.episodes) if episode.id in motion.values]
    if not known:
        return NoProbe(reason="none of these videos is among those whose motion is known")
    if len(known) < 2:
        return NoProbe(reason="the motion of one video only is known; a probe takes one to fit and one to measure on")
    targets = np.full((len(pairs), len(motion.names)), np.nan)
    for row in known:
        of_row, episode = pairs.episode == row, pairs.episodes[row]
        index, k = pairs.index[of_row], pairs.strides[row]
        targets[of_row] = motion.over_pairs(episode.id, episode.num_frames, index, k)
    known_ids = [pairs.episodes[row].id for row in known]
    measured = [known[row] for row in held_out_rows(known_ids, possible_fraction(known_ids, HELD_OUT_FRACTION))]
    fitted = np.setdiff1d(known, measured)
    usable = pairs.finite & np.isfinite(targets).all(axis=1)
    in_fit = np.isin(pairs.episode, fitted)
    fit, held_out = usable & in_fit, usable & ~in_fit
    if fit.sum() < 2 or held_out.sum() < 2:
        return NoProbe(reason="fewer than two pairs to fit to or to measure on are left")
    varies = np.ptp(targets[held_out], axis=0) > 0
    if not varies.any():
        return NoProbe(reason="nothing moves on the videos that the probe would be measured on")
    return _probe(pairs, motion, targets[:, varies], varies, fit, held_out, len(known), seed)


def _probe(
    pairs: EncodedPairs,
    motion: Motion,
    targets: NDArray[np.float64],
    varies: NDArray[np.bool_],
    fit: NDArray[np.bool_],
    held_out: NDArray[np.bool_],
    num_known: int,
    seed: int,
) -> MotionProbe:
    groups = pairs.episode[fit]
    latents, regularisation = _fitted_probe(pairs.vectors, targets, fit, held_out, groups)
    components = PCA(min(pairs.vectors.shape[1], fit.sum() - 1, pairs.thumbnails.shape[1]), random_state=seed)
    pixels = components.fit(pairs.thumbnails[fit]).transform(pairs.thumbnails)
    shuffled = targets.copy()
    shuffled[fit] = np.random.default_rng(seed).permutation(targets[fit])
    names = np.asarray(motion.names)
    from_pixels, _ = _fitted_probe(pixels, targets, fit, held_out, groups)
    control, _ = _fitted_probe(pairs.vectors, shuffled, fit, held_out, groups)
    return MotionProbe(
        names=tuple(names[varies].tolist()),
        constant_dimensions=tuple(names[~varies].tolist()),
        unit=motion.unit,
        kind=motion.kind,
        source=motion.source,
        r2=latents.r2,
        r2_per_dimension=latents.r2_per_dimension,
        pixels_r2=from_pixels.r2,
        pixels_r2_per_dimension=from_pixels.r2_per_dimension,
        control_r2=control.r2,
        regularisation=regularisation,
        num_fitted_episodes=len(np.unique(groups)),
        num_held_out_episodes=len(np.unique(pairs.episode[held_out])),
        num_fitted_pairs=latents.num_training_pairs,
        num_held_out_pairs=latents.num_held_out_pairs,
        num_episodes_without_motion=len(pairs.episodes) - num_known,
    )


def _fitted_probe(
    inputs: NDArray[np.floating],
    targets: NDArray[np.float64],
    fit: NDArray[np.bool_],
    held_out: NDArray[np.bool_],
    groups: NDArray[np.int64],
) -> tuple[ProbeResult, float]:
    regularisation = choose_regularisation(inputs[fit], targets[fit], groups)
    return (
        linear_probe(inputs[fit], targets[fit], inputs[held_out], targets[held_out], regularisation=regularisation),
        regularisation,
    )


def choose_regularisation(
    inputs: NDArray[np.floating], targets: NDArray[np.floating], groups: NDArray[np.int64]
) -> float:
    """The ridge weight of `REGULARISATIONS` with the least squared error when whole episodes are left out in turn.

    Args:
        inputs: (N, V).
        targets: (N, P); each dimension counts alike, whatever its scale.
        groups: (N,) the episode of each; with one only the default weight is returned.
    """
    num_groups = len(np.unique(groups))
    if num_groups < 2:
        return DEFAULT_REGULARISATION
    search = GridSearchCV(
        make_pipeline(StandardScaler(), Ridge()),
        {"ridge__alpha": REGULARISATIONS},
        cv=GroupKFold(min(FOLDS, num_groups)),
        scoring="neg_mean_squared_error",
    )
    search.fit(inputs, StandardScaler().fit_transform(targets), groups=groups)
    return float(search.best_params_["ridge__alpha"])
