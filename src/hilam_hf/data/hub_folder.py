"""Data sets of the Hub as folders on this machine; offline, those that the cache holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..hints import absent, is_hub_id


def dataset_folder(path_or_id: str | Path, *, revision: str | None = None, only: Sequence[str] | None = None) -> Path:
    """The folder of a data set.

    Args:
        path_or_id: A folder, which is returned as it is; or the Hub id of a data set, whose files are downloaded where
            the cache lacks them. With `HF_HUB_OFFLINE=1` the cache alone is asked.
        revision: Branch, tag or commit on the Hub.
        only: Patterns of the files that are needed, such as `["data/*.parquet"]`; None for all.

    Returns:
        The folder, or the snapshot of the repository in the Hub's cache.

    Raises:
        FileNotFoundError: There is no such folder, and the data set can't be had from the Hub.

    Example:
        >>> dataset_folder("org/corpus", revision="v1")  # doctest: +SKIP
    """
    folder = Path(path_or_id)
    if folder.exists():
        return folder
    name = str(path_or_id)
    if not is_hub_id(name):
        raise FileNotFoundError(absent(name, "dataset"))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    patterns = None if only is None else list(only)
    try:
        return Path(snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise FileNotFoundError(absent(name, "dataset", error, revision)) from error
