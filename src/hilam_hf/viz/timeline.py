"""The skill timeline of an episode, as the paper's figure 4: a strip of frames above its coloured, numbered segments.

Everything shares one time axis. Frame `i` fills the seconds `[i / fps, (i + 1) / fps)`; a segment runs from its
boundary to the next one; the last `k` frames have no latent action, hence no segment, and are hatched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from .style import (
    INK,
    MUTED,
    PAPER,
    TAIL_FACE,
    TAIL_HATCH,
    add_axes_inches,
    new_figure,
    segment_color,
    styled,
    text_color_on,
)

# Inches.
WIDTH = 10.0
LEFT, RIGHT = 1.12, 0.24
ROW_HEIGHT, GAP = 0.36, 0.09
AXIS_HEIGHT = 0.52
TITLE_HEIGHT, TOP = 0.34, 0.10
MAX_STRIP_HEIGHT = 1.7

ID_FONT_SIZES = (9.5, 8.0, 6.5)
POINTS_PER_INCH = 72
# Points.
MAX_GAP = 1.4
# An upper bound on the width of a DejaVu Sans digit, in ems; the room left free on either side of a number, in points.
DIGIT_EMS, ID_PADDING = 0.64, 1.5


@styled
def plot_skill_timeline(
    frames: torch.Tensor,
    boundaries: Mapping[int, torch.Tensor | np.ndarray | Sequence[bool]],
    *,
    fps: float,
    title: str | None = None,
    num_thumbnails: int = 10,
    ids: bool = True,
) -> Figure:
    """Draw an episode's frames above the segments that each stage cuts it into (paper figure 4, eq. 5).

    The strip has `num_thumbnails` slots of equal duration, and each shows the frame in the middle of its slot. A stage
    has one row; segments are numbered from 1, and a number is left out where its segment is too narrow for it.

    Args:
        frames: uint8 (T, 3, H, W), RGB, the whole episode.
        boundaries: For each stage, bool (T',) at video resolution, true where a segment starts; `1 <= T' <= T`. The
            first value must be true. `T - T'` is the number of frames at the end without a latent action.
        fps: Frames per second, above 0.
        title: Line above the strip, such as the instruction. Too long a title is cut with an ellipsis.
        num_thumbnails: Number of slots in the strip, at least 1; at most one a frame is drawn.
        ids: Whether to print the segment numbers.

    Returns:
        The figure: one axes for the strip, then one for each stage, finest first.

    Raises:
        ValueError: An argument has the wrong shape, type or range.

    Example:
        >>> frames = torch.zeros(30, 3, 64, 64, dtype=torch.uint8)
        >>> figure = plot_skill_timeline(frames, {1: torch.arange(28) % 7 == 0}, fps=10)
        >>> len(figure.axes)
        2
    """
    _check_frames(frames)
    if not fps > 0 or not np.isfinite(fps):
        raise ValueError(f"fps must be a number above 0, got {fps!r}.")
    if num_thumbnails < 1:
        raise ValueError(f"num_thumbnails must be at least 1, got {num_thumbnails}.")
    if not boundaries:
        raise ValueError("boundaries is empty; give a boolean tensor for at least one stage, such as {1: b1, 2: b2}.")
    num_frames = len(frames)
    spans = {
        stage: segment_spans(boundaries[stage], num_frames=num_frames, stage=stage) for stage in sorted(boundaries)
    }

    axes_width = WIDTH - LEFT - RIGHT
    strip_height = _strip_height(frames, num_thumbnails, axes_width)
    title_height = TITLE_HEIGHT if title else TOP
    figure = new_figure(WIDTH, AXIS_HEIGHT + len(spans) * (ROW_HEIGHT + GAP) + strip_height + title_height)
    bottom = AXIS_HEIGHT + len(spans) * (ROW_HEIGHT + GAP)
    strip = add_axes_inches(figure, LEFT, bottom, axes_width, strip_height)
    _draw_strip(strip, frames, fps, num_thumbnails)
    if title:
        _draw_title(figure, strip, title)
    for stage, stage_spans in spans.items():
        bottom -= ROW_HEIGHT + GAP
        row = add_axes_inches(figure, LEFT, bottom, axes_width, ROW_HEIGHT)
        _draw_row(row, stage_spans, num_frames=num_frames, fps=fps, ids=ids, width_inches=axes_width)
        _label_row(row, stage, len(stage_spans))
    _draw_time_axis(figure.axes[-1])
    return figure


def segment_spans(
    boundaries: torch.Tensor | np.ndarray | Sequence[bool], *, num_frames: int, stage: int = 1
) -> list[tuple[int, int]]:
    """The segments that boundaries cut an episode into.

    Args:
        boundaries: bool (T',), true where a segment starts. The first value must be true.
        num_frames: Number of frames T of the episode, `T >= T'`.
        stage: The stage they belong to, for messages.

    Returns:
        `(start, stop)` in frames for each segment, in order; together they cover `[0, T')`.

    Raises:
        ValueError: The boundaries are not bool (T',), empty, longer than the episode, or do not start with a boundary.

    Example:
        >>> segment_spans([True, False, True], num_frames=4)
        [(0, 2), (2, 3)]
    """
    flags = boundaries.detach().cpu().numpy() if isinstance(boundaries, torch.Tensor) else np.asarray(boundaries)
    if flags.dtype != np.bool_ or flags.ndim != 1:
        raise ValueError(
            f"boundaries of stage {stage} must be bool (T',), got {flags.dtype} with shape {tuple(flags.shape)}."
        )
    if not 1 <= len(flags) <= num_frames:
        raise ValueError(
            f"boundaries of stage {stage} have length {len(flags)}, expected 1 to {num_frames}, the number of frames; "
            "unfold them to video resolution first."
        )
    if not flags[0]:
        raise ValueError(f"boundaries of stage {stage} must start with a boundary: the first latent opens a segment.")
    starts = np.flatnonzero(flags).tolist()
    return list(zip(starts, [*starts[1:], len(flags)], strict=True))


def _check_frames(frames: torch.Tensor) -> None:
    if not isinstance(frames, torch.Tensor) or frames.dtype != torch.uint8:
        raise ValueError(
            f"frames must be a torch.uint8 tensor (T, 3, H, W), got {getattr(frames, 'dtype', type(frames))}."
        )
    if frames.ndim != 4 or frames.shape[1] != 3 or 0 in frames.shape:
        raise ValueError(f"frames must have shape (T, 3, H, W), none of them 0, got {tuple(frames.shape)}.")


def _strip_height(frames: torch.Tensor, num_thumbnails: int, axes_width: float) -> float:
    """The height, in inches, at which a thumbnail keeps its shape in its slot."""
    slots = min(num_thumbnails, len(frames))
    return min(axes_width / slots * frames.shape[2] / frames.shape[3], MAX_STRIP_HEIGHT)


def thumbnail_slots(num_frames: int, num_thumbnails: int) -> list[tuple[float, float, int]]:
    """Cut an episode into slots of equal length.

    Returns:
        `(start, stop, frame)` for each slot: its edges in frames, and the index of the frame in its middle.
    """
    count = min(num_thumbnails, num_frames)
    edges = np.linspace(0, num_frames, count + 1)
    return [(float(start), float(stop), int((start + stop) / 2)) for start, stop in pairwise(edges)]


def _draw_strip(axes: Axes, frames: torch.Tensor, fps: float, num_thumbnails: int) -> None:
    slots = thumbnail_slots(len(frames), num_thumbnails)
    box = axes.get_window_extent()
    for start, stop, index in slots:
        left, right = start / fps, stop / fps
        # Where the strip's height is limited, the picture is narrower than its slot and stands in the slot's middle.
        shown = min(right - left, (box.height / box.width) * len(frames) / fps * frames.shape[3] / frames.shape[2])
        middle = (left + right) / 2
        axes.imshow(
            frames[index].permute(1, 2, 0).cpu().numpy(),
            extent=(middle - shown / 2, middle + shown / 2, 0, 1),
            aspect="auto",
            interpolation="antialiased",
        )
        axes.add_patch(
            Rectangle(
                (middle - shown / 2, 0), shown, 1, facecolor="none", edgecolor=PAPER, linewidth=1.5, clip_on=False
            )
        )
    axes.set_xlim(0, len(frames) / fps)
    axes.set_ylim(0, 1)
    axes.set_axis_off()


def _draw_row(
    axes: Axes, spans: list[tuple[int, int]], *, num_frames: int, fps: float, ids: bool, width_inches: float
) -> None:
    points_per_frame = width_inches * POINTS_PER_INCH / num_frames
    for index, (start, stop) in enumerate(spans):
        color = segment_color(index)
        width_points = (stop - start) * points_per_frame
        axes.add_patch(
            Rectangle(
                (start / fps, 0), (stop - start) / fps, 1, facecolor=color, linewidth=0, gid=f"segment-{index + 1}"
            )
        )
        font_size = id_font_size(index + 1, width_points) if ids else None
        if font_size is not None:
            axes.text(
                (start + stop) / (2 * fps),
                0.48,
                str(index + 1),
                ha="center",
                va="center_baseline",
                fontsize=font_size,
                color=text_color_on(color),
            )
    _draw_tail(axes, spans[-1][1], num_frames, fps)
    _draw_gaps(axes, spans, fps, points_per_frame)
    axes.set_xlim(0, num_frames / fps)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.tick_params(bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)


def _draw_gaps(axes: Axes, spans: list[tuple[int, int]], fps: float, points_per_frame: float) -> None:
    """White lines on the edges of segments, never so wide that they hide a narrow segment."""
    widths = [min(MAX_GAP, 0.2 * (stop - start) * points_per_frame) for start, stop in spans]
    edges = [stop / fps for _, stop in spans]
    narrower = [min(pair) for pair in zip(widths, [*widths[1:], MAX_GAP], strict=True)]
    axes.vlines(edges, 0, 1, colors=PAPER, linewidths=narrower)


def _draw_tail(axes: Axes, start: int, num_frames: int, fps: float) -> None:
    if start < num_frames:
        axes.add_patch(
            Rectangle(
                (start / fps, 0),
                (num_frames - start) / fps,
                1,
                facecolor=TAIL_FACE,
                edgecolor=TAIL_HATCH,
                linewidth=0,
                hatch="//////",
                gid="no-latent-action",
            )
        )


def id_font_size(segment_id: int, width_points: float) -> float | None:
    """The largest font size at which a segment's number fits in its width, in points; None where none does."""
    digits = len(str(segment_id))
    for size in ID_FONT_SIZES:
        if digits * DIGIT_EMS * size + 2 * ID_PADDING <= width_points:
            return size
    return None


def _label_row(axes: Axes, stage: int, num_segments: int) -> None:
    noun = "segment" if num_segments == 1 else "segments"
    axes.text(
        -0.012, 0.76, f"Stage {stage}", transform=axes.transAxes, ha="right", va="center", fontsize=9.5, color=INK
    )
    axes.text(
        -0.012,
        0.24,
        f"{num_segments} {noun}",
        transform=axes.transAxes,
        ha="right",
        va="center",
        fontsize=8,
        color=MUTED,
    )


def _draw_time_axis(axes: Axes) -> None:
    axes.spines["bottom"].set_visible(True)
    axes.spines["bottom"].set_position(("outward", 4))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=12, steps=[1, 2, 5, 10]))
    axes.tick_params(bottom=True, labelbottom=True)
    axes.set_xlabel("time (s)", labelpad=2)


def _draw_title(figure: Figure, strip: Axes, title: str) -> None:
    text = strip.text(0, 1.0, title, transform=strip.transAxes, fontsize=11.5, color=INK, va="bottom", parse_math=False)
    text.set_position((0, 1 + 0.09 / (strip.get_position().height * figure.get_figheight())))
    available = strip.get_window_extent().width
    shortened = title
    while text.get_window_extent().width > available and shortened:
        shortened = shortened[:-1].rstrip()
        text.set_text(shortened + "\N{HORIZONTAL ELLIPSIS}")
