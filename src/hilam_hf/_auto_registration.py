"""Registers the models with transformers' Auto classes as soon as both packages are in use, and not sooner.

Importing the models takes seconds and hundreds of megabytes (torch, transformers), which simulator workers and
`hilam --help` don't need. So they are imported together with the first of: a model of this package, or
`transformers.AutoModel`.
"""

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

AUTO_MODULE = "transformers.models.auto.modeling_auto"
MODELS = "hilam_hf.models"


def register_with_transformers() -> None:
    """Imports the models now if transformers' Auto classes are loaded, otherwise right after they are."""
    if AUTO_MODULE in sys.modules:
        importlib.import_module(MODELS)
    else:
        sys.meta_path.insert(0, _AutoModuleFinder())


class _AutoModuleFinder(importlib.abc.MetaPathFinder):
    """Finds one module, once, and hands it to the loader that it would have had anyway."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != AUTO_MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenRegister(spec.loader)
        return spec


class _ThenRegister(importlib.abc.Loader):
    """Executes a module with its own loader, then imports the models, which register themselves."""

    def __init__(self, loader: importlib.abc.Loader):
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        importlib.import_module(MODELS)
