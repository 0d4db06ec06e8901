"""Parts that pages are made of: tables, bars, lists of facts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from .page import Html, tag
from .text import number, value_text, words

# The number, what it is, and what it is held against.
Tile: TypeAlias = tuple[str, str, str]


def page_header(title: str, summary: str, tiles: Sequence[Tile], contents: Sequence[tuple[str, str]]) -> Html:
    """The top of a report's page.

    Args:
        title: Its title.
        summary: What came out; paragraphs are set apart by an empty line.
        tiles: The numbers to remember, each with what it is and what it is measured against.
        contents: Id and title of each section.
    """
    links = (tag("li", tag("a", text, href=f"#{name}")) for name, text in contents)
    return tag(
        "header",
        tag("p", "hilam-hf", class_="overline"),
        tag("h1", title),
        (tag("p", paragraph, class_="lead") for paragraph in summary.split("\n\n") if paragraph.strip()),
        tag("dl", (_tile(*tile) for tile in tiles), class_="tiles"),
        tag("nav", tag("ul", links), aria_label="Contents"),
    )


def _tile(value: str, label: str, note: str) -> Html:
    small = tag("dd", note, class_="small") if note else None
    return tag("div", tag("dt", label), tag("dd", value), small, class_="tile")


def comparison(name: str, *errors: tuple[str, Any]) -> Html:
    """Errors under each other, ours first, as numbers and bars on one scale."""
    known = [value for _, value in errors if value is not None and math.isfinite(value)]
    largest = max(known, default=0) or 1
    rows = [
        tag(
            "tr",
            tag("th", label, scope="row"),
            tag("td", number(value), class_="number"),
            tag("td", bar((value or 0) / largest, plain=index > 0), class_="bars"),
        )
        for index, (label, value) in enumerate(errors)
    ]
    return table([name, ("lower is better", "number"), ""], rows)


def bar(share: float, *, interval: tuple[float, float] | None = None, plain: bool = False) -> Html:
    """A horizontal bar over `share` (0 to 1) of its cell; an interval on top of it is a tick where its ends meet."""
    share = min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
    line = None
    if interval is not None:
        low, high = interval
        line = tag("b", style=f"left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%")
    fill = tag("i", style=f"width:{100 * share:.2f}%")
    return tag("div", fill, line, class_="bar plain" if plain else "bar", aria_hidden="true")


def fact_table(facts: Sequence[tuple[str, str]]) -> Html | None:
    """Names beside their values; None where there are none."""
    return table([], fact_rows(facts), class_="facts") if facts else None


def fact_rows(facts: Sequence[tuple[str, str]]) -> list[Html]:
    """One table row for each name and its value."""
    return [tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in facts]


def nested_table(record: Mapping[str, Any]) -> Html:
    """A nested mapping as one table: its own values first, then a group a nested mapping."""
    plain = {key: value for key, value in record.items() if not isinstance(value, Mapping)}
    rows = fact_rows(flatten(plain))
    for key, group in record.items():
        if isinstance(group, Mapping):
            rows.append(tag("tr", tag("th", words(str(key)), colspan=2, scope="rowgroup")))
            rows += fact_rows(flatten(group))
    return table([], rows, class_="facts nested")


def flatten(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A nested value as (name, text) pairs; a list of plain values stays in one piece."""
    if isinstance(value, Mapping):
        items = [(words(str(key)), child) for key, child in value.items()]
    elif isinstance(value, (list, tuple)) and any(isinstance(child, (Mapping, list, tuple)) for child in value):
        items = [(str(index), child) for index, child in enumerate(value, start=1)]
    else:
        text = ", ".join(map(value_text, value)) if isinstance(value, (list, tuple)) else value_text(value)
        return [(prefix, text or "none")]
    if not items:
        return [(prefix, "none")] if prefix else []
    separator = " \N{MIDDLE DOT} " if prefix else ""
    return [pair for name, child in items for pair in flatten(child, f"{prefix}{separator}{name}")]


def table(head: Sequence[str | tuple[str, str]], rows: Sequence[Html], *, class_: str | None = None) -> Html:
    """A table; a heading is its text, or its text and its class."""
    cells = [(cell, None) if isinstance(cell, str) else cell for cell in head]
    heading = tag("thead", tag("tr", (tag("th", text, scope="col", class_=class_) for text, class_ in cells)))
    return tag("div", tag("table", heading if cells else None, tag("tbody", rows), class_=class_), class_="scroll")
