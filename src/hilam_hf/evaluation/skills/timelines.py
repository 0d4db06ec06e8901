"""Skill timelines of a corpus, drawn from its rows and the videos that it was made from."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from datasets import Dataset
from matplotlib.figure import Figure

from ...data.corpora.corpus import load_corpus, unpack_boundaries
from ...data.corpora.info import CorpusInfo
from ...files import path_inside
from ...video import VideoReader
from ...viz import plot_skill_timeline
from .page import SkillsPageEntry, write_skills_page

THUMBNAIL_SIZE = 128


def draw_timeline(row: dict, stages: Sequence[int], videos: str | Path) -> Figure:
    """The timeline of one row of a skill corpus.

    Args:
        row: Row of the corpus.
        stages: Stages to draw.
        videos: Folder that the corpus' video paths are relative to.

    Raises:
        FileNotFoundError: If the video isn't there.
        ValueError: If the row names no video, or one outside of the folder.
    """
    if row["video"] is None:
        raise ValueError(f"episode {row['id']!r} names no video in the corpus; give a corpus of `hilam skills`")
    path = path_inside(videos, row["video"], where=f"video of episode {row['id']!r}")
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: the video of episode {row['id']!r} is not here; give the folder it was made from"
        )
    frames = VideoReader(path, THUMBNAIL_SIZE).read(range(row["num_frames"]))
    boundaries = {stage: torch.from_numpy(unpack_boundaries(row, stage)) for stage in stages}
    return plot_skill_timeline(frames, boundaries, fps=row["fps"], title=row["language"] or row["id"])


def write_timelines_page(corpus: str, videos: str | Path, path: str | Path, *, max_episodes: int = 20) -> Path:
    """Draws the timelines of the first episodes of a skill corpus on one page.

    Args:
        corpus: Skill corpus: folder or Hub id.
        videos: Folder that the corpus' video paths are relative to.
        path: The page to write.
        max_episodes: Episodes to show.

    Raises:
        ValueError: If the corpus has no skills, or no episodes are to be shown.
    """
    if max_episodes < 1:
        raise ValueError(f"episodes: got {max_episodes}, expected at least 1")
    info = CorpusInfo.from_card(corpus)
    if not info.skill_dims:
        raise ValueError(f"{corpus} is a corpus of latent actions and has no skills; run `hilam skills` on it first")
    rows = load_corpus(corpus)
    rows = rows.select(range(min(max_episodes, len(rows))))
    return write_skills_page(path, _entries(rows, sorted(info.skill_dims), videos), title=info.title or "Latent skills")


def _entries(rows: Dataset, stages: Sequence[int], videos: str | Path) -> Iterator[SkillsPageEntry]:
    for row in rows:
        yield SkillsPageEntry(
            episode=row["id"],
            timeline=draw_timeline(row, stages, videos),
            instruction=row["language"],
            seconds=row["num_frames"] / row["fps"],
            num_segments={stage: len(row[f"stage{stage}_skills"]) for stage in stages},
        )
