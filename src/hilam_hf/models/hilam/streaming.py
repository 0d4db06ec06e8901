"""Skills while a video runs: one frame, or one latent action, in; its boundaries, segments and skills out.

Shapes: B sequences that go in step, S chunking stages, d width of a stage, k stride, C, H, W a frame.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...video import as_float_frames
from ...video.timestamps import TIME_TOLERANCE
from ..hnet.modeling_hnet import StageTokens
from ..hnet.packing import SequenceLayout
from ..numerics import upcast
from .segmenter import Segmenter
from .skills import SkillToken
from .video_input import prepare_frames


@dataclass(frozen=True)
class StreamedStage:
    """One stage at one time step."""

    boundary: Tensor
    """(B,) bool: whether a segment starts at this step."""
    segment_id: Tensor
    """(B,) int64 number of the segment that this step lies in, counted from 1."""
    skill: Tensor
    """(B, d) the segment's vector. With `skill_token` "last" or "mean" it is that of the segment so far, which at the
    segment's last step is the final one."""


@dataclass(frozen=True)
class StreamedStep:
    """What a stream says of one time step, equal to that row of `HiLAMModel.extract_skills` on the whole sequence."""

    time: int
    """t, counted from 0: the number of the latent action, and of the frame that it starts from."""
    stages: tuple[StreamedStage, ...]
    """Stage 0, the latent actions, then one entry a chunking stage, outermost first."""
    skill_stage: int
    """The stage whose tokens are the skills by default."""

    @property
    def boundary(self) -> Tensor:
        """(B,) bool: whether a skill starts at this step."""
        return self.stages[self.skill_stage].boundary

    @property
    def segment_id(self) -> Tensor:
        """(B,) int64 number of the running skill, counted from 1."""
        return self.stages[self.skill_stage].segment_id

    @property
    def skill(self) -> Tensor:
        """(B, d) the running skill."""
        return self.stages[self.skill_stage].skill


class SkillStream:
    """Segments B sequences while they arrive, one time step a call; made by `HiLAMModel.stream`.

    Each frame's features are computed once and kept for k steps, and the backbone continues from its cache: cost and
    memory of a step do not depend on how many came before it, if every stage has an attention window.

    Args:
        model: The model, in evaluation mode.
        fps: Frames a second, where the model's stride is in seconds.
        batch_size: B.
    """

    def __init__(self, model: Segmenter, *, fps: float | None = None, batch_size: int = 1) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: got {batch_size}, expected 1 or more. Raise it.")
        self.model = model
        self.fps = fps
        self.batch_size = batch_size
        self.reset()

    def reset(self) -> None:
        """Starts anew, with other sequences."""
        config, device = self.model.config, self.model.device
        self._time = 0
        self._features: deque[Tensor] | None = None
        self._seconds: deque[float] | None = None
        self._cache = self.model.new_cache(self.batch_size)
        self._open = [
            OpenSegments(config.skill_token, self.batch_size, width, device)
            for width in config.backbone.d_model[: config.num_stages]
        ]

    @torch.no_grad()
    def push(self, inputs: Any, *, seconds: float | None = None) -> StreamedStep | None:
        """Takes the next time step of every sequence.

        Args:
            inputs: (B, D) latent actions or codes; or frames (B, C, H, W) or (B, H, W, C), uint8 or floats in [0, 1],
                of any size. Tensors or numpy arrays; without B where the stream has one sequence.
            seconds: When this time step was, on any clock. Where given, from the first time step on, each must lie
                behind its partner as far as `fps` says, to a quarter of a frame: latent actions over other times are
                not those that the model knows.

        Returns:
            The step, or None for each of the first k frames, whose partners are still to come.

        Raises:
            ValueError: If a shape, dtype, value or time does not fit, or frames come to a model without an IDM.
                Nothing is then taken in, and the stream goes on with the next good input.
        """
        rows = self._batched(torch.as_tensor(inputs))
        self._check_seconds(seconds)
        step = self._take_in(rows)
        if seconds is not None:
            assert self._seconds is not None
            self._seconds.append(seconds)
        return step

    def _take_in(self, rows: Tensor) -> StreamedStep | None:
        latents = rows if rows.ndim == 2 else self._encode(rows)
        if latents is None:
            return None
        latents = self.model.check_latents(latents).to(self.model.device)
        layout = SequenceLayout.dense(self.batch_size, 1, device=latents.device)
        for segments, tokens in zip(self._open, self.model.segment_rows(latents, layout, self._cache), strict=True):
            segments.add(tokens)
        stages = (self._latent_stage(latents), *(segments.state() for segments in self._open))
        step = StreamedStep(self._time, stages, self.model.config.skill_stage)
        self._time += 1
        return step

    def _batched(self, inputs: Tensor) -> Tensor:
        """(B, D) or (B, ., ., .)."""
        if inputs.ndim in (1, 3) and self.batch_size == 1:
            inputs = inputs[None]
        expected = (self.batch_size, self.model.config.latent_dim)
        if inputs.ndim not in (2, 4) or len(inputs) != self.batch_size:
            raise ValueError(
                f"inputs: got shape {tuple(inputs.shape)}, expected {expected} latent actions or {self.batch_size} "
                "frames (B, C, H, W). Give one time step of each sequence."
            )
        return inputs

    def _check_seconds(self, seconds: float | None) -> None:
        """Holds the time of a step against that of the step k before, or of the first one."""
        if seconds is None:
            if self._seconds:
                raise ValueError("seconds: got none, but earlier steps had theirs. Give it for every step or for none.")
            return
        if self.fps is None:
            raise ValueError("seconds: this stream has no rate to hold it against. Make it with `stream(fps=...)`.")
        if not math.isfinite(seconds):
            raise ValueError(f"seconds: got {seconds}, expected a finite number.")
        if self._seconds is None:
            self._seconds = deque(maxlen=self.model.config.stride_at(self.fps))
        if not self._seconds:
            return
        passed, steps = seconds - self._seconds[0], len(self._seconds)
        if abs(passed - steps / self.fps) > TIME_TOLERANCE / self.fps:
            raise ValueError(
                f"seconds: {passed:.3g} s have passed in {steps} steps, expected {steps / self.fps:.3g} s at "
                f"{self.fps} a second: frames are missing, come twice, or vary in rate. Call reset() to start anew "
                "from here, or give frames at a constant rate."
            )

    def _encode(self, frames: Tensor) -> Tensor | None:
        """Latent actions (B, D) of the pairs that the new frames complete; None while there is none."""
        idm = self.model.require_idm()
        if self._features is None:
            self._features = deque(maxlen=self.model.config.stride_at(self.fps))
        frames = prepare_frames(frames, *self.model.frame_format)
        features = idm.extract_features(as_float_frames(frames.to(idm.device), idm.dtype))
        is_full = len(self._features) == self._features.maxlen
        if not bool(torch.isfinite(features).all()):
            raise ValueError(
                "inputs: the features of these frames are NaN or infinite. Check the IDM and its precision."
            )
        latents = idm.encode_features(self._features[0], features) if is_full else None
        self._features.append(features)
        return latents

    def _latent_stage(self, latents: Tensor) -> StreamedStage:
        every = torch.ones(self.batch_size, dtype=torch.bool, device=latents.device)
        number = torch.full((self.batch_size,), self._time + 1, device=latents.device)
        return StreamedStage(every, number, latents if self.model.config.is_discrete else upcast(latents))


class OpenSegments:
    """The running segment of each of B sequences at one stage.

    Args:
        token: How a segment's features make its vector.
        batch_size: B.
        width: d.
        device: Where the features will be.
    """

    def __init__(self, token: SkillToken, batch_size: int, width: int, device: torch.device) -> None:
        self.token = token
        self._skill = torch.zeros(batch_size, width, device=device)
        self._length = torch.zeros(batch_size, dtype=torch.long, device=device)
        self._number = torch.zeros(batch_size, dtype=torch.long, device=device)
        self._boundary = torch.zeros(batch_size, dtype=torch.bool, device=device)

    def add(self, tokens: StageTokens) -> None:
        """Takes the stage's new tokens, at most one a sequence."""
        self._boundary = torch.zeros_like(self._boundary)
        if tokens.layout.num_rows == 0:
            return
        ids, starts, features = tokens.layout.sequence_ids, tokens.boundary_mask, upcast(tokens.features)
        length = torch.where(starts, 1, self._length[ids] + 1)
        self._boundary[ids] = starts
        self._number = self._number + self._boundary
        self._length = self._length.index_put((ids,), length)
        self._skill = self._skill.index_put((ids,), self._merge(self._skill[ids], features, starts, length))

    def state(self) -> StreamedStage:
        """The running segments; a step that brought this stage no token is no boundary."""
        return StreamedStage(self._boundary, self._number, self._skill)

    def _merge(self, skill: Tensor, features: Tensor, starts: Tensor, length: Tensor) -> Tensor:
        if self.token == "last":
            return features
        kept = skill if self.token == "first" else skill + (features - skill) / length[:, None]
        return torch.where(starts[:, None], features, kept)
