"""Tags into an XMP side-car, where photo programs look for keywords.

`photo.jpg` gets `photo.jpg.xmp` (the spelling that darktable writes and digiKam reads), with the
tags in the bag `dc:subject` (XMP specification part 1, Dublin Core schema). The picture itself is
never touched, and whatever else the side-car holds stays. Side-cars come from anywhere: a document
type (the way to entity bombs and to reading other files) is refused before anything is expanded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.dom import minidom
from xml.parsers import expat

from sightline.core.errors import DataError, InputError
from sightline.core.files import atomic_file
from sightline.tasks.batching import as_texts

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
DC = "http://purl.org/dc/elements/1.1/"
_MAX_BYTES = 16 * 2**20
_MAX_DEPTH = 100
# What XML 1.0 cannot carry, escaped or not.
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")

_EMPTY = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="{RDF}">
  <rdf:Description rdf:about=""/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""


def sidecar_path(picture: str | os.PathLike[str]) -> Path:
    """Where the side-car of a picture stands: the picture's whole name and `.xmp`."""
    path = Path(picture)
    return path.with_name(path.name + ".xmp")


def write_tags(picture: str | os.PathLike[str], tags: Iterable[str]) -> Path:
    """Add tags to the side-car of a picture; ones that it has already are not repeated.

    Args:
        picture: the picture's path; only its side-car is written, and nothing without a tag.
        tags: words; surrounding blanks are dropped, line breaks become blanks.

    Returns:
        The side-car's path.

    Raises:
        InputError: a tag that XML cannot carry.
        DataError: an existing side-car that is damaged, hostile or not XMP; it is left as it is.
    """
    path = sidecar_path(picture)
    words = [_checked(tag) for tag in as_texts(tags, "tags")]
    if not any(words):
        return path
    old = _bytes(path) if path.exists() else _EMPTY.encode()
    document = _parse(old, path)
    try:
        bag = _subject_bag(document, path)
        known = {_text(item) for item in _children(bag, RDF, "li")}
        for word in dict.fromkeys(words):
            if word and word not in known:
                _append(bag, RDF, "li", bag.prefix).appendChild(document.createTextNode(word))
        new = "\n".join(node.toxml() for node in document.childNodes)
    finally:
        document.unlink()
    with atomic_file(path) as temporary:
        temporary.write_text(new + "\n", encoding="utf-8")
    return path


def read_tags(picture: str | os.PathLike[str]) -> list[str]:
    """The tags in the side-car of a picture; none without a side-car.

    Raises:
        DataError: the side-car is damaged, hostile or not XMP.
    """
    path = sidecar_path(picture)
    if not path.exists():
        return []
    document = _parse(_bytes(path), path)
    try:
        items = [item for bag in _subject_bags(document) for item in _children(bag, RDF, "li")]
        return [_text(item) for item in items]
    finally:
        document.unlink()


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path}: larger than {_MAX_BYTES >> 20} MB, which no side-car is")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: side-car cannot be read: {error.strerror}") from None


def _parse(content: bytes, path: Path) -> minidom.Document:
    try:
        _refuse_hostile(content, path)
        return minidom.parseString(content)
    except (expat.ExpatError, LookupError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: side-car is not XML ({error}): repair or remove it") from None


def _refuse_hostile(content: bytes, path: Path) -> None:
    """One pass that builds nothing: a document type or absurd nesting ends it."""
    depth = 0

    def document_type(*_: object) -> None:
        raise DataError(
            f"{path}: side-car declares a document type, which XMP has no use for and attacks "
            "have: remove the side-car if you trust the picture"
        )

    def opened(*_: object) -> None:
        nonlocal depth
        depth += 1
        if depth > _MAX_DEPTH:
            raise DataError(f"{path}: side-car nests deeper than {_MAX_DEPTH} elements")

    def closed(*_: object) -> None:
        nonlocal depth
        depth -= 1

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = document_type
    parser.EntityDeclHandler = document_type
    parser.StartElementHandler = opened
    parser.EndElementHandler = closed
    parser.Parse(content, True)


def _subject_bag(document: minidom.Document, path: Path) -> minidom.Element:
    """The bag of `dc:subject`, made where there is none."""
    for bag in _subject_bags(document):
        return bag
    roots = document.getElementsByTagNameNS(RDF, "RDF")
    if not roots:
        raise DataError(f"{path}: XML without rdf:RDF, so not an XMP side-car: rename or remove it")
    subjects = document.getElementsByTagNameNS(DC, "subject")
    prefix = roots[0].prefix
    if subjects:
        return _append(subjects[0], RDF, "Bag", prefix)
    described = next(_children(roots[0], RDF, "Description"), None)
    if described is None:
        described = _append(roots[0], RDF, "Description", prefix)
        described.setAttributeNS(RDF, "rdf:about", "")
        described.setAttribute("xmlns:rdf", RDF)
    subject = _append(described, DC, "subject", "dc")
    # Declared on the element itself: another `dc` further out may mean something else.
    subject.setAttribute("xmlns:dc", DC)
    return _append(subject, RDF, "Bag", prefix)


def _subject_bags(document: minidom.Document) -> Iterator[minidom.Element]:
    for subject in document.getElementsByTagNameNS(DC, "subject"):
        for kind in ("Bag", "Seq", "Alt"):
            yield from _children(subject, RDF, kind)


def _children(parent: minidom.Element, namespace: str, name: str) -> Iterator[minidom.Element]:
    for child in parent.childNodes:
        if (
            isinstance(child, minidom.Element)
            and child.namespaceURI == namespace
            and child.localName == name
        ):
            yield child


def _append(
    parent: minidom.Element, namespace: str, name: str, prefix: str | None
) -> minidom.Element:
    """A new last child; without a prefix the namespace is the default one, as at `rdf:RDF`."""
    document = parent.ownerDocument
    assert document is not None
    child = document.createElementNS(namespace, f"{prefix}:{name}" if prefix else name)
    parent.appendChild(child)
    return child


def _text(element: minidom.Element) -> str:
    return "".join(
        child.data for child in element.childNodes if isinstance(child, minidom.Text)
    ).strip()


def _checked(tag: str) -> str:
    unwritable = _UNWRITABLE.search(tag)
    if unwritable:
        raise InputError(f"tag {tag!r} holds {unwritable[0]!r}, which XML cannot carry: remove it")
    return " ".join(tag.split())
