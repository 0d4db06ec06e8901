"""Checkpoints of models that take pictures hold the processor that gives them."""

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, PreTrainedModel

from hilam_hf.models.feature_difference import FeatureDifferenceConfig, FeatureDifferenceIDM
from hilam_hf.models.hilam import HiLAMConfig, HiLAMModel
from hilam_hf.models.processing import SquareImageProcessorPil
from hilam_hf.training.lam.models import new_latent_action_model
from hilam_hf.video import as_float_frames, resize_frames
from tests.models.uniskill.test_fdm import UNET, VAE
from tests.other_writers import run_python

SIZE = 32


def uniskill() -> tuple[Any, Any]:
    options = {"idm.resnet": None, "idm.depth_model": None, "fdm.image_editor": None}
    return new_latent_action_model(
        "uniskill", image_size=SIZE, options=options | {"fdm.unet_config": UNET, "fdm.vae_config": VAE}
    )


def light() -> tuple[Any, Any]:
    return new_latent_action_model("uniskill-light", image_size=SIZE)


def lapa() -> PreTrainedModel:
    return new_latent_action_model("lapa", image_size=SIZE, options={"preset": "tiny"})[0]


def hilam_with_idm() -> HiLAMModel:
    return HiLAMModel(HiLAMConfig.preset("tiny", idm_config=light()[0].config))


MODELS: dict[str, Callable[[], Any]] = {
    "uniskill idm": lambda: uniskill()[0],
    "uniskill fdm": lambda: uniskill()[1],
    "light idm": lambda: light()[0],
    "regression fdm": lambda: light()[1],
    "lapa": lapa,
    "feature difference": lambda: FeatureDifferenceIDM(FeatureDifferenceConfig(image_size=SIZE)),
    "hilam with an idm": hilam_with_idm,
}


@pytest.mark.parametrize("model", MODELS)
def test_the_saved_processor_gives_the_pixels_of_training(model: str, tmp_path: Path) -> None:
    MODELS[model]().save_pretrained(tmp_path)
    frames = torch.randint(0, 256, (2, 3, 180, 320), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = as_float_frames(resize_frames(frames, SIZE))
    pictures = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames]
    for auto_class in (AutoImageProcessor, AutoProcessor):
        processor = auto_class.from_pretrained(tmp_path)
        assert type(processor) is SquareImageProcessorPil
        assert torch.equal(processor(pictures, return_tensors="pt")["pixel_values"], expected)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_weights_are_readable_by_whom_the_umask_allows(tmp_path: Path, umask: int, mode: int) -> None:
    program = f"""
        os.umask({umask})
        from hilam_hf.models.uniskill import UniSkillPipeline
        from tests.models.baku.tiny import tiny_policy
        from tests.models.hierarchical.test_hierarchical import pretraining_policy
        from tests.models.hnet.test_hnet import make_model
        from tests.models.test_saving import MODELS
        models = {{name: make() for name, make in MODELS.items()}}
        models["pipeline"] = UniSkillPipeline.from_fdm(models["uniskill fdm"])
        models |= {{"baku": tiny_policy(), "trunk": tiny_policy().model, "policy": pretraining_policy()}}
        models["h-net"] = make_model()
        for name, model in models.items():
            model.save_pretrained(pathlib.Path(sys.argv[1], name))
        models["h-net"].save_pretrained(pathlib.Path(sys.argv[1], "shards"), max_shard_size="20KB")
    """
    run_python(program, tmp_path)
    files = {path: oct(stat.S_IMODE(path.stat().st_mode)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.name for path, found in files.items() if found != oct(mode)} == set()
    weights = [path.parent for path in files if path.suffix == ".safetensors"]
    assert {path.name for path in weights} == {*MODELS, "fdm", "baku", "trunk", "policy", "h-net", "shards"}
    assert len(weights) > len(set(weights))


def test_other_files_of_the_folder_keep_their_permissions(tmp_path: Path) -> None:
    (tmp_path / "token.txt").touch(0o600)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "private.safetensors").touch(0o600)
    light()[0].save_pretrained(tmp_path)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("token.txt", "sub/private.safetensors")]
    assert modes == [0o600, 0o600]


def test_a_model_that_takes_no_pictures_has_none(tmp_path: Path) -> None:
    HiLAMModel(HiLAMConfig.preset("tiny")).save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    light()[0].save_pretrained(tmp_path, is_main_process=False)
    assert list(tmp_path.iterdir()) == []


def test_both_are_pushed_to_the_same_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []
    for target, name in ((PreTrainedModel, "model"), (SquareImageProcessorPil, "processor")):
        monkeypatch.setattr(target, "save_pretrained", lambda *_, name=name, **options: calls.append((name, options)))
    idm = light()[0]
    idm.save_pretrained(tmp_path, push_to_hub=True, repo_id="org/lam", token="t", max_shard_size="1GB")
    idm.save_pretrained(tmp_path)
    hub = {"push_to_hub": True, "repo_id": "org/lam", "token": "t"}
    assert calls == [
        ("model", {"is_main_process": True, "max_shard_size": "1GB", **hub}),
        ("processor", hub),
        ("model", {"is_main_process": True, "push_to_hub": False}),
        ("processor", {"push_to_hub": False}),
    ]


def test_a_file_of_the_first_versions_is_converted_by_one_line(tmp_path: Path) -> None:
    """They name a class, "UniSkillImageProcessor", that is gone; transformers then needs to be told which it is."""
    light()[0].save_pretrained(tmp_path)
    old = {"do_convert_rgb": True, "do_normalize": False, "do_rescale": True, "do_resize": True, "resample": 2}
    old |= {"image_processor_type": "UniSkillImageProcessor", "rescale_factor": 0.00392156862745098}
    old |= {"size": {"height": SIZE, "width": SIZE}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    with pytest.raises(ValueError, match="Unrecognized image processor"):
        AutoImageProcessor.from_pretrained(tmp_path)
    by_config = AutoImageProcessor.from_pretrained(tmp_path, config=AutoConfig.from_pretrained(tmp_path))
    assert type(by_config) is SquareImageProcessorPil
    SquareImageProcessorPil.from_pretrained(tmp_path).save_pretrained(tmp_path)
    assert AutoImageProcessor.from_pretrained(tmp_path).size == {"height": SIZE, "width": SIZE}
