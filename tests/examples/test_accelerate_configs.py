"""The launches of `examples/accelerate_configs`, as accelerate reads them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy
from accelerate.utils.launch import prepare_multi_gpu_env
from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

from hilam_hf.models.hierarchical import HierarchicalPolicy, HierarchicalPolicyConfig
from hilam_hf.models.hilam import HiLAMConfig, HiLAMModel
from hilam_hf.training.hilam.train import HiLAMLoss
from hilam_hf.training.lam.models import new_latent_action_model
from hilam_hf.training.lam.train import LatentActionModel
from hilam_hf.training.sharding import layers_to_shard, prepared
from tests.helpers import ROOT
from tests.training.policy.test_runs import TRUNK

FOLDER = ROOT / "examples" / "accelerate_configs"
LAUNCHES = {
    "one_gpu.yaml": (DistributedType.NO, 1, 1),
    "eight_gpus.yaml": (DistributedType.MULTI_GPU, 1, 8),
    "two_nodes_of_eight.yaml": (DistributedType.MULTI_GPU, 2, 16),
    "fsdp2.yaml": (DistributedType.FSDP, 1, 8),
}


def read(name: str) -> ClusterConfig:
    return load_config_from_file(str(FOLDER / name))


def environment_of(name: str, *options: str) -> dict[str, str]:
    """The variables that the launcher gives to its processes."""
    arguments = launch_command_parser().parse_args(["--config_file", str(FOLDER / name), *options, "train.py"])
    arguments, _, _ = _validate_launch_command(arguments)
    return prepare_multi_gpu_env(arguments)


def test_every_file_says_how_many_processes_run_where() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(LAUNCHES)
    for name, launch in LAUNCHES.items():
        config = read(name)
        assert (config.distributed_type, config.num_machines, config.num_processes) == launch
        # Precision belongs to the training's options, which a checkpoint records.
        assert config.mixed_precision is None and not config.use_cpu


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "launch.yaml"
    file.write_text((FOLDER / "eight_gpus.yaml").read_text() + "processes: 8\n")
    with pytest.raises(ValueError, match=r"unknown keys \(\['processes'\]\)"):
        load_config_from_file(str(file))


def test_nodes_take_their_numbers_from_the_command_line() -> None:
    options = ["--config_file", str(FOLDER / "two_nodes_of_eight.yaml"), "--machine_rank", "3"]
    # As of four nodes, of which this is the last one.
    options += ["--num_machines", "4", "--num_processes", "32", "--main_process_ip", "node-0", "train.py"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(options))
    prepare_multi_gpu_env(arguments)
    assert (arguments.nnodes, arguments.nproc_per_node, arguments.node_rank) == ("4", "8", 3)
    assert (arguments.rdzv_backend, arguments.rdzv_endpoint) == ("static", "node-0:29500")


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> FullyShardedDataParallelPlugin:
    """What a process that `fsdp2.yaml` starts makes of its variables."""
    variables = environment_of("fsdp2.yaml", "--main_process_port", "0")
    assert variables["ACCELERATE_USE_FSDP"] == "true"
    for name in set(variables) - set(os.environ):
        monkeypatch.setenv(name, variables[name])
    return FullyShardedDataParallelPlugin()


def test_sharding_is_that_of_fsdp2(plugin: FullyShardedDataParallelPlugin) -> None:
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    assert plugin.auto_wrap_policy is transformer_auto_wrap_policy and plugin.transformer_cls_names_to_wrap is None
    assert not plugin.activation_checkpointing and not isinstance(plugin.cpu_offload, CPUOffloadPolicy)
    # With it, fingerprints of weights would be those of empty ones.
    assert plugin.cpu_ram_efficient_loading is False
    assert os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false"


def hilam() -> nn.Module:
    return HiLAMLoss(HiLAMModel(HiLAMConfig.preset("tiny", latent_dim=4)), None)


def policy() -> nn.Module:
    return HierarchicalPolicy(
        HierarchicalPolicyConfig(high_config=dict(TRUNK), low_config=dict(TRUNK), skill_dim=3, latent_dim=4)
    )


def latent_actions(kind: str, **options: object) -> nn.Module:
    return LatentActionModel(*new_latent_action_model(kind, image_size=32, options=options))


@pytest.mark.parametrize(
    ("model", "layers"),
    [
        (hilam, {"HNetBlock"}),
        (policy, {"BakuLayer", "VisionEncoder"}),
        (lambda: latent_actions("uniskill-light"), {"SpatioTemporalBlock"}),
        (lambda: latent_actions("lapa", preset="tiny", hidden_size=32), {"LapaLayer"}),
    ],
)
def test_every_stage_is_sharded_layer_by_layer(
    plugin: FullyShardedDataParallelPlugin, model: Callable[[], nn.Module], layers: set[str]
) -> None:
    trained = model()
    assert set(layers_to_shard(trained)) == layers
    trained._no_split_modules = layers_to_shard(trained)
    plugin.set_auto_wrap_policy(trained)
    is_gathered_alone = fsdp2_prepare_auto_wrap_policy(plugin, trained)
    assert is_gathered_alone is not None
    gathered = [type(part).__name__ for part in trained.modules() if is_gathered_alone(part)]
    assert set(gathered) == layers and len(gathered) >= 2


@pytest.mark.parametrize(("launch", "layers"), [(DistributedType.FSDP, ["Linear"]), (DistributedType.MULTI_GPU, None)])
def test_layers_are_named_where_the_launch_shards(launch: DistributedType, layers: list[str] | None) -> None:
    part = nn.Sequential(nn.Linear(1, 1))
    # accelerate refuses names of which the model has no layer.
    part._no_split_modules = ["Linear", "Conv2d"]  # type: ignore[assignment]
    model = nn.Sequential(part)
    accelerator: Any = SimpleNamespace(distributed_type=launch, prepare=lambda *prepared: prepared)
    assert prepared(accelerator, model, None) == (model, None)
    assert getattr(model, "_no_split_modules", None) == layers
