"""The main job: the whole path from videos to a policy that acts, on one machine, with a report."""

from .config import DemoConfig
from .pipeline import run_demo

__all__ = ["DemoConfig", "run_demo"]
