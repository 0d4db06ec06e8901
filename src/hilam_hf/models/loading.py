"""Strict loading: a checkpoint of another kind, or one that lacks weights, is an error instead of a warning.

Nothing of a checkpoint is executed, and no file outside of it is read.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from ..files import path_inside
from ..publishing import public_name
from .model_files import naming_absent_model, naming_damaged_files

# Options of `from_pretrained` that say where a checkpoint comes from, and so are needed to read its configuration, too.
_SOURCE_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")


@contextmanager
def without_code(name: Any) -> Iterator[None]:
    """Within it, transformers' refusal to run a checkpoint's own code is told without advice to run it.

    Raises:
        ValueError: The checkpoint needs code of its own.
    """
    try:
        yield
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise ValueError(
            f"{name}: brings code of its own, which is never run; give a checkpoint of a kind that is installed"
        ) from error


def check_weight_index(name_or_path: Any, subfolder: str | None = None) -> None:
    """Sees that the indices of a folder's sharded weights name files of that folder alone; the Hub is not asked.

    Raises:
        ValueError: An index names a file elsewhere, or is damaged.
    """
    if name_or_path is None:
        return
    folder = Path(name_or_path) / (subfolder or "")
    for index in sorted(folder.glob("*.safetensors.index.json")):
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{index}: no index of weights ({error!r}); download the checkpoint again") from error
        for shard in shards:
            path_inside(folder, shard, where=str(index))


class StrictLoadingMixin:
    """Comes before `PreTrainedModel` in a model's bases."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *model_args: Any,
        strict: bool = True,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Loads a checkpoint as transformers does, except that nothing is left to chance.

        Args:
            pretrained_model_name_or_path: Hub id or folder.
            *model_args: Passed on.
            strict: Raise where weights are missing, left over or of another shape. False initialises what is missing,
                and the loading report says what that was.
            output_loading_info: Return `(model, info)`, where `info` lists those keys.
            **kwargs: Passed on to transformers, e.g. `revision`, `dtype`, `device_map`.

        Raises:
            ValueError: If the checkpoint is of another model kind, its weights don't fit (with `strict`), or its index
                of weights names files outside of it.
            OSError: If there is no such checkpoint, or a file of it is damaged, empty, a Git LFS pointer, or pickled.
        """
        source = {name: kwargs[name] for name in _SOURCE_OPTIONS if name in kwargs}
        # Shapes that differ are reported below, with what is missing and left over.
        options = {"ignore_mismatched_sizes": True, "use_safetensors": True, **kwargs, "trust_remote_code": False}
        name = pretrained_model_name_or_path
        with naming_absent_model(name, source), naming_damaged_files(name, source):
            if pretrained_model_name_or_path is not None and "config" not in kwargs:
                cls._check_kind(pretrained_model_name_or_path, source)
            check_weight_index(pretrained_model_name_or_path, kwargs.get("subfolder"))
            model, info = super().from_pretrained(
                pretrained_model_name_or_path, *model_args, output_loading_info=True, **options
            )
        problems = [
            f"{len(info[kind])} {kind.replace('_', ' ')} ({', '.join(sorted(map(_named, info[kind]))[:3])}, ...)"
            for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
            if info[kind]
        ]
        if strict and problems:
            raise ValueError(
                f"{pretrained_model_name_or_path} does not fit {cls.__name__}: {'; '.join(problems)}; "
                "use a complete checkpoint; in Python, strict=False initialises what is missing"
            )
        _tell_public_names(model)
        return (model, info) if output_loading_info else model

    @classmethod
    def _check_kind(cls, name: Any, source: dict[str, Any]) -> None:
        expected = cls.config_class.model_type  # type: ignore[attr-defined]
        values, _ = PreTrainedConfig.get_config_dict(name, **source)
        found = values.get("model_type")
        # A folder with an adapter alone has no configuration; transformers then loads the base model that it names.
        if values and found != expected:
            raise ValueError(
                f"{name} is a checkpoint of kind {found!r}, but {cls.__name__} takes {expected!r}; "
                "give another checkpoint, or load this one with the class of its kind"
            )


def _tell_public_names(model: Any) -> None:
    """Lets a model and the configurations within its own not say where its files lay; both are saved with others."""
    configs = [model.config]
    while configs:
        config = configs.pop()
        config._name_or_path = public_name(config._name_or_path)
        configs += [value for value in vars(config).values() if isinstance(value, PreTrainedConfig)]
    model.name_or_path = model.config._name_or_path


def _named(key: Any) -> str:
    """A weight's name, with its two shapes where these differ."""
    return key if isinstance(key, str) else f"{key[0]} of {tuple(key[1])} instead of {tuple(key[2])}"
