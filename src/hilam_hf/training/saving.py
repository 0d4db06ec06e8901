"""Trained models on disk: once for all processes, and whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ..files import permit_by_umask
from .checkpoints.tensors import whole
from .processes import main_process_does, process_state
from .sharding import is_sharded_model


def save_model(model: Any, folder: Path, **options: Any) -> None:
    """Puts a trained model into evaluation mode and saves it; called by every process, written by one.

    Args:
        model: The model.
        folder: Where it goes. Files of the same names are replaced once all new ones are written.
        **options: Of its `save_pretrained`.

    Raises:
        OSError: If it can't be written, naming the folder.
    """
    model.eval()
    if is_sharded_model(model):
        # Putting shards together takes every process.
        state = {name: whole(tensor).cpu() for name, tensor in model.state_dict().items()}
        options["state_dict"] = state if process_state().is_main_process else {}

    def save() -> None:
        try:
            _save_whole(model, folder, options)
        except (OSError, SafetensorError) as error:
            raise OSError(f"cannot write the model to {folder}: {error}; free some space and resume") from error

    main_process_does(save)


def _save_whole(model: Any, folder: Path, options: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as partial:
        model.save_pretrained(partial, **options)
        # PEFT's adapters are saved by PEFT, which leaves them to their owner alone.
        permit_by_umask(partial)
        for path in sorted(Path(partial).rglob("*")):
            target = folder / path.relative_to(partial)
            if path.is_dir():
                shutil.rmtree(target, ignore_errors=True)
                target.mkdir()
            else:
                os.replace(path, target)
