"""The page of a skill corpus: the timelines of many episodes under each other, to look through and to search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from matplotlib.figure import Figure

from ...locks import FolderLock
from ...viz.page import Html, Picture, page, read_picture, tag, write_page, zoomable_figure
from ...viz.style import replacing
from ...viz.text import count, duration

MAX_INLINED = 50
SEPARATOR = " \N{MIDDLE DOT} "


@dataclass(frozen=True, kw_only=True)
class SkillsPageEntry:
    """One episode on the page.

    Attributes:
        episode: The episode's id, unique on the page.
        timeline: Its timeline: a figure, a path or the contents of a picture.
        instruction: What was done, in words; None where the corpus does not say.
        seconds: The episode's duration.
        num_segments: Number of segments of each stage.
    """

    episode: str
    timeline: Figure | Path | bytes
    instruction: str | None
    seconds: float
    num_segments: Mapping[int, int]


def write_skills_page(
    path: str | Path,
    entries: Iterable[SkillsPageEntry],
    *,
    title: str = "Latent skills",
    max_inlined: int = MAX_INLINED,
) -> Path:
    """Write a page of timelines.

    Up to `max_inlined` pictures are inside the page. More are written to a folder beside it, named as the page with
    `_images` at the end, and loaded as the reader scrolls. Entries are taken one at a time, so a generator that draws
    as it goes never holds more than `max_inlined` pictures.

    Args:
        path: Where to write, such as `out/skills.html`.
        entries: The episodes, in the order of the page.
        title: The page's title.
        max_inlined: The most pictures inside the page.

    Returns:
        The path written.

    Raises:
        ValueError: There is no entry, an episode comes twice, or a picture is no PNG, JPEG, GIF or WebP.
        FileNotFoundError: A picture does not exist.
        FolderInUseError: Another writer writes this page.
        OSError: The page or a picture cannot be written.
    """
    path = Path(path)
    # Of the page alone: its folder may be anybody's.
    with FolderLock(path.parent, "hilam view", file=path.name):
        return _write_page(path, entries, title, max_inlined)


def _write_page(path: Path, entries: Iterable[SkillsPageEntry], title: str, max_inlined: int) -> Path:
    seen: dict[str, SkillsPageEntry] = {}
    figures = _figures(path, _unique(entries, seen), max_inlined)
    if not figures:
        raise ValueError(f"No episode to show in {path}: the corpus, or the selection from it, is empty.")
    articles = [_article(entry, figure) for entry, figure in zip(seen.values(), figures, strict=True)]
    total = sum(entry.seconds for entry in seen.values())
    search = tag(
        "div",
        tag("input", type="search", id="filter", placeholder="Filter by instruction or episode", aria_label="Filter"),
        tag("span", id="filter-count", class_="muted", role="status"),
        class_="filter",
    )
    header = tag(
        "header",
        tag("p", "hilam-hf", class_="overline"),
        tag("h1", title),
        tag("p", _totals(list(seen.values())), f", {duration(total)} of video.", class_="lead"),
        tag(
            "p",
            "Frames stand above the segments of each stage, numbered from 1. The hatched end has no latent action.",
            class_="muted",
        ),
        search,
    )
    return write_page(path, page(title, header, tag("main", articles)))


def _unique(entries: Iterable[SkillsPageEntry], seen: dict[str, SkillsPageEntry]) -> Iterator[SkillsPageEntry]:
    """Pass entries on; keep everything but their pictures in `seen`."""
    for entry in entries:
        if entry.episode in seen:
            raise ValueError(f"Episode {entry.episode!r} comes twice; every episode of a page needs its own id.")
        seen[entry.episode] = replace(entry, timeline=b"")
        yield entry


def _figures(path: Path, entries: Iterable[SkillsPageEntry], max_inlined: int) -> list[Html]:
    """Each entry's picture: inside the page, or in the folder beside it when they are too many."""
    figures: list[Html] = []
    waiting: list[tuple[str, Picture]] = []
    for entry in entries:
        waiting.append((f"Skill timeline of {entry.episode}", read_picture(entry.timeline, entry.episode)))
        if len(figures) + len(waiting) > max_inlined:
            for text, picture in waiting:
                address = _write_picture(path.with_name(f"{path.stem}_images"), len(figures), picture)
                figures.append(zoomable_figure(picture, text, caption=False, address=address, lazy=True))
            waiting = []
    return figures + [zoomable_figure(picture, text, caption=False) for text, picture in waiting]


def _write_picture(folder: Path, index: int, picture: Picture) -> str:
    """Write a picture and give its address relative to the page."""
    file = folder / f"{index:06d}.{picture.media_type.removeprefix('image/')}"
    with replacing(file) as temporary:
        temporary.write_bytes(picture.contents)
    return quote(f"{folder.name}/{file.name}")


def _article(entry: SkillsPageEntry, figure: Html) -> Html:
    facts = [duration(entry.seconds)]
    facts += [f"stage {stage}: {count(number, 'segment')}" for stage, number in sorted(entry.num_segments.items())]
    identity = (tag("code", entry.episode), SEPARATOR) if entry.instruction else None
    return tag(
        "article",
        tag("h2", entry.instruction or entry.episode),
        tag("div", identity, SEPARATOR.join(facts)),
        figure,
        data_search=f"{entry.instruction or ''} {entry.episode}".lower(),
    )


def _totals(entries: list[SkillsPageEntry]) -> str:
    stages = sorted({stage for entry in entries for stage in entry.num_segments})
    parts = [count(len(entries), "episode")]
    parts += [
        f"{count(sum(entry.num_segments.get(stage, 0) for entry in entries), 'segment')} of stage {stage}"
        for stage in stages
    ]
    return ", ".join(parts)
