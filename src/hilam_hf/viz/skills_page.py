"""The page of a skill corpus: the timelines of many episodes under each other, to look through and to search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from matplotlib.figure import Figure

from hilam_hf.viz.page import (
    Html,
    data_uri,
    image_bytes,
    image_type,
    page,
    tag,
    write_page,
    zoomable_figure,
)
from hilam_hf.viz.style import replacing
from hilam_hf.viz.text import count, duration

MAX_INLINED = 50


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
        ValueError: There is no entry, an episode comes twice, or a picture is no PNG, JPEG or GIF.
        FileNotFoundError: A picture does not exist.
        OSError: The page or a picture cannot be written.
    """
    path = Path(path)
    seen: dict[str, SkillsPageEntry] = {}
    sources = _sources(path, _unique(entries, seen), max_inlined)
    if not sources:
        raise ValueError(f"No episode to show in {path}: the corpus, or the selection from it, is empty.")
    articles = [_article(entry, source) for entry, source in zip(seen.values(), sources, strict=True)]
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
        seen[entry.episode] = SkillsPageEntry(**{**vars(entry), "timeline": b""})
        yield entry


def _sources(path: Path, entries: Iterable[SkillsPageEntry], max_inlined: int) -> list[str]:
    """The address of each entry's picture: inside the page, or in the folder beside it when too many."""
    folder = path.with_name(f"{path.stem}_images")
    sources: list[str] = []
    waiting: list[bytes] = []
    for entry in entries:
        waiting.append(image_bytes(entry.timeline, entry.episode))
        if len(sources) + len(waiting) > max_inlined:
            sources += [_write_image(folder, len(sources) + i, contents) for i, contents in enumerate(waiting)]
            waiting = []
    return sources + [data_uri(contents, image_type(contents, "timeline")) for contents in waiting]


def _write_image(folder: Path, index: int, contents: bytes) -> str:
    suffix = image_type(contents, "timeline").removeprefix("image/")
    file = folder / f"{index:06d}.{suffix}"
    with replacing(file) as temporary:
        temporary.write_bytes(contents)
    return quote(f"{folder.name}/{file.name}")


def _article(entry: SkillsPageEntry, source: str) -> Html:
    segments = "; ".join(
        f"stage {stage}: {count(number, 'segment')}" for stage, number in sorted(entry.num_segments.items())
    )
    title = entry.instruction or entry.episode
    return tag(
        "article",
        tag("h2", title),
        tag("div", tag("code", entry.episode), f" \N{MIDDLE DOT} {duration(entry.seconds)} \N{MIDDLE DOT} ", segments),
        zoomable_figure(source, f"Skill timeline of {entry.episode}", lazy=True),
        data_search=f"{title} {entry.episode}".lower(),
    )


def _totals(entries: list[SkillsPageEntry]) -> str:
    stages = sorted({stage for entry in entries for stage in entry.num_segments})
    parts = [count(len(entries), "episode")]
    parts += [
        f"{count(sum(entry.num_segments.get(stage, 0) for entry in entries), 'segment')} of stage {stage}"
        for stage in stages
    ]
    return ", ".join(parts)
