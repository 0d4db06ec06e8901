"""What cards, configurations and results tell others: no places on a machine, and no HTML of unknown origin."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def public_name(source: str | Path) -> str:
    """What a card, a configuration or results tell of where a model or data came from.

    A folder's place on a machine, with the user's name in it, helps nobody elsewhere.

    Args:
        source: Hub id or folder.

    Returns:
        A Hub id (or a short name) as it is; of a folder its last name.

    Example:
        >>> public_name("org/hilam"), public_name("/disk/ada/runs/hilam")
        ('org/hilam', 'hilam')
    """
    text = str(source)
    if not text or (_HUB_ID.fullmatch(text) and not Path(text).exists()):
        return text
    last = PureWindowsPath(text).name
    return last if last not in ("", "..") else Path(text).resolve().name


def public_values(values: Any) -> Any:
    """JSON values in which absolute paths are told as `public_name` does."""
    if isinstance(values, Mapping):
        return {key: public_values(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [public_values(value) for value in values]
    if isinstance(values, str) and (PurePosixPath(values).is_absolute() or PureWindowsPath(values).is_absolute()):
        return public_name(values)
    return values


def table_cell(text: str) -> str:
    """Text of unknown origin in a cell of a Markdown table: no HTML, no further cell, no further line.

    Example:
        >>> table_cell("<b>a</b> | b")
        '&lt;b&gt;a&lt;/b&gt; \\\\| b'
    """
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")
