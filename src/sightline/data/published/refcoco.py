"""RefCOCO, RefCOCO+, RefCOCOg: expressions that mean one object (Yu et al., Mao et al. 2016).

    refs(unc).p       a pickled list of {"ref_id", "ann_id", "image_id", "split",
                      "sentences": [{"sent_id", "sent"}]}
    instances.json    the boxes and outlines, as COCO writes them

One expression is one record, and its region is called by it: a model that finds what it is told
finds it by that name. The object's category is the record's label.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sightline.core.errors import DataError
from sightline.data.columns import Reading, Row, assemble
from sightline.data.lines import place
from sightline.data.published.instances import Instances
from sightline.data.published.plain_pickle import read_plain_pickle
from sightline.data.records import split_name
from sightline.data.regions import Region
from sightline.data.said import Said

INSTANCES = "instances.json"
_NAME = re.compile(r"refs\(\w+\)\.p")


def is_refcoco(name: str) -> bool:
    """Whether a file is called as these are: `refs(unc).p`."""
    return _NAME.fullmatch(name) is not None


def read_refcoco(path: Path, roots: Sequence[Path], split: str | None = None) -> Reading:
    """The expressions of such a file, with the regions of `instances.json` beside it.

    The pickle is read without running anything.

    Raises:
        DataError: no `instances.json` beside it, a pickle of anything but plain data, missing keys,
            or objects that the instances do not have.
    """
    beside = path.with_name(INSTANCES)
    if not beside.is_file():
        raise DataError(f"{place(path)}: {INSTANCES} with the boxes has to lie beside it")
    refs = read_plain_pickle(path)
    if not isinstance(refs, list):
        raise DataError(f"{place(path)}: a list of expressions is expected, got {_kind(refs)}")
    found = Instances.of(beside)
    by_number = {a.get("id"): a for a in found.annotations if isinstance(a, Mapping)}
    rows: list[Row] = []
    for number, ref in enumerate(refs, 1):
        where = f"{place(path)}, entry {number}"
        if not isinstance(ref, Mapping):
            raise DataError(f"{where}: a dict is expected, got {_kind(ref)}")
        image = found.images.get(_number(ref, "image_id", where))
        annotation = by_number.get(_number(ref, "ann_id", where))
        if image is None or annotation is None:
            raise DataError(
                f"{where}: picture {ref['image_id']} or object {ref['ann_id']} is not in "
                f"{INSTANCES}: are both files of one set?"
            )
        own = ref.get("split")
        part = split_name(own) if isinstance(own, str) and len(own) < 40 else split
        rows += _rows(ref, found.region(annotation, where), image, part, where)
    return assemble(rows, [*roots, *_coco_folders(path)])


def _rows(
    ref: Mapping[str, Any], region: Region, image: Mapping[str, Any], split: str | None, where: str
) -> list[Row]:
    """One row an expression."""
    name, sentences = image.get("file_name"), ref.get("sentences")
    if not isinstance(name, str) or not isinstance(sentences, list):
        raise DataError(f"{where}: 'sentences' must be a list, and the picture have a 'file_name'")
    rows = []
    numbers = {key: _number(ref, key, where) for key in ("ref_id", "ann_id", "image_id")}
    for sentence in sentences:
        text = sentence.get("sent") if isinstance(sentence, Mapping) else None
        if not isinstance(text, str):
            raise DataError(
                f"{where}: a sentence must have its text under 'sent', got {_kind(text)}"
            )
        id = f"{numbers['ref_id']}/{_number(sentence, 'sent_id', where)}"
        said = Said(regions=(replace(region, label=text.strip()),), single=True)
        rows.append(Row(name, [], where, region.label, split, id, dict(numbers), said))
    return rows


def _coco_folders(path: Path) -> list[Path]:
    """Where the tools of these sets keep COCO's pictures: two folders up, below `images`."""
    places = (
        path.parent.parent / "images/mscoco/images/train2014",
        path.parent.parent / "train2014",
    )
    return [folder for folder in places if folder.is_dir()]


def _number(entry: Mapping[str, Any], name: str, where: str) -> int:
    value = entry.get(name)
    if not isinstance(value, int):
        raise DataError(f"{where}: {name!r} must be a whole number, got {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    return type(value).__name__
