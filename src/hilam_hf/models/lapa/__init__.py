"""LAPA: discrete latent actions by vector quantization (Ye et al. 2025)."""

from .configuration_lapa import LapaConfig
from .modeling_lapa import LapaLatents, LapaModel, LapaOutput
from .quantization import is_refresh_step

__all__ = ["LapaConfig", "LapaLatents", "LapaModel", "LapaOutput", "is_refresh_step"]
