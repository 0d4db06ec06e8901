"""Optional dependencies: imported where they are used, and missed with one line that says what to install."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: Dotted name of the module, such as `"metaworld"` or `"peft.tuners"`.
        extra: The extra of this package that installs it, such as `"metaworld"`.

    Returns:
        The imported module.

    Raises:
        ImportError: The module is not installed, or its own import fails. The message is one line that names the
            command which installs it.

    Example:
        >>> require("json", extra="dev").dumps({})
        '{}'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(_missing_message(module, extra, error)) from error


def _missing_message(module: str, extra: str, error: ImportError) -> str:
    install = f"pip install 'hilam-hf[{extra}]'"
    # A module that is there but lacks something of its own is another fault than one that is not there.
    absent = isinstance(error, ModuleNotFoundError) and error.name in _parents(module)
    if absent:
        return f"{module} is not installed; install it with: {install}"
    return f"{module} is installed but cannot be imported ({error}); reinstall it with: {install}"


def _parents(module: str) -> set[str]:
    parts = module.split(".")
    return {".".join(parts[: end + 1]) for end in range(len(parts))}
