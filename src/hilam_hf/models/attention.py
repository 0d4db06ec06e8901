"""The attention that fast kernels are compared with, behind transformers' `attn_implementation="eager"`.

Shapes: B batch, H heads, L queries, K keys, E width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .numerics import upcast


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Attention in plain matrix products, its softmax in float32 or wider.

    Args:
        module: The attention layer.
        query: (B, H, L, E).
        key: (B, H, K, E), as `value`.
        value: See `key`.
        attention_mask: Of a shape that fits (B, H, L, K): bool, True where attention is allowed; or floats, added to
            the scores. None: all positions, or the causal ones.
        scaling: Factor on the scores.
        dropout: Probability of dropping a weight in training.
        is_causal: Without a mask, hide later positions. None: as the layer's own `is_causal` says.
        **kwargs: Options of other kernels, unused.

    Returns:
        The mixed values (B, L, H, E) and the weights (B, H, L, K).
    """
    scores = upcast(query @ key.transpose(-1, -2)) * scaling
    if attention_mask is None and (module.is_causal if is_causal is None else is_causal):
        attention_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, -torch.inf)
    elif attention_mask is not None:
        scores = scores + attention_mask
    weights = F.dropout(scores.softmax(-1).to(value.dtype), dropout, module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights
