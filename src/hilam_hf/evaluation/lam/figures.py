"""Figures of a latent action model's report: errors by video, spread of latents, codes, latents applied elsewhere.

Shapes: J examples, L latent actions in a row, C, H, W frames, D positions of codes, K entries of the codebook.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ...viz.charts import BAR_COLORS, ROUND_STEPS
from ...viz.frames import amplification, draw_grid
from ...viz.style import ACCENT, CONTRAST, INK, MUTED, PAPER, add_axes_inches, new_figure, styled, text_color_on

MAX_LABELLED_CODES = 16
_WHITE_TO_BLUE = LinearSegmentedColormap.from_list("use", [PAPER, BAR_COLORS[0], ACCENT])


@styled
def plot_episode_ratios(
    ratios: Sequence[float], overall: float | None, interval: tuple[float, float] | None = None
) -> Figure:
    """Draw each video's error as a fraction of copying's, sorted, with the overall one and its interval.

    Args:
        ratios: One a video, at least 0 and finite.
        overall: That of all pairs together.
        interval: Its bounds.

    Raises:
        ValueError: There is no ratio.
    """
    if not ratios:
        raise ValueError("ratios is empty; give that of at least one video.")
    figure = new_figure(7.4, 2.5)
    axes = add_axes_inches(figure, 0.72, 0.5, 5.2, 1.85)
    rank = np.arange(1, len(ratios) + 1)
    if interval is not None:
        axes.axhspan(*interval, color=BAR_COLORS[1], alpha=0.6, linewidth=0, zorder=0.5)
    axes.plot(rank, np.sort(ratios), "o", color=ACCENT, markersize=4 if len(ratios) <= 80 else 2.5)
    axes.axhline(1, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    top = 1.08 * max(*ratios, 1.0)
    _label_right(axes, 1 / top, "copying", MUTED)
    if overall is not None:
        axes.axhline(overall, color=INK, linewidth=1)
        # The two labels need a line's height between them.
        distance = 0.1 if abs(overall - 1) / top < 0.1 else 0
        y = overall / top + (distance if overall >= 1 else -distance)
        _label_right(axes, y, f"all pairs: {overall:.2f}", INK)
    axes.set_ylim(0, top)
    axes.set_xlim(0.5, len(ratios) + 0.5)
    axes.set_xlabel("videos, from the best to the worst predicted", labelpad=2)
    axes.set_ylabel("error / error of copying")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=ROUND_STEPS, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=ROUND_STEPS))
    return figure


def _label_right(axes: Axes, y: float, text: str, color: str) -> None:
    axes.text(1.015, y, text, transform=axes.transAxes, va="center", fontsize=9, color=color)


@styled
def plot_latent_spread(std: Sequence[float], variance_shares: Sequence[float], entropy_rank: float | None) -> Figure:
    """Draw each dimension's standard deviation, and how much variance the first principal components hold.

    Args:
        std: One a dimension.
        variance_shares: The share of the variance of each component, the largest first; may be empty.
        entropy_rank: Effective number of directions, marked.
    """
    figure = new_figure(8.6, 2.5)
    left = add_axes_inches(figure, 0.72, 0.5, 3.3, 1.7)
    left.bar(np.arange(len(std)), std, width=0.85 if len(std) <= 128 else 1.0, color=BAR_COLORS[0])
    left.set_title("standard deviation of each dimension")
    left.set_xlabel("dimension", labelpad=2)
    left.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=ROUND_STEPS, integer=True))
    left.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=ROUND_STEPS))
    right = add_axes_inches(figure, 4.95, 0.5, 3.3, 1.7)
    right.set_title("variance in the first components")
    cumulative = np.concatenate([[0.0], np.cumsum(variance_shares)])
    marker = "o" if len(cumulative) <= 20 else None
    right.plot(np.arange(len(cumulative)), cumulative, color=ACCENT, linewidth=1.7, marker=marker, markersize=3.5)
    if entropy_rank is not None:
        right.axvline(entropy_rank, color=CONTRAST, linewidth=1.4)
        right.text(
            entropy_rank + 0.02 * len(cumulative), 0.06, f"effective rank {entropy_rank:.1f}", fontsize=8.5, color=INK
        )
    right.set_ylim(0, 1.02)
    right.set_xlim(0, max(1, len(cumulative) - 1))
    right.set_xlabel("principal components", labelpad=2)
    right.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=ROUND_STEPS, integer=True))
    right.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    right.grid(axis="y")
    return figure


@styled
def plot_code_use(counts: Sequence[Sequence[int]]) -> Figure:
    """Draw how often each entry of the codebook comes up at each position.

    Args:
        counts: D rows of K counts.

    Raises:
        ValueError: There are no counts.
    """
    shares = np.asarray(counts, dtype=float)
    if shares.ndim != 2 or not shares.size or not shares.sum():
        raise ValueError(f"counts must be D rows of K counts above 0, got shape {shares.shape}.")
    shares /= shares.sum(axis=1, keepdims=True).clip(min=1)
    num_positions, size = shares.shape
    labelled = size <= MAX_LABELLED_CODES
    width = min(7.4, 0.62 * size) if labelled else 7.4
    height = 0.34 * num_positions
    figure = new_figure(width + 1.35, height + 0.75)
    axes = add_axes_inches(figure, 1.0, 0.5, width, height)
    largest = max(float(shares.max()), 1e-9)
    axes.imshow(shares, cmap=_WHITE_TO_BLUE, vmin=0, vmax=largest, aspect="auto", interpolation="nearest")
    if labelled:
        for (position, code), share in np.ndenumerate(shares):
            face = _WHITE_TO_BLUE(share / largest)
            color = text_color_on("#" + "".join(f"{round(255 * c):02x}" for c in face[:3]))
            axes.text(code, position, f"{share:.0%}", ha="center", va="center", fontsize=8, color=color)
        axes.set_xticks(range(size))
    axes.set_yticks(range(num_positions), [f"position {position + 1}" for position in range(num_positions)])
    axes.tick_params(length=0)
    axes.set_xlabel("code", labelpad=2)
    return figure


@styled
def plot_transfer(source: torch.Tensor, own: torch.Tensor, transferred: torch.Tensor, stride: int) -> Figure:
    """Draw a source video, what its latent actions make of its first frame, and of a frame of another video.

    Args:
        source: (L + 1, 3, H, W) the source's frames, `stride` apart, floats in [0, 1].
        own: (L + 1, 3, H, W) its first frame, then one prediction after another.
        transferred: (L + 1, 3, H, W) the other video's frame, then predictions.
        stride: k in frames, for the titles.
    """
    rows = [
        ("source", "its own frames", source),
        ("source", "first frame, decoded on", own.clamp(0, 1)),
        ("target", "one frame, decoded on", transferred.clamp(0, 1)),
    ]
    titles = ["$t$", *(f"$t$ + {step * stride}" for step in range(1, len(source)))]
    return draw_grid(rows, {}, titles)


@styled
def plot_same_frame(
    frame: torch.Tensor,
    frames: torch.Tensor,
    next_frames: torch.Tensor,
    predicted: torch.Tensor,
    codes: Sequence[Sequence[int]] | None = None,
) -> Figure:
    """Draw what several latent actions make of one frame.

    Args:
        frame: (3, H, W) the frame, floats in [0, 1].
        frames: (J, 3, H, W) first frames of the pairs that latent actions come from.
        next_frames: (J, 3, H, W) their second frames.
        predicted: (J, 3, H, W) predictions from `frame`.
        codes: J latent actions where they are codes, for the titles.
    """
    predicted = predicted.clamp(0, 1)
    difference = (predicted - frame).abs()
    factor = amplification([difference])
    rows = [
        ("$I_t$", "whose latent it is", frames),
        ("$I_{t+k}$", "whose latent it is", next_frames),
        (r"$\hat{I}$", "one frame, that latent", predicted),
        ("change", f"from the frame \N{MULTIPLICATION SIGN}{factor}", (difference * factor).clamp(0, 1)),
    ]
    numbers = [f"video {index}'s" for index in range(2, len(frames) + 1)]
    titles = ["its own", *numbers] if codes is None else [" ".join(map(str, row)) for row in codes]
    return draw_grid(rows, {}, titles)
