"""From a pretrained pi^l to one that acts: new config, kept and fresh weights, LoRA targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from ..baku.configuration_baku import BakuConfig
from ..baku.modeling_baku import BakuModel
from .configuration_hierarchical import HierarchicalPolicyConfig

_HEAD = "action_head"
_POSITIONS = "trunk.position_embedding"
_KEPT_FIELDS = (
    "language_encoder",
    "execution",
    "n_action_steps",
    "aggregation_decay",
    "skill_dim",
    "latent_dim",
    "stage",
    "skill_loss",
    "latent_loss",
    "action_loss",
    "skill_loss_weight",
    "latent_loss_weight",
    "detach_skill",
    "share_vision_encoder",
    "high_level_frozen",
)


def finetuning_config(
    config: HierarchicalPolicyConfig,
    *,
    action_dim: int,
    chunk_size: int,
    agent_pos_dim: int | None,
    cameras: Sequence[str] | None,
    renames: Mapping[str, str],
) -> HierarchicalPolicyConfig:
    """The config of the policy after `prepare_for_finetuning`, validated as a new one.

    Raises:
        ValueError: A size is out of range, or a camera to rename does not exist.
    """
    high, low = config.high_config, config.low_config
    unknown = set(renames) - set(high.cameras) - set(low.cameras)
    if unknown:
        raise ValueError(f"Cannot rename cameras {sorted(unknown)}; the policy has {high.cameras} and {low.cameras}.")
    low_cameras = _renamed(low.cameras, renames) if cameras is None else list(cameras)
    low_changes = {
        "cameras": low_cameras,
        "action_dim": action_dim,
        "chunk_size": chunk_size,
        "use_tanh": True,
        "proprioception_dim": low.proprioception_dim if agent_pos_dim is None else agent_pos_dim,
    }
    return HierarchicalPolicyConfig(
        **{name: getattr(config, name) for name in _KEPT_FIELDS},
        action_dim=action_dim,
        high_config=BakuConfig(**high.to_dict() | {"cameras": _renamed(high.cameras, renames)}),
        low_config=BakuConfig(**low.to_dict() | low_changes),
    )


def rebuild_trunk(
    trunk: BakuModel, config: BakuConfig, renames: Mapping[str, str], *, fresh_head: bool = False
) -> tuple[BakuModel, list[str]]:
    """A trunk of another config with the weights of `trunk` wherever it has them.

    Args:
        trunk: The trained one.
        config: Of the new one; cameras, proprioception and the head may differ.
        renames: New names of old cameras.
        fresh_head: Do not keep the head even if its shape stays.

    Returns:
        The new trunk, and the names of its modules that hold fresh parameters.
    """
    config._attn_implementation = trunk.config._attn_implementation
    rebuilt = BakuModel(config).to(trunk.device, trunk.dtype).train(trunk.training)
    old = {_renamed_key(key, renames): tensor for key, tensor in trunk.state_dict().items()}
    state, fresh = rebuilt.state_dict(), []
    for key, tensor in state.items():
        kept = key in old and old[key].shape == tensor.shape and not (fresh_head and key.startswith(_HEAD))
        if key == f"{_POSITIONS}.weight":
            state[key], complete = _moved_positions(old[key], tensor, trunk.config, config, renames)
            fresh += [] if complete else [_POSITIONS]
        elif kept:
            state[key] = old[key]
        else:
            fresh.append(_module_name(key))
    rebuilt.load_state_dict(state)
    return rebuilt, list(dict.fromkeys(fresh))


def lora_targets(trunk: BakuModel, prefix: str, fresh_modules: Sequence[str], *, vision: bool) -> dict[str, list[str]]:
    """Full names of the trunk's layers to adapt, and of those to train whole (see `low_level_lora_targets`)."""
    targets = [
        f"{prefix}.{name}"
        for name, module in trunk.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and not any(name == fresh or name.startswith(f"{fresh}.") for fresh in fresh_modules)
        and (vision or not name.startswith("vision_encoders."))
    ]
    return {"target_modules": targets, "modules_to_save": [f"{prefix}.{name}" for name in fresh_modules]}


def _moved_positions(
    old: Tensor, new: Tensor, old_config: BakuConfig, new_config: BakuConfig, renames: Mapping[str, str]
) -> tuple[Tensor, bool]:
    """Position table in which every token that stays keeps its vector; whether all tokens had one."""
    old_layout = [(step, renames.get(name, name)) for step, name in old_config.token_layout(_max_steps(old_config))]
    new_layout = new_config.token_layout(_max_steps(new_config))
    if old_layout == new_layout:
        return old, True
    rows = {token: row for row, token in enumerate(old_layout)}
    moved, names = new.clone(), {name for _, name in old_layout}
    for row, token in enumerate(new_layout):
        if token in rows:
            moved[row] = old[rows[token]]
    return moved, all(name in names for _, name in new_layout)


def _max_steps(config: BakuConfig) -> int:
    prompt = 0 if config.language_dim is None else 1
    return (config.max_positions - prompt) // len(config.step_tokens)


def _renamed(cameras: Sequence[str], renames: Mapping[str, str]) -> list[str]:
    return [renames.get(camera, camera) for camera in cameras]


def _renamed_key(key: str, renames: Mapping[str, str]) -> str:
    parts = key.split(".")
    if parts[0] == "vision_encoders":
        parts[1] = renames.get(parts[1], parts[1])
    return ".".join(parts)


def _module_name(key: str) -> str:
    parts = key.split(".")
    return ".".join(parts[:2]) if parts[0] == "vision_encoders" else parts[0]
