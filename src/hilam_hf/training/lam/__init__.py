"""Training of latent action models: data, models by their kind, the training itself, validation."""

from .train import train_lam

__all__ = ["train_lam"]
