"""Pictures of what a contrastive model sees: the similarity matrix and the map of embeddings.

Drawn with matplotlib's figure objects alone: no pyplot, no global state, no display.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.core.errors import InputError
from sightline.core.files import atomic_file
from sightline.core.lazy import require
from sightline.evaluation.embedding_map import EmbeddingMap

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_KINDS = 9
"""Kinds with a colour of their own; the rarer ones are drawn grey as "other"."""
THUMBNAIL = 61.0
"""Longer side of a thumbnail in points, for a cell of one inch (72 points)."""
OTHER = "other"
GREY = "#9a9a9a"


def similarity_figure(
    scores: Float[Tensor, "N M"],
    texts: Sequence[str],
    images: Sequence[np.ndarray] | None = None,
    names: Sequence[str] | None = None,
    title: str = "Which text fits which picture",
) -> Figure:
    """The matrix of scores with pictures at the left, texts on top and the number in each cell.

    A frame marks the best text of each picture; a shared best has none. A score that is not
    finite is drawn as a blank cell with a question mark.

    Args:
        scores: cosines or logits, one row a picture.
        texts: one for each column.
        images: uint8 [H, W, 3] thumbnails, one for each row.
        names: file names or the like, one for each row.
        title: above the matrix.

    Raises:
        InputError: no score, or lengths that differ.
        MissingDependencyError: matplotlib is not installed.
    """
    rows, columns = scores.shape
    for what, given, wanted in (("texts", texts, columns), ("images", images, rows),
                                ("names", names, rows)):  # fmt: skip
        if given is not None and len(given) != wanted:
            raise InputError(f"{len(given)} {what} for scores of {rows} x {columns}: give {wanted}")
    if rows == 0 or columns == 0:
        raise InputError(f"scores are {rows} x {columns}: a figure needs a picture and a text")
    cell = 0.75 if images is not None else 0.5
    figure = _new_figure(2.6 + cell * max(columns, 4), 3.0 + cell * rows)
    axes = figure.add_subplot()
    values = scores.detach().double().cpu().numpy()
    shown = axes.imshow(values, cmap="viridis", aspect="auto")
    axes.set_xticks(range(columns), [_short(text) for text in texts], rotation=35, ha="left")
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_yticks(range(rows), ["" if names is None else _short(names[r]) for r in range(rows)])
    axes.tick_params(axis="y", pad=6 if images is None else 10 + THUMBNAIL * cell)
    for label in [*axes.get_xticklabels(), *axes.get_yticklabels()]:
        label.set_parse_math(False)
    if max(rows, columns) <= 24:
        _write_cells(axes, scores)
    _frame_best(axes, scores)
    if images is not None:
        _put_thumbnails(axes, images, cell)
    # Below: at the right it would stand beyond the slanted texts, far from the matrix.
    figure.colorbar(shown, ax=axes, location="bottom", aspect=30, label="score")
    figure.suptitle(title, parse_math=False)
    return figure


def embedding_figure(
    places: EmbeddingMap,
    image_labels: Sequence[str] | None = None,
    text_labels: Sequence[str] | None = None,
    pairs: Sequence[tuple[int, int]] = (),
    title: str = "Where the model puts pictures and texts",
) -> Figure:
    """The map of both modalities: pictures are dots, texts are crosses, colours are labels.

    Args:
        places: from `embedding_map`.
        image_labels: kind of each picture; the colour. The nine most frequent have one.
        text_labels: kind of each text.
        pairs: (picture, text) to join by a thin line.
        title: above the map.

    Raises:
        InputError: lengths that differ.
        MissingDependencyError: matplotlib is not installed.
    """
    images = _labels("image_labels", image_labels, len(places.images))
    texts = _labels("text_labels", text_labels, len(places.texts))
    colours = _colours([*images, *texts])
    figure = _new_figure(9.0, 6.5)
    axes = figure.add_subplot()
    for picture, text in pairs:
        ends = torch.stack([places.images[picture], places.texts[text]]).tolist()
        axes.plot(*zip(*ends, strict=True), color="#cccccc", linewidth=0.6, zorder=1)
    _scatter(axes, places.images, images, colours, marker="o", size=26)
    _scatter(axes, places.texts, texts, colours, marker="X", size=60)
    _legend(axes, colours)
    first, second = (f"{100 * share:.0f} % of the variance" for share in places.explained)
    axes.set_xlabel(f"first component ({first})")
    axes.set_ylabel(f"second component ({second})")
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(color="#eeeeee", zorder=0)
    axes.set_axisbelow(True)
    figure.suptitle(title, parse_math=False)
    axes.set_title(
        "PCA after centring pictures and texts each on their own mean; "
        f"the means are {places.gap:.2f} apart",
        fontsize=9,
    )
    return figure


def write_png(figure: Figure, path: str | os.PathLike[str], dpi: int = 150) -> None:
    """Write a figure as PNG, atomically.

    Letters that the drawing font lacks (it has Latin, Greek and Cyrillic) become boxes.
    """
    with atomic_file(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(temporary, format="png", dpi=dpi)


def _new_figure(width: float, height: float) -> Figure:
    module = require("matplotlib.figure", "train", "drawing figures")
    figure: Figure = module.Figure(figsize=(min(width, 40), min(height, 40)), layout="constrained")
    return figure


def _short(text: str, width: int = 32) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1].rstrip() + "…"


def _write_cells(axes: Axes, scores: Float[Tensor, "N M"]) -> None:
    finite = scores[torch.isfinite(scores)]
    low, high = (finite.min(), finite.max()) if len(finite) else (scores.new_zeros(()),) * 2
    decimals = 2 if high.abs().max() < 10 else 1
    for row, line in enumerate(scores.tolist()):
        for column, value in enumerate(line):
            known = value == value and abs(value) != float("inf")
            text = f"{value:.{decimals}f}" if known else "?"
            # viridis is dark below its middle
            dark = known and value < (low + high) / 2
            colour = "white" if dark else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)


def _frame_best(axes: Axes, scores: Float[Tensor, "N M"]) -> None:
    patches = require("matplotlib.patches", "train", "drawing figures")
    for row, line in enumerate(scores.nan_to_num(-torch.inf)):
        best = (line == line.max()).nonzero()[:, 0].tolist()
        if len(best) == 1 and line.max() > -torch.inf:
            corner = (best[0] - 0.47, row - 0.47)
            axes.add_patch(
                patches.Rectangle(corner, 0.94, 0.94, fill=False, edgecolor="#e4002b", linewidth=2)
            )


def _put_thumbnails(axes: Axes, images: Sequence[np.ndarray], cell: float) -> None:
    boxes = require("matplotlib.offsetbox", "train", "drawing figures")
    for row, image in enumerate(images):
        zoom = THUMBNAIL * cell / max(image.shape[:2])
        thumbnail = boxes.OffsetImage(image, zoom=zoom)
        place: Any = boxes.AnnotationBbox(
            thumbnail, (0, row), xycoords=("axes fraction", "data"), frameon=False,
            xybox=(-4, 0), boxcoords="offset points", box_alignment=(1, 0.5), pad=0,
        )  # fmt: skip
        axes.add_artist(place)


def _labels(what: str, labels: Sequence[str] | None, count: int) -> list[str]:
    if labels is None:
        return [""] * count
    if len(labels) != count:
        raise InputError(f"{len(labels)} {what} for {count} places: give one each")
    return list(labels)


def _colours(labels: Sequence[str]) -> dict[str, Any]:
    """Label to colour: the most frequent have one each, the others are grey."""
    matplotlib = require("matplotlib", "train", "drawing figures")
    frequent = [label for label, _ in Counter(labels).most_common()]
    palette = matplotlib.colormaps["tab10"].colors
    # tab10's eighth is grey, which means "other" here.
    distinct = [colour for number, colour in enumerate(palette) if number != 7]
    own = sorted(frequent[:MAX_KINDS])
    colours = dict(zip(own, distinct, strict=False))
    return {label: colours.get(label, GREY) for label in frequent}


def _scatter(
    axes: Axes,
    places: Float[Tensor, "N 2"],
    labels: Sequence[str],
    colours: dict[str, Any],
    marker: str,
    size: float,
) -> None:
    x, y = places.T.tolist()
    axes.scatter(
        x, y, s=size, c=[colours[label] for label in labels], marker=marker,
        edgecolors="white", linewidths=0.5, alpha=0.9, zorder=3 if marker == "X" else 2,
    )  # fmt: skip


def _legend(axes: Axes, colours: dict[str, Any]) -> None:
    lines = require("matplotlib.lines", "train", "drawing figures")

    def entry(label: str, colour: Any, marker: str) -> Any:
        return lines.Line2D([], [], color=colour, marker=marker, linestyle="", label=label)

    handles = [entry("picture", "#444444", "o"), entry("text", "#444444", "X")]
    named = [label for label in sorted(colours) if label and colours[label] != GREY]
    handles += [entry(_short(label, 28), colours[label], "s") for label in named]
    if GREY in colours.values():
        handles.append(entry(OTHER, GREY, "s"))
    legend = axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
