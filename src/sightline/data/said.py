"""Fields of a row beyond captions: a question with its answers, regions, turns, further pictures.

The same names are read from any table or JSON object and written by every layout of ours:

    question    text                        answers   texts, or objects with an "answer"
    choices     texts                       regions   objects with "label" and "box"
    turns       objects with "role" and     more_images   paths
                "text"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sightline.core.errors import DataError
from sightline.data.regions import Region, region_from
from sightline.data.turns import from_json, to_json

if TYPE_CHECKING:
    from sightline.data.records import Picture, Record

ANSWER_NAMES = ("answers", "answer")
CHOICE_NAMES = ("choices", "options")


@dataclass(frozen=True)
class Said:
    """What one row says beyond captions, its pictures still names."""

    question: str | None = None
    answers: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()
    turns: Any = None
    """JSON as `turns.to_json` writes it; made into turns where the pictures are known."""
    more_images: tuple[str, ...] = ()
    single: bool = False
    """Whether this is a record of its own, although another is about the same picture."""

    @property
    def alone(self) -> bool:
        """Whether rows about the same picture may not join with this one."""
        return self.single or self.question is not None or self.turns is not None

    def of_record(self, pictures: Sequence[Picture], where: str) -> dict[str, Any]:
        """The same as fields of a record whose pictures are these.

        Raises:
            DataError: turns that are none.
        """
        turns = from_json(self.turns, pictures, where) if self.turns is not None else ()
        found = {
            "question": self.question,
            "answers": self.answers,
            "choices": self.choices,
            "regions": self.regions,
            "more_images": tuple(pictures[1:]),
            "messages": turns,
        }
        return {name: value for name, value in found.items() if value not in (None, ())}


NOTHING = Said()


def said_in(fields: Mapping[str, Any], where: str) -> tuple[Said, set[str]]:
    """What a row says beyond captions, and the names of its fields that say it.

    Columns of these names with other contents are left alone, except beside a question.

    Raises:
        DataError: a value of a type that its role cannot have.
    """
    if fields.keys().isdisjoint(_NAMES):
        return NOTHING, set()
    used: set[str] = set()
    question = fields.get("question")
    answers: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    if question is not None and question != "":
        if not isinstance(question, str):
            raise DataError(f"{where}: 'question' must be text, got {type(question).__name__}")
        used.add("question")
        answers = _texts(fields, ANSWER_NAMES, used, where)
        choices = _texts(fields, CHOICE_NAMES, used, where)
    regions, more = fields.get("regions"), fields.get("more_images")
    listed = isinstance(regions, list) and all(
        isinstance(r, Mapping) and "box" in r for r in regions
    )
    used |= {"regions"} if listed else set()
    named = isinstance(more, list) and all(isinstance(name, str) for name in more)
    used |= {"more_images"} if named else set()
    turns = fields.get("turns") if isinstance(fields.get("turns"), list) else None
    used |= {"turns"} if turns is not None else set()
    found = Said(
        question=question.strip() if isinstance(question, str) and question else None,
        answers=answers,
        choices=choices,
        regions=tuple(region_from(r, where) for r in regions) if listed and regions else (),
        turns=turns,
        more_images=tuple(more) if named and more else (),
    )
    return found, used


_NAMES = {"question", "regions", "more_images", "turns"}


def _texts(
    fields: Mapping[str, Any], names: Sequence[str], used: set[str], where: str
) -> tuple[str, ...]:
    """The texts under the first of these names that is there."""
    name = next((name for name in names if name in fields), None)
    if name is None:
        return ()
    used.add(name)
    return answers_in(fields[name], name, where)


def answers_in(value: Any, name: str, where: str) -> tuple[str, ...]:
    """A text, a number, or a list of them or of objects with an "answer"; equal ones are kept.

    Raises:
        DataError: something else.
    """
    if value is None:
        return ()
    found = []
    for entry in value if isinstance(value, list) else [value]:
        text = entry.get("answer") if isinstance(entry, Mapping) else entry
        if isinstance(text, bool) or not isinstance(text, str | int | float):
            raise DataError(
                f"{where}: {name!r} must be text, a list of texts, or objects with 'answer', got "
                f"{type(text).__name__}"
            )
        found.append(str(text).strip())
    return tuple(text for text in found if text)


def said_fields(record: Record, more_images: Sequence[str]) -> dict[str, Any]:
    """What a record says beyond captions as JSON values, without what is empty.

    Args:
        more_images: the names under which its further pictures can be found.
    """
    found = {
        "question": record.question,
        "answers": list(record.answers),
        "choices": list(record.choices),
        "regions": [region.to_json() for region in record.regions],
        "turns": to_json(record.messages, record.pictures),
        "more_images": list(more_images),
    }
    return {name: value for name, value in found.items() if value not in (None, [])}
