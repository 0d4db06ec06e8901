"""Plug-ins by name: those of this package, one line each, and those that other packages add through entry points.

A plug-in is imported when it is asked for by name, so that a list of names costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from .hints import did_you_mean

T = TypeVar("T")


class PluginList(Generic[T]):
    """The plug-ins of one sort.

    Args:
        sort: What they are, for errors: "kind of latent action model".
        group: Entry point group in which other packages add theirs, as `NAME = "package.module:OBJECT"`.
        built_in: Those of this package: `"module:OBJECT"` by name.
        expected: `"module:Class"` of what they all are, with the plug-in's name as its `name`; None for anything.

    Example:
        >>> numbers = PluginList("number", "my_package.numbers", {"pi": "math:pi"})
        >>> numbers.names(), numbers.get("pi")
        (('pi',), 3.141592653589793)
    """

    def __init__(self, sort: str, group: str, built_in: Mapping[str, str], expected: str | None = None) -> None:
        self.sort = sort
        self.group = group
        self.expected = expected
        self._built_in = [EntryPoint(name, value, group) for name, value in built_in.items()]
        self._added: dict[str, T] = {}

    @cached_property
    def _from_packages(self) -> list[EntryPoint]:
        found = sorted(entry_points(group=self.group), key=lambda entry: (entry.name, entry.value))
        # A package that is installed editable may be found twice, with the same lines.
        return list({(entry.name, entry.value): entry for entry in found}.values())

    def names(self) -> tuple[str, ...]:
        """All names: this package's, those of other packages, those that were added in this process."""
        entries = [*self._built_in, *self._from_packages]
        return tuple(dict.fromkeys([*(entry.name for entry in entries), *self._added]))

    def built_in_names(self) -> tuple[str, ...]:
        """The names of this package's own."""
        return tuple(entry.name for entry in self._built_in)

    def names_from_packages(self) -> tuple[str, ...]:
        """The names that other packages add."""
        return tuple(dict.fromkeys(entry.name for entry in self._from_packages))

    def get(self, name: str) -> T:
        """Imports a plug-in.

        Raises:
            ValueError: If the name is unknown (naming the nearest one), two packages give it to different plug-ins, or
                what one gives is no such plug-in of this name.
            ImportError: If it can't be imported, naming its entry point and package.
        """
        if name in self._added:
            return self._added[name]
        entries = [entry for entry in (*self._built_in, *self._from_packages) if entry.name == name]
        if not entries:
            raise ValueError(f"unknown {self.sort} {name!r}{did_you_mean(name, self.names())}")
        if len(entries) > 1:
            described = " and ".join(map(_describe, entries))
            raise ValueError(f"{self.sort} {name!r} is declared twice, by {described}; uninstall one of them")
        return self._checked(name, self._load(entries[0]), f"{_describe(entries[0])} is")

    def _checked(self, name: str, plugin: Any, where: str) -> T:
        if self.expected is not None:
            expected = EntryPoint(name, self.expected, self.group).load()
            if not isinstance(plugin, expected) or plugin.name != name:
                raise ValueError(
                    f"{self.sort} {name!r}: {where} {plugin!r}, expected a {expected.__name__} with this name; correct "
                    "the one or the other"
                )
        return plugin

    def _load(self, entry: EntryPoint) -> Any:
        try:
            return entry.load()
        except Exception as error:  # whatever the import of another package ends in
            raise ImportError(
                f"{self.sort} {entry.name!r} cannot be loaded from {_describe(entry)} "
                f"({type(error).__name__}: {error}); update or uninstall that package"
            ) from error

    def add(self, name: str, plugin: T) -> None:
        """Adds a plug-in for this process.

        Raises:
            ValueError: If the name is taken, or this is no such plug-in of this name.
        """
        if name in self.names():
            raise ValueError(f"there is a {self.sort} {name!r} already; choose another name, or remove that one first")
        self._added[name] = self._checked(name, plugin, "got")

    def remove(self, name: str) -> None:
        """Takes away what `add` added.

        Raises:
            ValueError: If nothing of this name was added.
        """
        if name not in self._added:
            raise ValueError(f"no {self.sort} {name!r} was added in this process")
        del self._added[name]


def _describe(entry: EntryPoint) -> str:
    package = "hilam-hf" if entry.dist is None else entry.dist.name
    return f"{entry.value} ({package})"


LATENT_ACTION_KINDS: PluginList = PluginList(
    "kind of latent action model",
    "hilam_hf.latent_action_models",
    {
        "uniskill": "hilam_hf.models.uniskill.kind_uniskill:UNISKILL",
        "uniskill-light": "hilam_hf.models.uniskill.kind_uniskill:UNISKILL_LIGHT",
        "lapa": "hilam_hf.models.lapa.kind_lapa:LAPA",
        "feature-difference": "hilam_hf.models.feature_difference.kind_feature_difference:FEATURE_DIFFERENCE",
    },
    expected="hilam_hf.models.latent_actions.kinds:LatentActionKind",
)
"""Kinds of latent action models; see `hilam_hf.models.latent_actions.kinds`."""

DEFAULT_LATENT_ACTION_KIND = "uniskill-light"
