"""Videos as a few frames: which ones a rule takes, and reading them from files with PyAV.

    Video("clip.mp4").sample(8)                          # 8 frames, spread over the clip
    Video(frames, fps=25).sample(8, "linspace")          # the same of pictures in memory

A file is identified by its first bytes and opened as that container and no other: playlists and
other files that name further files or addresses are refused, whatever their suffix is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sightline.core.devices import available_cores
from sightline.core.errors import ConfigError, ImageError, SightlineError, unknown_name
from sightline.core.lazy import require
from sightline.inputs.folders import nearest_files, shown_name
from sightline.inputs.images import ImageSource, read_image
from sightline.inputs.limits import DEFAULT_OPTIONS, check_size, damaged, truncated

VIDEO_SUFFIXES = frozenset((".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts"))
DEFAULT_RULE = "uniform-centre"
_HEAD = 377
"""Bytes that tell the container: two packets of a transport stream and the start of a third."""


@dataclass(frozen=True)
class VideoLimits:
    """What is read of a file of strangers.

    Attributes:
        max_bytes: of the file.
        max_seconds: how long it may say, or turn out, to be.
        max_frames: how many it may have; all up to the last one that is taken are decoded.
        max_taken: how many may be taken.
        max_pixels: of all that are taken together; three bytes each.
    """

    max_bytes: int = 4 * 2**30
    max_seconds: float = 3 * 3600
    max_frames: int = 1_000_000
    max_taken: int = 1024
    max_pixels: int = 500_000_000


DEFAULT_LIMITS = VideoLimits()


class Clip(NamedTuple):
    """Frames of a video in the order of time."""

    frames: list[NDArray[np.uint8]]
    """Each uint8[H, W, 3], upright; repeated ones are the same array."""
    indices: tuple[int, ...]
    """Which frames they are, from 0."""
    seconds: tuple[float, ...]
    """When each is shown, from the first frame on; by the rate where the frames are in memory."""


def uniform_centre(total: int, count: int) -> NDArray[np.int64]:
    """int64[count]: the middle of each of `count` equal parts, floor((i + 0.5) * total / count)."""
    return (2 * np.arange(count, dtype=np.int64) + 1) * total // (2 * count)


def linspace(total: int, count: int) -> NDArray[np.int64]:
    """int64[count]: from the first frame to the last in equal steps, cut down to whole numbers."""
    return np.linspace(0, total - 1, count).astype(np.int64)


RULES: Mapping[str, Callable[[int, int], NDArray[np.int64]]] = {
    "uniform-centre": uniform_centre,
    "linspace": linspace,
}
"""How frames are chosen, by name. Where a clip has fewer frames than asked for, some repeat."""


def sample_indices(total: int, count: int, rule: str = DEFAULT_RULE) -> NDArray[np.int64]:
    """int64[count]: which of `total` frames a rule takes, in order.

    Raises:
        ConfigError: an unknown rule, or a number below 1.
    """
    if rule not in RULES:
        raise ConfigError(unknown_name("sampling rule", rule, RULES))
    if count < 1 or total < 1:
        raise ConfigError(f"{count} of {total} frames: both must be 1 or more")
    return RULES[rule](total, count)


@dataclass(frozen=True)
class Video:
    """A video file, or frames in memory; nothing is opened before frames are asked for.

    Attributes:
        source: a path, or the frames: pictures as `read_image` takes them, or uint8[F, H, W, 3].
        fps: frames a second, for frames in memory; a file knows its own times.
        limits: of files.
    """

    source: str | os.PathLike[str] | Sequence[ImageSource] | NDArray[np.uint8]
    fps: float | None = None
    limits: VideoLimits = DEFAULT_LIMITS

    def __post_init__(self) -> None:
        if self.fps is not None and not 0 < self.fps < 100_000:
            raise ConfigError(f"fps={self.fps!r}: frames a second must be above 0")

    @property
    def is_file(self) -> bool:
        """Whether it has to be read from a file."""
        return isinstance(self.source, str | os.PathLike)

    def sample(self, count: int, rule: str = DEFAULT_RULE) -> Clip:
        """The frames that a rule takes.

        Raises:
            ConfigError: an unknown rule, or a number below 1 or above the limit.
            ImageError: the file is not there, no video, damaged, cut off or beyond the limits.
            MissingDependencyError: a file, and PyAV is not installed.
        """
        sample_indices(1, count, rule)
        if count > self.limits.max_taken:
            raise ConfigError(f"{count} frames; at most {self.limits.max_taken} are taken at once")
        if isinstance(self.source, str | os.PathLike):
            path = Path(self.source)
            try:
                return _read(path, count, rule, self.limits)
            except ImageError as error:
                raise ImageError(f"{shown_name(path)}: {error}", error.code) from None
        if not len(self.source):
            raise ImageError("a video without frames", "image_empty")
        indices = sample_indices(len(self.source), count, rule).tolist()
        known = {n: read_image(self.source[n], name=f"frame {n}") for n in set(indices)}
        seconds = tuple(n / (self.fps or 1.0) for n in indices)
        return Clip([known[n] for n in indices], tuple(indices), seconds)


def _read(path: Path, count: int, rule: str, limits: VideoLimits) -> Clip:
    av = require("av", "video", "reading videos")
    container = _container_of(path, limits)
    try:
        with path.open("rb") as file:
            with av.open(file, format=container, **_ONLY_THIS_FILE) as opened:
                total = _count_frames(opened, limits)
            file.seek(0)
            indices = sample_indices(total, count, rule).tolist()
            with av.open(file, format=container, **_ONLY_THIS_FILE) as opened:
                return _taken(opened, indices, limits)
    except av.error.EOFError:
        raise truncated("it ends before its pictures do") from None
    except av.error.FFmpegError as error:
        raise damaged(f"its {container} container or its frames ({error.strerror})") from None
    except SightlineError:
        raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ImageError(f"cannot be read ({reason})", "image_not_found") from None
    except Exception as error:  # decoders raise whatever hostile bytes make them raise
        raise damaged(type(error).__name__) from None


_ONLY_THIS_FILE: Mapping[str, Any] = {
    "options": {"protocol_whitelist": "none", "enable_drefs": "0"},
    "metadata_errors": "replace",
}
"""A container may name other files and addresses; none of them is opened."""


def _container_of(path: Path, limits: VideoLimits) -> str:
    """FFmpeg's name of the container that the first bytes tell."""
    if not path.is_file():
        raise ImageError(f"there is no such file{nearest_files(path)}", "image_not_found")
    size = path.stat().st_size
    if size > limits.max_bytes:
        raise ImageError(
            f"{size:,} bytes are too many; at most {limits.max_bytes:,} are read",
            "image_too_large",
        )
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    if len(head) == _HEAD and head[0::188] == b"\x47" * 3:
        return "mpegts"
    if not head:
        raise ImageError("the file is empty", "image_empty")
    raise ImageError(
        "is no video that is read: MP4, QuickTime, Matroska, WebM, AVI or MPEG-TS",
        "image_unsupported",
    )


def _stream_of(container: Any) -> Any:
    """The video stream, its size within what a picture may have."""
    if not container.streams.video:
        raise ImageError("has no pictures in it, only sound or text", "image_unsupported")
    stream = container.streams.video[0]
    context = stream.codec_context
    if context is None:
        raise ImageError("its pictures are coded in a way that is not read", "image_unsupported")
    check_size(context.width, context.height, DEFAULT_OPTIONS)
    context.thread_count = min(4, available_cores())
    return stream


def _count_frames(container: Any, limits: VideoLimits) -> int:
    """How many frames the file has, without decoding one; headers may say anything.

    A file that ends long before the time that its header tells is cut off.
    """
    stream = _stream_of(container)
    told = _told_seconds(container, stream)
    _check_seconds(told, limits)
    count, first, last = 0, None, 0.0
    for packet in container.demux(stream):
        if not packet.size:
            continue
        count += 1
        if count > limits.max_frames:
            raise ImageError(
                f"more than {limits.max_frames:,} frames, the most that are read: cut it first",
                "image_too_large",
            )
        if packet.pts is not None:
            time = float(packet.pts * packet.time_base)
            first = time if first is None else min(first, time)
            last = max(last, time)
    seen = last - (first or 0.0)
    _check_seconds(seen, limits)
    if not count:
        raise truncated("it has no frames")
    if seen + max(1.0, told / 10) < told:
        raise truncated(f"it should last {told:.1f} s, and its pictures end after {seen:.1f} s")
    return count


def _told_seconds(container: Any, stream: Any) -> float:
    """How long the header says the pictures last; 0 where it says nothing."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else 0.0


def _check_seconds(seconds: float, limits: VideoLimits) -> None:
    if seconds > limits.max_seconds:
        raise ImageError(
            f"{seconds:,.0f} seconds are too long; at most {limits.max_seconds:,.0f} are read: "
            "cut it first",
            "image_too_large",
        )


def _taken(container: Any, indices: Sequence[int], limits: VideoLimits) -> Clip:
    wanted, found, times = set(indices), {}, {}
    start, pixels = None, 0
    for number, frame in enumerate(_decoded(container, max(indices))):
        time = float(frame.time) if frame.time is not None else 0.0
        start = time if start is None else start
        if number not in wanted:
            continue
        check_size(frame.width, frame.height, DEFAULT_OPTIONS)  # it may change on the way
        pixels += frame.width * frame.height
        if pixels > limits.max_pixels:
            raise ImageError(
                f"{len(wanted)} frames of {frame.width} x {frame.height} pixels are too many at "
                f"once; at most {limits.max_pixels:,} pixels are taken",
                "image_too_large",
            )
        found[number] = upright(frame.to_ndarray(format="rgb24"), frame.rotation)
        times[number] = time - start
    missing = wanted - found.keys()
    if missing:
        raise truncated(f"frame {min(missing)} of {max(indices) + 1} cannot be decoded")
    seconds = tuple(times[n] for n in indices)
    return Clip([found[n] for n in indices], tuple(indices), seconds)


def _decoded(container: Any, last: int) -> Iterator[Any]:
    """Decoded frames up to the last one that is needed."""
    for number, frame in enumerate(container.decode(_stream_of(container))):
        yield frame
        if number >= last:
            return


def upright(frame: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """A frame turned as the file asks for, in quarters, counter-clockwise."""
    return np.ascontiguousarray(np.rot90(frame, round(degrees / 90)))
