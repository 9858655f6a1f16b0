"""Choosing names of parameters and modules by patterns.

Patterns are those of `fnmatch` on dotted names ("vision.*"); a leading "!" takes names out again,
and the last pattern that fits a name decides: ("*", "!vision.*") is all but the vision tower.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from sightline.core.errors import ConfigError, nearest


def fits(name: str, patterns: Iterable[str]) -> bool:
    """Whether the last pattern that speaks of the name takes it in."""
    taken = False
    for pattern in patterns:
        wanted = not pattern.startswith("!")
        if fnmatchcase(name, pattern.removeprefix("!")):
            taken = wanted
    return taken


def select(
    names: Sequence[str], patterns: Sequence[str], where: str, kind: str = "parameter"
) -> list[str]:
    """The names that the patterns take.

    Args:
        where: what the patterns belong to, for the message.
        kind: what the names are of, for the message.

    Raises:
        ConfigError: a pattern that fits no name at all, with the nearest names.
    """
    for pattern in patterns:
        bare = pattern.removeprefix("!")
        if not any(fnmatchcase(name, bare) for name in names):
            near = nearest(bare.strip("*."), _prefixes(names)) or names[:3]
            examples = f"; there are for example {', '.join(near)}" if near else ""
            raise ConfigError(f"{where}: no {kind} fits the pattern {pattern!r}{examples}")
    return [name for name in names if fits(name, patterns)]


def _prefixes(names: Iterable[str]) -> set[str]:
    """The names and the names of the modules they are in."""
    parts = [name.split(".") for name in names]
    return {".".join(words[:end]) for words in parts for end in range(1, len(words) + 1)}
