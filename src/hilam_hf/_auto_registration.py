"""Registers the models with transformers' and diffusers' Auto classes as soon as they are in use, and not sooner.

Importing the models takes seconds and hundreds of megabytes (torch, transformers), which simulator workers and
`hilam --help` don't need. So they are imported together with the first of: a model of this package,
`transformers.AutoModel`, or a pipeline of diffusers.
"""

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

# For each module of another library, the one of this package that registers itself there when imported.
REGISTERED_BY = {
    "transformers.models.auto.modeling_auto": "hilam_hf.models",
    "diffusers.pipelines.pipeline_utils": "hilam_hf.models.uniskill.pipeline_uniskill",
}


def register_with_libraries() -> None:
    """Registers now with what is loaded of transformers' and diffusers' Auto classes, otherwise right after it is."""
    for module, registering in REGISTERED_BY.items():
        if module in sys.modules:
            importlib.import_module(registering)
        else:
            sys.meta_path.insert(0, _OneModuleFinder(module, registering))


class _OneModuleFinder(importlib.abc.MetaPathFinder):
    """Finds one module, once, and hands it to the loader that it would have had anyway."""

    def __init__(self, module: str, registering: str):
        self.module = module
        self.registering = registering

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenRegister(spec.loader, self.registering)
        return spec


class _ThenRegister(importlib.abc.Loader):
    """Executes a module with its own loader, then imports the module that registers itself there."""

    def __init__(self, loader: importlib.abc.Loader, registering: str):
        self.loader = loader
        self.registering = registering

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        importlib.import_module(self.registering)
