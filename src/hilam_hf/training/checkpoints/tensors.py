"""The tensors of a run by name: what is saved, what is put back, whole or sharded over the processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

Tensors = dict[str, Tensor]
# What AdamW keeps of a parameter.
_MOMENTS = ("exp_avg", "exp_avg_sq")
_STEPS = "step"


def model_tensors(model: nn.Module) -> Tensors:
    """The model's parameters and persistent buffers; of tensors that share their memory the first name alone."""
    seen: dict[tuple[int, torch.Size, tuple[int, ...]], str] = {}
    tensors = {}
    for name, tensor in model.state_dict().items():
        local = _local(tensor)
        key = (local.data_ptr(), local.shape, local.stride())
        # Empty tensors all lie at the same address.
        if local.numel() == 0 or seen.setdefault(key, name) == name:
            tensors[name] = tensor
    return tensors


def optimizer_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, like: Mapping[str, Any] | None = None
) -> Tensors:
    """AdamW's state by the names of the parameters.

    Args:
        model: The model.
        optimizer: Its optimiser.
        like: Names that a checkpoint holds: state that is not there yet is made for these. None: what there is.
    """
    tensors = {}
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter, {})
        if like is not None and f"{name}.{_STEPS}" in like and not state:
            state = _new_state(parameter)
            optimizer.state[parameter] = state
        tensors.update({f"{name}.{key}": state[key] for key in (_STEPS, *_MOMENTS) if key in state})
    return tensors


def is_sharded(tensors: Mapping[str, Tensor]) -> bool:
    """Whether some tensor is shared out over processes."""
    return any(isinstance(tensor, DTensor) for tensor in tensors.values())


def whole(tensor: Tensor) -> Tensor:
    """A tensor in full; every process must ask for it where it is sharded."""
    return tensor.full_tensor().detach() if isinstance(tensor, DTensor) else tensor.detach()


@torch.no_grad()
def put(target: Tensor, value: Tensor) -> None:
    """Writes a whole tensor into one of the run, of which a process keeps its own shard."""
    if isinstance(target, DTensor):
        value = value.to(target.device_mesh.device_type, target.dtype)
        # Every process has the whole tensor, so none has to be sent.
        value = distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None)
    target.copy_(value)


def mismatch(targets: Mapping[str, Tensor], kept: Mapping[str, torch.Size]) -> str | None:
    """What a checkpoint holds otherwise than the run, by the first name; None if it fits."""
    for name in sorted(targets.keys() ^ kept.keys()):
        return f"{name} is only in {'this run' if name in targets else 'the checkpoint'}"
    for name, tensor in targets.items():
        if tensor.shape != kept[name]:
            return f"{name} has shape {tuple(kept[name])} in the checkpoint, {tuple(tensor.shape)} in this run"
    return None


def _new_state(parameter: nn.Parameter) -> dict[str, Tensor]:
    steps = torch.zeros((), dtype=torch.float32, device=_local(parameter).device)
    return {_STEPS: steps, **{moment: torch.zeros_like(parameter) for moment in _MOMENTS}}


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
