"""Small pictures between the lines of a terminal that is known to show them; elsewhere nothing.

Terminals are recognised by what they say about themselves in the environment. Asking them would
mean reading answers from the keyboard's stream, which hangs or prints rubbish where nobody answers.
Inside tmux and screen nothing is shown, since they pass no pictures on.

Sources: kitty's graphics protocol (sw.kovidgoyal.net/kitty/graphics-protocol), iTerm2's inline
images (iterm2.com/documentation-images.html), sixel (VT330/VT340 manual, chapter 14).
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Literal

import click

from sightline.core.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

    from sightline.cli.output import Call

Protocol = Literal["kitty", "iterm2", "sixel"]

SIDE = 160
"""Pixels."""
_CHUNK = 4096
"""Characters that kitty takes at once."""
_KITTY = {"xterm-kitty", "xterm-ghostty"}
_ITERM2 = {"iTerm.app", "WezTerm"}
_SIXEL = {"foot", "foot-extra", "mlterm", "contour", "yaft-256color"}
_ESCAPE, _END = "\x1b", "\x1b\\"


def protocol_of(environment: Mapping[str, str]) -> Protocol | None:
    """How this terminal shows pictures; None where that is not certain."""
    term = environment.get("TERM", "")
    if "TMUX" in environment or "STY" in environment or term.startswith(("screen", "tmux")):
        return None
    if term in _KITTY:
        return "kitty"
    if environment.get("TERM_PROGRAM") in _ITERM2 or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm2"
    return "sixel" if term in _SIXEL else None


def show_thumbnail(call: Call, path: str) -> None:
    """A picture on a line of its own, where a person sits before a terminal that shows it."""
    protocol = protocol_of(os.environ) if call.drawn else None
    if protocol is None:
        return
    from sightline.tasks.sheets import thumbnail_of

    try:
        picture = thumbnail_of(path, SIDE)
    except ImageError:
        return  # gone or broken since it was indexed: the line above names it
    click.echo({"kitty": kitty, "iterm2": iterm2, "sixel": sixel}[protocol](picture))


def kitty(picture: Image) -> str:
    """The picture as kitty's escape codes, in chunks: all but the last say that more follow."""
    data = base64.b64encode(_png(picture)).decode()
    parts = [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]
    codes = []
    for place, part in enumerate(parts):
        more = int(place < len(parts) - 1)
        head = f"a=T,f=100,m={more}" if place == 0 else f"m={more}"
        codes.append(f"{_ESCAPE}_G{head};{part}{_END}")
    return "".join(codes)


def iterm2(picture: Image) -> str:
    """The picture as iTerm2's escape code."""
    data = _png(picture)
    text = base64.b64encode(data).decode()
    return f"{_ESCAPE}]1337;File=inline=1;size={len(data)};width={picture.width}px:{text}\a"


def sixel(picture: Image) -> str:
    """The picture as sixels: bands of six rows, each colour of a band drawn over the others."""
    import numpy as np

    flat = picture.quantize(64)
    colours = np.asarray(flat.getpalette(), np.int64).reshape(-1, 3) * 100 // 255  # percent
    pixels = np.asarray(flat)
    codes = [f'{_ESCAPE}Pq"1;1;{picture.width};{picture.height}']
    used = np.unique(pixels).tolist()
    codes += ["#{};2;{};{};{}".format(number, *colours[number]) for number in used]
    for top in range(0, len(pixels), 6):
        band = pixels[top : top + 6]
        weights = 1 << np.arange(len(band))[:, None]
        for number in np.unique(band).tolist():
            levels = ((band == number) * weights).sum(axis=0)
            codes.append(f"#{number}{_run_lengths(levels.tolist())}$")
        codes.append("-")
    return "".join([*codes, _END])


def _run_lengths(levels: list[int]) -> str:
    from itertools import groupby

    runs = ((chr(63 + level), len(list(group))) for level, group in groupby(levels))
    return "".join(f"!{count}{letter}" if count > 3 else letter * count for letter, count in runs)


def _png(picture: Image) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
