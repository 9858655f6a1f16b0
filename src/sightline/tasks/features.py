"""What the units of a network look for, by depth: the pieces of pictures that excite each most.

A convolutional network answers with one map a channel; a unit is a channel, and a piece is what
the place with the largest answer can see, its receptive field (the way of Zeiler and Fergus 2014,
arXiv:1311.2901, without their deconvolution). In a vision transformer every patch can see every
other from the first block on, so a piece is the patch with its neighbours; a unit is a neuron
behind the activation of a block's MLP, since directions of the residual stream have no axis of
their own (Ghiasi et al. 2022, arXiv:2212.06727, section 3).

Units are drawn by lot, not chosen for their looks; a picture shows at most one piece to a unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sightline.core.errors import ConfigError, InputError
from sightline.inputs.preprocessing import ImageProcessor
from sightline.nn.receptive_field import Reach, ReceptiveField, receptive_fields
from sightline.tasks.batching import (
    Failed,
    OnError,
    as_sources,
    check_batching,
    prepared,
    read_named,
    source_name,
)
from sightline.tasks.embed import evaluating
from sightline.tasks.network_layers import Layers, chosen_layers, image_part, layers_of

if TYPE_CHECKING:
    from torch import nn

    from sightline.tasks.model import Model

NEIGHBOURS = 1
"""Patches shown on each side of a transformer's patch."""
MOST_FILTERS, MOST_COMPONENTS = 64, 28
OUTSIDE = 200
"""Grey level of what lies outside of the picture."""


class Piece(NamedTuple):
    """The part of a picture that excites a unit."""

    source: Any
    name: str
    score: float
    """The unit's answer."""
    pixels: NDArray[np.uint8]
    """uint8[h, w, 3]: what the unit sees, as the network gets it; grey outside of the picture."""
    centre: tuple[int, int, int, int]
    """(x1, y1, x2, y2) in `pixels`: the unit's own place, the middle of what it sees."""


class UnitFeatures(NamedTuple):
    """One unit and its pieces, the most exciting first."""

    unit: int
    best: tuple[Piece, ...]


class LayerFeatures(NamedTuple):
    """A sample of the units of one layer."""

    name: str
    units: int
    """How many the layer has."""
    sees: str
    """What one unit sees, in words."""
    sample: tuple[UnitFeatures, ...]


class Features(NamedTuple):
    """Layers from the pixels to the top, and what the first of them multiplies pixels with."""

    layers: tuple[LayerFeatures, ...]
    filters: NDArray[np.uint8]
    """uint8[n, h, w, 3], see `first_filters`."""
    pictures: int
    failed: tuple[Failed, ...]


class _Best(NamedTuple):
    """The best answers so far of the units of one layer, and where they are."""

    scores: Tensor
    """float32[n, K], falling"""
    pictures: Tensor
    """int64[n, K], as `rows` and `columns` of the map"""
    rows: Tensor
    columns: Tensor


def find_features(
    model: Model,
    images: Any,
    layers: Sequence[str] | None = None,
    units: int = 8,
    best: int = 9,
    seed: int = 0,
    batch_size: int = 32,
    on_error: OnError = "raise",
    progress: Callable[[int], None] = lambda done: None,
) -> Features:
    """Search pictures for the pieces that excite a sample of units most, layer by layer.

    Pictures are read twice: all of them once, and those with a best piece again for cutting.

    Args:
        model: a model with convolution stages, or a vision transformer.
        images: one picture or a list; they must be readable twice.
        layers: names such as "stage1" or "block5"; None takes a few from bottom to top.
        units: of each layer, drawn by `seed`.
        best: pieces of each unit, from different pictures.
        progress: called with the number of pictures that are done.

    Raises:
        UnsupportedTaskError: a model whose layers have no places.
        ConfigError: an unknown layer, or a number below 1.
        ImageError: with `on_error="raise"`, a picture that cannot be read.
        InputError: no picture could be read.
    """
    check_batching(batch_size, on_error)
    if min(units, best) < 1:
        raise ConfigError(f"units and best must be at least 1: {units} and {best} arrived")
    found = layers_of(model)
    names = chosen_layers(found, layers)
    sources = list(as_sources(images))
    with evaluating(model.network):
        samples, tops, widths, failed = _search(
            model, found, names, sources, (units, best, seed, batch_size), on_error, progress
        )
        shown = int(tops[0].pictures[0, 0])
        size = _prepared_picture(model, sources[shown], shown).shape[:2]
        fields = _fields(model, found, names, size)
    cutter = _Cutter(model, sources)
    return Features(
        layers=tuple(
            LayerFeatures(name, width, _seen(found, field), cutter.units(sample, top, field))
            for name, width, sample, top, field in zip(
                names, widths, samples, tops, fields, strict=True
            )
        ),
        filters=first_filters(model.network),
        pictures=len(sources) - len(failed),
        failed=tuple(failed),
    )


def first_filters(network: nn.Module) -> NDArray[np.uint8]:
    """The weights that meet the pixels, as small pictures uint8[n, h, w, 3]; 0 is grey.

    Of a convolution its filters, the strongest first. Of a projection of patches the principal
    components of all its filters, as in figure 7 of the ViT paper (arXiv:2010.11929): single ones
    are mixtures without an order. Each is scaled so that its largest weight is black or white.
    """
    first = next(m for m in image_part(network).modules() if isinstance(m, torch.nn.Conv2d))
    weights = first.weight.detach().float().cpu()  # [D C h w]
    if weights.shape[1] != 3:
        weights = weights.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    flat = weights.flatten(1)  # [D C*h*w]
    if first.stride == first.kernel_size:
        flat = torch.linalg.svd(flat, full_matrices=False).Vh[:MOST_COMPONENTS]  # [n C*h*w]
    else:
        flat = flat[flat.norm(dim=1).argsort(descending=True, stable=True)]
    shown = flat[:MOST_FILTERS]
    shown = shown / shown.abs().amax(dim=1, keepdim=True).clamp_min(1e-12)
    levels = (127.5 + 127.5 * shown).round().to(torch.uint8)
    return levels.unflatten(1, tuple(weights.shape[1:])).permute(0, 2, 3, 1).numpy()


# The search


def _search(
    model: Model, found: Layers, names: Sequence[str], sources: Sequence[Any],
    numbers: tuple[int, int, int, int], on_error: OnError, progress: Callable[[int], None],
) -> tuple[list[Tensor], list[_Best], list[int], list[Failed]]:  # fmt: skip
    """One pass over all pictures: which units, where they answer most, units of each layer."""
    units, best, seed, batch_size = numbers
    samples: list[Tensor] = []
    tops: list[_Best | None] = [None] * len(names)
    widths: list[int] = []
    failed: list[Failed] = []
    for places, pixels in _batches(model, sources, batch_size, on_error, failed):
        answers = found.maps(pixels.to(model.device), names)
        if not samples:
            widths = [answer.shape[1] for answer in answers]
            lots = [seed + found.names.index(name) for name in names]
            samples = [_sample(width, units, lot) for width, lot in zip(widths, lots, strict=True)]
        for layer, (answer, sample) in enumerate(zip(answers, samples, strict=True)):
            kept = answer[:, sample.to(answer.device)].float().cpu()  # [B K h w]
            tops[layer] = _merged(tops[layer], kept, places, best)
        progress(places[-1] + 1)
    if not samples:
        raise InputError("no picture to search: give pictures that can be read")
    return samples, [top for top in tops if top is not None], widths, failed


def _batches(
    model: Model, sources: Sequence[Any], batch_size: int, on_error: OnError, failed: list[Failed]
) -> Iterator[tuple[list[int], Tensor]]:
    """Prepared pictures with their places; what cannot be read is put to `failed`."""
    rows = prepared(
        sources,
        lambda source, place: model.processor.images([read_named(source, place)]),
        ahead=2 * batch_size,
    )
    places: list[int] = []
    chunk: list[Tensor] = []
    for place, row in enumerate(rows):
        if isinstance(row, Failed):
            if on_error == "raise":
                raise row.error
            failed.append(row)
            continue
        assert isinstance(row, Tensor), "a processor with a fit makes tensors"
        if chunk and (len(chunk) == batch_size or chunk[0].shape != row.shape):
            yield places, torch.cat(chunk)
            places, chunk = [], []
        places.append(place)
        chunk.append(row)
    if chunk:
        yield places, torch.cat(chunk)


def _merged(top: _Best | None, maps: Tensor, pictures: Sequence[int], best: int) -> _Best:
    """The best of what was known and of the new maps; of equals the earlier picture."""
    scores, places = maps.flatten(2).max(dim=2)  # [B K]
    owners = torch.tensor(pictures)[:, None].expand_as(scores)
    new = _Best(scores, owners, places // maps.shape[3], places % maps.shape[3])
    if top is not None:
        new = _Best(*(torch.cat(pair) for pair in zip(top, new, strict=True)))
    order = new.scores.sort(dim=0, descending=True, stable=True).indices[:best]
    return _Best(*(part.gather(0, order) for part in new))


def _sample(width: int, units: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(width, generator=generator)[:units].sort().values


def _fields(
    model: Model, found: Layers, names: Sequence[str], size: tuple[int, int]
) -> list[ReceptiveField]:
    """What the units of each layer see; of attention, which sees everything, the neighbourhood."""
    if not found.attends:
        return receptive_fields(lambda x: found.maps(x, names), size, device=model.device)
    blank = torch.zeros(1, 3, *size, device=model.device)
    grids = [answer.shape[2:] for answer in found.maps(blank, names)]
    return [
        ReceptiveField(*(_around(side // n) for side, n in zip(size, grid, strict=True)))
        for grid in grids
    ]


def _around(stride: int) -> Reach:
    return Reach(stride, -NEIGHBOURS * stride, (NEIGHBOURS + 1) * stride, whole=False)


def _seen(found: Layers, field: ReceptiveField) -> str:
    if found.attends:
        side = f"{field.columns.stride} x {field.rows.stride}"
        return f"other places through attention; shown are its own {side} pixels and neighbours"
    if field.whole:
        return "most of the picture or all of it; the frame is its own place"
    return f"{field.columns.size} x {field.rows.size} pixels"


# Cutting


class _Cutter:
    """Cuts pieces out of prepared pictures; there are at most as many as pieces."""

    def __init__(self, model: Model, sources: Sequence[Any]) -> None:
        self.model, self.sources = model, sources
        self.read: dict[int, NDArray[np.uint8]] = {}

    def units(self, sample: Tensor, top: _Best, field: ReceptiveField) -> tuple[UnitFeatures, ...]:
        """The pieces of every unit of a layer."""
        listed = zip(sample.tolist(), *(part.T.tolist() for part in top), strict=True)
        return tuple(
            UnitFeatures(
                unit, tuple(self.piece(field, *found) for found in zip(*best, strict=True))
            )
            for unit, *best in listed
        )

    def piece(
        self, field: ReceptiveField, score: float, picture: int, row: int, column: int
    ) -> Piece:
        """What the unit at that place of the map sees."""
        source = self.sources[picture]
        if picture not in self.read:
            self.read[picture] = _prepared_picture(self.model, source, picture)
        pixels = self.read[picture]
        top, bottom = field.rows.span(row, pixels.shape[0])
        left, right = field.columns.span(column, pixels.shape[1])
        y, x = row * field.rows.stride - top, column * field.columns.stride - left
        centre = (x, y, x + field.columns.stride, y + field.rows.stride)
        crop = _crop(pixels, (top, bottom), (left, right))
        return Piece(source, source_name(source, picture), score, crop, centre)


def _crop(
    pixels: NDArray[np.uint8], rows: tuple[int, int], columns: tuple[int, int]
) -> NDArray[np.uint8]:
    """Rows and columns of a picture, grey where it has none."""
    crop = np.full((rows[1] - rows[0], columns[1] - columns[0], 3), OUTSIDE, np.uint8)
    inside = pixels[max(0, rows[0]) : rows[1], max(0, columns[0]) : columns[1]]
    y, x = max(0, -rows[0]), max(0, -columns[0])
    crop[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return crop


def _prepared_picture(model: Model, source: Any, place: int) -> NDArray[np.uint8]:
    """uint8[h, w, 3] as the network gets it, before the numbers are normalised."""
    processor = model.processor.image
    assert isinstance(processor, ImageProcessor), "only such a processor has a fit"
    return processor.fitted(read_named(source, place))
