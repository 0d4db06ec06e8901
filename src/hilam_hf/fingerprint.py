"""Identity of a model: its weights, since a folder or Hub id may hold another model tomorrow."""

import hashlib
from typing import Any


def weights_fingerprint(model: Any) -> str | None:
    """Return the first 16 hexadecimal digits of the SHA-256 of a model's weights; None where it has none.

    Names, types, shapes and values of the state decide it; the device does not.
    """
    if not hasattr(model, "state_dict"):
        return None
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
