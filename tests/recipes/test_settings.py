"""`--set key=value`: typed, and clear about what is wrong."""

from dataclasses import dataclass

import pytest

from sightline.core.errors import ConfigError
from sightline.recipes.settings import override, parse_assignments


@dataclass(frozen=True)
class Small:
    lr: float = 1e-3
    steps: int | None = None
    freeze: tuple[str, ...] = ()
    lengths: tuple[int, ...] = ()
    shuffle: bool = False
    name: str = "a"


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("lr=3e-4", "lr", 3e-4),
        ("steps=20", "steps", 20),
        ("steps=none", "steps", None),
        ("freeze=image.*,text.*", "freeze", ("image.*", "text.*")),
        ("lengths=16, 64,", "lengths", (16, 64)),
        ("shuffle=yes", "shuffle", True),
        ("name=x=y", "name", "x=y"),
    ],
)
def test_values_take_the_type_of_their_field(text, field, value):
    assert getattr(override(Small(), parse_assignments([text])), field) == value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["lr"], "write key=value"),
        (["lr=1", "lr=2"], "'lr' is given twice"),
        (["learning_rate=1"], "unknown setting 'learning_rate'"),
        (["stepz=1"], "did you mean 'steps'"),
        (["steps=many"], "'steps' is 'many': write a value of type int"),
        (["lengths=16,few"], "'lengths' is 'few': write a value of type int"),
        (["shuffle=perhaps"], "write a value of type bool"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        override(Small(), parse_assignments(settings))
