"""The golden cases of published models: the folder `models` of HILAM_GOLDENS, `../shared/goldens` by default."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from tests.helpers import require_shared


def golden_folder() -> Path:
    given = os.environ.get("HILAM_GOLDENS")
    return (Path(given) if given else require_shared() / "goldens") / "models"


def case_names(model: str) -> list[str]:
    """Names of the cases of one kind; a stand-in that reports the missing folder where there is none."""
    given = os.environ.get("HILAM_GOLDENS")
    folder = Path(given) if given else Path(__file__).resolve().parents[3] / "shared" / "goldens"
    index = folder / "models" / "index.json"
    if not index.exists():
        return ["missing"]
    cases = json.loads(index.read_text())["cases"]
    return [name for name, case in cases.items() if case["model"] == model]


def load_case(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    folder = golden_folder()
    case = json.loads((folder / "index.json").read_text())["cases"][name]
    return case, load_file(folder / case["file"])


def weights_recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("weights_recipe", golden_folder() / "weights_recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
