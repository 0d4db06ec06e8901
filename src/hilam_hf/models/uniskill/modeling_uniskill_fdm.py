"""UniSkill's diffusion forward dynamics model: a latent diffusion model that edits the current frame into the next.

InstructPix2Pix (Brooks et al. 2023) whose text is replaced by one token, the projected latent action (UniSkill, Kim et
al. 2025). The UNet denoises the next frame's autoencoder latents beside those of the current frame. Shapes: B batch,
C channels, H and W pixels, D width of a latent action, E width of the condition, c, h, w the autoencoder's latents.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput

from ...video import check_pixel_range
from ..latent_actions.dynamics import ForwardDynamicsModel, check_finite_latents, check_frames
from ..loading import check_weight_index
from ..model_files import naming_damaged_files
from .configuration_uniskill import UniSkillFDMConfig, without_symlink_warning

Scheduler = Any
"""One of diffusers' schedulers, which have no base class that declares `step` and the like."""

_SAMPLERS = {"ddim": "DDIMScheduler", "ddpm": "DDPMScheduler", "euler_discrete": "EulerDiscreteScheduler"}


@dataclass(frozen=True, kw_only=True)
class DiffusionDraws:
    """The random numbers of one training step.

    Attributes:
        posterior_noise: (B, c, h, w) standard normal, for the sample of the next frame's latents.
        noise: (B, c, h, w) standard normal, the noise that is to be predicted.
        timesteps: (B,) integers, uniform over the training timesteps.
        dropout: (B,) uniform in [0, 1), which conditioning each sample loses.
    """

    posterior_noise: Tensor
    noise: Tensor
    timesteps: Tensor
    dropout: Tensor


@dataclass
class UniSkillFDMOutput(ModelOutput):
    """Output of [`UniSkillFDM`] in training.

    Attributes:
        loss: Mean squared error of the predicted noise (or velocity), a scalar.
        sample_losses: (B,) the same for each sample.
        predictions: (B, c, h, w) predicted noise or velocity.
        noisy_latents: (B, c, h, w) the next frames' latents with noise.
        next_latents: (B, c, h, w) latents of the next frames, a scaled sample.
        image_latents: (B, c, h, w) latents of the current frames, unscaled, before dropout.
        action_kept: (B,) bool, False where the latent action was dropped.
        image_kept: (B,) bool, False where the current frame was dropped.
    """

    loss: Tensor | None = None
    sample_losses: Tensor | None = None
    predictions: Tensor | None = None
    noisy_latents: Tensor | None = None
    next_latents: Tensor | None = None
    image_latents: Tensor | None = None
    action_kept: Tensor | None = None
    image_kept: Tensor | None = None


class UniSkillFDM(ForwardDynamicsModel):
    """Predicts the next frame by latent diffusion. The autoencoder is frozen; UNet and projection are trained.

    A model built from its configuration starts at random, the autoencoder included: start training from an
    image-editing model with [`~UniSkillFDM.from_diffusers`], as UniSkill does. To save memory in training, call
    `fdm.unet.enable_gradient_checkpointing()`.

    Example:
        >>> fdm = UniSkillFDM.from_diffusers("timbrooks/instruct-pix2pix")
        >>> fdm.predict(torch.rand(2, 3, 256, 256), torch.randn(2, 64)).shape
        torch.Size([2, 3, 256, 256])
    """

    config: UniSkillFDMConfig
    base_model_prefix = "fdm"
    main_input_name = "frames"
    input_modalities = ("image",)

    def __init__(self, config: UniSkillFDMConfig):
        super().__init__(config)
        # It takes seconds to import, so that only models that are built do it.
        from diffusers import AutoencoderKL, UNet2DConditionModel

        self.condition_norm = nn.LayerNorm(config.latent_dim, eps=config.layer_norm_eps)
        self.condition_proj = nn.Linear(config.latent_dim, config.condition_dim)
        self.unet = UNet2DConditionModel.from_config(config.unet_config)
        self.vae = AutoencoderKL.from_config(config.vae_config)
        self.post_init()
        self.freeze_autoencoder()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # diffusers leaves its layers as torch initialises them.
        if isinstance(module, nn.Linear | nn.Conv2d):
            init.kaiming_uniform_(module.weight, a=5**0.5)
            if module.bias is not None:
                bound = module.weight[0].numel() ** -0.5
                init.uniform_(module.bias, -bound, bound)
        else:
            super()._init_weights(module)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Loads a checkpoint; see `StrictLoadingMixin.from_pretrained` for the arguments."""
        loaded = super().from_pretrained(*args, **kwargs)
        # Loading replaces the parameters by trainable ones.
        (loaded[0] if isinstance(loaded, tuple) else loaded).freeze_autoencoder()
        return loaded

    @classmethod
    def from_diffusers(cls, name_or_path: str, *, revision: str | None = None, **changes: Any) -> "UniSkillFDM":
        """A model that starts from the UNet and the autoencoder of an image-editing pipeline, as UniSkill's does.

        Args:
            name_or_path: Hub id or folder of a diffusers pipeline, e.g. `"timbrooks/instruct-pix2pix"`; only its
                `unet`, `vae` and `scheduler` are read, and only from safetensors.
            revision: Branch, tag or commit on the Hub.
            **changes: Fields of [`UniSkillFDMConfig`] to set.

        Raises:
            OSError: If there is no such pipeline.
            ValueError: If weights are missing or left over, or the UNet takes no image beside the noisy one.
        """
        model = cls(UniSkillFDMConfig.from_diffusers(name_or_path, revision=revision, **changes))
        for name in ("unet", "vae"):
            setattr(model, name, load_part(type(getattr(model, name)), name_or_path, name, revision))
        model.freeze_autoencoder()
        return model.eval()

    def freeze_autoencoder(self) -> None:
        """Stops gradients at the parameters of `vae`, which is not trained."""
        self.vae.requires_grad_(False)

    @cached_property
    def noise_scheduler(self) -> Scheduler:
        """The training noise schedule. Made when first used, since models are built without memory when loaded."""
        return self.make_scheduler("ddpm")

    def make_scheduler(self, sampler: str | None = None) -> Scheduler:
        """A new scheduler on the model's noise schedule: `"ddim"`, `"ddpm"`, `"euler_discrete"`; None: the config's."""
        import diffusers

        sampler = self.config.sampler if sampler is None else sampler
        if sampler not in _SAMPLERS:
            raise ValueError(f"sampler: got {sampler!r}, expected one of {sorted(_SAMPLERS)}. Pick one of them.")
        return getattr(diffusers, _SAMPLERS[sampler]).from_config(self.config.scheduler_config)

    def draw(self, batch_size: int, generator: torch.Generator | None = None) -> DiffusionDraws:
        """Random numbers for a training step of `batch_size` pairs, from `generator` or torch's own.

        With a generator on the CPU they do not depend on the model's device.
        """
        shape = (batch_size, *self.config.latents_shape)
        options = {"generator": generator, "device": self.device if generator is None else generator.device}
        num_timesteps = self.noise_scheduler.config.num_train_timesteps
        return DiffusionDraws(
            posterior_noise=torch.randn(shape, **options).to(self.device),
            noise=torch.randn(shape, **options).to(self.device),
            timesteps=torch.randint(num_timesteps, (batch_size,), **options).to(self.device),
            dropout=torch.rand(batch_size, **options).to(self.device),
        )

    def condition(self, latents: Tensor) -> Tensor:
        """The token (B, 1, E) to which the UNet attends, from latent actions (B, D)."""
        latents = latents.to(self.condition_proj.weight.dtype)
        return self.condition_proj(self.condition_norm(latents)).unsqueeze(1)

    @torch.no_grad()
    def encode_image(self, frames: Tensor) -> Tensor:
        """Latents (B, c, h, w) that condition on frames (B, C, H, W) in [0, 1]: the posterior's mode, unscaled."""
        return self._posterior(frames)[0]

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Frames (B, C, H, W) in [0, 1] from scaled latents (B, c, h, w)."""
        latents = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
        return (self.vae.decode(latents).sample.float() / 2 + 0.5).clamp(0, 1)

    def forward(
        self, frames: Tensor, latents: Tensor, next_frames: Tensor, draws: DiffusionDraws | None = None
    ) -> UniSkillFDMOutput:
        """One step of denoising training; conditioning is dropped in training mode only.

        Args:
            frames: (B, C, H, W) floats in [0, 1], the frames I_t.
            latents: (B, D) latent actions; gradients flow to them.
            next_frames: (B, C, H, W) floats in [0, 1], the frames I_{t+k}.
            draws: The random numbers. None: drawn from torch's generator.

        Raises:
            ValueError: If the frames aren't (B, C, H, W) floats of the model's size or the latents have another width.
        """
        self._check_inputs(frames, latents, next_frames)
        draws = self.draw(len(frames)) if draws is None else draws
        with torch.no_grad():
            mean, std = self._posterior(torch.cat([frames, next_frames]))
            image_latents, next_mean = mean.chunk(2)
            next_latents = next_mean + std.chunk(2)[1] * draws.posterior_noise
            next_latents = next_latents * self.vae.config.scaling_factor
            noisy_latents = self.noise_scheduler.add_noise(next_latents, draws.noise, draws.timesteps)

        dropout = self.config.conditioning_dropout if self.training else 0.0
        action_kept, image_kept = kept_conditioning(draws.dropout, dropout)
        condition = self.condition(latents) * action_kept[:, None, None]
        conditioned = torch.cat([noisy_latents, image_latents * image_kept[:, None, None, None]], dim=1)
        predictions = self._predict_noise(conditioned, draws.timesteps, condition)

        target = draws.noise
        if self.noise_scheduler.config.prediction_type == "v_prediction":
            target = self.noise_scheduler.get_velocity(next_latents, draws.noise, draws.timesteps)
        sample_losses = F.mse_loss(predictions, target, reduction="none").mean(dim=(1, 2, 3))
        return UniSkillFDMOutput(
            loss=sample_losses.mean(),
            sample_losses=sample_losses,
            predictions=predictions,
            noisy_latents=noisy_latents,
            next_latents=next_latents,
            image_latents=image_latents,
            action_kept=action_kept,
            image_kept=image_kept,
        )

    def loss(
        self, frames: Tensor, latents: Tensor, next_frames: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Mean squared error of the predicted noise (or velocity) at random timesteps, a scalar; see `forward`."""
        return self(frames, latents, next_frames, self.draw(len(frames), generator)).loss

    @torch.no_grad()
    def predict(
        self,
        frames: Tensor,
        latents: Tensor,
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        image_guidance_scale: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Samples the frames that follow; no gradients.

        Args:
            frames: (B, C, H, W) floats in [0, 1], the frames I_t.
            latents: (B, D) latent actions.
            num_inference_steps: Denoising steps. None: the config's, as for both scales.
            guidance_scale: Guidance towards the latent action.
            image_guidance_scale: Guidance towards the current frame.
            generator: Source of the noise. None: torch's own.

        Returns:
            (B, C, H, W) floats in [0, 1].

        Raises:
            ValueError: If the frames aren't (B, C, H, W) floats of the model's size or the latents have another width.
        """
        *_, sample = self.sample(
            frames,
            latents,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            image_guidance_scale=image_guidance_scale,
            generator=generator,
        )
        return self.decode_latents(sample)

    @torch.no_grad()
    def sample(
        self,
        frames: Tensor,
        latents: Tensor,
        *,
        scheduler: Scheduler | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Iterator[Tensor]:
        """Samples as `predict` does, step by step.

        Args:
            frames: (B, C, H, W) floats in [0, 1], the frames I_t.
            latents: (B, D) latent actions.
            scheduler: Any scheduler of diffusers on the model's noise schedule. None: the config's sampler.
            noise: (B, c, h, w) standard normal, where sampling starts. None: drawn.
            generator: Source of the noise. None: torch's own.
            **options: `num_inference_steps`, `guidance_scale` and `image_guidance_scale` of `denoise`.

        Yields:
            The scaled latents (B, c, h, w) after each step, for `decode_latents`.
        """
        self._check_inputs(frames, latents)
        check_finite_latents(latents)
        if noise is None:
            device = self.device if generator is None else generator.device
            noise = torch.randn((len(frames), *self.config.latents_shape), generator=generator, device=device)
        yield from self.denoise(
            scheduler or self.make_scheduler(),
            noise.to(self.device),
            self.condition(latents),
            self.encode_image(frames),
            generator=generator,
            **options,
        )

    @torch.no_grad()
    def denoise(
        self,
        scheduler: Scheduler,
        noise: Tensor,
        condition: Tensor,
        image_latents: Tensor,
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        image_guidance_scale: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Iterator[Tensor]:
        """Samples with 3-way guidance: on latent action and image, on the image alone, and on nothing.

        Args:
            scheduler: Any scheduler of diffusers on the model's noise schedule.
            noise: (B, c, h, w) standard normal, where sampling starts.
            condition: (B, 1, E) tokens from [`~UniSkillFDM.condition`].
            image_latents: (B, c, h, w) from [`~UniSkillFDM.encode_image`].
            num_inference_steps: Denoising steps. None: the config's, as for both scales.
            guidance_scale: s_A, towards the latent action; guidance is off unless s_A > 1 and s_I >= 1.
            image_guidance_scale: s_I, towards the image.
            generator: Source of the noise that ancestral samplers add. None: torch's own.

        Yields:
            The latents (B, c, h, w) after each step.

        Raises:
            ValueError: If there are no steps.
        """
        config = self.config
        num_steps = config.num_inference_steps if num_inference_steps is None else num_inference_steps
        if num_steps < 1:
            raise ValueError(f"num_inference_steps: got {num_steps}, expected 1 or more. Raise it.")
        action_scale = config.guidance_scale if guidance_scale is None else guidance_scale
        image_scale = config.image_guidance_scale if image_guidance_scale is None else image_guidance_scale
        guided = action_scale > 1 and image_scale >= 1
        if guided:
            nothing = torch.zeros_like(condition)
            condition = torch.cat([condition, nothing, nothing])
            image_latents = torch.cat([image_latents, image_latents, torch.zeros_like(image_latents)])
        takes_generator = "generator" in inspect.signature(scheduler.step).parameters
        options = {"generator": generator} if takes_generator else {}

        scheduler.set_timesteps(num_steps, device=noise.device)
        latents = noise * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            branches = torch.cat([latents] * 3) if guided else latents
            branches = scheduler.scale_model_input(branches, timestep)
            predictions = self._predict_noise(torch.cat([branches, image_latents], dim=1), timestep, condition)
            if guided:
                predictions = combine_guidance(predictions, action_scale, image_scale)
            latents = scheduler.step(predictions, timestep, latents, **options).prev_sample
            yield latents

    def _predict_noise(self, conditioned: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        """The UNet's prediction in float32, from (B, 2 c, h, w) noisy and current latents and (B, 1, E) tokens."""
        dtype = self.unet.dtype
        return self.unet(conditioned.to(dtype), timesteps, condition.to(dtype)).sample.float()

    def _posterior(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (which is the mode) and standard deviation, (B, c, h, w), of the unscaled latents of frames."""
        posterior = self.vae.encode((frames * 2 - 1).to(self.vae.dtype)).latent_dist
        return posterior.mean.float(), posterior.std.float()

    def _check_inputs(self, frames: Tensor, latents: Tensor, next_frames: Tensor | None = None) -> None:
        check_frames(frames, self.config.num_channels, self.config.image_size)
        if next_frames is not None and next_frames.shape != frames.shape:
            raise ValueError(
                f"next_frames {tuple(next_frames.shape)} and frames {tuple(frames.shape)} must have the same shape"
            )
        if next_frames is not None:
            check_pixel_range(next_frames)
        if latents.shape != (len(frames), self.config.latent_dim):
            raise ValueError(
                f"latents must have shape ({len(frames)}, {self.config.latent_dim}), got {tuple(latents.shape)}"
            )


def load_part(part_class: Any, name_or_path: str, name: str, revision: str | None = None) -> Any:
    """One network of a diffusers pipeline, from the subfolder of its name, from safetensors only.

    Raises:
        OSError: If there is none.
        ValueError: If weights are missing or left over.
    """
    check_weight_index(name_or_path, name)
    source = {"subfolder": name, "revision": revision}
    with naming_damaged_files(name_or_path, source), without_symlink_warning():
        part, info = part_class.from_pretrained(
            name_or_path, subfolder=name, revision=revision, use_safetensors=True, output_loading_info=True
        )
    problems = {kind: keys for kind, keys in info.items() if keys}
    if problems:
        raise ValueError(f"{name_or_path}/{name} does not fit its own config: {problems}; get it anew")
    return part


def kept_conditioning(draws: Tensor, probability: float) -> tuple[Tensor, Tensor]:
    """UniSkill's conditioning dropout, from one uniform number p a sample, with u = `probability`.

    p < u drops the latent action, u <= p < 2 u both, 2 u <= p < 3 u the image; 0 drops nothing.

    Returns:
        (B,) bool, whether the latent action is kept, and (B,) bool, whether the image is.
    """
    return draws >= 2 * probability, (draws < probability) | (draws >= 3 * probability)


def combine_guidance(predictions: Tensor, action_scale: float, image_scale: float) -> Tensor:
    """3-way guidance (InstructPix2Pix, eq. 3): none + s_A (both - image) + s_I (image - none).

    Args:
        predictions: (3 B, c, h, w), conditioned on latent action and image, on the image, on nothing.
        action_scale: s_A.
        image_scale: s_I.

    Returns:
        (B, c, h, w).
    """
    both, image, none = predictions.chunk(3)
    return none + action_scale * (both - image) + image_scale * (image - none)
