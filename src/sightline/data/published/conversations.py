"""Conversations about pictures: OpenAI's messages, LLaVA's conversations, PaliGemma's pairs.

    messages   {"messages": [{"role": "user", "content": [{"type": "text", "text": ...},
               {"type": "image_url", "image_url": {"url": ...}}]}, ...]}, or a content that is text
               with `<image>` for each of {"images": [...]}
    LLaVA      [{"id", "image", "conversations": [{"from": "human", "value": "<image>\\nHow ..."}]}]
    PaliGemma  {"image", "prefix": "caption en", "suffix": "a cat"}          one object a line

`<image>` means a picture only in files that name their pictures beside the conversation; there, as
many are named as there are marks. Elsewhere it is text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sightline.core.errors import DataError, ImageError
from sightline.data.columns import Reading, choose_root, resolve
from sightline.data.entries import object_of, text_of
from sightline.data.lines import parse_json, place, read_document, text_lines
from sightline.data.records import Record, split_name
from sightline.data.turns import Turn, role_of, turn_of
from sightline.inputs.encoded import from_data_address, is_data_address

if TYPE_CHECKING:
    from sightline.data.records import Picture

MARK = "<image>"
TEXTS = ("text", "input_text", "output_text")
IMAGES = ("image", "image_url", "input_image")
"""The types of content parts that are read; the second names are those of the Responses API."""


class Shown(NamedTuple):
    """A picture as the file names it: a path, or bytes."""

    source: str | bytes


@dataclass
class Conversation:
    """One conversation of a file, its pictures not yet sought."""

    where: str
    id: str
    split: str | None
    turns: list[tuple[str, list[str | Shown]]] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> list[Shown]:
        """Its pictures in order."""
        return [part for _, parts in self.turns for part in parts if isinstance(part, Shown)]


def read_messages(path: Path, roots: Sequence[Path], split: str | None = None) -> Reading:
    """Messages as OpenAI's interface takes them and as trainers store them, JSON or JSON lines.

    Pictures are paths, `data:` addresses, or marks and parts that stand for the next of `images`.

    Raises:
        DataError: unknown roles or kinds of content, or more or fewer pictures than places.
    """

    def conversation(entry: Mapping[str, Any], found: Conversation) -> None:
        supply = _Supply(entry, found.where)
        messages = entry.get("messages")
        for message in messages if isinstance(messages, list) else []:
            role = role_of(object_of(message, found.where).get("role"), found.where)
            found.turns.append((role, _content(message.get("content"), supply, found.where)))
        supply.settle(found)
        found.extra = _rest(entry, ("messages", "images", "image", "id", "split"))

    return _records(_entries(path), path, roots, split, conversation)


def read_llava(path: Path, roots: Sequence[Path], split: str | None = None) -> Reading:
    """LLaVA's conversations (Liu et al. 2023), also without the mark where one picture is named.

    Raises:
        DataError: unknown speakers, or more or fewer pictures than marks.
    """

    def conversation(entry: Mapping[str, Any], found: Conversation) -> None:
        supply = _Supply(entry, found.where)
        said = entry.get("conversations")
        for turn in said if isinstance(said, list) else []:
            role = role_of(object_of(turn, found.where).get("from"), found.where)
            text = text_of(turn, "value", found.where, empty=True)
            found.turns.append((role, supply.marked(text)))
        supply.settle(found)
        found.extra = _rest(entry, ("conversations", "images", "image", "id", "split"))

    return _records(_entries(path), path, roots, split, conversation)


def read_prefix_suffix(path: Path, roots: Sequence[Path], split: str | None = None) -> Reading:
    """PaliGemma's pairs, one object a line: a prefix is what the user says, a suffix the answer.

    Raises:
        DataError: a line without image, prefix or suffix, or with one of another type.
    """

    def conversation(entry: Mapping[str, Any], found: Conversation) -> None:
        image = Shown(text_of(entry, "image", found.where))
        prefix = text_of(entry, "prefix", found.where, empty=True)
        suffix = text_of(entry, "suffix", found.where, empty=True)
        found.turns = [("user", [image, prefix]), ("assistant", [suffix])]
        found.extra = _rest(entry, ("image", "prefix", "suffix", "id", "split"))

    return _records(_entries(path), path, roots, split, conversation)


def _entries(path: Path) -> Iterator[tuple[str, str, Any]]:
    """The objects of a JSON array or of JSON lines: number, place and value of each."""
    if path.suffix.lower() == ".json" and _is_array(path):
        document = read_document(path)
        for number, value in enumerate(document if isinstance(document, list) else [document], 1):
            yield str(number), f"{place(path)}, entry {number}", value
        return
    for line, text in text_lines(path):
        if text.strip():
            yield str(line), place(path, line), parse_json(text.rstrip("\r\n"), path, line)


def _is_array(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def _records(
    entries: Iterable[tuple[str, str, Any]],
    path: Path,
    roots: Sequence[Path],
    split: str | None,
    conversation: Callable[[Mapping[str, Any], Conversation], None],
) -> Reading:
    found, silent = [], 0
    for number, where, value in entries:
        entry = object_of(value, where)
        own, id = entry.get("split"), entry.get("id")
        part = split_name(own) if isinstance(own, str) and own else split
        known = isinstance(id, str | int) and not isinstance(id, bool) and id != ""
        talk = Conversation(where, str(id) if known else f"{path.stem}/{number}", part)
        conversation(entry, talk)
        if not talk.turns:
            raise DataError(f"{where}: a conversation without turns")
        found += [talk] if talk.shown else []
        silent += not talk.shown
    named = [
        (s.source, talk.where) for talk in found for s in talk.shown if isinstance(s.source, str)
    ]
    root = choose_root(named[:3], roots)
    note = f"{silent} conversation(s) without a picture were left out"
    return Reading([_record(talk, root) for talk in found], notes=(note,) if silent else ())


def _record(talk: Conversation, root: Path) -> Record:
    def picture(shown: Shown) -> Picture:
        if isinstance(shown.source, bytes):
            return shown.source
        return resolve(root, shown.source, talk.where)

    turns: list[Turn] = []
    for role, parts in talk.turns:
        turns.append(turn_of(role, [p if isinstance(p, str) else picture(p) for p in parts]))
    first, *more = [picture for turn in turns for picture in turn.pictures]
    return Record(talk.id, first, split=talk.split, extra=talk.extra, more_images=tuple(more),
                  messages=tuple(turns))  # fmt: skip


class _Supply:
    """The pictures that an entry names beside its turns, handed out where they belong."""

    def __init__(self, entry: Mapping[str, Any], where: str) -> None:
        named = entry.get("images", entry.get("image"))
        listed = named if isinstance(named, list) else [] if named in (None, "") else [named]
        self.pictures = [_shown(value, where) for value in listed]
        self.where = where
        self.used = 0

    def next(self) -> Shown:
        """The next picture, for a mark or a part that names none."""
        self.used += 1
        if self.used > len(self.pictures):
            raise DataError(
                f"{self.where}: more marks of pictures than pictures: {len(self.pictures)} named"
            )
        return self.pictures[self.used - 1]

    def marked(self, text: str) -> list[str | Shown]:
        """A text with marks as parts; the line break between a mark and the text is dropped."""
        if not self.pictures or MARK not in text:
            return [text]
        pieces = text.split(MARK)
        if not pieces[0].strip():
            pieces[0] = ""
        first = next((n for n, piece in enumerate(pieces) if piece.strip()), len(pieces) - 1)
        pieces[first] = pieces[first].removeprefix("\n") if first else pieces[first]
        last = len(pieces) - 1
        while last and not pieces[last].strip():
            pieces[last] = ""
            last -= 1
        pieces[last] = pieces[last].removesuffix("\n") if last < len(pieces) - 1 else pieces[last]
        parts: list[str | Shown] = [pieces[0]]
        for piece in pieces[1:]:
            parts += [self.next(), piece]
        return [part for part in parts if part != ""]

    def settle(self, found: Conversation) -> None:
        """Pictures that no place stands for are shown first; some with and some without are not."""
        left = self.pictures[self.used :] if found.turns else []
        if left and self.used:
            raise DataError(
                f"{self.where}: {len(self.pictures)} pictures named, but {self.used} mark(s)"
            )
        user = next((parts for role, parts in found.turns if role == "user"), None)
        if left and user is None:
            raise DataError(f"{self.where}: a picture, but the user says nothing")
        if left and user is not None:
            user[:0] = left


def _content(content: Any, supply: _Supply, where: str) -> list[str | Shown]:
    """What one message says."""
    if isinstance(content, str):
        return supply.marked(content)
    if not isinstance(content, list):
        raise DataError(f"{where}: 'content' must be text or a list of parts")
    return [_part(object_of(part, where), supply, where) for part in content]


def _part(part: Mapping[str, Any], supply: _Supply, where: str) -> str | Shown:
    kind = part.get("type")
    if kind in TEXTS:
        return text_of(part, "text", where, empty=True)
    if kind not in IMAGES:
        shown = repr(kind) if isinstance(kind, str) and len(kind) < 40 else type(kind).__name__
        raise DataError(f"{where}: content of type {shown} is not read; text and pictures are")
    value = next(
        (part[name] for name in ("image_url", "image", "url", "path") if name in part), None
    )
    return supply.next() if value is None else _shown(value, where)


def _shown(value: Any, where: str) -> Shown:
    """A picture as a path or as bytes, however the entry wraps it."""
    if isinstance(value, Mapping):
        value = next((value[name] for name in ("url", "path") if name in value), None)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: a picture is named by its path, got {type(value).__name__}")
    try:
        return Shown(from_data_address(value) if is_data_address(value) else value.strip())
    except ImageError as error:
        raise DataError(f"{where}: {error}") from None


def _rest(entry: Mapping[str, Any], roles: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in roles}
