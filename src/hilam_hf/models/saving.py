"""Saving: weights that others may read, and beside them the image processor, which brings pictures to their size."""

import os
from typing import Any

from transformers.image_processing_utils import BaseImageProcessor

from ..files import permit_by_umask

# Options of `push_to_hub` that both savings take.
_HUB_OPTIONS = ("commit_message", "private", "repo_id", "token")


class SavingMixin:
    """Comes before `PreTrainedModel` in a model's bases."""

    def image_processor(self) -> BaseImageProcessor | None:
        """What brings pictures to the form in which the model takes them; None where it takes no pictures."""
        return None

    def save_pretrained(
        self, save_directory: str | os.PathLike, is_main_process: bool = True, push_to_hub: bool = False, **kwargs: Any
    ) -> None:
        """Saves the model as transformers does, and its image processor beside it, for `AutoImageProcessor`.

        All files have the permissions that the umask allows.

        Args:
            save_directory: The folder.
            is_main_process: Whether this process writes.
            push_to_hub: Push both to the Hub afterwards.
            **kwargs: Passed on to transformers, e.g. `repo_id`, `max_shard_size`.
        """
        super().save_pretrained(save_directory, is_main_process=is_main_process, push_to_hub=push_to_hub, **kwargs)
        if is_main_process:
            permit_by_umask(save_directory)
        processor = self.image_processor()
        if processor is not None and is_main_process:
            hub_options = {name: kwargs[name] for name in _HUB_OPTIONS if push_to_hub and name in kwargs}
            processor.save_pretrained(str(save_directory), push_to_hub=push_to_hub, **hub_options)
