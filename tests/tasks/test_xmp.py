"""Tags in XMP side-cars: added, merged, and nothing a hostile file could do."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sightline.core.errors import DataError, InputError
from sightline.tasks.xmp import DC, RDF, read_tags, sidecar_path, write_tags

OTHERS = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="darktable">
 <r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <r:Description r:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"/>
  <r:Description r:about="" xmlns:d="http://purl.org/dc/elements/1.1/"
     xmlns:darktable="http://darktable.sf.net/" darktable:history_end="3">
   <d:title><r:Alt><r:li xml:lang="x-default">Lake &amp; shore</r:li></r:Alt></d:title>
   <d:subject><r:Bag><r:li>holiday</r:li></r:Bag></d:subject>
   <!-- kept -->
   <darktable:masks><r:Seq/></darktable:masks>
  </r:Description>
 </r:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""


def _subjects(path: Path) -> list[str | None]:
    """Independent reading: the standard library's other parser."""
    tree = ElementTree.parse(path)
    return [item.text for item in tree.iterfind(f".//{{{DC}}}subject/{{{RDF}}}Bag/{{{RDF}}}li")]


def test_a_new_side_car_has_the_tags_in_order(tmp_path: Path) -> None:
    picture = tmp_path / "lake.jpg"
    path = write_tags(picture, ["boat", "a <b> & 'c'", " late  evening\n", "boat", ""])
    assert path == tmp_path / "lake.jpg.xmp" == sidecar_path(picture)
    assert _subjects(path) == ["boat", "a <b> & 'c'", "late evening"] == read_tags(picture)
    assert not picture.exists() and [p.name for p in tmp_path.iterdir()] == ["lake.jpg.xmp"]


def test_other_fields_comments_and_tags_stay(tmp_path: Path) -> None:
    picture = tmp_path / "lake.jpg"
    path = sidecar_path(picture)
    path.write_text(OTHERS, encoding="utf-8")
    write_tags(picture, ["boat", "holiday"])
    assert _subjects(path) == ["holiday", "boat"]
    text = path.read_text(encoding="utf-8")
    for kept in ('xmp:Rating="4"', 'darktable:history_end="3"', "Lake &amp; shore", "<!-- kept -->",
                 "<darktable:masks>", 'x:xmptk="darktable"', '<?xpacket end="w"?>'):  # fmt: skip
        assert kept in text
    assert text.startswith("<?xpacket begin=")


def test_writing_twice_changes_nothing(tmp_path: Path) -> None:
    path = write_tags(tmp_path / "a.jpg", ["boat", "日本"])
    first = path.read_bytes()
    write_tags(tmp_path / "a.jpg", ["日本", "boat"])
    assert path.read_bytes() == first


def test_no_tags_write_no_file(tmp_path: Path) -> None:
    assert not write_tags(tmp_path / "a.jpg", []).exists()
    assert not write_tags(tmp_path / "a.jpg", ["  "]).exists()
    assert read_tags(tmp_path / "a.jpg") == []


@pytest.mark.parametrize(
    "described",
    [
        "",
        '<r:Description r:about=""/>',
        '<r:Description xmlns:dc="http://other/"><dc:x/></r:Description>',
        f'<r:Description><s xmlns="{DC}"/></r:Description>',
        f'<r:Description xmlns:d="{DC}"><d:subject/></r:Description>',
    ],
)
def test_a_bag_is_made_wherever_there_is_none(tmp_path: Path, described: str) -> None:
    path = tmp_path / "a.jpg.xmp"
    path.write_text(f'<r:RDF xmlns:r="{RDF}">{described}</r:RDF>')
    write_tags(tmp_path / "a.jpg", ["boat"])
    assert _subjects(path) == ["boat"] == read_tags(tmp_path / "a.jpg")


def test_rdf_as_the_default_namespace_is_understood(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg.xmp"
    path.write_text(f'<RDF xmlns="{RDF}"><Description/></RDF>')
    write_tags(tmp_path / "a.jpg", ["boat"])
    assert _subjects(path) == ["boat"]


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><x>&b;</x>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB.encode(), "declares a document type"),
        (b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>', "declares a document type"),
        (BOMB.encode("utf-16"), "declares a document type"),
        (b"<a>" * 5_000 + b"</a>" * 5_000, "nests deeper than 100"),
        (b"<x/>", "not an XMP side-car"),
        (b"", "side-car is not XML"),
        (b"\x00\x01", "side-car is not XML"),
        (b"<x>&undefined;</x>", "side-car is not XML"),
        (b'<?xml version="1.0" encoding="nonsense"?><x/>', "side-car is not XML"),
        (b"<x" + b"a" * (17 * 2**20), "larger than 16 MB"),
    ],
)
def test_a_hostile_or_damaged_side_car_is_refused_and_left(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "a.jpg.xmp"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.jpg\.xmp.*{message}"):
        write_tags(tmp_path / "a.jpg", ["boat"])
    assert path.read_bytes() == content and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("tag", ["a\x00", "b\x1b", "c\ud800", "d\uffff"])
def test_a_tag_that_xml_cannot_carry_is_refused(tmp_path: Path, tag: str) -> None:
    with pytest.raises(InputError, match="which XML cannot carry: remove it"):
        write_tags(tmp_path / "a.jpg", ["boat", tag])
    assert list(tmp_path.iterdir()) == []


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), max_size=9)))
def test_any_printable_tag_comes_back(tmp_path: Path, tags: list[str]) -> None:
    sidecar_path(tmp_path / "a.jpg").unlink(missing_ok=True)
    write_tags(tmp_path / "a.jpg", tags)
    expected = dict.fromkeys(" ".join(tag.split()) for tag in tags)
    assert read_tags(tmp_path / "a.jpg") == [tag for tag in expected if tag]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_mutated_side_car_never_ends_in_another_error(
    tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(OTHERS.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    sidecar_path(tmp_path / "a.jpg").write_bytes(bytes(content))
    try:
        write_tags(tmp_path / "a.jpg", ["boat"])
    except DataError:
        return
    assert "boat" in read_tags(tmp_path / "a.jpg")
