"""Identity of a model or of data: what they hold, since a folder or Hub id may hold something else tomorrow."""

import hashlib
import json
from pathlib import Path
from typing import Any

from .files import sampled_hash

# 64 bits of SHA-256: the odds that any two of a million data sets share them are 1 : 37 million.
_DIGITS = 16
# Bytes at both ends of a file: enough for the times and sizes that its index holds, little beside reading it.
_SAMPLE = 16 * 1024


def weights_fingerprint(model: Any) -> str | None:
    """Return the first 16 hexadecimal digits of the SHA-256 of a model's weights; None where it has none.

    Names, types, shapes and values of the state decide it; the device does not.
    """
    if not hasattr(model, "state_dict"):
        return None
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        _add_tensor(digest, name, tensor)
    return digest.hexdigest()[:_DIGITS]


def data_fingerprint(*parts: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of some values, the same on every machine.

    Args:
        *parts: Tensors, of which type, shape and values count, and whatever JSON can say (text, numbers, None, lists,
            mappings with text as keys), where tuples are lists. Their order counts, that of a mapping's keys does not.

    Raises:
        TypeError: A part is neither.

    Example:
        >>> data_fingerprint(["a", "b"], 1) == data_fingerprint(["a"], ["b"], 1)
        False
    """
    digest = hashlib.sha256()
    for part in parts:
        # Kind and length come first, so that no part reads like another one or like two.
        if hasattr(part, "detach"):
            _add_tensor(digest, "tensor", part)
        else:
            text = json.dumps(part, sort_keys=True).encode()
            digest.update(f"json {len(text)} ".encode() + text)
    return digest.hexdigest()[:_DIGITS]


def file_fingerprint(path: str | Path) -> str:
    """The first 16 hexadecimal digits of a hash of a file's size and its first and last 16 KiB, whatever its name.

    Raises:
        OSError: The file cannot be read.
    """
    return sampled_hash(path, sample=_SAMPLE)[:_DIGITS]


def _add_tensor(digest: Any, name: str, tensor: Any) -> None:
    """Adds name, type, shape and values."""
    import torch

    if hasattr(tensor, "full_tensor"):
        # Sharded over processes, all of which come here.
        tensor = tensor.full_tensor()
    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
