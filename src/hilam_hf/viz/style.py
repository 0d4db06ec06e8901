"""What every picture of this package shares: colours, font sizes, and how a figure becomes a PNG.

Figures are made as `matplotlib.figure.Figure`, never through pyplot: nothing global is touched, no display is needed,
and a figure is freed when its last reference goes.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

# Dark and light alternate, so neighbours differ by at least 28 units of CIE lightness: they stay apart in greyscale
# print and under every kind of colour blindness. An even count keeps that true where the cycle wraps around.
# The hues are from Paul Tol's medium-contrast and muted schemes.
SEGMENT_COLORS = ("#004488", "#EECC66", "#994455", "#88CCEE", "#117733", "#EE99AA", "#664499", "#B9DDB0")

INK = "#1B1F24"
MUTED = "#5F6873"
RULE = "#D5D9DE"
PAPER = "#FFFFFF"
TAIL_FACE = "#F1F2F4"
TAIL_HATCH = "#B4BAC2"
ACCENT = "#004488"
CONTRAST = "#D9A520"

DPI = 160

RC_PARAMS: dict[str, object] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "regular",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "hatch.linewidth": 0.7,
}

P = ParamSpec("P")
R = TypeVar("R")


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Run a plotting function under this package's matplotlib settings, whatever the caller's are."""

    @wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(RC_PARAMS):  # type: ignore[arg-type]
            return function(*args, **kwargs)

    return inner


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches that draws with Agg."""
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def add_axes_inches(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes whose place is given in inches from the figure's lower left corner."""
    total_width, total_height = figure.get_size_inches()
    return figure.add_axes(
        (left / total_width, bottom / total_height, width / total_width, height / total_height),
    )


def segment_color(index: int) -> str:
    """The colour of the segment with the 0-based `index`."""
    return SEGMENT_COLORS[index % len(SEGMENT_COLORS)]


def relative_luminance(color: str) -> float:
    """WCAG relative luminance of a colour, 0 (black) to 1 (white): what a greyscale print keeps of it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def text_color_on(color: str) -> str:
    """Black or white ink, whichever has the higher WCAG contrast on `color`."""
    luminance = relative_luminance(color)
    contrast_with_white = 1.05 / (luminance + 0.05)
    contrast_with_ink = (luminance + 0.05) / (relative_luminance(INK) + 0.05)
    return INK if contrast_with_ink >= contrast_with_white else "#FFFFFF"


def figure_png(figure: Figure, *, dpi: int = DPI) -> bytes:
    """A figure drawn as PNG bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def save_figure(figure: Figure, path: str | Path, *, dpi: int = DPI) -> Path:
    """Write a figure; the suffix chooses the format (`.png`, `.pdf`, `.svg`, ...). Missing folders are made.

    Args:
        figure: The figure to draw.
        path: Where to write. An existing file is replaced only once the new one is whole.
        dpi: Dots per inch of pixel formats.

    Returns:
        The path written.

    Raises:
        ValueError: The suffix names no format that matplotlib writes.
        OSError: The file cannot be written.
    """
    path = Path(path)
    kind = path.suffix.removeprefix(".").lower()
    supported = sorted(FigureCanvasAgg.get_supported_filetypes())
    if kind not in supported:
        raise ValueError(
            f"Cannot save a figure as {path}: its suffix {path.suffix!r} names no known format; use one of {supported}."
        )
    with replacing(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=dpi)
    return path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its place at the end, so a failed write leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
