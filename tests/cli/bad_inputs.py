"""Good artifacts of every command, made once, and ways to spoil a copy of them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from hilam_hf.data.corpora.info import CorpusInfo
from hilam_hf.data.corpora.shards import shards_fingerprint
from hilam_hf.envs.registry import get_protocol
from hilam_hf.evaluation import EpisodeResult, EvaluationResult
from hilam_hf.recording import record
from hilam_hf.training.policy.models import new_policy
from hilam_hf.video import write_video
from tests.cli.test_cli import run
from tests.numbered_videos import numbered_frames
from tests.robot_recordings import record_two_tasks

Spoil = Callable[[Path], object]
STEPS = ("max_steps=1", "global_batch_size=2")


def make_artifacts(root: Path) -> None:
    """Make one good artifact of each kind below a folder, with the commands themselves where these make them."""
    _write_videos(root / "videos")
    (root / "empty").mkdir()
    (root / "notes").mkdir()
    (root / "notes" / "thesis.txt").write_text("years of work")
    (root / "options.yaml").write_text("max_steps: 1\n")
    lam, codes = root / "lam", root / "lapa"
    tiny = [f"--model-option={option}" for option in ("preset=tiny", "image_size=32", "hidden_size=32")]
    commands: list[list[Any]] = [
        ["train", "lam", root / "videos", "--stride", 2, "--image-size", 32, "--out", lam, *STEPS],
        ["train", "lam", root / "videos", "--kind", "lapa", "--stride", 2, "--out", codes, *tiny, *STEPS],
        ["extract", root / "videos", "--model", lam, "--stride", 2, "--out", root / "latents"],
        ["extract", root / "videos", "--model", codes, "--stride", 2, "--out", root / "codes"],
        ["train", "hilam", root / "latents", "--out", root / "hilam-run", *STEPS, "save_every=1"],
        ["skills", root / "latents", "--model", root / "hilam-run" / "hilam", "--out", root / "skills"],
    ]
    for command in commands:
        assert run(*command) == 0, command
    (root / "hilam-run" / "hilam").rename(root / "hilam")
    _save_policy(root / "policy", CorpusInfo.from_card(root / "skills"))
    record(root / "recordings", "toy", ["left"], 2, image_size=32, progress=False)
    for kind in ("hdf5", "lerobot"):
        record_two_tasks(root / kind, kind)
    for name in ("results", "other"):
        _save_results(root / name)


def _write_videos(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        write_video(folder / f"{name}.mp4", numbered_frames(14), 10)
    rows = [{"file_name": f"{name}.mp4", "language": "open it"} for name in ("a", "b")]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _save_policy(folder: Path, info: CorpusInfo) -> None:
    # Each case copies and hashes all artifacts: a policy of the usual size would be nearly all of that.
    trunk = {"vision_widths": [8], "num_keypoints": 4, "token_dim": 16, "hidden_size": 16, "num_layers": 1}
    policy = new_policy(info, stage=2, cameras=["above"], image_size=32, trunk=trunk)
    skills, latents = info.skill_dims[2], info.vector_dim
    policy.set_statistics(
        skills=(torch.zeros(skills), torch.ones(skills)), latent_actions=(torch.zeros(latents), torch.ones(latents))
    )
    policy.save_pretrained(folder)


def _save_results(folder: Path) -> None:
    episodes = (EpisodeResult(task="left", index=0, seed=0, instruction="go left", success=True, steps=3),)
    provenance = {"policy": {"class": "RandomPolicy", "name": "random"}, "quality": "fast", "run": {"seconds": 1.0}}
    EvaluationResult(episodes=episodes, protocol=get_protocol("toy").to_dict(), provenance=provenance).save(folder)


def listing(root: Path) -> dict[str, str]:
    """The files below a folder, hidden ones too, with a hash of each."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def first(root: Path, pattern: str) -> Path:
    """The first file of a pattern, which there is."""
    return sorted(root.glob(pattern))[0]


def truncate(pattern: str) -> Spoil:
    """Keep the first half of a file."""

    def spoil(root: Path) -> None:
        path = first(root, pattern)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return spoil


def write(name: str, text: str | bytes) -> Spoil:
    """Put something else into a file, or make one."""

    def spoil(root: Path) -> None:
        path = first(root, name) if "*" in name else root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)

    return spoil


def delete(pattern: str) -> Spoil:
    """Remove a file or folder."""

    def spoil(root: Path) -> None:
        path = first(root, pattern)
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def folder_instead(pattern: str) -> Spoil:
    """Put a folder where a file was."""

    def spoil(root: Path) -> None:
        path = first(root, pattern)
        path.unlink()
        path.mkdir()

    return spoil


def set_json(name: str, *keys: str, value: Any) -> Spoil:
    """Change one value of a JSON file."""

    def spoil(root: Path) -> None:
        content = inner = json.loads((root / name).read_text())
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        (root / name).write_text(json.dumps(content))

    return spoil


def replace_text(name: str, old: str, new: str) -> Spoil:
    """Change a piece of text in a file."""

    def spoil(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text, f"{name} has no {old!r}"
        (root / name).write_text(text.replace(old, new, 1))

    return spoil


def edit_table(pattern: str, change: Callable[[pa.Table], pa.Table]) -> Spoil:
    """Change a Parquet file."""

    def spoil(root: Path) -> None:
        path = first(root, pattern)
        card = path.parent.parent / "README.md"
        before = shards_fingerprint([*path.parent.glob("*.parquet")]) if card.exists() else ""
        pq.write_table(change(pq.read_table(path)), path)
        if card.exists():
            # As whoever writes such a corpus would have it.
            card.write_text(card.read_text().replace(before, shards_fingerprint([*path.parent.glob("*.parquet")])))

    return spoil


def without_column(pattern: str, column: str) -> Spoil:
    """Take a column out of a Parquet file."""
    return edit_table(pattern, lambda table: table.drop_columns([column]))


def with_values(pattern: str, column: str, change: Callable[[list[Any]], list[Any]]) -> Spoil:
    """Change the values of a column of a Parquet file."""

    def edit(table: pa.Table) -> pa.Table:
        number = table.column_names.index(column)
        field = table.schema.field(column)
        return table.set_column(number, field, pa.array(change(table.column(column).to_pylist()), type=field.type))

    return edit_table(pattern, edit)


def null_row(pattern: str, column: str) -> Spoil:
    """Put a null into the first row of a column."""
    return with_values(pattern, column, lambda values: [None, *values[1:]])


def filled(pattern: str, column: str, number: float) -> Spoil:
    """Put one number into the first vector of the first row of a column of vectors."""

    def change(values: list[Any]) -> list[Any]:
        values[0][0] = [number] * len(values[0][0])
        return values

    return with_values(pattern, column, change)


def widened(pattern: str, column: str) -> Spoil:
    """Give vectors one more number."""

    def edit(table: pa.Table) -> pa.Table:
        vectors = [[[*vector, 0.0] for vector in row] for row in table.column(column).to_pylist()]
        width = len(vectors[0][0])
        number = table.column_names.index(column)
        return table.set_column(number, column, pa.array(vectors, type=pa.list_(pa.list_(pa.float32(), width))))

    return edit_table(pattern, edit)


def nan_weights(name: str) -> Spoil:
    """Put NaN into every weight of a safetensors file."""

    def spoil(root: Path) -> None:
        from safetensors.torch import load_file, save_file

        weights = load_file(root / name)
        spoilt = {
            key: torch.full_like(value, np.nan) if value.is_floating_point() else value
            for key, value in weights.items()
        }
        save_file(spoilt, root / name, metadata={"format": "pt"})

    return spoil
