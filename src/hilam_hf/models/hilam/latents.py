"""How latent actions enter and leave HiLAM: standardised vectors, or code indices.

Shapes: P packed rows, D width of a latent action (numbers or codes), K values that a code can take, E width of a code's
vector, W width of the backbone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..numerics import is_constant, masked_mean, upcast
from .configuration_hilam import HiLAMConfig

_FARTHEST = 1e9
"""Standard deviations beyond which squares inside the network overflow, and a stream's state would become NaN."""


class CodeEmbedding(nn.Embedding):
    """The sum over positions of one embedding a code, from one table a position.

    Args:
        num_codes: D positions.
        codebook_size: K entries of each table.
        width: W.
    """

    def __init__(self, num_codes: int, codebook_size: int, width: int) -> None:
        super().__init__(num_codes * codebook_size, width)
        self.num_codes = num_codes
        self.codebook_size = codebook_size

    def forward(self, codes: Tensor) -> Tensor:
        """(..., D) int64 codes to (..., W)."""
        tables = torch.arange(self.num_codes, device=codes.device) * self.codebook_size
        return super().forward(codes + tables).sum(-2)


class LatentSpace(nn.Module):
    """The latent actions' side of `HiLAMModel`; a mixin, so that its parameters are the model's own."""

    config: HiLAMConfig
    latent_mean: Tensor
    latent_std: Tensor
    codebook: Tensor | None

    def build_latent_space(self, config: HiLAMConfig) -> None:
        """Makes the input and output projections and the buffers that standardise, or hold the codebook."""
        width = config.backbone.d_model[0]
        self._latent_space_known = False
        if not config.is_discrete:
            self.register_buffer("latent_mean", torch.full((config.latent_dim,), torch.nan))
            self.register_buffer("latent_std", torch.full((config.latent_dim,), torch.nan))
            self.input_proj: nn.Module = nn.Linear(config.latent_dim, width)
            self.output_proj = nn.Linear(width, config.latent_dim)
            return
        shape = (config.codebook_size, config.code_dim or 0)
        self.register_buffer("codebook", None if config.code_dim is None else torch.full(shape, torch.nan))
        self.input_proj = CodeEmbedding(config.num_codes, config.codebook_size, width)
        self.output_proj = nn.Linear(width, config.num_codes * config.codebook_size)

    def set_latent_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Sets the statistics that latent actions are standardised with; they are saved with the weights.

        Args:
            mean: (D,) mean of each dimension over the training corpus.
            std: (D,) standard deviation of each dimension. Dimensions that are constant but for rounding
                (`numerics.is_constant`) get 1, so that they stay at zero instead of becoming noise of unit size.

        Raises:
            ValueError: If shapes differ from (D,), a value is not finite, a standard deviation is negative, or the
                model's latent actions are discrete.
        """
        if self.config.is_discrete:
            raise ValueError(
                "latent statistics: got some for discrete latent actions, expected none. Codes are embedded and not "
                "standardised; leave the call out."
            )
        for name, value in (("mean", mean), ("std", std)):
            value = torch.as_tensor(value)
            if tuple(value.shape) != (self.config.latent_dim,) or not bool(torch.isfinite(value).all()):
                raise ValueError(
                    f"{name}: got shape {tuple(value.shape)}, expected ({self.config.latent_dim},) finite values. "
                    "Compute it over all latent actions of the training corpus."
                )
        if bool((torch.as_tensor(std) < 0).any()):
            raise ValueError("std: got a value below 0, expected 0 or more. Compute it over the training corpus.")
        with torch.no_grad():
            self.latent_mean.copy_(torch.as_tensor(mean))
            self.latent_std.copy_(torch.as_tensor(std))
            self.latent_std.masked_fill_(is_constant(self.latent_mean, self.latent_std), 1)

    def set_codebook(self, codebook: Tensor) -> None:
        """Sets the vectors that codes stand for, which the reconstruction loss needs; they are saved with the weights.

        Args:
            codebook: (K, E), the latent action model's codebook, the same for every position.

        Raises:
            ValueError: If the shape is not (K, E), a value is not finite, or latent actions are continuous.
        """
        size = self.config.codebook_size
        if not self.config.is_discrete:
            raise ValueError(
                "codebook: got one for continuous latent actions, expected none. Build the model with "
                'latent_type="discrete", or leave the call out.'
            )
        codebook = torch.as_tensor(codebook)
        if codebook.ndim != 2 or len(codebook) != size or not bool(torch.isfinite(codebook).all()):
            raise ValueError(
                f"codebook: got shape {tuple(codebook.shape)}, expected ({size}, code_dim) finite values. Take it from "
                "the model that made the codes, or change codebook_size."
            )
        weight = self.output_proj.weight
        self.config.code_dim = codebook.shape[1]
        self.codebook = codebook.detach().clone().to(weight.device, torch.promote_types(weight.dtype, torch.float32))

    def check_latents(self, sequence: Tensor) -> Tensor:
        """One sequence of latent actions, if it is what the model takes; codes as int64.

        Args:
            sequence: (T, D) floats, or integers in [0, K).

        Raises:
            ValueError: If the shape, the dtype or a value does not fit.
        """
        if sequence.ndim != 2 or sequence.shape[1] != self.config.latent_dim or len(sequence) == 0:
            raise ValueError(
                f"inputs: got a sequence of shape {tuple(sequence.shape)}, expected (T, {self.config.latent_dim}) "
                "latent actions with T >= 1, or (T, C, H, W) frames. Check the latent model that made them."
            )
        self.check_latent_dtype(sequence)
        if not self.config.is_discrete:
            entering = self.standardise(sequence.to(self.latent_mean.device)).to(self.output_proj.weight.dtype)
            # Written so that NaN fails, too.
            if not bool((entering.abs() <= _FARTHEST).all()):
                raise ValueError(
                    "inputs: got NaN or infinite latent actions, or some too far from the training corpus to compute "
                    "with, expected finite values. Check the video and the IDM."
                )
            return sequence
        least, largest = torch.stack(sequence.aminmax()).tolist()
        if least < 0 or largest >= self.config.codebook_size:
            raise ValueError(
                f"inputs: got codes from {least} to {largest}, expected 0 to {self.config.codebook_size - 1}. Check "
                "the model that made them, or change codebook_size."
            )
        return sequence.long()

    def check_latent_dtype(self, latent_actions: Tensor) -> None:
        """Raises a ValueError unless the dtype is floating for continuous, integer for discrete latent actions."""
        dtype, discrete = latent_actions.dtype, self.config.is_discrete
        is_code = not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)
        if is_code != discrete:
            expected, remedy = ("integer codes", "discrete") if discrete else ("floats", "continuous")
            raise ValueError(
                f"latent_actions: got {dtype}, expected {expected}, because this model's latent_type is {remedy!r}. "
                "Convert them, or use a model of the other type."
            )

    def standardise(self, latents: Tensor) -> Tensor:
        """(..., D) latent actions from original units to zero mean and unit variance, in float32 or wider."""
        return (upcast(latents) - self.latent_mean) / self.latent_std

    def unstandardise(self, latents: Tensor) -> Tensor:
        """The inverse of `standardise`."""
        return upcast(latents) * self.latent_std + self.latent_mean

    def embed(self, rows: Tensor) -> Tensor:
        """(P, D) latent actions, in original units or codes, to (P, W)."""
        if self.config.is_discrete:
            return self.input_proj(rows.long())
        return self.input_proj(self.standardise(rows).to(self.output_proj.weight.dtype))

    def head(self, hidden: Tensor) -> Tensor:
        """Predictions of the next latent action from (P, W): standardised (P, D), or logits (P, D, K)."""
        predictions = upcast(self.output_proj(hidden.to(self.output_proj.weight.dtype)))
        if not self.config.is_discrete:
            return predictions
        return predictions.unflatten(-1, (self.config.num_codes, self.config.codebook_size))

    def latent_loss(self, predictions: Tensor, rows: Tensor, is_pair: Tensor, count: Tensor | None = None) -> Tensor:
        """The first term of eq. 4, between what `head` predicts at t and the latent action at t + 1.

        Args:
            predictions: (P, D) or (P, D, K).
            rows: (P, D) latent actions in original units, or codes.
            is_pair: (P - 1,) bool, whether rows t and t + 1 are neighbours in one sequence.
            count: () number of neighbours to divide by, for a part of a batch. None: those of `is_pair`.

        Returns:
            The mean over neighbours of the element-wise L1 distance, or of the codes' cross-entropy.
        """
        if not self.config.is_discrete:
            return masked_mean((predictions[:-1] - self.standardise(rows[1:])).abs().mean(-1), is_pair, count)
        targets = rows[1:].long()
        losses = F.cross_entropy(predictions[:-1].flatten(0, 1), targets.flatten(), reduction="none")
        return masked_mean(losses.view(targets.shape).mean(-1), is_pair, count)

    def in_original_units(self, predictions: Tensor) -> Tensor:
        """Predictions as the model returns them: (P, D) in the units of the input, or logits (P, D, K)."""
        return predictions if self.config.is_discrete else self.unstandardise(predictions)

    def dynamics_latents(self, predictions: Tensor) -> Tensor:
        """Predictions as a forward dynamics model takes them.

        Returns:
            (P, D) latent actions in original units; or (P, D * E) expected code vectors, one position after the other.

        Raises:
            ValueError: If latent actions are discrete and the codebook is not set.
        """
        if not self.config.is_discrete:
            return self.unstandardise(predictions)
        if self.codebook is None:
            raise ValueError(
                "codebook: this model has none, expected the vectors of the codes for the reconstruction loss. Call "
                "set_codebook(codebook) with that of the latent action model."
            )
        return (predictions.softmax(-1) @ self.codebook.to(predictions.dtype)).flatten(1)

    def require_latent_space(self) -> None:
        """Raises a ValueError if the statistics, or a codebook that the configuration announces, were never set."""
        if self._latent_space_known or torch.compiler.is_compiling():
            return
        # One transfer from the device, and only until the values are found set.
        if self.config.is_discrete:
            if self.codebook is not None and not bool(torch.isfinite(self.codebook).all()):
                raise ValueError(
                    f"codebook: this model has none, but code_dim = {self.config.code_dim}. Call "
                    "set_codebook(codebook), or build the model with code_dim=None."
                )
        elif not bool(torch.isfinite(torch.stack((self.latent_mean, self.latent_std))).all()):
            raise ValueError(
                "latent statistics: this model has none, expected the mean and standard deviation of the latent "
                "actions it is trained on. Call set_latent_statistics(mean, std), or load a trained checkpoint."
            )
        self._latent_space_known = True
