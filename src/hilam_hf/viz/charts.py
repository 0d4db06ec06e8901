"""Charts of a run: training curves, success rates with their intervals, boundary rates against their targets."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from .style import ACCENT, CONTRAST, INK, MUTED, RULE, add_axes_inches, new_figure, styled

# Series alternate between dark and light, so that they stay apart in greyscale.
SERIES_COLORS = (ACCENT, CONTRAST, "#994455", "#88CCEE")
SMOOTH_FROM = 60
LOG_FROM_RATIO = 50
ROUND_STEPS = [1, 2, 2.5, 5, 10]
# Light enough for the ink of the intervals on top of them.
BAR_COLORS = ("#6F9FCF", "#EECC66", "#EE99AA", "#B9DDB0")


@styled
def plot_training_curves(history: Mapping[str, Sequence[tuple[int, float]]]) -> Figure:
    """Draw one small chart a recorded quantity, over training steps.

    Long series are drawn faint, with their running mean on top. Series of positive values that span a
    factor of 50 or more get a logarithmic axis. Values that are not finite are left out and counted in the title.

    Args:
        history: For each name, `(step, value)` pairs in order of steps.

    Returns:
        The figure, one axes for each name, three in a row at most.

    Raises:
        ValueError: There is no series, or one has no values.
    """
    if not history:
        raise ValueError("history is empty; give at least one series of (step, value) pairs.")
    columns = min(3, len(history))
    rows = math.ceil(len(history) / columns)
    cell_width, cell_height = min(3.2, 9.6 / columns) if columns > 1 else 5.2, 2.2
    figure = new_figure(0.1 + columns * cell_width, 0.05 + rows * cell_height)
    height = figure.get_figheight()
    for index, (name, points) in enumerate(history.items()):
        row, column = divmod(index, columns)
        left, bottom = column * cell_width + 0.62, height - (row + 1) * cell_height + 0.48
        axes = add_axes_inches(figure, left, bottom, cell_width - 0.78, cell_height - 0.85)
        _draw_curve(axes, name, points)
    return figure


def _draw_curve(axes: Axes, name: str, points: Sequence[tuple[int, float]]) -> None:
    if not len(points):
        raise ValueError(f"history {name!r} has no values.")
    steps, values = np.asarray(points, dtype=float).T
    finite = np.isfinite(values)
    missing = int((~finite).sum())
    axes.set_title(name if not missing else f"{name} ({missing} not finite)", parse_math=False)
    axes.set_xlabel("step", labelpad=2)
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=ROUND_STEPS, integer=True))
    if not finite.any():
        return
    long = len(values) >= SMOOTH_FROM
    values = np.where(finite, values, np.nan)
    marker = "o" if finite.sum() <= 12 else None
    axes.plot(steps, values, color=ACCENT, linewidth=1.0, alpha=0.3 if long else 1.0, marker=marker, markersize=3.5)
    if long:
        axes.plot(steps, running_mean(values, len(values) // SMOOTH_FROM), color=ACCENT, linewidth=1.6)
    lowest, highest = float(np.nanmin(values)), float(np.nanmax(values))
    if lowest > 0 and highest / lowest >= LOG_FROM_RATIO:
        axes.set_yscale("log")
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=ROUND_STEPS))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))


def short_number(value: float) -> str:
    """A tick label of at most four significant digits: `2500`, `0.05`, `2.5e-4`."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of each value and the `window` values on either side, fewer at the ends; NaNs do not count."""
    known = np.isfinite(values)
    sums = np.concatenate(([0.0], np.cumsum(np.where(known, values, 0.0))))
    counts = np.concatenate(([0.0], np.cumsum(known)))
    index = np.arange(len(values))
    start, stop = np.maximum(index - window, 0), np.minimum(index + window + 1, len(values))
    totals, numbers = sums[stop] - sums[start], counts[stop] - counts[start]
    return np.divide(totals, numbers, out=np.full(len(values), np.nan), where=numbers > 0)


@styled
def plot_success_bars(results: Mapping[str, Mapping[str, Mapping[str, Any]]], *, aim: float | None = None) -> Figure:
    """Draw success rates a task, side by side for each way of training, with their intervals.

    Args:
        results: For each way of training (such as `"with pretraining"`), for each task, a mapping with `"rate"`,
            `"low"` and `"high"` in [0, 1] (such as a Wilson 95 % interval), and `"successes"` and `"trials"`, which are
            printed. Every way has the same tasks.
        aim: A rate to mark with a dashed line.

    Returns:
        The figure, with one axes.

    Raises:
        ValueError: There is nothing to draw, tasks differ, a number is missing, or not `0 <= low <= rate <= high <= 1`.
    """
    tasks = _check_results(results)
    row_height = 0.24 * len(results) + 0.16
    figure = new_figure(8.0, 1.05 + row_height * len(tasks))
    axes = add_axes_inches(figure, 2.15, 0.5, 5.25, row_height * len(tasks))
    bar_height = 0.8 / len(results)
    for series, (name, by_task) in enumerate(results.items()):
        y = np.arange(len(tasks)) + (series - (len(results) - 1) / 2) * bar_height
        numbers = [by_task[task] for task in tasks]
        _draw_bars(axes, y, numbers, 0.88 * bar_height, BAR_COLORS[series % len(BAR_COLORS)], name)
    if aim is not None:
        axes.axvline(aim, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=0.5)
        axes.text(aim, -0.55, f"aim {aim:.0%}", ha="center", va="bottom", fontsize=8.5, color=MUTED)
    axes.set_ylim(len(tasks) - 0.5, -0.5)
    axes.set_yticks(range(len(tasks)), [textwrap.fill(task.replace("_", " "), 26) for task in tasks], parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 1)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.set_xlabel("success rate", labelpad=2)
    axes.grid(axis="x")
    legend_place = (0, 1 + 0.2 / (row_height * len(tasks)))
    axes.legend(loc="lower left", bbox_to_anchor=legend_place, ncols=len(results), borderaxespad=0, handlelength=1.2)
    return figure


def _draw_bars(
    axes: Axes, y: np.ndarray, numbers: Sequence[Mapping[str, Any]], height: float, color: str, name: str
) -> None:
    rates, low, high = (np.array([number[key] for number in numbers], dtype=float) for key in ("rate", "low", "high"))
    axes.barh(y, rates, height=height, color=color, label=name)
    axes.errorbar(
        rates, y, xerr=(rates - low, high - rates), fmt="none", ecolor=INK, elinewidth=1.1, capsize=3, capthick=1.1
    )
    for position, number, right in zip(y, numbers, high, strict=True):
        label = f"{number['successes']}/{number['trials']}"
        axes.text(right + 0.012, position, label, va="center_baseline", fontsize=8.5, color=INK, clip_on=False)


def _check_results(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """The tasks, after checking that every way of training has the same ones with all numbers."""
    if not results:
        raise ValueError("results is empty; give success rates for at least one way of training.")
    tasks = list(next(iter(results.values())))
    if not tasks:
        raise ValueError("results has no task.")
    for name, by_task in results.items():
        if set(by_task) != set(tasks):
            raise ValueError(f"results {name!r} has tasks {sorted(by_task)}, expected {sorted(tasks)}.")
        for task, numbers in by_task.items():
            missing = [key for key in ("rate", "low", "high", "successes", "trials") if key not in numbers]
            if missing:
                raise ValueError(f"results {name!r}, task {task!r}: missing {missing}.")
            if not 0 <= numbers["low"] <= numbers["rate"] <= numbers["high"] <= 1:
                raise ValueError(
                    f"results {name!r}, task {task!r}: expected 0 <= low <= rate <= high <= 1, got "
                    f"low {numbers['low']}, rate {numbers['rate']}, high {numbers['high']}."
                )
    return tasks


@styled
def plot_boundary_rates(
    history: Mapping[int, Sequence[tuple[int, float]]], targets: Mapping[int, float], *, title: str | None = None
) -> Figure:
    """Draw each stage's boundary rate over training, with its target as a dashed line.

    Args:
        history: For each stage, `(step, rate)` pairs; rates in [0, 1], the share of that stage's inputs that start a
            segment.
        targets: For each of these stages, the rate that the ratio loss aims at.
        title: Line above the chart.

    Returns:
        The figure, with one axes.

    Raises:
        ValueError: There is nothing to draw, or the stages of `history` and `targets` differ.
    """
    if not history:
        raise ValueError("history is empty; give the boundary rates of at least one stage.")
    if set(history) != set(targets):
        raise ValueError(f"history has stages {sorted(history)}, but targets has {sorted(targets)}.")
    figure = new_figure(6.4, 2.9 if title else 2.6)
    axes = add_axes_inches(figure, 0.68, 0.52, 4.5, 1.95)
    labels: list[tuple[float, str, str]] = []
    for index, stage in enumerate(sorted(history)):
        if not len(history[stage]):
            raise ValueError(f"history of stage {stage} has no values.")
        color = SERIES_COLORS[index % len(SERIES_COLORS)]
        steps, rates = np.asarray(history[stage], dtype=float).T
        marker = "o" if len(steps) <= 12 else None
        axes.plot(steps, rates, color=color, linewidth=1.7, marker=marker, markersize=4)
        axes.axhline(targets[stage], color=color, linewidth=1.1, linestyle=(0, (4, 3)))
        labels.append((float(rates[-1]), f"stage {stage}: {rates[-1]:.1%}\ntarget {targets[stage]:.1%}", color))
    highest = max(max(value for _, value in points) for points in history.values())
    top = min(1.0, 1.15 * max(highest, *targets.values(), 0.05))
    axes.set_ylim(0, top)
    for y, text, color in _spread(labels, 0.2 * top, top):
        axes.text(1.02, y / top, text, transform=axes.transAxes, va="center", fontsize=9, color=INK, linespacing=1.25)
        axes.plot([1.0, 1.012], [y / top, y / top], transform=axes.transAxes, color=color, linewidth=3, clip_on=False)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=ROUND_STEPS))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=ROUND_STEPS, integer=True))
    axes.margins(x=0)
    axes.grid(axis="y", color=RULE)
    axes.set_xlabel("step", labelpad=2)
    axes.set_ylabel("boundary rate")
    if title:
        axes.set_title(title, parse_math=False)
    return figure


def _spread(labels: list[tuple[float, str, str]], distance: float, top: float) -> list[tuple[float, str, str]]:
    """Labels moved apart until they are `distance` from each other, staying below `top` and in order."""
    ordered = sorted(labels)
    positions = [position if math.isfinite(position) else 0.0 for position, _, _ in ordered]
    for index in range(1, len(positions)):
        positions[index] = max(positions[index], positions[index - 1] + distance)
    overflow = max(0.0, positions[-1] - (top - distance / 2))
    return [(position - overflow, text, color) for position, (_, text, color) in zip(positions, ordered, strict=True)]
