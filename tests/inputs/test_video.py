"""Which frames a rule takes, frames that come back as they were, and files that mean harm."""

import numpy as np
import pytest

from sightline.core.errors import ConfigError, ImageError, MissingDependencyError
from sightline.inputs.video import RULES, Video, VideoLimits, sample_indices, upright

av = pytest.importorskip("av", reason="it reads and writes videos; the extra `video` brings it")

LEVELS = [10 + 11 * n for n in range(20)]


def grey(level, size=(32, 48)):
    return np.full((*size, 3), level, np.uint8)


def write(path, levels=LEVELS, codec="ffv1", fps=10, options=None):
    """A grey picture a level; ffv1 is lossless."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height = 48, 32
        stream.pix_fmt = "yuv420p"
        for level in levels:
            frame = av.VideoFrame.from_ndarray(grey(level), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


# which frames


@pytest.mark.parametrize(
    ("rule", "total", "count", "expected"),
    [
        ("uniform-centre", 8, 4, [1, 3, 5, 7]),
        ("uniform-centre", 100, 8, [6, 18, 31, 43, 56, 68, 81, 93]),
        ("uniform-centre", 10, 1, [5]),
        ("uniform-centre", 3, 3, [0, 1, 2]),
        ("uniform-centre", 2, 5, [0, 0, 1, 1, 1]),
        ("uniform-centre", 1, 3, [0, 0, 0]),
        ("linspace", 8, 4, [0, 2, 4, 7]),
        ("linspace", 100, 8, [0, 14, 28, 42, 56, 70, 84, 99]),
        ("linspace", 10, 1, [0]),
        ("linspace", 3, 3, [0, 1, 2]),
        ("linspace", 2, 5, [0, 0, 0, 0, 1]),
        ("linspace", 1, 3, [0, 0, 0]),
    ],
)
def test_the_table_of_rules(rule, total, count, expected):
    assert sample_indices(total, count, rule).tolist() == expected


def test_rules_against_their_formulas():
    for total in range(1, 40):
        for count in range(1, 20):
            centres = [int((i + 0.5) * total / count) for i in range(count)]
            assert RULES["uniform-centre"](total, count).tolist() == centres
            steps = np.linspace(0, total - 1, count, dtype=int)
            assert RULES["linspace"](total, count).tolist() == steps.tolist()


def test_the_rules_differ():
    assert sample_indices(16, 8).tolist() != sample_indices(16, 8, "linspace").tolist()


@pytest.mark.parametrize(
    ("total", "count", "rule", "message"),
    [
        (5, 2, "uniform", "unknown sampling rule 'uniform': did you mean 'uniform-centre'"),
        (5, 0, "linspace", "0 of 5 frames: both must be 1 or more"),
        (0, 5, "linspace", "5 of 0 frames"),
    ],
)
def test_wrong_rules(total, count, rule, message):
    with pytest.raises(ConfigError, match=message):
        sample_indices(total, count, rule)


# frames in memory


@pytest.mark.parametrize("stacked", [False, True])
def test_frames_in_memory(stacked):
    frames = [grey(level) for level in LEVELS]
    clip = Video(np.stack(frames) if stacked else frames, fps=10).sample(4)
    assert clip.indices == (2, 7, 12, 17)
    assert [int(f[0, 0, 0]) for f in clip.frames] == [LEVELS[n] for n in clip.indices]
    assert clip.seconds == (0.2, 0.7, 1.2, 1.7)


def test_a_short_clip_repeats_frames():
    clip = Video([grey(1), grey(2)]).sample(5)
    assert [int(f[0, 0, 0]) for f in clip.frames] == [1, 1, 2, 2, 2]
    assert clip.frames[0] is clip.frames[1]


def test_wrong_frames():
    with pytest.raises(ImageError, match="a video without frames"):
        Video([]).sample(1)
    with pytest.raises(ImageError, match=r"frame 0: float64\[4\] arrived"):
        Video([np.zeros(4)]).sample(1)
    with pytest.raises(ConfigError, match="fps=0: frames a second must be above 0"):
        Video([], fps=0)
    with pytest.raises(ConfigError, match="2000 frames; at most 1024 are taken at once"):
        Video([grey(1)]).sample(2000)


# files


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mkv", "ffv1"), ("a.avi", "ffv1"), ("a.mp4", "mpeg4"),
                        ("a.mov", "mpeg4"), ("a.webm", "libvpx"), ("a.ts", "mpeg2video")]
)  # fmt: skip
@pytest.mark.parametrize("rule", ["uniform-centre", "linspace"])
def test_files_of_every_container(tmp_path, name, codec, rule):
    file = write(tmp_path / name, codec=codec, fps=25)
    clip = Video(file).sample(6, rule)
    assert clip.indices == tuple(sample_indices(20, 6, rule).tolist())
    levels = [float(f.mean()) for f in clip.frames]
    expected = [LEVELS[n] for n in clip.indices]
    assert np.abs(np.subtract(levels, expected)).max() < 5.5, "half of the step between frames"
    assert all(f.shape == (32, 48, 3) and f.dtype == np.uint8 for f in clip.frames)
    assert np.allclose(clip.seconds, [n / 25 for n in clip.indices], atol=2e-3)


def test_a_file_and_its_frames_are_the_same(tmp_path):
    file = write(tmp_path / "a.mkv")
    whole = Video(file).sample(20)
    assert whole.indices == tuple(range(20))
    again = Video(whole.frames, fps=10).sample(5, "linspace")
    taken = Video(file).sample(5, "linspace")
    assert all(np.array_equal(a, b) for a, b in zip(taken.frames, again.frames, strict=True))
    assert np.allclose(taken.seconds, again.seconds)


def test_frames_that_refer_to_later_ones_come_in_the_order_of_time(tmp_path):
    file = write(tmp_path / "a.mp4", codec="libx264", options={"bf": "3", "b-adapt": "0"})
    clip = Video(file).sample(20)
    levels = [float(f.mean()) for f in clip.frames]
    assert levels == sorted(levels)
    assert abs(levels[0] - LEVELS[0]) < 5.5 and abs(levels[-1] - LEVELS[-1]) < 5.5


def test_frames_are_turned_counter_clockwise():
    frame = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    assert upright(frame, 0) is frame or np.array_equal(upright(frame, 0), frame)
    assert upright(frame, 90).shape == (3, 2, 3)
    assert np.array_equal(upright(frame, 90)[2, 0], frame[0, 0]), "top left is at the bottom now"
    assert np.array_equal(upright(frame, -90)[0, 1], frame[0, 0])
    assert np.array_equal(upright(frame, 180), frame[::-1, ::-1])


# files that mean harm


def code(path, count=2, **limits):
    with pytest.raises(ImageError) as caught:
        Video(path, limits=VideoLimits(**limits)).sample(count)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    return caught.value.code, str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"[playlist]\nFile1=http://169.254.169.254/\n",
        b"<html></html>",
        b"\x89PNG\r\n\x1a\n",
    ],
)
def test_playlists_and_other_files_are_refused_whatever_they_are_called(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    found, message = code(tmp_path / "a.mp4")
    assert found == "image_unsupported" and "is no video that is read" in message


def test_files_that_are_not_there_or_empty(tmp_path):
    (tmp_path / "b.mp4").write_bytes(b"")
    found, message = code(tmp_path / "a.mp4")
    assert found == "image_not_found" and "did you mean b.mp4" in message
    assert code(tmp_path / "b.mp4")[0] == "image_empty"


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_files_cut_off_anywhere_give_one_clear_error(tmp_path, name):
    noise = np.random.default_rng(0)
    whole = tmp_path / f"whole{name}"
    with av.open(str(whole), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for _ in range(40):
            pixels = noise.integers(0, 256, (32, 48, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    data = whole.read_bytes()
    assert len(Video(whole).sample(4).frames) == 4
    for share in (0.001, 0.1, 0.3, 0.6):
        (tmp_path / name).write_bytes(data[: max(13, int(len(data) * share))])
        found, message = code(tmp_path / name)
        assert found in ("image_truncated", "image_undecodable"), message


def test_damaged_bytes_never_raise_anything_else(tmp_path):
    data = write(tmp_path / "whole.mp4", codec="mpeg4").read_bytes()
    random = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(data)
        for place in random.integers(8, len(data), 12):
            broken[place] = random.integers(256)
        (tmp_path / "a.mp4").write_bytes(bytes(broken))
        try:
            clip = Video(tmp_path / "a.mp4").sample(3)
        except ImageError as error:
            assert "\n" not in str(error)
        else:
            assert len(clip.frames) == 3


def test_limits(tmp_path):
    file = write(tmp_path / "a.mkv")
    for limits, message in (
        ({"max_bytes": 100}, "bytes are too many; at most 100 are read"),
        ({"max_seconds": 1}, "2 seconds are too long; at most 1 are read"),
        ({"max_frames": 19}, "more than 19 frames"),
        ({"max_pixels": 2000}, "2 frames of 48 x 32 pixels are too many at once"),
    ):
        found, said = code(file, **limits)
        assert found == "image_too_large" and message in said


def test_sound_alone_has_no_frames(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found, message = code(tmp_path / "a.mkv")
    assert found == "image_unsupported" and "has no pictures in it" in message


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(MissingDependencyError, match=r"reading videos needs .*sightline\[video\]"):
        Video(tmp_path / "a.mp4").sample(1)
    assert len(Video([grey(1)]).sample(2).frames) == 2, "frames in memory need nothing"
