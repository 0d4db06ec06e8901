"""How good latent actions are: next-frame errors, use of the latents, probes to true motion, and a report of it all."""

from .errors import NextFrameErrors, ProbeResult, displacements, linear_probe, next_frame_errors
from .probe import Motion
from .report import LamReport, LamReportOptions, lam_report, write_lam_report

__all__ = [
    "LamReport",
    "LamReportOptions",
    "Motion",
    "NextFrameErrors",
    "ProbeResult",
    "displacements",
    "lam_report",
    "linear_probe",
    "next_frame_errors",
    "write_lam_report",
]
