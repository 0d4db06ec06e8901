"""Validation of a latent action model while it trains: next-frame error against copying, and a picture.

Shapes: N pairs, C channels, H and W pixels.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from ...video import as_float_frames
from ...viz.frames import plot_next_frames
from ...viz.style import save_figure
from ..callbacks import TrainingState
from ..held_out import evenly_spread

PICTURES = "validation"


class NextFrameValidation:
    """Measures a `LatentActionModel` on a few held-out pairs, always the same ones, kept in memory.

    Called with the state of a run it returns `validation/next_frame_error` and `validation/copy_error`, mean squared
    errors of the predicted next frame and of the current one, pixels in [0, 1], and `validation/error_vs_copy`, the one
    as a fraction of the other; and the main process draws examples into a picture named after the step, such as
    `validation/step_00500.png`, in the run's folder.

    Args:
        pairs: Held-out pairs with uint8 `frames` and `next_frames`, and `idm_frames` and `idm_next_frames` where sizes
            differ.
        num_pairs: Pairs to measure, evenly spread over `pairs`.
        num_examples: Pairs of these to draw.
        batch_size: Pairs predicted at a time.

    Raises:
        ValueError: If there are no pairs, or no frame of theirs changes, so that copying is perfect.
    """

    def __init__(self, pairs: Dataset[Any], *, num_pairs: int = 32, num_examples: int = 6, batch_size: int = 8) -> None:
        count: int = len(pairs)  # type: ignore[arg-type]
        if count == 0:
            raise ValueError("there are no held-out pairs of frames to validate on; hold out longer videos")
        self.num_examples = num_examples
        rows = evenly_spread(count, num_pairs)
        self.batches = [
            default_collate([pairs[row] for row in rows[start : start + batch_size]])
            for start in range(0, len(rows), batch_size)
        ]
        if all(torch.equal(batch["frames"], batch["next_frames"]) for batch in self.batches):
            raise ValueError(
                f"nothing moves in the {len(rows)} held-out pairs of frames, so there is nothing to predict; "
                "hold out other videos or use a larger stride"
            )

    def __call__(self, state: TrainingState) -> dict[str, float]:
        model: Any = state.model
        device = next(model.parameters()).device
        on_device = [{name: frames.to(device) for name, frames in batch.items()} for batch in self.batches]
        predicted = torch.cat([model.predict(**batch).float().cpu() for batch in on_device])
        current, target = (
            as_float_frames(torch.cat([batch[name] for batch in self.batches])) for name in ("frames", "next_frames")
        )
        if state.is_main_process and state.output_dir is not None:
            self._draw(current, predicted, target, state.output_dir / PICTURES / f"step_{state.step:05d}.png")
        error, copy_error = _squared_error(predicted, target), _squared_error(current, target)
        return {
            "validation/next_frame_error": error,
            "validation/copy_error": copy_error,
            "validation/error_vs_copy": error / copy_error,
        }

    def _draw(self, current: Tensor, predicted: Tensor, target: Tensor, path: Path) -> None:
        rows = evenly_spread(len(current), self.num_examples)
        save_figure(plot_next_frames(current[rows], predicted[rows], target[rows], baseline=current[rows]), path)


def _squared_error(frames: Tensor, target: Tensor) -> float:
    return (frames - target).square().mean(dtype=torch.float64).item()
