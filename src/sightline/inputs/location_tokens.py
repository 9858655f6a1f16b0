"""Places spelled as tokens of their own: PaliGemma's and Florence-2's answers.

PaliGemma    <loc0100><loc0200><loc0300><loc0400> cat ; <loc...>... dog
             with 16 mask tokens between place and label: <loc>x4<seg000>x16 cat
Florence-2   cat<loc_100><loc_200><loc_300><loc_400>, more boxes of the same label behind it;
             outlines cat<poly><loc_..>...<sep><loc_..>...</poly>; text with four corners
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Literal, NamedTuple

from sightline.core.errors import ConfigError, InputError, unknown_name
from sightline.core.outputs import Box
from sightline.inputs.coordinates import FLORENCE2, PALIGEMMA, Convention, Point
from sightline.inputs.grounded_text import (
    LONGEST_NUMBER,
    Grounded,
    Place,
    Span,
    box_of,
    decoded,
    is_box,
    label_in,
    plain,
)  # fmt: skip

MASK_TOKEN, MASK_TOKENS, MASK_CODES = "<seg{:03d}>", 16, 128
"""How PaliGemma spells a code of a mask, how many make a mask, and how many there are."""

SHAPES = ("boxes", "outlines", "corners")


class _Run(NamedTuple):
    """Tokens of places that follow each other, and the text before and behind them."""

    tokens: list[re.Match[str]]
    before: Span
    after: Span


def write_paligemma(
    places: Iterable[Place], size: tuple[int, int], convention: Convention = PALIGEMMA
) -> str:
    """Boxes, with the codes of their masks where they have some, and labels.

    Args:
        places: what to name, in this order.
        size: (H, W) of the original picture.
        convention: another divisor changes reading only.

    Raises:
        InputError: a place without box, or codes that make no mask.
    """
    written = []
    for place in places:
        codes = place.codes
        if len(codes) not in (0, MASK_TOKENS) or any(not 0 <= c < MASK_CODES for c in codes):
            raise InputError(
                f"a mask is {MASK_TOKENS} codes from 0 to {MASK_CODES - 1}: {str(codes)[:60]}"
            )
        mask = "".join(MASK_TOKEN.format(code) for code in codes)
        where = convention.spelled(convention.encode(box_of(place), size)) + mask
        written.append(f"{where} {plain(place.label)}".rstrip())
    return " ; ".join(written)


def parse_paligemma(
    text: str, size: tuple[int, int], convention: Convention = PALIGEMMA
) -> Grounded:
    """Boxes with what follows each as its label, up to ";" or the next place.

    Invalid are: fewer than four numbers, numbers that do not exist, empty boxes, mask tokens
    without a box, fewer than 16 of them, or one that does not exist. Further ones are ignored.

    Args:
        text: what the network wrote, special tokens included.
        size: (H, W) of the original picture.
        convention: `divisor` is what readers disagree on.
    """
    pattern = _tokens(convention.token, MASK_TOKEN)
    found: list[Place] = []
    invalid = 0
    for run in _runs(text, pattern):
        for place in _paligemma_run(run.tokens, size, convention):
            if place is None:
                invalid += 1
            else:
                found.append(place)
        # Of several places without words between them the last one has the label.
        if found and found[-1].span[1] == run.after[0]:
            label, span = label_in(text, run.after, stop=";")
            found[-1] = found[-1]._replace(label=label, label_span=span)
    return Grounded(found, invalid)


def _paligemma_run(
    tokens: list[re.Match[str]], size: tuple[int, int], convention: Convention
) -> Iterator[Place | None]:
    """Of each place in a run either the place or None."""
    start = 0
    while start < len(tokens):
        middle = _while(tokens, start, "<loc", 4)
        stop = _while(tokens, middle, "<seg", None)
        masked = stop > middle
        place = None
        if middle - start == 4 and (not masked or stop - middle >= MASK_TOKENS):
            numbers = _numbers(tokens[start:middle], convention.token)
            codes = _numbers(tokens[middle : middle + MASK_TOKENS] if masked else [], MASK_TOKEN)
            box = decoded(numbers, size, convention)
            if box is not None and codes is not None and all(c < MASK_CODES for c in codes):
                span = tokens[start].start(), tokens[stop - 1].end()
                place = Place("", box, tuple(codes), span=span)
        yield place
        start = stop


def write_florence(
    places: Iterable[Place], size: tuple[int, int], convention: Convention = FLORENCE2
) -> str:
    """Labels with their boxes, or with their outlines where a place has some.

    Neighbours of the same label share it, as the published answers do.

    Args:
        places: what to name, in this order.
        size: (H, W) of the original picture.
        convention: how numbers are made.

    Raises:
        InputError: a place with neither box nor outline.
    """
    written, last = "", None
    for place in places:
        label = plain(place.label)
        if place.outlines:
            parts = [
                convention.spelled(convention.encode_points(outline, size))
                for outline in place.outlines
            ]
            where = f"<poly>{'<sep>'.join(parts)}</poly>"
        else:
            where = convention.spelled(convention.encode(box_of(place), size))
        written += where if label == last else label + where
        last = label
    return written


def parse_florence(
    text: str,
    size: tuple[int, int],
    shape: Literal["boxes", "outlines", "corners"] = "boxes",
    convention: Convention = FLORENCE2,
) -> Grounded:
    """Labels with what follows each: boxes, outlines, or the four corners of a line of text.

    Invalid are: numbers left over, or that do not exist, empty boxes, outlines of fewer than three
    corners. The last number of an outline of an odd count is dropped.

    Args:
        text: what the network wrote, special tokens included.
        size: (H, W) of the original picture.
        shape: what the task writes; numbers alone do not tell. Between <poly> and </poly> there are
            outlines in any case.
        convention: how numbers are read.

    Raises:
        ConfigError: an unknown shape.
    """
    if shape not in SHAPES:
        raise ConfigError(unknown_name("shape", shape, SHAPES))
    found: list[Place] = []
    invalid = 0
    for run in _runs(text, _tokens(convention.token, "<poly>", "</poly>", "<sep>")):
        label, span = label_in(text, run.before)
        for group, kind in _florence_groups(run.tokens, shape):
            place, dropped = _florence_place(group, kind, size, convention)
            invalid += dropped
            if place is not None:
                found.append(place._replace(label=label, label_span=span))
    return Grounded(found, invalid)


def _florence_groups(
    tokens: list[re.Match[str]], shape: str
) -> Iterator[tuple[list[list[re.Match[str]]], str]]:
    """The tokens of each place, those of each outline apart, and what they are."""
    numbers: list[re.Match[str]] = []
    parts: list[list[re.Match[str]]] = []
    inside = False
    for token in [*tokens, None]:
        mark = token[0] if token else ""
        if token is not None and mark not in ("<poly>", "</poly>", "<sep>"):
            numbers.append(token)
            continue
        outlines = inside or shape == "outlines"
        if outlines:
            parts += [numbers] if numbers else []
            if mark != "<sep>" and parts:
                yield parts, "outlines"
                parts = []
        else:
            count = 4 if shape == "boxes" else 8
            for start in range(0, len(numbers), count):
                yield [numbers[start : start + count]], shape
        numbers = []
        inside = mark == "<poly>" or (inside and mark == "<sep>")


def _florence_place(
    group: list[list[re.Match[str]]], kind: str, size: tuple[int, int], convention: Convention
) -> tuple[Place | None, int]:
    """A place, and how many of its parts were not well formed."""
    span = group[0][0].start(), group[-1][-1].end()
    numbers = [_numbers(part, convention.token) for part in group]
    if kind == "boxes":
        box = decoded(numbers[0], size, convention)
        return (None, 1) if box is None else (Place("", box, span=span), 0)
    least = 8 if kind == "corners" else 6
    outlines = []
    for part in numbers:
        even = (part or [])[: len(part or []) // 2 * 2]
        if least <= len(even) and convention.in_range(even, convention.point_order, size):
            outlines.append(tuple(convention.decode_points(even, size)))
    box = _around(outlines)
    if box is None:
        return None, len(group)
    return Place("", box, outlines=tuple(outlines), span=span), len(group) - len(outlines)


@cache
def _tokens(*spellings: str) -> re.Pattern[str]:
    """Any of some tokens; a place for a number stands for any digits."""
    parts = [re.escape(re.sub(r"\{.*\}", "\0", spelling)) for spelling in spellings]
    return re.compile("|".join(part.replace(re.escape("\0"), "[0-9]+") for part in parts))


def _runs(text: str, pattern: re.Pattern[str]) -> Iterator[_Run]:
    """The tokens of a text, those with nothing between them together."""
    tokens: list[re.Match[str]] = []
    before = (0, 0)
    for match in pattern.finditer(text):
        if tokens and match.start() != tokens[-1].end():
            after = tokens[-1].end(), match.start()
            yield _Run(tokens, before, after)
            tokens, before = [], after
        elif not tokens:
            before = (0, match.start())
        tokens.append(match)
    if tokens:
        yield _Run(tokens, before, (tokens[-1].end(), len(text)))


def _while(tokens: list[re.Match[str]], start: int, prefix: str, most: int | None) -> int:
    """The first place from `start` on that is no token of a kind, or where there are enough."""
    end = len(tokens) if most is None else min(start + most, len(tokens))
    while start < end and tokens[start][0].startswith(prefix):
        start += 1
    return start


def _numbers(tokens: Sequence[re.Match[str]], spelling: str) -> list[int] | None:
    """What tokens count; None if one is spelled as no token is."""
    numbers = []
    for token in tokens:
        digits = re.sub("[^0-9]", "", token[0]) if len(token[0]) < 30 else ""
        if not 0 < len(digits) <= LONGEST_NUMBER or spelling.format(int(digits)) != token[0]:
            return None
        numbers.append(int(digits))
    return numbers


def _around(outlines: Sequence[Sequence[Point]]) -> Box | None:
    """The box around all corners; None where it would be empty."""
    corners = [corner for outline in outlines for corner in outline]
    if not corners:
        return None
    across, down = zip(*corners, strict=True)
    box = min(across), min(down), max(across), max(down)
    return box if is_box(box) else None
