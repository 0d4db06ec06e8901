"""The data files of a corpus: their fingerprint, and whether they are those that the card speaks of."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from ...files import add_file
from .info import CorpusInfo

logger = logging.getLogger(__name__)

_MAGIC = b"PAR1"
SHARDS = "data/*.parquet"
"""Where the data files lie in a corpus folder."""


def shards_fingerprint(files: Sequence[Path]) -> str:
    """SHA-256 over files, in the order of their names. What was hashed before in this process is remembered."""
    states = ((path, path.stat()) for path in sorted(files))
    return _hash(tuple((path, state.st_size, state.st_mtime_ns, state.st_ctime_ns) for path, state in states))


@lru_cache(maxsize=256)
def _hash(files: tuple[tuple[Path, int, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, *_ in files:
        add_file(digest, path)
    return digest.hexdigest()


def checked_shards(folder: Path, info: CorpusInfo, split: str, name: str) -> list[Path]:
    """The data files of one split, after all files were compared with the card's fingerprint.

    Args:
        folder: Folder of the corpus.
        info: What its card says.
        split: One of its splits.
        name: What errors call the corpus.

    Raises:
        FileNotFoundError: Data files are missing.
        ValueError: They are not those that the card was written with: damaged, or changed without the card.
    """
    files = sorted(folder.glob(SHARDS))
    by_split = {each: [file for file in files if file.name.startswith(f"{each}-")] for each in info.splits}
    for each, shards in by_split.items():
        total = re.search(r"-of-(\d+)\.parquet$", shards[-1].name) if shards else None
        if not shards or (total is not None and len(shards) != int(total[1])):
            there = f"{len(shards)} of {int(total[1])} data files" if total is not None else "no data files"
            raise FileNotFoundError(f"{name}: its split {each!r} has {there}: copy or download the corpus again")
    for file in files:
        _check_whole(file)
    if info.fingerprint is None:
        logger.warning("%s: its card has no fingerprint: whether its data files are whole cannot be checked", name)
    elif (found := shards_fingerprint(files)) != info.fingerprint:
        raise ValueError(
            f"{name}: its data files are not those that its card speaks of (SHA-256 {found}, in the card "
            f"{info.fingerprint}): they are damaged, or were changed without the card. Copy or download the corpus "
            "again; a changed corpus is written with write_latent_action_corpus or write_skill_corpus"
        )
    return by_split[split]


def _check_whole(file: Path) -> None:
    """Parquet files begin and end with four known bytes; pointers of Git LFS and files that were cut off do not."""
    with open(file, "rb") as opened:
        first = opened.read(len(_MAGIC))
        opened.seek(max(0, file.stat().st_size - len(_MAGIC)))
        last = opened.read()
    if first != _MAGIC or last != _MAGIC:
        raise ValueError(
            f"{file}: it is not a whole Parquet file: copy or download it again (a repository cloned without Git LFS "
            "holds pointers; `git lfs pull` fetches the files)"
        )
