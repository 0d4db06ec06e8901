"""Models whose parameters are shared out over the processes (FSDP2), by accelerate or by the caller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from torch.distributed.tensor import DTensor


def is_sharded_model(model: nn.Module) -> bool:
    """Whether some parameter is a shard of one."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def prepared(accelerator: Accelerator, model: nn.Module, optimizer: Any) -> tuple[nn.Module, Any]:
    """Model and optimiser as the launch needs them; a model that is sharded already stays as it is."""
    if is_sharded_model(model):
        # accelerate would add data parallelism on top, over the same processes.
        return model, accelerator.prepare(optimizer)
    if accelerator.distributed_type == DistributedType.FSDP:
        # accelerate asks the outermost module alone which layers to shard one by one, and that is a stage's loss.
        model._no_split_modules = layers_to_shard(model)  # type: ignore[assignment]
    return accelerator.prepare(model, optimizer)


def layers_to_shard(model: nn.Module) -> list[str]:
    """Classes of a model's layers that its parts declare to be wholes (`_no_split_modules`), by name."""
    parts = list(model.modules())
    declared = {name for part in parts for name in getattr(part, "_no_split_modules", None) or ()}
    # accelerate refuses a name that the model has no layer of, such as that of an encoder of pictures without cameras.
    return sorted(declared & {type(part).__name__ for part in parts})


def without_synchronising(accelerator: Accelerator, model: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Within it gradients stay in their process, to be summed up with those of the step's last part."""
    if last:
        return nullcontext()
    return _unsynchronised(model) if is_sharded_model(model) else accelerator.no_sync(model)


@contextmanager
def _unsynchronised(model: nn.Module) -> Iterator[None]:
    sharded = [part for part in model.modules() if isinstance(part, FSDPModule)]
    for part in sharded:
        part.set_requires_gradient_sync(False, recurse=False)
    try:
        yield
    finally:
        for part in sharded:
            part.set_requires_gradient_sync(True, recurse=False)


def gather_for(model: nn.Module, method: str) -> None:
    """Has the parts of a model put their parameters together for a method besides `forward`, where they are sharded."""
    for part in model.modules():
        if isinstance(part, FSDPModule) and hasattr(part, method):
            register_fsdp_forward_method(part, method)
