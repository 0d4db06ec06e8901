"""What an error about an unknown name adds: the name that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


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
