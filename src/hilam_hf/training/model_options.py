"""Model options as the command line takes them."""

from collections.abc import Sequence
from typing import Any

import yaml


def parse_model_options(pairs: Sequence[str], known: Sequence[str] | None = None) -> dict[str, Any]:
    """Options from `KEY=VALUE` pairs, values written as in YAML.

    Args:
        pairs: The pairs.
        known: The keys there are. None: whoever takes the options checks them.

    Raises:
        ValueError: If a pair has no `=`, its key is unknown, or its value is not YAML.

    Example:
        >>> parse_model_options(["idm.hidden_size=96", "fdm.image_editor=null"])
        {'idm.hidden_size': 96, 'fdm.image_editor': None}
    """
    expected = ", such as idm.hidden_size=96" if known is None else f" with a key of {', '.join(known)}"
    options = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or (known is not None and key not in known):
            raise ValueError(f"--model-option: got {pair!r}, expected KEY=VALUE{expected}")
        try:
            options[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"--model-option {key}: cannot read the value {value!r}: {error}") from error
    return options
