"""One self-contained HTML page for people: sections, numbers, tables, pictures, score bars.

Everything is inside the file (pictures as data addresses, no script, nothing fetched), every text
is escaped, and it reads well on paper, on a phone, in light and in dark.
"""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from io import BytesIO
from itertools import groupby
from typing import Any, NamedTuple

from PIL import Image

from sightline.core.errors import ConfigError, ImageError
from sightline.core.files import atomic_file
from sightline.core.version import __version__
from sightline.tasks.line_chart import line_chart
from sightline.tasks.sheets import SheetItem, thumbnail_of

NOTE_KINDS = ("note", "warning", "success")
NUMBER = ' class="number"'
_LARGEST_PNG = 200_000


class _Block(NamedTuple):
    html: str
    card: bool = False


class Report:
    """A page that is filled from top to bottom; every method returns the report.

    `Report("Training").section("Loss").lines({"train": points}).table(...).write("report.html")`
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._blocks: list[_Block] = []
        self._sections: list[str] = []

    def section(self, title: str, text: str = "") -> Report:
        """A heading, and a paragraph under it."""
        self._sections.append(title)
        self._add(f'<h2 id="s{len(self._sections)}">{escape(title)}</h2>')
        return self.text(text) if text else self

    def heading(self, title: str) -> Report:
        """A smaller heading inside a section; it is not among the links on top."""
        return self._add(f"<h3>{escape(title)}</h3>")

    def text(self, paragraph: str) -> Report:
        """Paragraphs, parted by empty lines."""
        for part in paragraph.split("\n\n"):
            self._add(f"<p>{escape(part.strip())}</p>")
        return self

    def code(self, text: str) -> Report:
        """Commands or data, exactly as they are."""
        return self._add(f"<pre><code>{escape(text)}</code></pre>")

    def note(self, text: str, kind: str = "note") -> Report:
        """A sentence that should not be overlooked: "note", "warning" or "success"."""
        if kind not in NOTE_KINDS:
            raise ConfigError(f"kind of note {kind!r} is unknown: use {', '.join(NOTE_KINDS)}")
        return self._add(f'<p class="note {kind}">{escape(text)}</p>')

    def facts(self, facts: Mapping[str, Any]) -> Report:
        """A few numbers that matter, large, each under its name."""
        tiles = "".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(_shown(value))}</dd></div>"
            for name, value in facts.items()
        )
        return self._add(f'<dl class="facts">{tiles}</dl>')

    def table(
        self, header: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = ""
    ) -> Report:
        """Rows under a header; columns of numbers stand right, and None is a dash."""
        listed = [list(row) for row in rows]
        numeric = [
            all(_is_number(row[column]) for row in listed if column < len(row))
            for column in range(len(header))
        ]
        head = _cells("th", header, numeric)
        body = "".join(f"<tr>{_cells('td', row, numeric)}</tr>" for row in listed)
        title = f"<caption>{escape(caption)}</caption>" if caption else ""
        return self._add(
            f'<div class="scroll"><table>{title}<thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    def picture(self, image: Any, caption: str = "", width: int | None = None) -> Report:
        """A figure: SVG text, the bytes of a PNG, or anything that can be read as a picture."""
        style = f' style="width:{int(width)}px"' if width else ""
        source = data_address(image)
        below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        return self._add(
            f'<figure><img src="{source}" alt="{escape(caption)}"{style}>{below}</figure>'
        )

    def lines(
        self,
        series: Mapping[str, Sequence[tuple[float, float]]],
        x: str = "",
        y: str = "",
        caption: str = "",
    ) -> Report:
        """Curves over a common axis, drawn here: name to points (x, y); NaN leaves a gap."""
        below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        return self._add(f'<figure class="chart">{line_chart(series, x, y)}{below}</figure>')

    def bars(self, values: Mapping[str, float], full: float = 1.0) -> Report:
        """Named values as bars; `full` is the value of a whole bar."""
        return self._add(f'<div class="card wide">{_bars(list(values.items()), full)}</div>')

    def labels(
        self,
        labels: Iterable[tuple[str, float]],
        image: Any = None,
        title: str = "",
        truth: str | Iterable[str] | None = None,
        full: float = 1.0,
        claims: int = 0,
        broad: bool = False,
    ) -> Report:
        """A card: a picture, a title, and scores as bars; several in a row stand side by side.

        Args:
            labels: names and scores, in the order to show.
            image: the picture they speak about.
            title: a line under the picture.
            truth: the right label or labels, marked among the others, or named below them.
            full: the score of a whole bar.
            claims: so many of the first labels are what the model says: wrong ones are marked.
            broad: take a whole row, with long names beside the picture.
        """
        listed = list(labels)
        wanted = [truth] if isinstance(truth, str) else list(truth or ())
        picture = _thumbnail(image) if image is not None else ""
        heading = f"<h3>{escape(title)}</h3>" if title else ""
        missed = ", ".join(name for name in wanted if name not in {name for name, _ in listed})
        word = "truth" if isinstance(truth, str) else "missed"
        below = f'<p class="quiet">{word}: {escape(missed)}</p>' if missed else ""
        bars = _bars(listed, full, wanted, claims)
        kind = "card broad" if broad else "card"
        inner = f"<div>{heading}{bars}{below}</div>"
        return self._add(f'<div class="{kind}">{picture}{inner}</div>', card=True)

    def gallery(self, items: Iterable[SheetItem], right: Sequence[bool] | None = None) -> Report:
        """Captioned thumbnails side by side; those that are `right` have a green frame."""
        listed = [SheetItem(*item) for item in items]
        for item, framed in zip(listed, right or [False] * len(listed), strict=True):
            frame = " right" if framed else ""
            score = "" if item.score is None else f'<span class="pill">{_shown(item.score)}</span>'
            self._add(
                f'<div class="card{frame}">{_thumbnail(item.image)}'
                f'<p class="caption">{escape(item.caption)} {score}</p></div>',
                card=True,
            )
        return self

    def html(self) -> str:
        """The page as text."""
        style = files("sightline.tasks").joinpath("report.css").read_text(encoding="utf-8")
        subtitle = f'<p class="subtitle">{escape(self.subtitle)}</p>' if self.subtitle else ""
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n'
            # Whatever a text might smuggle in, this page neither runs nor fetches anything.
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
            f"<title>{escape(self.title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
            f"<header><h1>{escape(self.title)}</h1>{subtitle}{self._contents()}</header>\n"
            f"<main>\n{self._body()}\n</main>\n"
            f"<footer>Written by Sightline {escape(__version__)}</footer>\n</body>\n</html>\n"
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the page, whole or not at all."""
        # Names that are not UTF-8 carry lone surrogates, which no file can hold.
        content = self.html().encode("utf-8", errors="replace")
        with atomic_file(path) as temporary:
            temporary.write_bytes(content)

    def _add(self, html: str, card: bool = False) -> Report:
        self._blocks.append(_Block(html, card))
        return self

    def _body(self) -> str:
        parts = []
        for card, blocks in groupby(self._blocks, key=lambda block: block.card):
            inner = "\n".join(block.html for block in blocks)
            parts.append(f'<div class="grid">\n{inner}\n</div>' if card else inner)
        return "\n".join(parts)

    def _contents(self) -> str:
        if len(self._sections) < 3:
            return ""
        links = "".join(
            f'<a href="#s{place}">{escape(title)}</a>'
            for place, title in enumerate(self._sections, start=1)
        )
        return f"<nav>{links}</nav>"


def data_address(image: Any, side: int | None = None) -> str:
    """A picture as a `data:` address.

    Args:
        image: SVG text, the bytes of a PNG, or anything that can be read as a picture.
        side: fit it into a square of so many pixels.

    Raises:
        ImageError: it cannot be read.
    """
    if isinstance(image, str) and image.lstrip().startswith("<svg"):
        return _address("svg+xml", image.encode())
    if isinstance(image, bytes) and image.startswith(b"\x89PNG") and side is None:
        return _address("png", image)
    picture = thumbnail_of(image, side or 1600)
    content = _encoded(picture, format="PNG", optimize=True)
    if len(content) <= _LARGEST_PNG:
        return _address("png", content)
    return _address("jpeg", _encoded(picture, format="JPEG", quality=88))


def _encoded(picture: Image.Image, **options: Any) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, **options)
    return buffer.getvalue()


def _address(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _thumbnail(image: Any) -> str:
    try:
        return f'<div class="thumb"><img src="{data_address(image, 320)}" alt=""></div>'
    except ImageError as error:
        return f'<div class="thumb broken">not readable: {escape(str(error))}</div>'


def _bars(
    values: Sequence[tuple[str, float]], full: float, truth: Sequence[str] = (), claims: int = 0
) -> str:
    rows = []
    for place, (name, value) in enumerate(values):
        share = value / full if full > 0 and math.isfinite(value) else 0.0
        width = 100 * min(max(share, 0.0), 1.0)
        wrong = ' class="false"' if place < claims else ""
        mark = ' class="truth"' if name in truth else wrong
        shown = _shown(value if isinstance(value, int) else float(value))  # counts stay whole
        rows.append(
            f"<li{mark}><span>{escape(name)}</span><b>{escape(shown)}</b>"
            f'<i><u style="width:{width:.1f}%"></u></i></li>'
        )
    return f'<ul class="bars">{"".join(rows)}</ul>'


def _cells(tag: str, row: Sequence[Any], numeric: Sequence[bool]) -> str:
    aligned = [*numeric, *[False] * (len(row) - len(numeric))]
    return "".join(
        f"<{tag}{NUMBER if right else ''}>{escape(_shown(value))}</{tag}>"
        for value, right in zip(row, aligned, strict=False)
    )


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _shown(value: Any) -> str:
    """A value for a reader: thousands parted, floats to three places, None as a dash."""
    if value is None:
        return "–"  # noqa: RUF001 (the dash of an empty cell)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else str(value)
    small = value != 0 and abs(value) < 0.001
    return f"{value:.1e}" if small else f"{value:,.3f}" if abs(value) < 1000 else f"{value:,.0f}"
