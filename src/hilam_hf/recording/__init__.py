"""Recordings of scripted experts, of any simulator, in any of the formats that demonstrations are read from."""

from .log import RecordingSummary
from .recorder import record

__all__ = ["RecordingSummary", "record"]
