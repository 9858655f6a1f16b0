"""Pascal VOC: boxes in one XML file a picture (Everingham et al. 2010), and masks of some.

    Annotations/000005.xml   JPEGImages/000005.jpg   ImageSets/Main/train.txt
    SegmentationObject/000032.png   SegmentationClass/000032.png   (`voc_masks`)

Its corners count pixels from 1 and belong to the object: xmin 1 and xmax 1 is a box of one pixel,
which is (0, .., 1, ..) here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from sightline.core.errors import DataError
from sightline.data.columns import Reading
from sightline.data.lines import place, text_lines
from sightline.data.published.voc_masks import outline_of
from sightline.data.records import Record, split_name
from sightline.data.regions import Region, box_from
from sightline.inputs.folders import IMAGE_SUFFIXES, shown_name

ANNOTATIONS, PICTURES, SETS = "Annotations", "JPEGImages", "ImageSets/Main"
SPLITS = ("train", "val", "test")
MAX_XML_BYTES = 2**20
MAX_DEPTH = 32


def is_voc(root: Path) -> bool:
    """Whether a folder is laid out as VOC's are."""
    folder = root / ANNOTATIONS
    return (root / PICTURES).is_dir() and folder.is_dir() and any(folder.glob("*.xml"))


def read_voc(root: Path) -> Reading:
    """The annotated pictures in the order of their names, with the split that a set names.

    Objects marked as difficult are counted by their places in `extra["difficult"]`.

    Raises:
        DataError: no annotations, XML that is damaged or declares a document type, an object
            without a name or a box, or a picture in two splits.
    """
    files = sorted((root / ANNOTATIONS).glob("*.xml"))
    if not files:
        raise DataError(f"{shown_name(root)}: no {ANNOTATIONS}/*.xml in this folder")
    splits = _splits(root)
    pictures = {
        path.stem: path
        for path in sorted((root / PICTURES).glob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES
    }
    records = []
    for file in files:
        image = pictures.get(file.stem, root / PICTURES / f"{file.stem}.jpg")
        records.append(_record(root, file, image, splits.get(file.stem)))
    named = {file.stem for file in files}
    bare = sorted(stem for stem in splits if stem not in named)
    note = f"{len(bare)} picture(s) of the sets have no annotation: {', '.join(bare[:3])}"
    return Reading(records, notes=(note,) if bare else ())


def _record(root: Path, file: Path, image: Path, split: str | None) -> Record:
    tree = read_xml(file)
    regions, difficult = [], []
    for number, thing in enumerate(tree.findall("object")):
        where = f"{place(file)}, object {number + 1}"
        name = (thing.findtext("name") or "").strip()
        if not name:
            raise DataError(f"{where}: has no name")
        box = _box(thing.find("bndbox"), where)
        regions.append(Region(name, box, outline_of(root, file.stem, number, name, box)))
        difficult += [number] if (thing.findtext("difficult") or "").strip() == "1" else []
    extra = {"difficult": difficult} if difficult else {}
    return Record(file.stem, image, split=split, extra=extra, regions=tuple(regions))


def _box(corners: Element | None, where: str) -> tuple[float, float, float, float]:
    values = []
    for name in ("xmin", "ymin", "xmax", "ymax"):
        text = (corners.findtext(name) if corners is not None else None) or ""
        try:
            values.append(float(text[:40]))
        except ValueError:
            raise DataError(
                f"{where}: {name!r} of its box must be a number, got {text[:40]!r}"
            ) from None
    x1, y1, x2, y2 = values
    return box_from([x1 - 1, y1 - 1, x2, y2], where)


def _splits(root: Path) -> dict[str, str]:
    """Stem to split, from `train.txt`, `val.txt` and `test.txt`."""
    found: dict[str, str] = {}
    for split in SPLITS:
        file = root / SETS / f"{split}.txt"
        if not file.is_file():
            continue
        for number, line in text_lines(file):
            stem = line.split()[0] if line.split() else ""
            if found.get(stem, split) != split:
                raise DataError(
                    f"{place(file, number)}: {shown_name(stem)!r} is in {found[stem]} already"
                )
            found |= {stem: split_name(split)} if stem else {}
    return found


def read_xml(path: Path) -> Element:
    """A small XML document of strangers.

    A document type is refused whatever it says: entities that grow, and those that name files, are
    declared there and nowhere else.

    Raises:
        DataError: damaged, too large, nested too deeply, or with a document type.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_XML_BYTES + 1)
    except OSError as error:
        raise DataError(f"{shown_name(path)}: cannot be read ({error.strerror})") from None
    if len(data) > MAX_XML_BYTES:
        raise DataError(
            f"{place(path)}: more than {MAX_XML_BYTES >> 20} MiB of XML is no annotation"
        )
    try:
        return _parsed(data, path)
    except expat.ExpatError as error:
        raise DataError(
            f"{place(path, error.lineno)}: is no XML, or is cut off ({error})"
        ) from None
    except (ValueError, LookupError) as error:  # an encoding that nobody knows
        raise DataError(f"{place(path)}: is no XML ({error})") from None


def _parsed(data: bytes, path: Path) -> Element:
    parser, builder = expat.ParserCreate(), TreeBuilder()
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise DataError(f"{place(path)}: XML nested too deeply to be an annotation")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    def refuse(*_: Any) -> None:
        raise DataError(
            f"{place(path)}: declares a document type (DOCTYPE), which annotations have no need of "
            "and which can be made to read files or to fill the memory: remove it"
        )

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(data, True)
    return builder.close()
