"""The caption files of Flickr8k and Flickr30k (Young et al., TACL 2014), as they circulate.

    1000092795.jpg#0<tab>Two young guys ...                    results_20130124.token
    image_name| comment_number| comment                        results.csv
    1000092795.jpg| 0| Two young guys ...

The csv quotes nothing, so a quotation mark in it is a letter; one line of the published file lacks
its second bar and is read all the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sightline.core.errors import DataError
from sightline.data.columns import Reading, Row, assemble
from sightline.data.damage import Damage
from sightline.data.lines import place, text_lines

FOLDERS = ("flickr30k-images", "flickr30k_images", "Flickr30k_images", "Flicker8k_Dataset")
"""What the folder of pictures is called."""
_TOKEN = re.compile(r"([^\t|]+\.(?:jpe?g|png))(?:\.\d)?#(\d+)\t(.*)", re.IGNORECASE)
_HEADER = re.compile(r"\ufeff?\s*image_name\s*\|\s*comment_number\s*\|\s*comment\s*", re.IGNORECASE)
_BAR = re.compile(r"([^|]+?)\s*\|\s*(\d+)\s*(?:\|\s*|\s+)(.*)")


def is_flickr30k(text: str) -> tuple[str, ...] | None:
    """The first pictures that the head of such a file names; None for other files."""
    lines = [line.rstrip("\r") for line in text.split("\n")[:4]]
    if _HEADER.fullmatch(lines[0]):
        found = [_BAR.fullmatch(line) for line in lines[1:]]
    else:
        found = [_TOKEN.fullmatch(line) for line in lines[:3]]
        if found[0] is None:
            return None
    return tuple(dict.fromkeys(match[1].strip() for match in found if match))


def read_flickr30k(path: Path, roots: Sequence[Path], split: str | None = None) -> Reading:
    """Captions of a token file or a csv with bars; lines that fit neither are counted and named.

    Raises:
        DataError: no line fits, or the file cannot be read.
    """
    damage = Damage()
    rows: list[Row] = []
    pattern = _TOKEN
    for number, text in text_lines(path):
        line = text.rstrip("\r\n")
        if number == 1 and _HEADER.fullmatch(line):
            pattern = _BAR
            continue
        match = pattern.fullmatch(line)
        if match is not None:
            where = place(path, number)
            rows.append(Row(match[1].strip(), [match[3].strip()], where, split=split))
        elif line.strip():
            damage.note("line(s) that are no captions", place(path, number))
    if not rows:
        raise DataError(f"{place(path)}: no line of it is 'picture.jpg#0<tab>caption'")
    return replace(assemble(rows, roots), damage=damage.sentences())
