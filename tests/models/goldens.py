"""Published numbers: the folders `models` and `hnet` of HILAM_GOLDENS, `../shared/goldens` by default.

A case is told by the fields of its entry in `index.json` and by its tensors, never by its name, so that other sets of
the same form run.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.helpers import ROOT, require_shared

Case = dict[str, Any]
Tensors = dict[str, Tensor]

_MISSING = "missing"


def golden_folder(part: str = "models") -> Path:
    """A folder of the set; without the default set the test ends here."""
    chosen = os.environ.get("HILAM_GOLDENS")
    return (Path(chosen) if chosen else require_shared() / "goldens") / part


def golden_cases(belongs: Callable[[Case], bool], part: str = "models") -> list[str]:
    """Names of the cases to which a condition applies; a stand-in, which `load_case` reports, where there is none."""
    chosen = os.environ.get("HILAM_GOLDENS")
    index = (Path(chosen) if chosen else ROOT.parent / "shared" / "goldens") / part / "index.json"
    cases = json.loads(index.read_text())["cases"] if index.is_file() else {}
    return [name for name, case in cases.items() if belongs(case)] or [_MISSING]


def case_names(model: str) -> list[str]:
    """Names of the cases of the folder `models` with this `model`; see `golden_cases`."""
    return golden_cases(lambda case: case["model"] == model)


def load_case(name: str, part: str = "models") -> tuple[Case, Tensors]:
    """A case's entry in the index, and its tensors."""
    folder = golden_folder(part)
    cases = json.loads((folder / "index.json").read_text())["cases"]
    if name == _MISSING:
        _lacks(folder, "case of this kind")
    return cases[name], load_file(folder / cases[name]["file"])


def published_weights(case: Case, tensors: Tensors) -> Tensors:
    """The parameters of a case by their published names."""
    recipe, seed = weights_recipe(), case["weight_seed"]
    stored = {name: tensor.numpy() for name, tensor in tensors.items() if name.startswith("weights/")}
    return {entry["name"]: torch.as_tensor(recipe.fill(entry, seed, stored)) for entry in manifest_of(case)}


def manifest_of(case: Case) -> list[dict[str, Any]]:
    """What the recipe fills each parameter of a case with."""
    return json.loads((golden_folder() / case["weights_manifest"]).read_text())


def weights_recipe() -> ModuleType:
    """The set's module that fills parameters."""
    spec = importlib.util.spec_from_file_location("weights_recipe", golden_folder() / "weights_recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def published_shapes(known: str) -> dict[str, dict[str, Any]]:
    """Shape and dtype of the tensors of a published checkpoint: of the list `keys_*.json` that holds the name `known`.

    Names in a list of several state dicts begin with the name of theirs.
    """
    for path in sorted(golden_folder().glob("keys_*.json")):
        content = json.loads(path.read_text())
        parts = {f"{part}.": entries for part, entries in content.get("state_dicts", {}).items()}
        parts |= {"": content.get("tensors", {})}
        entries = {prefix + name: entry for prefix, part in parts.items() for name, entry in part.items()}
        if known in entries:
            return entries
    _lacks(golden_folder(), f"keys_*.json with {known}")


def _lacks(folder: Path, what: str) -> NoReturn:
    """Ends a test for which a set has nothing: a chosen set need not be complete, the default one is."""
    if os.environ.get("HILAM_GOLDENS"):
        pytest.skip(f"the chosen set has no {what}")
    pytest.fail(f"{folder} has no {what}", pytrace=False)


def golden_statistic(stats: Any, tensors: Tensors, name: str) -> Tensor:
    """A number to normalise with, or one for each dimension: as the file or the index has it, otherwise 0 and 1.

    Args:
        stats: What the case's entry says of its statistics: numbers by `name` or by "min" and "max"; lists of numbers;
            or anything else, such as a remark, where the numbers are tensors of the file.
        tensors: The case's file; statistics in it are called `stats_pmin`, `stats_action_max`, `stats_min` and so on.
        name: "proprio_min", "proprio_max", "action_min" or "action_max".
    """
    quantity, bound = name.split("_")
    stored = re.compile(rf"inputs/.*stats[_/](|{quantity[0]}|{quantity}s?_){bound}")
    for key, value in tensors.items():
        if stored.fullmatch(key):
            return value
    given = stats if isinstance(stats, dict) else {}
    value = given.get(name, given.get(bound, {"min": 0, "max": 1}[bound]))
    assert stats is None or name in given or bound in given, f"{name} is neither in the file nor in {stats!r}"
    return torch.as_tensor(value, dtype=torch.float32)


def check_golden(case: Case, tensors: Tensors, name: str, actual: Tensor) -> None:
    """Compares with a stored tensor, of any shape with as many numbers, within the tolerance that its entry gives."""
    expected = tensors[name]
    torch.testing.assert_close(
        actual.detach().double().reshape(expected.shape),
        expected.double(),
        rtol=0,
        atol=case["tensors"][name].get("suggested_atol", 0),
        msg=lambda message: f"{name} {message}",
    )


def check_held(case: Case, tensors: Tensors, results: Mapping[str, Tensor], others: Callable[[str], bool]) -> None:
    """Compares the outputs that a case holds; each must be one of the results, or one for which `others` is true."""
    held = [name.removeprefix("outputs/") for name in tensors if name.startswith("outputs/")]
    unknown = [name for name in held if name not in results and not others(name)]
    assert not unknown, f"no test compares {unknown}"
    compared = [name for name in held if name in results]
    assert compared
    for name in compared:
        check_golden(case, tensors, f"outputs/{name}", results[name])
