"""The golden cases of H-Net by kind: which piece of it a case holds, told by its fields and tensors."""

from __future__ import annotations

from typing import Literal

from tests.models.goldens import Case, golden_cases

Kind = Literal["routing", "chunk", "dechunk", "ratio loss", "backbone"]


def hnet_cases(kind: Kind) -> list[str]:
    """Names of the cases of a kind; see `golden_cases`."""
    return golden_cases(lambda case: _kind_of(case) == kind, "hnet")


def _kind_of(case: Case) -> Kind:
    if "arch_layout" in case["config"]:
        return "backbone"
    if "grad_N" in case["config"]:
        return "ratio loss"
    if "in/masked/chunk_mask" in case["tensors"]:
        return "dechunk"
    return "chunk" if "in/masked/boundary_mask" in case["tensors"] else "routing"
