"""Pictures and pages: skill timelines, predicted next frames, charts, the demo's report, the page of a skill corpus."""

from hilam_hf.viz.charts import plot_boundary_rates, plot_success_bars, plot_training_curves
from hilam_hf.viz.frames import plot_next_frames
from hilam_hf.viz.report import write_report
from hilam_hf.viz.skills_page import SkillsPageEntry, write_skills_page
from hilam_hf.viz.style import figure_png, save_figure
from hilam_hf.viz.timeline import plot_skill_timeline, segment_spans

__all__ = [
    "SkillsPageEntry",
    "figure_png",
    "plot_boundary_rates",
    "plot_next_frames",
    "plot_skill_timeline",
    "plot_success_bars",
    "plot_training_curves",
    "save_figure",
    "segment_spans",
    "write_report",
    "write_skills_page",
]
