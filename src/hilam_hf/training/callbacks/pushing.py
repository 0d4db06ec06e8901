"""Checkpoints on the Hub, from which a run goes on on another machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from .base import Callback, TrainingState

FOLDER = "last-checkpoint"


class PushCheckpoints(Callback):
    """Uploads every checkpoint to a repository of the Hub, as its folder `last-checkpoint`, while training goes on.

    A run goes on from it with `hf download ID --include "last-checkpoint/*"`, the folder renamed to
    `checkpoint-{step}` in the run's folder.

    Args:
        repo_id: Hub id of a model repository; it is created, private, if it does not exist.

    Raises:
        OSError: An upload failed: told at the next checkpoint, or at the end.
    """

    def __init__(self, repo_id: str):
        self.repo_id = repo_id
        self._api = HfApi()
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._upload: Future[Any] | None = None

    def on_setup(self, state: TrainingState) -> None:
        if state.is_main_process:
            self._api.create_repo(self.repo_id, private=True, exist_ok=True)

    def on_checkpoint(self, state: TrainingState, folder: Path) -> None:
        if not state.is_main_process:
            return
        self._finish()
        # The run may drop the checkpoint before it is uploaded. Links cost nothing.
        self._copy = tempfile.TemporaryDirectory(dir=folder.parent, prefix=".push-")
        shutil.copytree(folder, self._copy.name, copy_function=os.link, dirs_exist_ok=True)
        self._upload = self._api.upload_folder(
            repo_id=self.repo_id,
            folder_path=self._copy.name,
            path_in_repo=FOLDER,
            delete_patterns="*",
            commit_message=f"Step {state.step}",
            run_as_future=True,
        )

    def on_train_end(self, state: TrainingState) -> None:
        self._finish()

    def _finish(self) -> None:
        upload, copy, self._upload, self._copy = self._upload, self._copy, None, None
        try:
            if upload is not None:
                upload.result()
        finally:
            if copy is not None:
                copy.cleanup()
