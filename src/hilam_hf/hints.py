"""What errors about names say: which one was probably meant, and what to do about one that is nowhere to be had."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")


def did_you_mean(name: str, known: Sequence[str], prefix: str = "") -> str:
    """The end of an error's line about an unknown name: the nearest known one, or all of them.

    Args:
        name: The unknown name.
        known: The known ones, without the prefix.
        prefix: What stands before the nearest name.

    Example:
        >>> did_you_mean("hiden_size", ["hidden_size", "latent_dim"], prefix="idm.")
        "; did you mean 'idm.hidden_size'?"
    """
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {prefix + nearest[0]!r}?" if nearest else f"; known: {', '.join(known)}"


def is_hub_id(name: str | Path) -> bool:
    """Whether a name that is no folder can be an id of the Hub.

    Example:
        >>> is_hub_id("org/policy"), is_hub_id("../policy"), is_hub_id("policy")
        (True, False, False)
    """
    return _HUB_ID.fullmatch(str(name)) is not None


def absent(
    name: str | Path, kind: Literal["model", "dataset"], reason: object = "", revision: str | None = None
) -> str:
    """A line about a model or data set that is neither a folder nor can be had from the Hub.

    Args:
        name: What was asked for.
        kind: What it should be.
        reason: What the Hub's client said; of several lines the first counts.
        revision: The revision that was asked for.

    Example:
        >>> absent("runs/polcy/best", "model")
        'runs/polcy/best: there is no such folder, and it is not a Hub id (owner/name); check the path'
    """
    if not is_hub_id(name):
        return f"{name}: there is no such folder, and it is not a Hub id (owner/name); check the path"
    said = next(iter(str(reason).strip().splitlines()), "")
    return (
        f"{name}: there is no such folder, and no such {kind} can be had from the Hub"
        f"{'' if revision is None else f' at {revision!r}'}{f' ({said})' if said else ''}; check the name, or where "
        f"there is a network run `hf download {name}{' --repo-type dataset' if kind == 'dataset' else ''}`"
    )
