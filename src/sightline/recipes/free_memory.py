"""How much memory this machine still has to give, and how much this process holds."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from sightline.core.errors import ConfigError

if TYPE_CHECKING:
    import torch

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
          "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}  # fmt: skip
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?", re.IGNORECASE)


def parse_amount(text: str) -> int:
    """Bytes of an amount such as "24GB" (24 * 10^9), "16GiB" (16 * 2^30) or "500M".

    Raises:
        ConfigError: no such amount, or none at all.
    """
    found = _AMOUNT.fullmatch(text.strip())
    unit = _UNITS.get(found[2].upper()) if found else None
    amount = int(float(found[1]) * unit) if found and unit else 0
    if amount < 1:
        raise ConfigError(f"memory {text!r}: write an amount with its unit, such as 24GB or 16GiB")
    return amount


def free_memory(device: torch.device) -> int | None:
    """Bytes that the device can still give to this process; None where the system does not say.

    On a CPU the lesser of what the system has available and what the container's limit leaves.
    """
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    known = [available(Path("/proc/meminfo")), container_rest(Path("/sys/fs/cgroup"))]
    bounds = [bound for bound in known if bound is not None]
    return min(bounds) if bounds else _physical()


def available(meminfo: Path) -> int | None:
    """MemAvailable of Linux, in bytes: what can be had without swapping."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else int(found[1]) * 1024


def container_rest(root: Path) -> int | None:
    """What the limit of Linux control groups (version 2 or 1) leaves; None without a limit.

    Files that the system merely keeps in memory count as free: they go when memory is asked for.
    """
    for limit, used, statistics, cached in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat",
         "total_inactive_file"),
    ):  # fmt: skip
        try:
            most, now = int((root / limit).read_text()), int((root / used).read_text())
        except (OSError, ValueError):  # no such file, or "max"
            continue
        if most >= 1 << 60:  # version 1 writes no limit as a huge number
            continue
        return max(0, most - now + _statistic(root / statistics, cached))
    return None


def _statistic(file: Path, name: str) -> int:
    try:
        found = re.search(rf"^{name} (\d+)$", file.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def held_now() -> int:
    """Bytes of this process that are resident: the interpreter and its libraries, mostly.

    0 where the system does not say.
    """
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, AttributeError):
        return 0


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
