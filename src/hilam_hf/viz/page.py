"""Just enough to write HTML safely: text is escaped unless it was made by `tag`, and pages carry their own style."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import TypeAlias

from matplotlib.figure import Figure

from hilam_hf.viz.style import figure_png, replacing

VOID_TAGS = frozenset({"img", "input", "meta"})

IMAGE_TYPES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}


class Html(str):
    """Text that is HTML already and must not be escaped again."""

    __slots__ = ()


Child: TypeAlias = "str | Html | Iterable[Child] | None"


def tag(name: str, /, *children: Child, **attributes: str | int | bool | None) -> Html:
    """One element with its children.

    Args:
        name: The element's name.
        *children: Text, which is escaped; elements made by `tag`, which are not; iterables of both; None is left out.
        **attributes: `class_` stands for `class`, and `_` elsewhere for `-`. True gives a bare attribute; None and
            False leave it out. Values are escaped.

    Returns:
        The element.

    Example:
        >>> tag("p", "a < b", class_="note")
        '<p class="note">a &lt; b</p>'
    """
    opening = f"<{name}{''.join(map(_attribute, attributes.items()))}>"
    if name in VOID_TAGS:
        return Html(opening)
    return Html(f"{opening}{join(children)}</{name}>")


def join(children: Child) -> Html:
    """Children one after another, escaped where they are plain text."""
    if children is None:
        return Html("")
    if isinstance(children, Html):
        return children
    if isinstance(children, str):
        return Html(html.escape(children))
    return Html("".join(join(child) for child in children))


def _attribute(item: tuple[str, str | int | bool | None]) -> str:
    name, value = item[0].removesuffix("_").replace("_", "-"), item[1]
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'


def page(title: str, *body: Child) -> str:
    """A whole document with the package's style and script inside, and nothing fetched from anywhere."""
    folder = resources.files("hilam_hf.viz")
    style, script = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(style)),
    )
    zoomed = tag("dialog", tag("img", alt=""), id="zoomed", aria_label="Enlarged figure")
    return f"<!doctype html>\n{tag('html', head, tag('body', body, zoomed, tag('script', Html(script))), lang='en')}\n"


def write_page(path: str | Path, text: str) -> Path:
    """Write a page as UTF-8; an existing file is replaced only once the new one is whole."""
    path = Path(path)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def image_bytes(image: Figure | Path | str | bytes, name: str) -> bytes:
    """A picture's file contents.

    Args:
        image: A figure (drawn as PNG), a path, or the contents of a PNG, JPEG or GIF file.
        name: What it is called in messages.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: The contents are no PNG, JPEG or GIF.
    """
    if isinstance(image, Figure):
        return figure_png(image)
    if isinstance(image, bytes):
        contents = image
    else:
        if not Path(image).is_file():
            raise FileNotFoundError(f"Figure {name!r}: no such file: {image}.")
        contents = Path(image).read_bytes()
    image_type(contents, name)
    return contents


def image_type(contents: bytes, name: str) -> str:
    """The media type of a picture, from its first bytes."""
    for magic, media_type in IMAGE_TYPES.items():
        if contents.startswith(magic):
            return media_type
    raise ValueError(f"Figure {name!r} is no PNG, JPEG or GIF picture (its first bytes are {contents[:8]!r}).")


def data_uri(contents: bytes, media_type: str) -> str:
    """Contents as a `data:` address."""
    return f"data:{media_type};base64,{base64.b64encode(contents).decode('ascii')}"


def zoomable_figure(source: str, caption: str, *, lazy: bool = False) -> Html:
    """A picture on a white card that is shown larger when clicked, with a caption below."""
    image = tag("img", src=source, alt=caption, loading="lazy" if lazy else None, decoding="async")
    button = tag("button", image, type="button", class_="zoom", aria_label=f"Enlarge: {caption}")
    return tag("figure", button, tag("figcaption", caption))
