"""What of a data set could not be used, so that a report can say it."""

from __future__ import annotations


class Damage:
    """What could not be used, counted by kind, with the first names; safe to print."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}

    def note(self, kind: str, name: str, count: int = 1) -> None:
        """One more of a kind, such as "member(s) with a path that leaves the archive"."""
        self._counts[kind] = self._counts.get(kind, 0) + count
        names = self._names.setdefault(kind, [])
        if len(names) < 3 and name not in names:
            names.append(name)

    def sentences(self) -> tuple[str, ...]:
        """One a kind."""
        return tuple(
            f"{count} {kind}: {', '.join(self._names[kind])}"
            + (" ..." if count > len(self._names[kind]) else "")
            for kind, count in self._counts.items()
        )
