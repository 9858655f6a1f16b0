"""The log of a run: one JSON object per line.

`{"kind": "step", "step": 12, "stage": ..., "loss": ..., "lr": ..., "grad_norm": ..., ...}` after
steps, `{"kind": "eval", "step": ..., "scores": {...}}` after evaluations, and one
`{"kind": "end", ...}` with the cost.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sightline.core.files import atomic_file
from sightline.training.checkpoints import cannot_write


class RunLog:
    """Appends to a log and never holds a line back, so a kill loses none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, line: Mapping[str, Any]) -> None:
        """Append one line; numbers that JSON cannot hold become null.

        Raises:
            TrainingError: the disk is full.
        """
        data = (json.dumps(finite(line), ensure_ascii=False) + "\n").encode()
        try:
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise cannot_write(self.path, error, self.path.parent / "checkpoints") from error

    def sync(self) -> None:
        """Wait until the lines are on the disk."""
        os.fsync(self._file.fileno())


def cut_log(path: Path, step: int, evaluated: int) -> None:
    """Cut a log back to a checkpoint: what came after it will be written again.

    Args:
        step: the checkpoint's step.
        evaluated: the step of the last evaluation before the checkpoint.
    """
    if not path.exists():
        return
    limits = {"step": step, "eval": evaluated}
    kept = [line for line in read_log(path) if line["step"] <= limits.get(line["kind"], -1)]
    with atomic_file(path) as temporary:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept)
        temporary.write_text(text, encoding="utf-8")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a torn one, as a kill leaves at the end, is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and {"kind", "step"} <= line.keys():
            lines.append(line)
    return lines


def finite(value: Any) -> Any:
    """The value with numbers that JSON cannot hold (nan, infinity) replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value
