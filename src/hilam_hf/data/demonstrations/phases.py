"""Phases of recorded demonstrations, the ground truth of segmentation: cleaned, as boundaries, and for latent actions.

Shapes: T frames of an episode (or latent actions), N latent actions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .demonstration import Demonstration


def phase_boundaries(phases: Sequence[str]) -> NDArray[np.bool_]:
    """Where segments of one phase start.

    Args:
        phases: T names.

    Returns:
        bool (T,): True at the first step of every segment, and so at 0, as in `unpack_boundaries`.

    Example:
        >>> phase_boundaries(["approach", "approach", "grasp"]).tolist()
        [True, False, True]
    """
    names = np.asarray(phases, dtype=object)
    boundaries = np.ones(len(names), dtype=bool)
    boundaries[1:] = names[1:] != names[:-1]
    return boundaries


def smooth_phases(phases: Sequence[str], min_length: int) -> list[str]:
    """Merges segments shorter than `min_length` steps into the segment before them.

    Experts that noise carries to and fro over a threshold change phase for a step or two. Segments are merged from the
    left, each with what the one before has grown to: a phase starts where it first lasts. A segment at the start that
    is still too short after that joins the one that follows.

    Args:
        phases: T names, as recorded.
        min_length: Shortest segment that stays, in steps; 1 changes nothing.

    Returns:
        T names; every segment is at least `min_length` long, unless it is the only one.

    Raises:
        ValueError: `min_length` is below 1.

    Example:
        >>> smooth_phases(["approach", "approach", "grasp", "approach", "grasp", "grasp"], min_length=2)
        ['approach', 'approach', 'approach', 'approach', 'grasp', 'grasp']
    """
    if min_length < 1:
        raise ValueError(f"min_length: got {min_length}, expected at least 1 step")
    segments: list[tuple[str, int]] = []
    for name, run in groupby(phases):
        length = len(list(run))
        if segments and (length < min_length or name == segments[-1][0]):
            before, grown = segments.pop()
            segments.append((before, grown + length))
        else:
            segments.append((name, length))
    if len(segments) > 1 and segments[0][1] < min_length:
        (_, first), (name, second) = segments[:2]
        segments[:2] = [(name, first + second)]
    return [name for name, length in segments for _ in range(length)]


def demonstration_phases(demonstrations: Sequence[Demonstration], *, min_length: int = 1) -> dict[str, list[str]]:
    """The phases of demonstrations, the ground truth of segmentation.

    Args:
        demonstrations: The demonstrations.
        min_length: Shortest segment that stays, see `smooth_phases`; 1 gives the phases as recorded.

    Returns:
        By the demonstration's id, which is that of its video and of its row in a corpus, one name a frame.

    Raises:
        ValueError: A demonstration was recorded without phases.

    Example:
        >>> phases = demonstration_phases(load_demonstrations("recording"), min_length=3)
        >>> for row in load_corpus("corpus"):
        ...     truth = phase_boundaries(latent_phases(row, phases))
    """
    unknown = [each.id for each in demonstrations if each.phases is None]
    if unknown:
        raise ValueError(f"{len(unknown)} demonstrations tell no phases, such as {unknown[0]}: record them again")
    return {each.id: smooth_phases(each.phases or [], min_length) for each in demonstrations}


def latent_phases(row: Mapping[str, Any], phases: Mapping[str, Sequence[str]]) -> list[str]:
    """The phases at the latent actions of one episode: latent action n is in the phase of the frame it starts from.

    Args:
        row: A row of a latent-action or latent-skill corpus, extracted from the recording's videos.
        phases: Of `demonstration_phases`.

    Returns:
        N names, one a latent action; the last `stride` frames have none.

    Raises:
        ValueError: There are no phases of that episode, or its video had another number of frames.
    """
    name = row["id"]
    if name not in phases:
        known = next(iter(phases), "none")
        raise ValueError(
            f"episode {name!r}: its phases are not there (those of {len(phases)} episodes are, the first being "
            f"{known}): take the recording that the corpus was extracted from, and the ids of its folder videos"
        )
    names = phases[name]
    if len(names) != row["num_frames"]:
        raise ValueError(
            f"episode {name!r}: got phases of {len(names)} frames for a video of {row['num_frames']}: the corpus is of "
            "another recording"
        )
    return [names[frame] for frame in row["frame_indices"]]
