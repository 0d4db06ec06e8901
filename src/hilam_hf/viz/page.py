"""Just enough to write HTML safely: text is escaped unless it was made by `tag`, and pages carry their own style."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TypeAlias

from matplotlib.figure import Figure
from PIL import Image, UnidentifiedImageError

from ..video.pixels import PICTURE_FORMATS
from .style import figure_png, replacing

VOID_TAGS = frozenset({"img", "input", "meta"})

CSS_DPI = 96


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


@dataclass(frozen=True)
class Picture:
    """A picture's file contents, its media type, and the size at which a page shows it, in CSS pixels."""

    contents: bytes
    media_type: str
    width: int
    height: int


def read_picture(image: Figure | Path | str | bytes, name: str) -> Picture:
    """A picture ready to be put in a page.

    Args:
        image: A figure (drawn as PNG), a path, or the contents of a PNG, JPEG, GIF or WebP file.
        name: What it is called in messages.

    Returns:
        The picture. One that says it has more dots per inch than a screen is shown at its size in inches, so that
        figures of different width have letters of one size.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: The contents are no PNG, JPEG, GIF or WebP.
    """
    if isinstance(image, Figure):
        contents = figure_png(image)
    elif isinstance(image, bytes):
        contents = image
    elif Path(image).is_file():
        contents = Path(image).read_bytes()
    else:
        raise FileNotFoundError(f"Figure {name!r}: no such file: {image}.")
    try:
        with Image.open(io.BytesIO(contents), formats=PICTURE_FORMATS) as opened:
            media_type = opened.get_format_mimetype()
            scale = CSS_DPI / max(CSS_DPI, float(opened.info.get("dpi", (CSS_DPI,))[0]))
            width, height = (round(side * scale) for side in opened.size)
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"Figure {name!r} is no {', '.join(PICTURE_FORMATS)} picture; its first bytes are {contents[:8]!r}."
        ) from error
    return Picture(contents, str(media_type), width, height)


def data_uri(contents: bytes, media_type: str) -> str:
    """Contents as a `data:` address."""
    return f"data:{media_type};base64,{base64.b64encode(contents).decode('ascii')}"


def zoomable_figure(
    picture: Picture, text: str, *, caption: bool = True, address: str | None = None, lazy: bool = False
) -> Html:
    """A picture on a white card that is shown larger when clicked.

    Args:
        picture: The picture.
        text: What it shows, for where it cannot be seen.
        caption: Whether the text also stands below it.
        address: Where the picture lies, relative to the page; left out, it is put inside the page.
        lazy: Whether to load it only when the reader comes near.
    """
    image = tag(
        "img",
        src=address or data_uri(picture.contents, picture.media_type),
        alt=text,
        width=picture.width,
        height=picture.height,
        loading="lazy" if lazy else None,
    )
    button = tag("button", image, type="button", class_="zoom", aria_label=f"Enlarge: {text}")
    return tag("figure", button, tag("figcaption", text) if caption else None)
