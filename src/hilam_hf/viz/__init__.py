"""Pictures and pages: skill timelines, predicted next frames, charts, the demo's report, the page of a skill corpus."""

from .charts import plot_boundary_rates, plot_success_bars, plot_training_curves
from .frames import plot_next_frames
from .report import write_report
from .segmentation import plot_f1_bars, plot_segmentations
from .skills_page import SkillsPageEntry, write_skills_page
from .style import figure_png, save_figure
from .timeline import plot_skill_timeline, segment_spans

__all__ = [
    "SkillsPageEntry",
    "figure_png",
    "plot_boundary_rates",
    "plot_f1_bars",
    "plot_next_frames",
    "plot_segmentations",
    "plot_skill_timeline",
    "plot_success_bars",
    "plot_training_curves",
    "save_figure",
    "segment_spans",
    "write_report",
    "write_skills_page",
]
