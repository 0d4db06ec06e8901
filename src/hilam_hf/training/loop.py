"""The one training loop behind every stage, on accelerate: from a laptop's CPU to many nodes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import set_seed
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers.image_processing_utils import BaseImageProcessor

from .callbacks import Callback, History, ProgressBar, TrainingState
from .checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from .config import TrainingConfig
from .sampler import ResumableBatchSampler


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a run leaves: the trained `model` (unwrapped), the number of `steps`, and the logged `history` by metric."""

    model: nn.Module
    steps: int
    history: dict[str, list[tuple[int, float]]]


def train(
    model: nn.Module,
    dataset: Dataset[Any],
    config: TrainingConfig,
    *,
    collate_fn: Callable[[list[Any]], dict[str, Any]] | None = None,
    output_dir: str | Path | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    description: str = "training",
) -> TrainingResult:
    """Trains `model` in place.

    `model(**batch)` must return an output with a scalar `loss`; its other scalars, and the entries of its vectors, are
    logged beside it. Launched with `accelerate launch`, the same call runs on many devices; `config.batch_size` is then
    the batch of one process.

    Args:
        model: The model; parameters that don't require gradients stay as they are.
        dataset: Map-style data set.
        config: Training options.
        collate_fn: Makes a batch, a mapping of keyword arguments, from a list of samples.
        output_dir: Folder for checkpoints and `history.json`; None writes nothing.
        resume: Continue from the latest checkpoint in `output_dir`, if there is one; the result equals that of an
            uninterrupted run bit for bit.
        callbacks: Callbacks besides the progress bar and the history.
        description: Label of the progress bar.

    Raises:
        ValueError: If checkpoints are asked for without an `output_dir`, nothing is trainable, a loss is not finite, or
            a checkpoint belongs to another run.
    """
    if output_dir is None and (config.save_every or resume):
        raise ValueError("saving checkpoints (save_every) and resuming need an output_dir")
    folder = Path(output_dir) if output_dir is not None else None
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        log_with=config.tracker,
        project_dir=folder,
    )
    set_seed(config.seed, device_specific=True)
    history = History()
    every_callback = [ProgressBar(description), history, *callbacks]

    optimizer = make_optimizer(model, config)
    model, optimizer = accelerator.prepare(model, optimizer)
    step = 0
    if resume and folder is not None and (checkpoint := latest_checkpoint(folder)) is not None:
        step = load_checkpoint(checkpoint, accelerator, config, every_callback)
    loader = _make_loader(dataset, config, collate_fn, accelerator, step)

    if accelerator.is_main_process and folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    if config.tracker is not None:
        accelerator.init_trackers("hilam", config=vars(config))
    state = TrainingState(
        step=step,
        max_steps=config.max_steps,
        model=accelerator.unwrap_model(model),
        is_main_process=accelerator.is_main_process,
        output_dir=folder,
        metrics={},
    )
    for callback in every_callback:
        callback.on_train_begin(state)
    try:
        _run(accelerator, model, optimizer, loader, config, state, every_callback)
    finally:
        for callback in every_callback:
            callback.on_train_end(state)
        if config.tracker is not None:
            accelerator.end_training()
    return TrainingResult(model=state.model, steps=state.step, history=history.entries)


def save_model(model: Any, folder: Path, processor: BaseImageProcessor | None = None) -> None:
    """Puts a trained model into evaluation mode and saves it, once and not from every process.

    Raises:
        OSError: If it can't be written, naming the folder.
    """
    model.eval()
    state = PartialState()
    if state.is_main_process:
        try:
            model.save_pretrained(folder)
            if processor is not None:
                processor.save_pretrained(folder)
        except (OSError, SafetensorError) as error:
            raise OSError(f"cannot write the model to {folder}: {error}; free some space and resume") from error
    state.wait_for_everyone()


def _run(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: DataLoader[Any],
    config: TrainingConfig,
    state: TrainingState,
    callbacks: Sequence[Callback],
) -> None:
    model.train()
    window = MetricWindow()
    for batch in loader:
        with accelerator.accumulate(model):
            output = model(**batch)
            accelerator.backward(output.loss)
            if accelerator.sync_gradients:
                window.add("grad_norm", accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm))
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * learning_rate_factor(state.step, config)
            optimizer.step()
            optimizer.zero_grad()
        for name, value in output.items():
            if isinstance(value, Tensor) and value.ndim == 0:
                window.add(name, value)
            elif isinstance(value, Tensor) and value.ndim == 1:
                for index, entry in enumerate(value):
                    window.add(f"{name}/{index}", entry)
        if not accelerator.sync_gradients:
            continue
        state.step += 1
        for callback in callbacks:
            callback.on_step_end(state)
        if state.step % config.log_every == 0 or state.step == config.max_steps:
            state.metrics = window.means(accelerator)
            if not math.isfinite(state.metrics["loss"]):
                raise ValueError(
                    f"the loss is {state.metrics['loss']} at step {state.step}; lower learning_rate or check the data"
                )
            for callback in callbacks:
                callback.on_log(state)
            if config.tracker is not None:
                accelerator.log(state.metrics, step=state.step)
        if config.save_every and state.step % config.save_every == 0 and state.output_dir is not None:
            save_checkpoint(state.output_dir, accelerator, config, state.step, callbacks)


def _make_loader(
    dataset: Dataset[Any],
    config: TrainingConfig,
    collate_fn: Callable[[list[Any]], dict[str, Any]] | None,
    accelerator: Accelerator,
    step: int,
) -> DataLoader[Any]:
    # accelerate gives every process each num_processes-th batch.
    batches_per_step = config.gradient_accumulation_steps * accelerator.num_processes
    sampler = ResumableBatchSampler(
        len(dataset),  # type: ignore[arg-type]
        config.batch_size,
        seed=config.seed,
        start=step * batches_per_step,
        num_batches=config.max_steps * batches_per_step,
    )
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate_fn,
        num_workers=config.num_workers,
        pin_memory=accelerator.device.type == "cuda",
        # Without a generator of its own the loader draws from the global one, and resuming would not be exact.
        generator=torch.Generator().manual_seed(config.seed),
    )
    return accelerator.prepare(loader)


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; vectors (biases, norms, gains) are not decayed."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise ValueError("the model has no trainable parameter; everything is frozen")
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.learning_rate)


def learning_rate_factor(step: int, config: TrainingConfig) -> float:
    """Fraction of the peak learning rate at optimiser step `step`, counted from 0."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    progress = (step - config.warmup_steps) / max(1, config.max_steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))


class MetricWindow:
    """Means of scalar tensors since the last call of `means`; sums stay on the device, so that adding never waits."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, value: Tensor) -> None:
        self._sums[name] = self._sums.get(name, 0) + value.detach().float()
        self._counts[name] = self._counts.get(name, 0) + 1

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """Means over this window and all processes; starts a new window."""
        means: Mapping[str, Tensor] = {name: total / self._counts[name] for name, total in self._sums.items()}
        means = accelerator.reduce(means, reduction="mean")
        self._sums, self._counts = {}, {}
        return {name: value.item() for name, value in means.items()}
