"""The one training loop behind every stage, on accelerate: from a laptop's CPU to many nodes.

A step is computed in parts of the same size: one or more a process. What a part draws at random is a function of the
seed, the step and the part's number, and which samples it has of the seed and the step, so a checkpoint keeps no random
state, and a run goes on bit for bit.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.utils.data import Dataset

from .callbacks import (
    Callback,
    Checkpointing,
    History,
    ProgressBar,
    PushCheckpoints,
    Tracking,
    TrainingState,
    Validate,
    Validation,
    WeightAveraging,
)
from .checkpoints import CheckpointStore
from .checkpoints.tensors import whole
from .config import FinalWeights, TrainingConfig
from .errors import TrainingError, TrainingInterrupted
from .health import HealthLatch, raise_unsound
from .held_out import HeldOutLoss
from .identity import run_identity, sample_ids
from .memory import fewest_parts, left_as_it_was, out_of_memory_explained
from .metrics import MetricWindow
from .optimization import RateMultiplier, checkpoint_activations, make_optimizer
from .parts import PartMeans
from .processes import failing_together, greatest_of_all, warn_of_missing_processes
from .randomness import derived_seed, random_streams_kept, seed_everything
from .run_folder import TRACKING, RunFolder, open_run_folder
from .sampler import StepSampler
from .sharding import is_sharded_model, prepared, without_synchronising
from .snapshots import Snapshots, check_same_run, kept_accumulation
from .stopping import StopRequest
from .workers import loading_faults_explained, make_loader

logger = logging.getLogger(__name__)
Collate = Callable[[list[Any]], dict[str, Any]]
_GO_ON, _LAST_STEP, _INTERRUPTED = range(3)
_VALIDATION_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a run leaves.

    Attributes:
        model: The trained model, unwrapped.
        steps: Optimiser steps done.
        history: What was logged, by metric.
        weights: Which weights `model` has.
        weights_step: The step that they are of.
        best_loss: The lowest `validation/loss`, where there was validation.
    """

    model: nn.Module
    steps: int
    history: dict[str, list[tuple[int, float]]]
    weights: FinalWeights
    weights_step: int
    best_loss: float | None = None

    def note_in(self, config: Any) -> None:
        """Notes in a model's configuration which weights it has, for its card."""
        config.trained_weights = {
            "weights": self.weights,
            "step": self.weights_step,
            "steps": self.steps,
            "best_validation_loss": self.best_loss,
        }


def train(
    model: nn.Module,
    dataset: Dataset[Any],
    config: TrainingConfig,
    *,
    collate_fn: Collate | None = None,
    output_dir: str | Path | RunFolder | None = None,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
    held_out: Dataset[Any] | None = None,
    validate: Validate | None = None,
    rate_multiplier: RateMultiplier | None = None,
    start: str | None = None,
    description: str = "training",
) -> TrainingResult:
    """Trains `model` in place.

    `model(**batch)` must return an output with a scalar `loss`; its other scalars, and the entries of its vectors, are
    logged beside it. Launched with `accelerate launch`, the same call runs on many devices, with the same samples in
    each step. A model whose loss divides by a count of its batch has a method `count_parts` and takes
    `mean_over_parts`, see `PartMeans`; that of others is a mean over samples.

    SIGTERM, SIGUSR1 and Ctrl-C end the run after the step in hand, with a checkpoint.

    Args:
        model: The model; parameters that don't require gradients stay as they are. One that is sharded already (with
            `fully_shard`) stays so.
        dataset: Map-style data set. One that draws its samples at random sets `draws_samples = True` and is asked by
            `SampleKey`, so that a resumed run draws the same ones. With `fingerprint()` a checkpoint knows it again,
            with `sample_id(row)` errors name its samples.
        config: Training options.
        collate_fn: Makes a batch, a mapping of keyword arguments, from a list of samples.
        output_dir: Folder of the run; None writes nothing.
        resume: Go on from the latest checkpoint of the run in `output_dir`; the result equals that of an uninterrupted
            run bit for bit. Without a checkpoint yet, that run starts again.
        overwrite: Remove the run that is in `output_dir`.
        callbacks: Callbacks besides those that the options ask for.
        held_out: Samples to validate on every `config.validate_every` steps, by the model's own loss.
        validate: Measures more on held-out data at the same time: called in every process with the model in
            evaluation mode and with its averaged weights, if there are any. The metrics it returns are logged.
        rate_multiplier: Factor of each parameter's learning rate by its name.
        start: Fingerprint of the weights that training starts from, where `model` does not have them any more.
        description: What is trained, in words: for the progress bar, and for checkpoints to know it again.

    Raises:
        ValueError: Options don't fit each other, the data or the launch, `output_dir` holds another run or none to
            resume, or a checkpoint is damaged or belongs to another run.
        NonFiniteError: A loss or gradient is no number. No update was made from it.
        TrainingInterrupted: A signal ended the run, which can be resumed.
        TrainingError: Another process of the launch failed, or a worker that loads samples.
        torch.OutOfMemoryError: With the options to change.
        OSError: A file cannot be written; checkpoints so far are whole.
    """
    if output_dir is None and (config.save_every or config.push_to or resume or config.tracker == "tensorboard"):
        raise ValueError(
            "saving checkpoints (save_every), pushing, resuming and tracker=tensorboard need an output_dir"
        )
    if config.validate_every and held_out is None and validate is None:
        raise ValueError(
            f"validate_every={config.validate_every}, but there is nothing held out to validate on; hold some episodes "
            "out, or set validate_every=0"
        )
    with ExitStack() as stack:
        stack.enter_context(failing_together())
        # torch tells of a dead worker wherever the process happens to be, also while it ends because of another one.
        stack.enter_context(loading_faults_explained(config))
        folder = None
        if output_dir is not None:
            folder = stack.enter_context(open_run_folder(output_dir, resume=resume, overwrite=overwrite))
        accelerator = Accelerator(
            mixed_precision=config.mixed_precision,
            log_with=config.tracker,
            # A folder of its own: trackers make one named after the project in it, and HiLAM's model has that name.
            project_dir=None if folder is None else folder.path / TRACKING,
        )
        warn_of_missing_processes()
        stack.enter_context(random_streams_kept(accelerator.device))
        identity = run_identity(description, model, dataset, held_out, start=start)
        measure = _measures(held_out, collate_fn, validate, config)
        stop = StopRequest()
        # From here on, so that a signal during the set-up ends the run after its first step and not without a word.
        stack.enter_context(stop.listening())
        run = _Run(accelerator, model, dataset, config, identity, folder, collate_fn, rate_multiplier, stop)
        return run.to_the_end([ProgressBar(description), *callbacks], measure)


class _Run:
    """One run: model, optimiser, samples, and where it stands."""

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        dataset: Dataset[Any],
        config: TrainingConfig,
        identity: Mapping[str, Any],
        folder: RunFolder | None,
        collate_fn: Collate | None,
        rate_multiplier: RateMultiplier | None,
        stop: StopRequest,
    ):
        self.accelerator, self.config, self.folder, self.stop = accelerator, config, folder, stop
        self.dataset, self.collate_fn, self.identity = dataset, collate_fn, identity
        if config.gradient_checkpointing:
            checkpoint_activations(model)
        optimizer = make_optimizer(model, config, rate_multiplier)
        self.model, self.optimizer = prepared(accelerator, model, optimizer)
        self.state = TrainingState(
            step=0,
            max_steps=config.max_steps,
            model=accelerator.unwrap_model(self.model),
            optimizer=self.optimizer,
            device=accelerator.device,
            is_main_process=accelerator.is_main_process,
            output_dir=None if folder is None else folder.path,
        )
        self.window = MetricWindow(accelerator.device)
        self.latch = HealthLatch(accelerator.device)
        self.schedule = config.learning_rate_schedule()
        self.part_means = PartMeans(accelerator, self.state.model)
        self.parameters = [each for each in self.state.model.parameters() if each.requires_grad]
        kept = None if folder is None else kept_accumulation(folder, accelerator.num_processes)
        self.accumulation = config.gradient_accumulation_steps or kept or self._fewest_parts()
        self.sampler = self._sampler(self.accumulation)
        if self.sampler.num_samples < config.global_batch_size and accelerator.is_main_process:
            logger.warning(
                "%d samples are fewer than the %d of a batch, which has some of them more than once",
                self.sampler.num_samples,
                config.global_batch_size,
            )

    def to_the_end(self, callbacks: Sequence[Callback], measure: Validate | None) -> TrainingResult:
        config, state = self.config, self.state
        average = None if config.ema_decay is None else WeightAveraging(config.ema_decay)
        validation = None
        if measure is not None and config.validate_every:
            validation = Validation(measure, config.validate_every, average=average, seed=config.seed)
        history = History()
        self.callbacks = [history, *callbacks, *(each for each in (average, validation) if each is not None)]
        if config.tracker is not None:
            options = dataclasses.asdict(config)
            self.callbacks.append(Tracking(self.accelerator, options, self.identity))
        checkpointing = self._checkpointing()
        self._each("on_setup")
        if self.folder is not None:
            self._resume(self.folder)
        with ExitStack() as ends:
            for callback in reversed(self.callbacks):
                # All of them, also where one fails.
                ends.callback(callback.on_train_end, state)
            self._each("on_train_begin")
            self._all_steps(checkpointing)
            self._check_soundness()
        weights, step = _final_weights(config, state, average, validation)
        return TrainingResult(
            # Mixed precision is the run's: the model computes again as it did before.
            model=self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False),
            steps=state.step,
            history=history.entries,
            weights=weights,
            weights_step=step,
            best_loss=None if validation is None or validation.best_step is None else validation.best_loss,
        )

    def _all_steps(self, checkpointing: Checkpointing | None) -> None:
        state = self.state
        self.model.train()
        started = time.monotonic()
        parts = self._parts()
        while state.step < self.config.max_steps:
            with out_of_memory_explained(self.config, state.device, self.sampler.part_size, state.step + 1):
                self._learn(self._next(parts, checkpointing))
            self._end_step()
            state.seconds_running = time.monotonic() - started
            wish = greatest_of_all(self._wish())
            if wish == _INTERRUPTED:
                self._interrupt(checkpointing)
            if wish == _LAST_STEP:
                break
        if checkpointing is not None:
            checkpointing.settle(state)

    def _parts(self) -> Iterator[list[Any]]:
        """This process' parts of each step, from where the run stands."""
        loader = make_loader(self.dataset, self.sampler, self.config, self.collate_fn, self.state.device)
        batches = iter(loader)
        while True:
            began = time.monotonic()
            with loading_faults_explained(self.config):
                parts = [next(batches) for _ in range(self.accumulation)]
            self.state.seconds_waiting += time.monotonic() - began
            yield parts

    def _next(self, parts: Iterator[list[Any]], checkpointing: Checkpointing | None) -> list[Any]:
        try:
            return next(parts)
        except TrainingError:
            # A signal to every process there is ends the workers, too. Alone, this process can still save.
            if self.stop.signal is not None and self.accelerator.num_processes == 1:
                self._interrupt(checkpointing)
            raise

    def _learn(self, parts: Sequence[Any]) -> None:
        """One optimiser step."""
        state = self.state
        parts = [send_to_device(part, state.device, non_blocking=True) for part in parts]
        further = self.part_means.of_step(parts, self._seed_part)
        losses = []
        for number, part in enumerate(parts):
            with without_synchronising(self.accelerator, self.model, last=number == len(parts) - 1):
                self._seed_part(number)
                with self.accelerator.autocast():
                    state.output = self.model(**part, **further[number])
                losses.append(state.output.loss)
                # Every part has as many samples, so that the step's loss is the mean of theirs.
                self.accelerator.backward(self.latch.gate(losses[-1]) / len(parts))
            self.window.add_output(state.output)
        self._update(losses)

    def _update(self, losses: Sequence[Tensor]) -> None:
        config, step = self.config, self.state.step
        norm = self._clipped_norm()
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * group["rate_multiplier"] * self.schedule(step)
        if config.mixed_precision == "fp16":
            # The scaler itself skips what overflows; a loss that is no number is another matter.
            self.latch.watch(step + 1, *losses)
        else:
            self.latch.watch(step + 1, norm)
            self.latch.arm(self.optimizer.optimizer)
        self.optimizer.step()
        self.optimizer.zero_grad()
        skipped = self.optimizer.step_was_skipped
        if config.mixed_precision == "fp16":
            self.window.add("skipped_steps", torch.tensor(float(skipped)))
        # The norm of gradients that overflowed would make the mean of the window infinite.
        if not skipped:
            self.window.add("grad_norm", norm)

    def _clipped_norm(self) -> Tensor:
        """Norm of the gradients before they are clipped."""
        if self.config.max_grad_norm is not None:
            return whole(self.accelerator.clip_grad_norm_(self.parameters, self.config.max_grad_norm))
        self.accelerator.unscale_gradients()
        gradients = [each.grad for each in self.parameters if each.grad is not None]
        return whole(nn.utils.get_total_norm(gradients))

    def _end_step(self) -> None:
        state = self.state
        state.step += 1
        # What callbacks draw is the same in all processes, as weights that they change must be.
        seed_everything(derived_seed(self.config.seed, state.step), state.device)
        measured: dict[str, float] = {}
        for callback in self.callbacks:
            measured.update(callback.on_step_end(state) or {})
        if state.is_due(self.config.log_every):
            means, (first_bad_step,) = self.window.means(self.accelerator, self.latch.first_bad_step())
            self._raise_if_unsound(first_bad_step)
            measured.update(means)
        if measured:
            state.metrics = measured
            self._each("on_log")
        self._each("on_step_done")

    def _fewest_parts(self) -> int:
        """Accumulated batches that fit into memory, tried out on the first samples."""
        if is_sharded_model(self.state.model):
            raise ValueError("gradient_accumulation_steps has to be given where the model is sharded, got null")
        share = self._sampler(1).part_size

        def try_part(size: int) -> None:
            sampler = self._sampler(share // size)
            part = next(iter(make_loader(self.dataset, sampler, self.config, self.collate_fn, self.state.device)))
            with self.accelerator.autocast():
                loss = self.state.model(**send_to_device(part, self.state.device)).loss
            loss.backward()

        with left_as_it_was(self.state.model):
            return fewest_parts(share, try_part)

    def _wish(self) -> int:
        if self.stop.signal is not None:
            return _INTERRUPTED
        return _GO_ON if self.state.stop_reason is None else _LAST_STEP

    def _interrupt(self, checkpointing: Checkpointing | None) -> None:
        state = self.state
        signal_name = "another process' signal" if self.stop.signal is None else self.stop.signal.name
        where = f"{signal_name} ended the run after step {state.step} of {state.max_steps}"
        if checkpointing is None:
            raise TrainingInterrupted(f"{where}; nothing of it is kept, as it has no output_dir", None)
        checkpointing.save(state)
        checkpointing.settle(state)
        kept = checkpointing.folder / f"checkpoint-{state.step}"
        raise TrainingInterrupted(f"{where}; {kept} is saved: go on with resume=True", kept)

    def _checkpointing(self) -> Checkpointing | None:
        if self.folder is None:
            return None
        config = self.config
        told = list(self.callbacks)
        if config.push_to is not None:
            told.append(PushCheckpoints(config.push_to))
            self.callbacks.append(told[-1])
        self.snapshots = Snapshots(
            accelerator=self.accelerator,
            model=self.state.model,
            optimizer=self.optimizer.optimizer,
            callbacks=list(self.callbacks),
            window=self.window,
            config=config,
            identity=self.identity,
            accumulation=self.accumulation,
        )
        store = CheckpointStore(self.folder.path, keep=config.keep_checkpoints, in_background=config.async_checkpoints)
        checkpointing = Checkpointing(store, config.save_every, self._snapshot, told)
        self.callbacks.append(checkpointing)
        return checkpointing

    def _snapshot(self) -> Any:
        self._check_soundness()
        return self.snapshots.take(self.state)

    def _resume(self, folder: RunFolder) -> None:
        checkpoint = folder.latest_checkpoint()
        if checkpoint is not None:
            self.state.step = self.snapshots.restore(checkpoint)
        elif folder.resume:
            check_same_run(folder.read()["identity"], self.identity, where=str(folder.path))
            if self.state.is_main_process:
                logger.warning("%s has no checkpoint yet, so its run starts again", folder.path)
        self.sampler.first_step = self.state.step
        folder.record("running", stage=self.identity["stage"], identity=self.identity)

    def _check_soundness(self) -> None:
        self._raise_if_unsound(self.latch.first_bad_step().item())

    def _raise_if_unsound(self, first_bad_step: float) -> None:
        # Of a loss that is no number in fp16 only the process that computed it knows.
        step = -greatest_of_all(-int(min(first_bad_step, self.config.max_steps + 1)))
        if step <= self.config.max_steps:
            raise_unsound(step, sample_ids(self.dataset, self.sampler.rows(step - 1)))

    def _each(self, method: str) -> None:
        for callback in self.callbacks:
            getattr(callback, method)(self.state)

    def _seed_part(self, number: int) -> None:
        part = number * self.accelerator.num_processes + self.accelerator.process_index
        seed_everything(derived_seed(self.config.seed, self.state.step, part), self.state.device)

    def _sampler(self, accumulation: int) -> StepSampler:
        return StepSampler(
            len(self.dataset),  # type: ignore[arg-type]
            self.config.global_batch_size,
            seed=self.config.seed,
            num_steps=self.config.max_steps,
            process=self.accelerator.process_index,
            num_processes=self.accelerator.num_processes,
            accumulation=accumulation,
            with_seeds=getattr(self.dataset, "draws_samples", False),
        )


def _measures(
    held_out: Dataset[Any] | None, collate_fn: Collate | None, validate: Validate | None, config: TrainingConfig
) -> Validate | None:
    """All that is measured at a validation, as one."""
    measures: list[Validate] = [] if validate is None else [validate]
    if held_out is not None and config.validate_every:
        # Whatever the processes, and small enough for one of many.
        size, count = min(config.global_batch_size, _VALIDATION_BATCH), config.validation_samples
        measures.append(HeldOutLoss(held_out, collate_fn, batch_size=size, num_samples=count, seed=config.seed))
    if not measures:
        return None
    return lambda state: {name: value for measure in measures for name, value in measure(state).items()}


def _final_weights(
    config: TrainingConfig, state: TrainingState, average: WeightAveraging | None, validation: Validation | None
) -> tuple[FinalWeights, int]:
    """Gives the model the weights that it shall have, and says which these are and of which step."""
    if config.final_weights == "best":
        if validation is None or validation.best_step is None:
            raise TrainingError("final_weights=best, but the run ended before its first validation")
        validation.copy_to_model()
        return "best", validation.best_step
    if average is not None and config.final_weights != "last":
        average.copy_to_model()
        return "average", state.step
    return "last", state.step
