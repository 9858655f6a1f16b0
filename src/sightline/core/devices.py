"""Where and how precisely to compute: devices, number types and threads.

Nothing here runs on import; the caller chooses, these functions offer a default.
"""

from __future__ import annotations

import math
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sightline.core.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "float32", "bfloat16", "float16")


def available_cores() -> int:
    """Cores this process may use: the affinity mask, cut by the container's CPU quota."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows
        cores = os.cpu_count() or 1
    quota = _cgroup_quota(Path("/sys/fs/cgroup"))
    return max(1, min(cores, math.ceil(quota)) if quota else cores)


def _cgroup_quota(root: Path) -> float | None:
    """CPU quota in cores, from version 2 or 1 of Linux control groups; None when unlimited."""
    try:
        if (root / "cpu.max").is_file():
            limit, period = (root / "cpu.max").read_text().split()[:2]
        else:
            limit = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        return None if limit in ("max", "-1") else int(limit) / int(period)
    except (OSError, ValueError):
        return None


def choose_device(name: str = "auto") -> torch.device:
    """The device by name; "auto" takes CUDA, then Apple's GPU, then the CPU.

    Raises:
        ConfigError: a device that does not exist or is not present here.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(unknown_name("device", name, ["auto", "cpu", "cuda", "mps"])) from None
    present = {"cpu": True, "meta": True, "cuda": torch.cuda.is_available(),
               "mps": torch.backends.mps.is_available()}  # fmt: skip
    if not present.get(device.type, False):
        raise ConfigError(
            f"device {name!r} is not present on this machine: use 'cpu', or 'auto' to let "
            "Sightline choose"
        )
    return device


def choose_dtype(name: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The number type for linear layers and convolutions.

    "auto" is bfloat16 where the device multiplies it in hardware and float32 elsewhere, so that
    it is never slower than float32. Norms, softmax, scales and losses stay float32 regardless.

    Raises:
        ConfigError: an unknown name.
    """
    import torch

    if isinstance(name, torch.dtype):
        return name
    if name not in DTYPES:
        raise ConfigError(unknown_name("dtype", name, DTYPES))
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    return torch.bfloat16 if fast_bfloat16(device.type) else torch.float32


@cache
def fast_bfloat16(device_type: str) -> bool:
    """Whether bfloat16 products have hardware of their own on this kind of device."""
    import torch

    if device_type == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    if device_type != "cpu":
        return False
    # oneDNN honours ONEDNN_MAX_CPU_ISA; below AVX512_CORE_BF16 it would emulate bfloat16.
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    if limit in ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI"):
        return False
    capability = torch.backends.cpu.get_cpu_capability()
    return "AVX512" in capability and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def set_threads(count: int | None = None) -> int:
    """Set the threads of torch to `count`, by default the available cores; returns the number.

    OMP_NUM_THREADS, where somebody set it, is the most there will be.
    """
    import torch

    threads = count or available_cores()
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdecimal() and int(told) > 0:
        threads = min(threads, int(told))
    torch.set_num_threads(threads)
    return threads
