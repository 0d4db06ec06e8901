"""The demo's page: one HTML file that tells what a run did, with its pictures and videos inside.

`write_report` turns the same mapping that is written as `report.json` (its schema is in `hilam_hf.demo.schema`) into a
page that needs nothing beside it: no script, font, picture or style is fetched.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from matplotlib.figure import Figure

from ..viz.components import Tile, nested_table, page_header, table
from ..viz.page import Child, Html, data_uri, page, read_picture, tag, write_page, zoomable_figure
from ..viz.text import aim_text, in_words
from .schema import REPORT, SECTIONS, check_report
from .sections import SECTION_PAGES, TILES

INLINE_VIDEO_BYTES = 20_000_000
DEFAULT_CAPTIONS = {
    "next_frames": "Frames of held-out episodes, what the forward dynamics model makes of them and of their latent "
    "actions, the true later frames, and where they differ.",
    "training_curves": "Training curves.",
    "boundary_rates": "The share of each stage's input that starts a segment, over training. Dashed: its target.",
    "success": "Success on each task. Lines: 95 % Wilson intervals.",
}
VIDEO_TYPES = {".mp4": "video/mp4", ".webm": "video/webm"}


def write_report(
    path: str | Path,
    report: Mapping[str, Any],
    figures: Mapping[str, Figure | Path | bytes],
    videos: Sequence[Path] = (),
    *,
    captions: Mapping[str, str] | None = None,
    inline_video_bytes: int = INLINE_VIDEO_BYTES,
) -> Path:
    """Write a run's page.

    Args:
        path: Where to write, such as `out/report.html`.
        report: The run, as `hilam_hf.demo.schema` says. A missing `lam`, `hilam`, `skills` or `policies` leaves its
            section out. Keys that the schema does not know are shown as they are.
        figures: Pictures, each a figure, a path or the contents of a PNG, JPEG, GIF or WebP.
            The key says where it stands: `"SECTION/NAME"`, with section `steps`, `lam`, `hilam`, `skills` or
            `policies`, in order within a section.
        videos: Rollouts, `.mp4` or `.webm`. They are put inside the page as long as they fit in `inline_video_bytes`,
            in order; the others are linked where they lie.
        captions: Captions by figure key or video file name. Left out, figures named `next_frames`, `training_curves`,
            `boundary_rates` and `success` have one of their own, and others their name in words.
        inline_video_bytes: The most bytes of video, before base64, inside the page.

    Returns:
        The path written.

    Raises:
        ValueError: The report does not have the schema, a figure's key names no section of this report, or a picture
            or video has a format that pages cannot show.
        FileNotFoundError: A picture or video does not exist.
        OSError: The page cannot be written.

    Example:
        >>> write_report("out/report.html", report, {"lam/next_frames": figure})  # doctest: +SKIP
    """
    check_report(report)
    path = Path(path)
    sections = {name: section for name, section in SECTION_PAGES.items() if name in report}
    pictures = _place_figures(figures, sections, captions or {})
    blocks: list[tuple[str, str, Child]] = [
        (name, title, [render(report[name]), pictures.get(name)]) for name, (title, render) in sections.items()
    ]
    if videos:
        rollouts = _videos(videos, path.parent, captions or {}, inline_video_bytes)
        blocks.append(("rollouts", "Rollouts", rollouts))
    blocks.append(("artifacts", "What was written", _artifacts(report["artifacts"])))
    blocks.append(("provenance", "Provenance", nested_table(report["provenance"])))
    further = {key: value for key, value in report.items() if key not in REPORT and key not in SECTIONS}
    if further:
        blocks.append(("further", "Further", nested_table(further)))
    blocks.append(("aims", "Aims", _aims(report["aims"])))
    body = tag("main", (tag("section", tag("h2", title), content, id=name) for name, title, content in blocks))
    header = _header(report, [(name, title) for name, title, _ in blocks])
    return write_page(path, page(report["title"], header, body))


def _header(report: Mapping[str, Any], contents: list[tuple[str, str]]) -> Html:
    tiles = [tile for name, make in TILES.items() if name in report for tile in make(report[name])]
    return page_header(report["title"], report["summary"], [*tiles, _aims_tile(report["aims"])], contents)


def _aims_tile(aims: Sequence[Mapping[str, Any]]) -> Tile:
    met = sum(aim["met"] is True for aim in aims)
    unknown = sum(aim["met"] is None for aim in aims)
    return f"{met} of {len(aims)}", "aims met", f"{unknown} not measured" if unknown else ""


def _place_figures(
    figures: Mapping[str, Figure | Path | bytes], sections: Mapping[str, object], captions: Mapping[str, str]
) -> dict[str, list[Html]]:
    """The figures of each section, in order."""
    placed: dict[str, list[Html]] = {}
    for key, image in figures.items():
        section, slash, name = key.partition("/")
        if not slash or not name or section not in sections:
            raise ValueError(
                f"Figure {key!r} has no place in this report: its key must be SECTION/NAME, with one of {[*sections]} "
                "as the section."
            )
        caption = captions.get(key) or DEFAULT_CAPTIONS.get(name) or (name if section == "skills" else in_words(name))
        placed.setdefault(section, []).append(zoomable_figure(read_picture(image, key), caption))
    return placed


def _videos(videos: Sequence[Path], folder: Path, captions: Mapping[str, str], budget: int) -> Child:
    cards: list[Html] = []
    linked: list[Html] = []
    for video in map(Path, videos):
        media_type = VIDEO_TYPES.get(video.suffix.lower())
        if media_type is None:
            raise ValueError(f"Video {video} cannot be shown in a page: expected a file ending in {[*VIDEO_TYPES]}.")
        if not video.is_file():
            raise FileNotFoundError(f"Video not found: {video}.")
        caption = captions.get(video.name, in_words(video.stem))
        size = video.stat().st_size
        if size > budget:
            address = quote(Path(os.path.relpath(video, folder)).as_posix())
            linked.append(tag("li", tag("a", caption, href=address), f" ({size / 1e6:.1f} MB)"))
            continue
        budget -= size
        player = tag(
            "video",
            src=data_uri(video.read_bytes(), media_type),
            controls=True,
            loop=True,
            muted=True,
            playsinline=True,
            preload="metadata",
            aria_label=caption,
        )
        cards.append(tag("figure", player, tag("figcaption", caption)))
    note = "Too large to be inside this page; the links hold as long as the page and the videos stay where they are:"
    return [
        tag("div", cards, class_="videos") if cards else None,
        [tag("p", note, class_="note"), tag("ul", linked)] if linked else None,
    ]


def _artifacts(artifacts: Sequence[Mapping[str, Any]]) -> Child:
    return tag(
        "ul",
        (
            tag(
                "li",
                tag("strong", artifact["name"]),
                tag("code", artifact["path"], class_="path"),
                tag("pre", tag("code", artifact["load"])) if artifact["load"] else None,
            )
            for artifact in artifacts
        ),
        class_="artifacts",
    )


def _aims(aims: Sequence[Mapping[str, Any]]) -> Child:
    marks = {
        True: ("met", "\N{CHECK MARK} met"),
        False: ("missed", "\N{BALLOT X} not met"),
        None: ("unknown", "not measured"),
    }
    rows = [
        tag(
            "tr",
            tag("th", aim["name"], scope="row"),
            tag("td", aim_text(aim["aim"])),
            tag("td", aim_text(aim["value"])),
            tag("td", tag("span", marks[aim["met"]][1], class_=f"mark {marks[aim['met']][0]}")),
        )
        for aim in aims
    ]
    return table(["", "aim", "this run", ""], rows)
