"""The page that shows the skills of a corpus."""

from .page import SkillsPageEntry, write_skills_page
from .timelines import write_timelines_page

__all__ = ["SkillsPageEntry", "write_skills_page", "write_timelines_page"]
