"""UniSkill's forward dynamics model as a diffusers pipeline: pictures in and out, any scheduler, a progress bar.

Importing this module makes diffusers know the pipeline, so that `DiffusionPipeline.from_pretrained` finds it. After
`import hilam_hf` that happens by itself as soon as diffusers' pipelines are imported.
"""

import sys
from collections.abc import Sequence
from typing import Literal

import diffusers
import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from PIL.Image import Image
from torch import Tensor

from .modeling_uniskill_fdm import UniSkillFDM

OutputType = Literal["pil", "np", "pt", "latent"]


class UniSkillPipeline(DiffusionPipeline):
    """Samples the frames to which latent actions lead.

    The weights lie in the sub-folder `fdm`, from which `UniSkillFDM.from_pretrained(..., subfolder="fdm")` loads them
    alone.

    Args:
        fdm: The forward dynamics model.
        scheduler: The sampler; any of diffusers' on the noise schedule that the model was trained with.

    Example:
        >>> pipeline = UniSkillPipeline.from_fdm(fdm, sampler="ddpm")
        >>> pipeline(picture, latent_actions, num_inference_steps=30).images[0].save("next.png")
    """

    # Its parts are called one by one, and not through the `forward` on which offloading hooks sit.
    _exclude_from_cpu_offload = ["fdm"]  # noqa: RUF012 - as diffusers declares it

    fdm: UniSkillFDM
    scheduler: SchedulerMixin

    def __init__(self, fdm: UniSkillFDM, scheduler: SchedulerMixin):
        super().__init__()
        self.register_modules(fdm=fdm, scheduler=scheduler)
        self.image_processor = fdm.image_processor()

    @classmethod
    def from_fdm(cls, fdm: UniSkillFDM, sampler: str | None = None) -> "UniSkillPipeline":
        """A pipeline around a model, without copying it.

        Args:
            fdm: The forward dynamics model.
            sampler: `"ddim"`, `"ddpm"` (UniSkill's) or `"euler_discrete"`. None: that of the model's config.
        """
        return cls(fdm, fdm.make_scheduler(sampler))

    @torch.no_grad()
    def __call__(
        self,
        image: Image | Sequence[Image] | Tensor,
        latent_actions: Tensor,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        image_guidance_scale: float | None = None,
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
        output_type: OutputType = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        """Samples with 3-way guidance, as [`UniSkillFDM.predict`] does.

        Args:
            image: The current frames: a picture or a list of them, of any size; or (B, C, H, W) floats in [0, 1].
            latent_actions: (B, D), one a picture.
            num_inference_steps: Denoising steps. None: the model's config says, as for both scales.
            guidance_scale: Guidance towards the latent action; guidance is off unless it is above 1.
            image_guidance_scale: Guidance towards the picture; guidance is off unless it is at least 1.
            generator: Source of the noise. None: torch's own.
            latents: (B, c, h, w) standard normal, where sampling starts. None: drawn.
            output_type: `"pil"` pictures, `"np"` (B, H, W, C) or `"pt"` (B, C, H, W) in [0, 1], or `"latent"`.
            return_dict: Return an `ImagePipelineOutput`; otherwise a tuple of its one entry.

        Raises:
            ValueError: If frames or latent actions have another size than the model's.
        """
        if not isinstance(image, Tensor):
            image = self.image_processor(image, return_tensors="pt")["pixel_values"]
        steps = self.fdm.sample(
            image.to(self.fdm.device),
            latent_actions.to(self.fdm.device),
            scheduler=self.scheduler,
            noise=latents,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            image_guidance_scale=image_guidance_scale,
            generator=generator,
        )
        with self.progress_bar(total=num_inference_steps or self.fdm.config.num_inference_steps) as bar:
            for step in steps:
                latents = step
                bar.update()
        images = latents if output_type == "latent" else self.fdm.decode_latents(latents)
        images = VaeImageProcessor(do_normalize=False).postprocess(images, output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)


def register_with_diffusers() -> None:
    """Lets diffusers find what `model_index.json` of a saved pipeline names: this class, and that of its model."""
    diffusers.UniSkillPipeline = UniSkillPipeline  # type: ignore[attr-defined]
    # For a class outside diffusers and transformers, diffusers writes down and looks up the name of the folder of its
    # module in this namespace.
    diffusers.pipelines.uniskill = sys.modules[__package__]  # type: ignore[attr-defined]


register_with_diffusers()
