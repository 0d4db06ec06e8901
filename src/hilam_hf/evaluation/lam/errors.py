"""How good latent actions are: next-frame error against copying, and a linear probe to true motion.

Shapes: N pairs, C, H, W frames, D width of a latent action, P dimensions of the true motion.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from ...models.latent_actions.dynamics import ForwardDynamicsModel, InverseDynamicsModel
from ...video import as_float_frames


@dataclass(frozen=True, kw_only=True)
class NextFrameErrors:
    """Mean squared errors of predicted frames, pixels in [0, 1].

    Attributes:
        next_frame_error: With each pair's own latent action.
        copy_error: Of repeating the current frame.
        shuffled_error: With the latent action of another pair of the batch; equal to `next_frame_error` where the
            forward model does not listen to the latent.
        num_pairs: Pairs measured.
    """

    next_frame_error: float
    copy_error: float
    shuffled_error: float
    num_pairs: int

    @property
    def error_vs_copy(self) -> float:
        """`next_frame_error` as a fraction of `copy_error`; lower is better, 1 is no better than a copy."""
        if self.copy_error == 0:
            raise ValueError("the frames of every pair are equal, so there is no error of copying to compare with")
        return self.next_frame_error / self.copy_error


@torch.no_grad()
def next_frame_errors(
    idm: InverseDynamicsModel, fdm: ForwardDynamicsModel, pairs: Iterable[tuple[Tensor, Tensor]], *, seed: int = 0
) -> NextFrameErrors:
    """Measures how well the pair of models predicts frames.

    Args:
        idm: Inverse dynamics model.
        fdm: Forward dynamics model.
        pairs: Batches (frames, next_frames), each uint8 (B, C, H, W) of the models' size. Batches should mix episodes,
            so that a shuffled latent action is really another one.
        seed: Seed of the shuffling.

    Raises:
        ValueError: If there are no pairs.
    """
    generator = torch.Generator().manual_seed(seed)
    sums = torch.zeros(3, dtype=torch.float64)
    count = 0
    for frames, next_frames in pairs:
        current = as_float_frames(frames.to(idm.device))
        target = as_float_frames(next_frames.to(idm.device))
        latents = idm.encode(current, target)
        shuffled = latents[_derangement(len(latents), generator).to(latents.device)]
        for column, prediction in enumerate((fdm.predict(current, latents), current, fdm.predict(current, shuffled))):
            sums[column] += (prediction - target).double().square().mean((1, 2, 3)).sum().cpu()
        count += len(frames)
    if count == 0:
        raise ValueError("there are no frame pairs to measure; give videos longer than the stride")
    own, copied, other = (sums / count).tolist()
    return NextFrameErrors(next_frame_error=own, copy_error=copied, shuffled_error=other, num_pairs=count)


def _derangement(count: int, generator: torch.Generator) -> Tensor:
    """A permutation without fixed points (for a count of 1 the only one there is): a random cycle through all items."""
    order = torch.randperm(count, generator=generator)
    result = torch.empty_like(order)
    result[order] = order.roll(1)
    return result


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """Outcome of a linear probe.

    Attributes:
        r2: Coefficient of determination on held-out pairs, the mean over the dimensions.
        r2_per_dimension: The same for each dimension of the motion.
        num_training_pairs: Pairs the probe was fitted to.
        num_held_out_pairs: Pairs it was measured on.
    """

    r2: float
    r2_per_dimension: tuple[float, ...]
    num_training_pairs: int
    num_held_out_pairs: int


def linear_probe(
    latents: NDArray[np.floating],
    motion: NDArray[np.floating],
    held_out_latents: NDArray[np.floating],
    held_out_motion: NDArray[np.floating],
    *,
    regularisation: float = 1.0,
) -> ProbeResult:
    """Predicts true motion from latent actions with ridge regression on standardised latents.

    Args:
        latents: (N, D) latent actions to fit to.
        motion: (N, P) true motion over the same pairs, an end-effector's displacement in metres, say.
        held_out_latents: (M, D) latent actions of other episodes.
        held_out_motion: (M, P) their true motion.
        regularisation: Weight of the squared norm of the coefficients.

    Raises:
        ValueError: If latents and motion differ in length, or a dimension of the held-out motion never varies, for
            which R² is undefined.
    """
    for name, first, second in (
        ("training", latents, motion),
        ("held-out", held_out_latents, held_out_motion),
    ):
        if len(first) != len(second) or len(first) < 2:
            raise ValueError(
                f"{name} latents and motion must have equal lengths above 1, got {len(first)}, {len(second)}"
            )
    if np.any(np.ptp(held_out_motion, axis=0) == 0):
        raise ValueError("a dimension of the held-out motion never varies, so R² is undefined; leave it out")
    scaler = StandardScaler().fit(latents)
    probe = Ridge(alpha=regularisation).fit(scaler.transform(latents), motion)
    scores = r2_score(held_out_motion, probe.predict(scaler.transform(held_out_latents)), multioutput="raw_values")
    return ProbeResult(
        r2=float(np.mean(scores)),
        r2_per_dimension=tuple(float(score) for score in scores),
        num_training_pairs=len(latents),
        num_held_out_pairs=len(held_out_latents),
    )


def displacements(positions: Sequence[NDArray[np.floating]], stride: int) -> NDArray[np.floating]:
    """True motion over pairs of frames: positions[t + stride] - positions[t], episodes one after the other.

    Args:
        positions: One array (T, P) an episode.
        stride: k in frames.

    Returns:
        (sum of T - k, P), in the units of the positions.
    """
    return np.concatenate([episode[stride:] - episode[:-stride] for episode in positions])
