"""Parameters shared out over processes (FSDP2), over gloo: accelerate itself shards on GPUs alone."""

import json
import shutil
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
from torch import nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

from hilam_hf.training import TrainingConfig, train
from hilam_hf.training.checkpoints import checkpoints_in
from tests.training import stages
from tests.training.launching import run
from tests.training.runs import options
from tests.training.test_parts import assert_equal, gradient

SCRIPT = """
import json, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from hilam_hf.training import TrainingInterrupted, train
from hilam_hf.training.processes import process_state
from hilam_hf.training.run_folder import open_run_folder
from hilam_hf.training.saving import save_model
from tests.training.test_sharding import Vectors, config, make_net
from tests.training.runs import StopAfter

folder, how, changes = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
state = process_state()
net = make_net()
if state.num_processes > 1 and "whole" not in how:
    mesh = init_device_mesh("cpu", (state.num_processes,))
    for layer in (net.first, net.second):
        fully_shard(layer, mesh=mesh)
    fully_shard(net, mesh=mesh)
callbacks = [StopAfter(7)] if "stop" in how else []
try:
    result = train(net, Vectors(), config(**changes), output_dir=folder, resume="resume" in how, callbacks=callbacks,
                   held_out=Vectors(5))
except KeyboardInterrupt:
    sys.exit()
whole = {name: t.full_tensor() if hasattr(t, "full_tensor") else t for name, t in result.model.state_dict().items()}
if state.is_main_process:
    save_file(whole, folder / "result.safetensors")
"""


class Vectors(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Vectors and what a fixed matrix makes of them."""

    def __init__(self, count: int = 23):
        generator = torch.Generator().manual_seed(count)
        self.x = torch.randn(count, 6, generator=generator)
        self.y = self.x @ torch.linspace(-1, 1, 18).view(6, 3)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {"x": self.x[row], "y": self.y[row]}


class Net(nn.Module):
    """Two layers of sizes that two processes cannot share evenly, and a buffer that they all have."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 7), nn.Linear(7, 3)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.training:
            self.steps += 1
        return Output(loss=(self.second(self.first(x).tanh()) - y).square().mean())


class Output(dict):  # type: ignore[type-arg]
    """A mapping with a loss, as models give it."""

    @property
    def loss(self) -> torch.Tensor:
        return self["loss"]


def make_net() -> Net:
    torch.manual_seed(3)
    return Net()


def config(**changes: object) -> TrainingConfig:
    return options(**{"save_every": 4, "ema_decay": 0.8, "validate_every": 4, "keep_checkpoints": 3} | changes)


def sharded(
    folder: Path, how: str, tmp_path: Path, *, processes: int = 2, **changes: object
) -> dict[str, torch.Tensor]:
    run(SCRIPT, folder, how, json.dumps(changes), processes=processes, folder=tmp_path)
    result = folder / "result.safetensors"
    return load_file(result) if result.exists() else {}


def assert_close(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], rtol=1e-5, atol=1e-6)


def test_a_sharded_run_is_saved_and_goes_on_sharded_or_whole_with_any_number_of_processes(tmp_path: Path) -> None:
    alone = train(make_net(), Vectors(), config(), output_dir=tmp_path / "alone", held_out=Vectors(5))
    expected = dict(alone.model.state_dict())
    # Sharded, saved, stopped after step 7, and again: the same bytes as without the stop.
    whole = sharded(tmp_path / "uncut", "start", tmp_path, async_checkpoints=True)
    assert_close(whole, expected)
    sharded(tmp_path / "cut", "start stop", tmp_path)
    files = sorted(path.relative_to(tmp_path / "cut").as_posix() for path in (tmp_path / "cut").rglob("*shard*"))
    assert [name for name in files if name.startswith("checkpoint-4/model")] == [
        f"checkpoint-4/model/shard-0000{process}-model-00001-of-00001.safetensors" for process in (1, 2)
    ]
    assert {path.suffix for path in (tmp_path / "cut" / "checkpoint-4").rglob("*.*")} == {".safetensors", ".json"}
    for name in ("model", "optimizer", "average", "best"):
        assert (tmp_path / "cut" / "checkpoint-4" / name).is_dir()
    shutil.copytree(tmp_path / "cut", tmp_path / "one")
    resumed = sharded(tmp_path / "cut", "resume", tmp_path)
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())
    history = [json.loads((tmp_path / name / "history.json").read_text()) for name in ("cut", "uncut")]
    assert history[0] == history[1]
    # Read by one process, in this one; written whole; and read by two that share the parameters again.
    result = train(make_net(), Vectors(), config(), output_dir=tmp_path / "one", held_out=Vectors(5), resume=True)
    assert_close(dict(result.model.state_dict()), expected)
    last, *_ = reversed(checkpoints_in(tmp_path / "one"))
    assert (last / "model.safetensors").is_file()


def test_a_whole_checkpoint_is_taken_by_processes_that_share_the_parameters(tmp_path: Path) -> None:
    constant = {"schedule": "constant_with_warmup"}
    train(make_net(), Vectors(), config(**constant), output_dir=tmp_path / "run", held_out=Vectors(5))
    grown = sharded(tmp_path / "run", "resume", tmp_path, max_steps=16, **constant)
    alone = train(
        make_net(), Vectors(), config(max_steps=16, **constant), output_dir=tmp_path / "x", held_out=Vectors(5)
    )
    assert_close(grown, dict(alone.model.state_dict()))


HILAM = """
import json, sys
from pathlib import Path
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from hilam_hf.models.hilam import HiLAMModel
from hilam_hf.training.processes import process_state
from tests.training import stages

def sharded(config):
    model = HiLAMModel(config)
    mesh = init_device_mesh("cpu", (process_state().num_processes,))
    for part in model.hnet.modules():
        if type(part).__name__ in ("HNetBlock", "RoutingModule"):
            fully_shard(part, mesh=mesh)
    return fully_shard(model, mesh=mesh)

process_state()
stages.HiLAMModel = sharded
for accumulation in (1, 2):
    folder = Path(sys.argv[1]) / str(accumulation)
    stages.hilam(folder, reconstruct=True, gradient_accumulation_steps=accumulation)
"""


def test_a_sharded_hilam_has_the_gradient_of_a_whole_one_and_is_saved_whole(tmp_path: Path) -> None:
    stages.hilam(tmp_path / "alone", reconstruct=True)
    expected = load_file(tmp_path / "alone" / "run" / "hilam" / "model.safetensors")
    run(HILAM, tmp_path, folder=tmp_path)
    for accumulation in ("1", "2"):
        saved = load_file(tmp_path / accumulation / "run" / "hilam" / "model.safetensors")
        assert saved.keys() == expected.keys()
        moments = tmp_path / accumulation / "run" / "checkpoint-1" / "optimizer"
        kept = {name: torch.zeros_like(value) for name, value in gradient(tmp_path / "alone").items()}
        dcp.load(kept, storage_reader=HuggingFaceStorageReader(str(moments)), no_dist=True)
        assert_equal(kept, gradient(tmp_path / "alone"))
