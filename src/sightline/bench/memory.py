"""The most memory that a piece of work holds, measured in a process of its own.

What the allocator has once taken from the system it rarely gives back, so that a second
measurement in the same process would see the first one's leavings.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sightline.core.errors import ConfigError, SightlineError

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_PROGRAM = """
import importlib, json, sys
module, function, arguments = sys.argv[1:]
print(json.dumps(getattr(importlib.import_module(module), function)(**json.loads(arguments))))
"""


def in_a_process(module: str, function: str, **arguments: Any) -> Any:
    """What a function returns in a new interpreter; everything travels as JSON.

    Raises:
        SightlineError: the process ended with an error; its last line is in the message.
    """
    command = [sys.executable, "-c", _PROGRAM, module, function, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise SightlineError(f"the measuring process failed ({last}): use a smaller batch")
    return json.loads(done.stdout.splitlines()[-1])


def peak_above(work: Callable[[], object]) -> int:
    """Bytes resident at the worst moment of the work, above what was resident before it.

    Raises:
        ConfigError: a system that does not tell.
    """
    if not _STATUS.is_file():
        return _peak_by_resource(work)
    _CLEAR.write_text("5")  # the high-water mark begins again from what is resident now
    before = _kibibytes("VmRSS")
    work()
    return max(0, _kibibytes("VmHWM") - before) * 1024


def _kibibytes(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    assert found is not None, f"{_STATUS} has no {name}"
    return int(found[1])


def _peak_by_resource(work: Callable[[], object]) -> int:
    """Above the highest mark so far, which is all that other systems keep."""
    try:
        import resource
    except ModuleNotFoundError:
        raise ConfigError(
            "the peak of a process's memory is not told on Windows: run this on Linux or macOS"
        ) from None
    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit
