"""Predicted next frames beside the true ones, as the paper's figure 5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..video import as_float_frames
from .style import INK, MUTED, add_axes_inches, new_figure, styled

CURRENT = "$I_t$"
PREDICTED = r"$\hat{I}_{t+k}$"
TARGET = "$I_{t+k}$"
DIFFERENCE = r"$|\hat{I}_{t+k} - I_{t+k}|$"

# Inches.
LEFT, RIGHT, TOP, BOTTOM = 1.62, 0.10, 0.10, 0.08
GAP, LINE_HEIGHT, TITLE_HEIGHT = 0.06, 0.19, 0.24
MAX_WIDTH, MAX_CELL_WIDTH = 10.0, 1.9

AMPLIFICATIONS = (1, 2, 4, 8, 16)


@styled
def plot_next_frames(
    current: torch.Tensor,
    predicted: torch.Tensor,
    target: torch.Tensor,
    *,
    baseline: torch.Tensor | None = None,
    errors: Mapping[str, Sequence[float] | torch.Tensor] | Sequence[float] | torch.Tensor | None = None,
    titles: Sequence[str] | None = None,
    baseline_name: str = "copy of $I_t$",
    amplify: float | None = None,
) -> Figure:
    """Draw one column an example: the current frame, the predicted and the true next frame, and where they differ.

    Args:
        current: Frames I_t, (N, 3, H, W), RGB; uint8, or float in [0, 1]. Floats outside it are clipped, as a
            regression model may leave it slightly.
        predicted: Predicted frames of the same shape.
        target: True next frames I_{t+k} of the same shape.
        baseline: What to compare with, usually `current` itself (copying): its difference from the target gets a row.
        errors: Numbers under the columns: N for one line, or a mapping from label to N for several. Left out, the mean
            absolute differences in [0, 1] of prediction and baseline are computed and printed.
        titles: A line above each column, such as the task.
        baseline_name: What the baseline is called.
        amplify: Factor of the difference rows. Left out, the largest of 1, 2, 4, 8 and 16 that saturates at most 1 % of
            the values; the same for all examples and rows, and named in their labels.

    Returns:
        The figure; its axes are row by row, N in each.

    Raises:
        ValueError: Shapes, types or lengths do not agree, or `amplify` is not above 0.

    Example:
        >>> frames = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
        >>> len(plot_next_frames(frames, frames, frames, baseline=frames).axes)
        10
    """
    images = {"current": current, "predicted": predicted, "target": target}
    if baseline is not None:
        images["baseline"] = baseline
    images = {name: _as_float(name, frames, current.shape) for name, frames in images.items()}
    differences = {DIFFERENCE: (images["predicted"] - images["target"]).abs()}
    if baseline is not None:
        differences[baseline_name] = (images["baseline"] - images["target"]).abs()
    factor = amplification(list(differences.values())) if amplify is None else amplify
    if not factor > 0:
        raise ValueError(f"amplify must be above 0, got {amplify!r}.")

    num_examples = len(current)
    error_lines = _error_lines(errors, list(differences.values()), baseline_name, num_examples)
    if titles is not None and len(titles) != num_examples:
        raise ValueError(f"titles has {len(titles)} entries for {num_examples} examples.")
    rows: list[tuple[str, str, torch.Tensor]] = [
        (CURRENT, "current frame", images["current"]),
        (PREDICTED, "predicted", images["predicted"]),
        (TARGET, "true", images["target"]),
    ]
    note = f"difference \N{MULTIPLICATION SIGN}{factor:g}"
    rows += [(label, note, (difference * factor).clamp(0, 1)) for label, difference in differences.items()]
    return draw_grid(rows, error_lines, titles)


def amplification(differences: Sequence[torch.Tensor]) -> int:
    """The largest factor of 1, 2, 4, 8, 16 that keeps 99 % of the differences (in [0, 1]) from saturating."""
    values = torch.cat([difference.flatten() for difference in differences])
    for factor in reversed(AMPLIFICATIONS):
        if (values * factor > 1).float().mean() <= 0.01:
            return factor
    return AMPLIFICATIONS[0]


def _as_float(name: str, frames: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Frames as float32 in [0, 1], checked."""
    if frames.ndim != 4 or frames.shape[1] != 3 or 0 in frames.shape or frames.shape != shape:
        raise ValueError(
            f"{name} must have shape (N, 3, H, W), the same as current {tuple(shape)}, got {tuple(frames.shape)}."
        )
    frames = frames.detach().cpu()
    if frames.dtype != torch.uint8 and not frames.is_floating_point():
        raise ValueError(f"{name} must be uint8 or float in [0, 1], got {frames.dtype}.")
    return as_float_frames(frames, torch.float32).clamp(0, 1)


def _error_lines(
    errors: Mapping[str, Sequence[float] | torch.Tensor] | Sequence[float] | torch.Tensor | None,
    differences: list[torch.Tensor],
    baseline_name: str,
    num_examples: int,
) -> dict[str, list[float]]:
    if errors is None:
        names = ["error, predicted", f"error, {baseline_name}"]
        means = [difference.mean(dim=(1, 2, 3)) for difference in differences]
        errors = dict(zip(names, means, strict=False))
    elif not isinstance(errors, Mapping):
        errors = {"error": errors}
    lines = {label: [float(value) for value in values] for label, values in errors.items()}
    for label, values in lines.items():
        if len(values) != num_examples:
            raise ValueError(f"errors {label!r} has {len(values)} values for {num_examples} examples.")
    return lines


def draw_grid(
    rows: list[tuple[str, str, torch.Tensor]], error_lines: dict[str, list[float]], titles: Sequence[str] | None
) -> Figure:
    num_examples, _, height, width = rows[0][2].shape
    cell_width = min(MAX_CELL_WIDTH, (MAX_WIDTH - LEFT - RIGHT - (num_examples - 1) * GAP) / num_examples)
    cell_height = cell_width * height / width
    top = TOP + (TITLE_HEIGHT if titles else 0)
    bottom = BOTTOM + len(error_lines) * LINE_HEIGHT
    figure_height = top + len(rows) * (cell_height + GAP) + bottom
    figure = new_figure(LEFT + num_examples * (cell_width + GAP) - GAP + RIGHT, figure_height)
    for row, (label, note, images) in enumerate(rows):
        y = figure_height - top - (row + 1) * (cell_height + GAP) + GAP
        for column, image in enumerate(images):
            axes = add_axes_inches(figure, LEFT + column * (cell_width + GAP), y, cell_width, cell_height)
            axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest", vmin=0, vmax=1, aspect="auto")
            axes.set_axis_off()
            if row == 0 and titles:
                axes.set_title(titles[column], fontsize=9.5, loc="center", pad=4)
        _label_row(figure, label, note, (y + cell_height / 2) / figure_height)
    for line, (label, values) in enumerate(error_lines.items()):
        y = (bottom - (line + 0.5) * LINE_HEIGHT) / figure_height
        _draw_error_line(figure, label, values, y, figure.axes[-num_examples:])
    return figure


def _label_row(figure: Figure, label: str, note: str, y: float) -> None:
    x = (LEFT - 0.12) / figure.get_figwidth()
    shift = 0.11 / figure.get_figheight()
    figure.text(x, y + shift, label, ha="right", va="center", fontsize=11, color=INK)
    figure.text(x, y - shift, note, ha="right", va="center", fontsize=8.5, color=MUTED)


def _draw_error_line(figure: Figure, label: str, values: Sequence[float], y: float, columns: Sequence[Axes]) -> None:
    figure.text((LEFT - 0.12) / figure.get_figwidth(), y, label, ha="right", va="center", fontsize=8.5, color=MUTED)
    for axes, value in zip(columns, values, strict=True):
        box = axes.get_position()
        figure.text((box.x0 + box.x1) / 2, y, f"{value:#.3g}", ha="center", va="center", fontsize=8.5, color=INK)
