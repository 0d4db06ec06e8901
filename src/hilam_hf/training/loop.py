"""The one training loop behind every stage, on accelerate: from a laptop's CPU to many nodes."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, set_seed
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from .callbacks import Callback, History, ProgressBar, TrainingState
from .checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from .config import TrainingConfig
from .ema import AveragedWeights
from .processes import process_state
from .sampler import ResumableBatchSampler
from .validation import Validate, validating

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a run leaves: the trained `model` (unwrapped; with `ema_decay` it has the averaged weights), the number of
    `steps`, and the logged `history` by metric.
    """

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
    validate: Validate | None = None,
    description: str = "training",
) -> TrainingResult:
    """Trains `model` in place.

    `model(**batch)` must return an output with a scalar `loss`; its other scalars, and the entries of its vectors, are
    logged beside it. Launched with `accelerate launch`, the same call runs on many devices; `config.global_batch_size` is then
    the batch of one process.

    With `config.ema_decay` the model ends with the average of its weights; those of the last step are in the last
    checkpoint, if checkpoints are saved.

    Args:
        model: The model; parameters that don't require gradients stay as they are.
        dataset: Map-style data set. One that draws its samples at random sets `draws_samples = True` and is asked by
            `SampleKey`, so that a resumed run draws the same ones.
        config: Training options.
        collate_fn: Makes a batch, a mapping of keyword arguments, from a list of samples.
        output_dir: Folder for checkpoints and `history.json`; None writes nothing.
        resume: Continue from the latest checkpoint in `output_dir`, if there is one; the result equals that of an
            uninterrupted run bit for bit.
        callbacks: Callbacks besides the progress bar and the history.
        validate: Measures the model on held-out data every `config.validate_every` steps: called in every process with
            the model in evaluation mode, its averaged weights and random numbers of its own, none of which the run
            notices. The metrics it returns are logged.
        description: Label of the progress bar.

    Raises:
        ValueError: If checkpoints are asked for without an `output_dir`, validation without `validate`, averaging where
            the weights are sharded, nothing is trainable, a loss is not finite, or a checkpoint belongs to another run.
    """
    if output_dir is None and (config.save_every or resume):
        raise ValueError("saving checkpoints (save_every) and resuming need an output_dir")
    if config.validate_every and validate is None:
        raise ValueError(
            f"validate_every={config.validate_every}, but there is nothing held out to validate on; hold some episodes "
            "out, or set validate_every=0"
        )
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
    average = _make_average(model, config, accelerator)
    step = 0
    if resume and folder is not None and (checkpoint := latest_checkpoint(folder)) is not None:
        step = load_checkpoint(checkpoint, accelerator, config, every_callback, average)
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
    run = _Run(
        accelerator=accelerator,
        model=model,
        optimizer=optimizer,
        config=config,
        state=state,
        callbacks=every_callback,
        average=average,
        validate=validate,
        window=MetricWindow(),
    )
    for callback in every_callback:
        callback.on_train_begin(state)
    try:
        run.over(loader)
    except KeyboardInterrupt:
        if not config.save_every:
            logger.warning(
                "stopped at step %d of %d; save_every is 0, so no checkpoint and no weights of this run are kept",
                state.step,
                config.max_steps,
            )
        raise
    finally:
        for callback in every_callback:
            callback.on_train_end(state)
        if config.tracker is not None:
            accelerator.end_training()
    if average is not None:
        average.copy_to_model()
    # Mixed precision is the run's: the model computes again as it did before.
    trained = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    return TrainingResult(model=trained, steps=state.step, history=history.entries)


def save_model(model: Any, folder: Path, **options: Any) -> None:
    """Puts a trained model into evaluation mode and saves it, once and not from every process.

    Args:
        model: The model.
        folder: Where it goes.
        **options: Of its `save_pretrained`.

    Raises:
        OSError: If it can't be written, naming the folder.
    """
    model.eval()
    state = process_state()
    if state.is_main_process:
        try:
            model.save_pretrained(folder, **options)
        except (OSError, SafetensorError) as error:
            raise OSError(f"cannot write the model to {folder}: {error}; free some space and resume") from error
    state.wait_for_everyone()


@dataclass(kw_only=True)
class _Run:
    """The steps of a run, over a loader that starts where the state stands."""

    accelerator: Accelerator
    model: nn.Module
    optimizer: Any
    config: TrainingConfig
    state: TrainingState
    callbacks: Sequence[Callback]
    average: AveragedWeights | None
    validate: Validate | None
    window: "MetricWindow"

    def over(self, loader: DataLoader[Any]) -> None:
        self.model.train()
        for batch in loader:
            self._learn(batch)
            if self.accelerator.sync_gradients:
                self._end_step()

    def _learn(self, batch: Mapping[str, Any]) -> None:
        """One batch: gradients, and an update of the weights where it completes a step."""
        with self.accelerator.accumulate(self.model):
            output = self.model(**batch)
            self.accelerator.backward(output.loss)
            norm = None
            if self.accelerator.sync_gradients:
                norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * learning_rate_factor(self.state.step, self.config)
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.window.add_output(output)
        # The norm of gradients that overflowed would make the mean of the window infinite.
        if norm is not None and not self.optimizer.step_was_skipped:
            self.window.add("grad_norm", norm)

    def _end_step(self) -> None:
        state, config = self.state, self.config
        skipped = self.optimizer.step_was_skipped
        if config.mixed_precision == "fp16":
            self.window.add("skipped_steps", torch.tensor(float(skipped), device=self.accelerator.device))
        state.step += 1
        measured: dict[str, float] = {}
        for callback in self.callbacks:
            measured.update(callback.on_step_end(state) or {})
        if self.average is not None and not skipped:
            self.average.update()
        if self._is_due(config.log_every):
            measured.update(self._window_means())
        if config.validate_every and self._is_due(config.validate_every):
            measured.update(self._validate())
        if measured:
            self._log(measured)
        if config.save_every and state.step % config.save_every == 0 and state.output_dir is not None:
            save_checkpoint(state.output_dir, self.accelerator, config, state.step, self.callbacks, self.average)

    def _is_due(self, every: int) -> bool:
        return self.state.step % every == 0 or self.state.step == self.config.max_steps

    def _window_means(self) -> dict[str, float]:
        means = self.window.means(self.accelerator)
        if not math.isfinite(means["loss"]):
            raise ValueError(
                f"the loss is {means['loss']} at step {self.state.step}; lower learning_rate or check the data"
            )
        return means

    def _validate(self) -> Mapping[str, float]:
        assert self.validate is not None
        state = self.state
        with validating(state.model, self.average, device=self.accelerator.device, seed=self.config.seed):
            return self.validate(state)

    def _log(self, metrics: dict[str, float]) -> None:
        self.state.metrics = metrics
        for callback in self.callbacks:
            callback.on_log(self.state)
        if self.config.tracker is not None:
            self.accelerator.log(metrics, step=self.state.step)


def _make_average(model: nn.Module, config: TrainingConfig, accelerator: Accelerator) -> AveragedWeights | None:
    if config.ema_decay is None:
        return None
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise ValueError(
            f"ema_decay={config.ema_decay} averages whole weights, but {accelerator.distributed_type.value} shards "
            "them; set ema_decay=null, or launch without sharding"
        )
    return AveragedWeights(accelerator.unwrap_model(model), config.ema_decay)


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
        config.global_batch_size,
        seed=config.seed,
        start=step * batches_per_step,
        num_batches=config.max_steps * batches_per_step,
        with_seeds=getattr(dataset, "draws_samples", False),
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
    if config.schedule == "constant_with_warmup":
        return 1.0
    progress = (step - config.warmup_steps) / max(1, config.max_steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))


class MetricWindow:
    """Means of scalar tensors since the last call of `means`; sums stay on the device, so that adding never waits."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add_output(self, output: Mapping[str, Any]) -> None:
        """Adds the scalars of a model's output and the entries of its vectors."""
        for name, value in output.items():
            if isinstance(value, Tensor) and value.ndim == 0:
                self.add(name, value)
            elif isinstance(value, Tensor) and value.ndim == 1:
                for index, entry in enumerate(value):
                    self.add(f"{name}/{index}", entry)

    def add(self, name: str, value: Tensor) -> None:
        self._sums[name] = self._sums.get(name, 0) + value.detach().float()
        self._counts[name] = self._counts.get(name, 0) + 1

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """Means over this window and all processes; starts a new window."""
        means: Mapping[str, Tensor] = {name: total / self._counts[name] for name, total in self._sums.items()}
        means = accelerator.reduce(means, reduction="mean")
        self._sums, self._counts = {}, {}
        return {name: value.item() for name, value in means.items()}
