"""Pictures of a segmentation study: F1 of every method with its interval, and episodes cut by true and found segments.

Shapes: T steps of an episode.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from ...viz.charts import BAR_COLORS
from ...viz.style import INK, MUTED, PAPER, SEGMENT_COLORS, add_axes_inches, new_figure, segment_color, styled
from ...viz.timeline import segment_spans

# Inches.
LABEL_WIDTH, CHART_WIDTH, MARGIN = 3.3, 5.0, 0.75
BAR_HEIGHT, STRIP_HEIGHT = 0.25, 0.17


@styled
def plot_f1_bars(
    scores: Mapping[str, Mapping[str, float]], *, highlighted: Sequence[str] = (), title: str | None = None
) -> Figure:
    """Draw the F1 of every method with its interval, in the order given.

    Args:
        scores: For each method a mapping with `"f1"`, `"low"` and `"high"`, `0 <= low <= f1 <= high <= 1`.
        highlighted: Methods whose bars get another colour.
        title: Line above the chart.

    Returns:
        The figure, with one axes.

    Raises:
        ValueError: There is nothing to draw, or numbers are out of order.
    """
    if not scores:
        raise ValueError("scores is empty; give the F1 of at least one method.")
    for name, numbers in scores.items():
        if not 0 <= numbers["low"] <= numbers["f1"] <= numbers["high"] <= 1:
            raise ValueError(f"scores of {name!r}: expected 0 <= low <= f1 <= high <= 1, got {dict(numbers)}.")
    height = BAR_HEIGHT * len(scores)
    figure = new_figure(LABEL_WIDTH + CHART_WIDTH + MARGIN, height + 0.95)
    axes = add_axes_inches(figure, LABEL_WIDTH, 0.5, CHART_WIDTH, height)
    f1, low, high = (np.array([numbers[key] for numbers in scores.values()]) for key in ("f1", "low", "high"))
    rows = np.arange(len(scores))
    colors = [BAR_COLORS[1 if name in highlighted else 0] for name in scores]
    axes.barh(rows, f1, height=0.72, color=colors)
    axes.errorbar(f1, rows, xerr=(f1 - low, high - f1), fmt="none", ecolor=INK, elinewidth=1.1, capsize=2.5)
    for row, (value, right) in enumerate(zip(f1, high, strict=True)):
        axes.text(right + 0.012, row, f"{value:.2f}", va="center_baseline", fontsize=8.5, clip_on=False)
    axes.set_ylim(len(scores) - 0.5, -0.5)
    axes.set_yticks(rows, [textwrap.shorten(name, 52, placeholder="...") for name in scores], parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, min(1.0, 1.08 * high.max()))
    axes.set_xlabel("boundary F1, 95 % interval over episodes", labelpad=2)
    axes.grid(axis="x")
    if title:
        axes.set_title(title, parse_math=False)
    return figure


def phase_color(index: int) -> str:
    """The colour of the phase with the 0-based `index`: those of segments, then the same ones halfway to the paper."""
    color, rounds = segment_color(index), index // len(SEGMENT_COLORS)
    red, green, blue = (c + (p - c) * (1 - 0.5**rounds) for c, p in zip(to_rgb(color), to_rgb(PAPER), strict=True))
    return to_hex((red, green, blue))


@styled
def plot_segmentations(
    phases: Mapping[str, Sequence[str]], segmentations: Mapping[str, Mapping[str, ArrayLike]]
) -> Figure:
    """Draw episodes as rows of coloured strips: true phases on top, then what every method made of it.

    True phases have one colour a name, in all episodes; found segments alternate between two greys. Lines
    through all of an episode's strips mark where the true phases change.

    Args:
        phases: For each episode T names, one a step.
        segmentations: For each method, for each of the episodes, bool (T,), True where a segment starts.

    Returns:
        The figure, one axes an episode.

    Raises:
        ValueError: There is no episode, or a method lacks one or has another number of steps.
    """
    if not phases:
        raise ValueError("phases is empty; give at least one episode.")
    for method, by_episode in segmentations.items():
        for episode, names in phases.items():
            if episode not in by_episode or len(np.asarray(by_episode[episode])) != len(names):
                raise ValueError(f"{method!r} has no segmentation of the {len(names)} steps of episode {episode!r}.")
    block = STRIP_HEIGHT * (1 + len(segmentations))
    phase_names = dict.fromkeys(name for names in phases.values() for name in names)
    colors = {name: phase_color(index) for index, name in enumerate(phase_names)}
    figure = new_figure(LABEL_WIDTH + CHART_WIDTH + MARGIN, len(phases) * (block + 0.42) + 0.75)
    longest = max(map(len, phases.values()))
    bottom = figure.get_figheight() - 0.45
    for episode, names in phases.items():
        bottom -= block + 0.42
        axes = add_axes_inches(figure, LABEL_WIDTH, bottom + 0.24, CHART_WIDTH, block)
        found = {method: by_episode[episode] for method, by_episode in segmentations.items()}
        _draw_episode(axes, names, found, colors)
        axes.set_xlim(0, longest)
        axes.set_title(episode, fontsize=9, pad=2, parse_math=False)
    figure.axes[-1].set_xlabel("latent action", labelpad=2)
    handles = [Patch(color=color, label=name) for name, color in colors.items()]
    figure.legend(handles=handles, loc="upper left", ncols=min(7, len(handles)), handlelength=1.0, columnspacing=1.2)
    return figure


def _draw_episode(axes: Axes, names: Sequence[str], found: Mapping[str, ArrayLike], colors: Mapping[str, str]) -> None:
    labels = np.asarray(names)
    true = np.concatenate(([True], labels[1:] != labels[:-1]))
    for start, stop in segment_spans(true, num_frames=len(labels)):
        axes.barh(0, stop - start, left=start, height=0.9, color=colors[str(labels[start])], linewidth=0)
    for row, boundaries in enumerate(found.values(), start=1):
        for index, (start, stop) in enumerate(segment_spans(np.asarray(boundaries), num_frames=len(labels))):
            axes.barh(row, stop - start, left=start, height=0.8, color=("#C3CAD3", "#7E8894")[index % 2], linewidth=0)
    axes.vlines(np.flatnonzero(true)[1:], -0.5, len(found) + 0.5, colors=INK, linewidth=0.9)
    axes.vlines(np.flatnonzero(true)[1:], -0.5, 0.5, colors=PAPER, linewidth=0.9)
    axes.set_ylim(len(found) + 0.5, -0.5)
    axes.set_yticks(range(len(found) + 1), ["true phases", *found], fontsize=7.5, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=7.5, labelcolor=MUTED)
    axes.spines[:].set_visible(False)
