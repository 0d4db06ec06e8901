"""Pictures and pages: what reports share: charts, skill timelines, pictures of frames, parts of pages."""

from .charts import plot_boundary_rates, plot_success_bars, plot_training_curves
from .frames import plot_next_frames
from .style import figure_png, save_figure
from .timeline import plot_skill_timeline, segment_spans

__all__ = [
    "figure_png",
    "plot_boundary_rates",
    "plot_next_frames",
    "plot_skill_timeline",
    "plot_success_bars",
    "plot_training_curves",
    "save_figure",
    "segment_spans",
]
