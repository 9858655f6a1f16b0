"""What is said in a conversation about pictures: one turn, and where its pictures stand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.core.errors import DataError

if TYPE_CHECKING:
    from sightline.data.records import Picture

ROLES: Mapping[str, str] = {
    "system": "system", "user": "user", "human": "user", "assistant": "assistant",
    "gpt": "assistant", "model": "assistant",
}  # fmt: skip
"""Who speaks, as people spell it, to the name used here."""
SUPERVISED = "assistant"
"""The one whose words are learnt."""


@dataclass(frozen=True)
class Turn:
    """What one of the two says, with the pictures that are shown while it is said.

    The text holds no marks of pictures: text that spells a mark stays text.
    """

    role: str
    """"system", "user" or "assistant"."""
    text: str
    pictures: tuple[Picture, ...] = ()
    places: tuple[int, ...] = ()
    """How many characters of the text stand before each picture, in order; empty: all in front."""

    def __post_init__(self) -> None:
        places = self.places
        within = all(0 <= place <= len(self.text) for place in places)
        if places and (len(places) != len(self.pictures) or sorted(places) != list(places)):
            within = False
        if not within:
            raise DataError(
                f"a turn with {len(self.pictures)} picture(s) and a text of {len(self.text)} "
                f"characters cannot have its pictures at {places}"
            )

    @property
    def parts(self) -> tuple[str | Picture, ...]:
        """Text and pictures in the order in which they are read; no empty texts."""
        found: list[str | Picture] = []
        start = 0
        places = self.places or (0,) * len(self.pictures)
        for place, picture in zip(places, self.pictures, strict=True):
            found += [self.text[start:place]] if place > start else []
            found.append(picture)
            start = place
        return (*found, *([self.text[start:]] if start < len(self.text) else []))


def turn_of(role: str, parts: Iterable[str | Picture]) -> Turn:
    """Text and pictures in order as a turn; the inverse of `Turn.parts`."""
    text, pictures, places = "", [], []
    for part in parts:
        if isinstance(part, str):
            text += part
        else:
            pictures.append(part)
            places.append(len(text))
    return Turn(role, text, tuple(pictures), tuple(places) if any(places) else ())


def role_of(name: Any, where: str) -> str:
    """The one name of who speaks.

    Raises:
        DataError: an unknown one.
    """
    if not isinstance(name, str) or name.lower() not in ROLES:
        shown = repr(name) if isinstance(name, str) and len(name) < 40 else type(name).__name__
        raise DataError(f"{where}: unknown role {shown}: known are {', '.join(ROLES)}")
    return ROLES[name.lower()]


def check_order(turns: Sequence[Turn], where: str) -> None:
    """A conversation that can be learnt from: the user speaks first, and both in turn.

    Raises:
        DataError: no answer, a system's words in the middle, or one speaks twice in a row.
    """
    spoken = [turn.role for turn in turns]
    if spoken and spoken[0] == "system":
        spoken = spoken[1:]
    expected = [("user", "assistant")[number % 2] for number in range(len(spoken))]
    if not spoken or spoken != expected:
        raise DataError(
            f"{where}: user and assistant speak in turn, the user first, behind at most one word "
            f"of the system; got {', '.join(turn.role for turn in turns[:8]) or 'nothing'}"
        )


def to_json(turns: Sequence[Turn], pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    """Turns as JSON values; pictures by their number among those of the record.

    Raises:
        DataError: a turn shows a picture that is not among them.
    """
    found = []
    for turn in turns:
        fields: dict[str, Any] = {"role": turn.role, "text": turn.text}
        if turn.pictures:
            fields["pictures"] = [number_of(picture, pictures) for picture in turn.pictures]
        if turn.places:
            fields["places"] = list(turn.places)
        found.append(fields)
    return found


def from_json(value: Any, pictures: Sequence[Picture], where: str) -> tuple[Turn, ...]:
    """What `to_json` wrote.

    Raises:
        DataError: another type than a field may have, or a picture that is not there.
    """
    if not isinstance(value, list):
        raise DataError(f"{where}: 'turns' must be a list of objects with 'role' and 'text'")
    turns = []
    for entry in value:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("text"), str):
            raise DataError(f"{where}: a turn is a JSON object with 'role' and 'text'")
        numbers, places = (_numbers(entry, name, where) for name in ("pictures", "places"))
        if any(number >= len(pictures) for number in numbers):
            raise DataError(
                f"{where}: a turn shows picture {max(numbers)}, counted from 0, of {len(pictures)}"
            )
        shown = tuple(pictures[number] for number in numbers)
        try:
            turns.append(Turn(role_of(entry.get("role"), where), entry["text"], shown, places))
        except DataError as error:
            raise (
                error if str(error).startswith(where) else DataError(f"{where}: {error}")
            ) from None
    return tuple(turns)


def number_of(picture: Picture, pictures: Sequence[Picture]) -> int:
    """Which of the pictures it is: the same object, or the same path.

    Raises:
        DataError: none of them.
    """
    for number, known in enumerate(pictures):
        if known is picture or (isinstance(known, Path) and known == picture):
            return number
    raise DataError("a turn shows a picture that its record does not have")


def _numbers(entry: Mapping[str, Any], name: str, where: str) -> tuple[int, ...]:
    value = entry.get(name, [])
    if not isinstance(value, list) or not all(type(n) is int and n >= 0 for n in value):
        raise DataError(f"{where}: {name!r} of a turn must be a list of whole numbers")
    return tuple(value)
