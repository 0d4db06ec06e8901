"""Training options from YAML and the command line."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hilam_hf.training import TrainingConfig, load_config


@dataclass(kw_only=True)
class Outer:
    name: str = "a"
    size: int | None = None
    training: TrainingConfig = field(default_factory=TrainingConfig)


def test_overrides_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("name: b\nsize: 3\ntraining:\n  max_steps: 7\n  learning_rate: 1e-4\n  mixed_precision: no\n")
    config = load_config(Outer, file, ["training.max_steps=9", "size=null"])
    assert (config.name, config.size) == ("b", None)
    assert (config.training.max_steps, config.training.learning_rate) == (9, 1e-4)
    assert config.training.mixed_precision == "no"
    assert config.training.global_batch_size == TrainingConfig().global_batch_size


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("max_step=3", "unknown option 'max_step'.*did you mean 'max_steps'"),
        ("max_steps=many", "'max_steps' must be int, got 'many'"),
        ("max_steps=2.5", "'max_steps' must be int"),
        ("learning_rate=fast", "'learning_rate' must be float"),
        ("schedule=triangle", "must be one of constant_with_warmup, cosine"),
        ("max_steps", "looks like key=value"),
        ("max_steps=0", "max_steps must be at least 1, got 0"),
        ("learning_rate=-1", "learning_rate must be above 0"),
        ("ema_decay=1", r"ema_decay must be above 0 and below 1, .* got 1\.0"),
        ("ema_decay=0", r"ema_decay must be above 0 and below 1"),
        ("ema_decay=slow", "'ema_decay' must be float, got 'slow'"),
        ("validate_every=-1", "validate_every must not be negative"),
    ],
)
def test_bad_options_are_named(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_config(TrainingConfig, None, [override])


def test_bad_files_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    with pytest.raises(ValueError, match=r"broken\.yaml is not valid YAML"):
        load_config(TrainingConfig, broken)
    broken.write_text("- 1")
    with pytest.raises(ValueError, match="must hold a mapping"):
        load_config(TrainingConfig, broken)
    with pytest.raises(FileNotFoundError):
        load_config(TrainingConfig, tmp_path / "missing.yaml")
