"""Convolution masks by name, and masks that a person writes: "0,-1,0;-1,5,-1;0,-1,0/16+128".

A name stands for the numbers that the literature prints. Gonzalez and Woods, Digital Image
Processing, chapter 3, has the smoothing and sharpening masks, Prewitt's and Sobel's; Scharr's are
from his dissertation (Heidelberg 2000). Names with `pillow-` are the fixed filters of Pillow.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sightline.core.errors import ConfigError, unknown_name
from sightline.inputs.filter_masks import Filter, Mask

LARGEST_SIDE = 33
"""Rows and columns of a mask that is written out."""
LARGEST_BOX = 201
SIGMAS = (0.1, 50.0)
SMALLEST_NUMBER, LARGEST_NUMBER = 1e-12, 1e6
_LONGEST_TEXT = 16_384
_SHOWN = 40

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_SIZE = _NUMBER.removeprefix("[+-]?")
_LAST = re.compile(
    rf"(?P<cell>{_NUMBER})(?: */ *(?P<divisor>{_NUMBER}))?"
    rf"(?: *(?P<sign>[+-]) *(?P<offset>{_SIZE}))?"
)
_WRITTEN = re.compile(r"[-+.\d]|[^,;/]*[,;/]")
"""How a mask that is written out begins; a name has no comma, semicolon or slash."""

_Rows = Sequence[Sequence[float]]


def _across(weights: Sequence[float], differences: Sequence[float]) -> tuple[Mask, Mask]:
    """Masks for changes to the right and downwards: smoothed along the edge."""
    x = np.outer(weights, differences)
    return Mask(x), Mask(x.T)


_GRADIENTS = {
    "sobel": _across((1, 2, 1), (-1, 0, 1)),
    "prewitt": _across((1, 1, 1), (-1, 0, 1)),
    "scharr": _across((3, 10, 3), (-1, 0, 1)),
}
_BINOMIAL = np.outer((1, 4, 6, 4, 1), (1, 4, 6, 4, 1))
_RING = [[1] * 5, [1, 0, 0, 0, 1], [1, 0, 0, 0, 1], [1, 0, 0, 0, 1], [1] * 5]
_CORE = [[1] * 5, [1, 5, 5, 5, 1], [1, 5, 44, 5, 1], [1, 5, 5, 5, 1], [1] * 5]


def _around(centre: float, others: float, corners: float | None = None) -> list[list[float]]:
    """3x3 with one number in the centre and another around it."""
    corner = others if corners is None else corners
    return [[corner, others, corner], [others, centre, others], [corner, others, corner]]


def _mask(rows: _Rows, divisor: float = 1.0, offset: float = 0.0) -> Mask:
    return Mask(np.array(rows, np.float64), divisor, offset)


MASKS: Mapping[str, tuple[Mask, ...]] = {
    "identity": (_mask(_around(1, 0)),),
    "blur": (_mask(_around(1, 1), 9),),
    "gaussian": (_mask([[1, 2, 1], [2, 4, 2], [1, 2, 1]], 16),),
    "sharpen": (_mask(_around(5, -1, 0)),),
    "unsharp": (Mask(512 * (np.arange(25).reshape(5, 5) == 12) - _BINOMIAL, 256),),
    "edges": (_mask(_around(8, -1)),),
    "laplacian": (_mask(_around(-4, 1, 0)),),
    "emboss": (_mask([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]),),
    **{f"{name}-x": (x,) for name, (x, _) in _GRADIENTS.items()},
    **{f"{name}-y": (y,) for name, (_, y) in _GRADIENTS.items()},
    **_GRADIENTS,
    "pillow-blur": (_mask(_RING, 16),),
    "pillow-contour": (_mask(_around(8, -1), 1, 255),),
    "pillow-detail": (_mask(_around(10, -1, 0), 6),),
    "pillow-edge-enhance": (_mask(_around(10, -1), 2),),
    "pillow-edge-enhance-more": (_mask(_around(9, -1)),),
    # Pillow lays a mask upside down over the picture; as a convolution it is mirrored.
    "pillow-emboss": (_mask([[0, 0, -1], [0, 1, 0], [0, 0, 0]], 1, 128),),
    "pillow-find-edges": (_mask(_around(8, -1)),),
    "pillow-sharpen": (_mask(_around(32, -2), 16),),
    "pillow-smooth": (_mask(_around(5, 1), 13),),
    "pillow-smooth-more": (_mask(_CORE, 100),),
}
"""Name to its masks; two masks are a gradient, of which the length is taken."""


def box(side: int) -> Mask:
    """The mean of side x side pixels."""
    return Mask(np.ones((side, side)), side * side)


def gaussian(sigma: float) -> Mask:
    """A sampled Gaussian of deviation `sigma` pixels, cut at four of them, with sum 1."""
    radius = int(4 * sigma + 0.5)
    places = np.arange(-radius, radius + 1) / sigma
    line = np.exp(-0.5 * places**2)
    return Mask(np.outer(line, line), float(line.sum()) ** 2)


def parse_filter(text: str) -> Filter:
    """A filter from its name, "box:5", "gaussian:1.5", or rows of numbers.

    Rows are parted by semicolons, numbers by commas; "/16" behind the last number divides the sum,
    and "+128" behind that is added: "1,2,1;2,4,2;1,2,1/16". A mask that is written out is named by
    its size and a digest of its numbers, so that file names made of it do not collide.

    Raises:
        ConfigError: an unknown name, or text that is no mask; says which part is wrong.
    """
    text = text.strip()
    if not text:
        raise ConfigError(
            'an empty mask: give a name such as sharpen, or rows "0,-1,0;-1,5,-1;..."'
        )
    if len(text) > _LONGEST_TEXT:
        raise ConfigError(
            f"a mask of {len(text):,} letters: at most {LARGEST_SIDE} rows and columns are allowed"
        )
    if _WRITTEN.match(text):
        return _written(text)
    name, colon, value = text.partition(":")
    if colon and name in _WITH_VALUE:
        return Filter(text, (_WITH_VALUE[name](value),))
    if colon and name in MASKS:
        raise ConfigError(f"{name!r} takes no number; box:5 and gaussian:1.5 do")
    if name not in MASKS:
        known = [*MASKS, *(f"{known}:N" for known in _WITH_VALUE)]
        raise ConfigError(unknown_name("mask", _short(text), known))
    return Filter(name, MASKS[name])


def _box_of(value: str) -> Mask:
    side = int(value) if value.isascii() and value.isdigit() and len(value) < 9 else 0
    if not 1 <= side <= LARGEST_BOX:
        raise ConfigError(
            f"box:{_short(value)}: the side of a box is a whole number from 1 to {LARGEST_BOX}"
        )
    return box(side)


def _gaussian_of(value: str) -> Mask:
    sigma = float(value) if re.fullmatch(_NUMBER, value) and len(value) < 30 else 0.0
    low, high = SIGMAS
    if not low <= sigma <= high:
        raise ConfigError(
            f"gaussian:{_short(value)}: the deviation is a number of pixels from {low:g} to "
            f"{high:g}"
        )
    return gaussian(sigma)


_WITH_VALUE: Mapping[str, Callable[[str], Mask]] = {"box": _box_of, "gaussian": _gaussian_of}


def _written(text: str) -> Filter:
    """A mask from its rows."""
    cells = [[cell.strip() for cell in row.split(",")] for row in text.split(";")]
    _check_shape(cells)
    last = _LAST.fullmatch(cells[-1][-1])
    if last is None:
        raise _no_number(cells[-1][-1], len(cells), len(cells[0]))
    cells[-1][-1] = last["cell"]
    rows = [
        [_number(cell, u, v) for v, cell in enumerate(row, 1)] for u, row in enumerate(cells, 1)
    ]
    divisor = _bounded(last["divisor"] or "1")
    if not divisor:
        raise ConfigError("the sum of a mask cannot be divided by 0: leave '/0' out")
    mask = Mask(np.array(rows), divisor, _bounded((last["sign"] or "") + (last["offset"] or "0")))
    return Filter(_name_of(mask), (mask,))


def _check_shape(cells: Sequence[Sequence[str]]) -> None:
    lengths = [len(row) for row in cells]
    if max(len(cells), *lengths) > LARGEST_SIDE:
        raise ConfigError(
            f"a mask of {len(cells):,} rows and {max(lengths):,} columns: at most {LARGEST_SIDE} "
            "of each are allowed; box:N and gaussian:S go further"
        )
    for number, length in enumerate(lengths, start=1):
        if length != lengths[0]:
            raise ConfigError(
                f"row {number} of the mask has {length} numbers and row 1 has {lengths[0]}: all "
                "rows must be equally long"
            )


def _number(cell: str, row: int, column: int) -> float:
    if not re.fullmatch(_NUMBER, cell):
        raise _no_number(cell, row, column)
    return _bounded(cell)


def _bounded(text: str) -> float:
    value = float(text)
    if not abs(value) <= LARGEST_NUMBER or 0 < abs(value) < SMALLEST_NUMBER:
        raise ConfigError(
            f"{_short(text)!r} in the mask: numbers lie between {SMALLEST_NUMBER:g} and "
            f"{LARGEST_NUMBER:g} in size, or are 0"
        )
    return value


def _no_number(cell: str, row: int, column: int) -> ConfigError:
    found = repr(_short(cell)) if cell else "nothing"
    return ConfigError(
        f"row {row} of the mask, place {column}: {found} where a number is expected, as in "
        '"1,2,1;2,4,2;1,2,1/16+128"'
    )


def _name_of(mask: Mask) -> str:
    """The size and a digest: short, the same on every run, and another for other numbers."""
    from hashlib import blake2b

    numbers = np.append(mask.weights, [mask.divisor, mask.offset]).astype("<f8")
    rows, columns = mask.shape
    return f"mask-{rows}x{columns}-{blake2b(numbers.tobytes(), digest_size=3).hexdigest()}"


def written(mask: Mask) -> str:
    """The rows as `parse_filter` reads them; of a larger mask only what it is."""
    rows, columns = mask.shape
    if max(rows, columns) > LARGEST_SIDE:
        return f"{rows} x {columns} numbers"
    text = ";".join(",".join(_plain(weight) for weight in row) for row in mask.weights)
    divisor = f"/{_plain(mask.divisor)}" if mask.divisor != 1 else ""
    return text + divisor + (f"{mask.offset:+g}" if mask.offset else "")


def _plain(value: float | NDArray[np.float64]) -> str:
    number = float(value)
    whole = number.is_integer() and math.fabs(number) < 1e15
    return str(int(number)) if whole else repr(number)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
