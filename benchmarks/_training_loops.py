"""The same training by three loops: ours, one written out in plain PyTorch, and transformers' Trainer.

Same starting weights, samples and their order, AdamW with its groups, clipping and schedule. Each loop tells a watch of
every step, so that the first few, and what comes before them, need not count.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _extraction_models import write_clips
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from hilam_hf.data import scan_videos
from hilam_hf.models.hilam import HiLAMConfig, HiLAMModel
from hilam_hf.training import Callback, TrainingConfig, TrainingState, train
from hilam_hf.training.hilam.data import collate_latent_actions
from hilam_hf.training.hilam.train import HiLAMLoss
from hilam_hf.training.lam.data import FramesOnly, frame_pairs
from hilam_hf.training.lam.models import new_latent_action_model
from hilam_hf.training.lam.train import LatentActionModel
from hilam_hf.training.optimization import make_optimizer
from hilam_hf.training.sampler import StepSampler

Clock = Callable[[], float]
LATENT_DIM = 64
SHORTEST, LONGEST = 32, 96


@dataclass(frozen=True)
class Work:
    """What is trained: a model, which is copied for each run, samples, and how many of them make a step."""

    name: str
    model: nn.Module
    samples: Dataset[Any]
    batch_size: int
    collate: Callable[[list[Any]], dict[str, Tensor]] | None = None

    def config(self, steps: int, **options: Any) -> TrainingConfig:
        """Options of a run of so many steps."""
        return TrainingConfig(max_steps=steps, global_batch_size=self.batch_size, warmup_steps=3, **options)

    def loader(self, config: TrainingConfig) -> DataLoader[Any]:
        """The samples of our loop in its order, for another loop."""
        size, count = len(self.samples), config.global_batch_size  # type: ignore[arg-type]
        order = list(StepSampler(size, count, seed=config.seed, num_steps=config.max_steps))
        return DataLoader(self.samples, batch_sampler=order, collate_fn=self.collate, num_workers=config.num_workers)


@dataclass
class Watch:
    """Seconds of a run's steps, but for the first ones. The clock is read twice: it takes time, too."""

    skipped: int
    last: int
    device: torch.device
    clock: Clock = time.perf_counter
    started: float = 0.0
    ended: float = 0.0

    def step_done(self, step: int) -> None:
        """To be called after every step."""
        if step == self.skipped:
            self.started = self._now()
        if step == self.last:
            self.ended = self._now()

    @property
    def seconds(self) -> float:
        """From the end of the last step that is skipped."""
        return self.ended - self.started

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.clock()


class OnOurs(Callback):
    """Tells a watch of our loop's steps, and keeps what the loop says of waiting."""

    def __init__(self, watch: Watch):
        self.watch = watch
        self.waiting: list[float] = []
        self.running: list[float] = []

    def on_step_done(self, state: TrainingState) -> None:
        self.watch.step_done(state.step)
        self.waiting.append(state.seconds_waiting)
        self.running.append(state.seconds_running)

    @property
    def share_waiting(self) -> float:
        """Of the time of the steps that are not skipped, the part in which the loop waited for samples."""
        # The loop notes the running time of a step after its callbacks: that of a step is told with the next one.
        first, last = self.watch.skipped, len(self.waiting) - 1
        return (self.waiting[last - 1] - self.waiting[first - 1]) / (self.running[last] - self.running[first])


class _OnTrainer(TrainerCallback):
    """Tells a watch of the Trainer's steps."""

    def __init__(self, watch: Watch):
        self.watch = watch

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.watch.step_done(state.global_step)


class _OrderedTrainer(Trainer):
    """A Trainer that takes its batches as they come."""

    batches: DataLoader[Any]

    def get_train_dataloader(self) -> DataLoader[Any]:
        return self.batches


def ours(work: Work, config: TrainingConfig, watch: Watch, *, callbacks: Sequence[Callback] = ()) -> nn.Module:
    """Our loop, with its progress bar and its log."""
    model = deepcopy(work.model)
    with redirect_stderr(io.StringIO()):
        told = [OnOurs(watch), *callbacks]
        return train(model, work.samples, config, collate_fn=work.collate, callbacks=told).model


def plain(work: Work, config: TrainingConfig, watch: Watch) -> nn.Module:
    """As one writes it without a library, with the mean loss read back for a log as often as ours."""
    model = deepcopy(work.model).to(watch.device).train()
    optimizer = make_optimizer(model, config)
    schedule = LambdaLR(optimizer, config.learning_rate_schedule())
    loss_sum, history = torch.zeros((), device=watch.device), []
    for step, batch in enumerate(work.loader(config), start=1):
        batch = {name: value.to(watch.device, non_blocking=True) for name, value in batch.items()}
        loss = model(**batch).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        loss_sum += loss.detach()
        if step % config.log_every == 0:
            history.append(loss_sum.item() / config.log_every)
            loss_sum.zero_()
        watch.step_done(step)
    return model


def trainer(work: Work, config: TrainingConfig, watch: Watch) -> nn.Module:
    """transformers' Trainer, which logs to nobody and saves nothing."""
    model = deepcopy(work.model)
    optimizer = make_optimizer(model.to(watch.device), config)
    schedule = LambdaLR(optimizer, config.learning_rate_schedule())
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=config.max_steps,
            max_grad_norm=config.max_grad_norm,
            logging_steps=config.log_every,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=watch.device.type == "cpu",
            remove_unused_columns=False,
        )
        loop = _OrderedTrainer(model, arguments, optimizers=(optimizer, schedule), callbacks=[_OnTrainer(watch)])
        # Otherwise it counts labels, of which there are none here.
        loop.model_accepts_loss_kwargs = False
        loop.batches = work.loader(config)
        loop.remove_callback(PrinterCallback)
        loop.train()
    return model


LOOPS: dict[str, Callable[[Work, TrainingConfig, Watch], nn.Module]] = {
    "ours": ours,
    "plain": plain,
    "trainer": trainer,
}


class Sequences(Dataset[Tensor]):
    """Random latent actions of many lengths."""

    def __init__(self, count: int, shortest: int, longest: int):
        generator = torch.Generator().manual_seed(0)
        lengths = torch.randint(shortest, longest + 1, (count,), generator=generator).tolist()
        self.sequences = [torch.randn(length, LATENT_DIM, generator=generator) for length in lengths]

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> Tensor:
        return self.sequences[index]


def hilam(preset: str = "tiny", *, batch_size: int = 8, longest: int = LONGEST) -> Work:
    """HiLAM on sequences of random latent actions."""
    torch.manual_seed(0)
    model = HiLAMModel(HiLAMConfig.preset(preset, latent_dim=LATENT_DIM))
    model.set_latent_statistics(torch.zeros(LATENT_DIM), torch.ones(LATENT_DIM))
    samples = Sequences(64, min(SHORTEST, longest), longest)
    return Work(f"hilam-{preset}", HiLAMLoss(model, None), samples, batch_size, collate_latent_actions)


def light(folder: Path, *, batch_size: int = 4, num_frames: int = 60) -> Work:
    """The light latent action model on pairs of frames that are decoded already."""
    idm, fdm = new_latent_action_model("uniskill-light")
    videos = scan_videos(write_clips(folder / "clips", 2, num_frames), progress=False).episodes
    with redirect_stderr(io.StringIO()):
        pairs = FramesOnly(frame_pairs(videos, idm, fdm, stride=2))
    return Work("lam-light", LatentActionModel(idm, fdm), pairs, batch_size)
