"""Decoding: what comes out of good files, and that bad ones are refused without harm."""

import io
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile

from sightline.core.errors import AddressError, DataError, ImageError
from sightline.inputs.fetch import FetchLimits
from sightline.inputs.images import DecodeOptions, find_images, is_address, read_image
from tests.inputs import hostile

FILES = hostile.valid_files()
MEGABYTE = 1 << 20


def code_of(data: object, **options: object) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(data, DecodeOptions(**options))
    assert "\n" not in str(caught.value)
    return caught.value.code


def distance(first: np.ndarray, second: np.ndarray) -> int:
    assert first.shape == second.shape
    return int(np.abs(first.astype(int) - second.astype(int)).max())


# Sources


def test_all_kinds_of_source_give_the_same_array(tmp_path: Path) -> None:
    picture = hostile.drawing()
    data = hostile.encode(picture)
    path = tmp_path / "drawing.png"
    path.write_bytes(data)
    for source in (path, str(path), data, bytearray(data), Image.open(path), picture):
        array = read_image(source)
        assert array.dtype == np.uint8 and np.array_equal(array, picture)
        assert array.flags.c_contiguous and array.flags.writeable


@pytest.mark.parametrize("kind", sorted(FILES))
def test_every_format_is_read_whatever_the_file_is_called(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.suffix"
    path.write_bytes(FILES[kind])
    array = read_image(path)
    assert array.shape == (32, 48, 3)
    lossless = kind in ("png", "webp-lossless", "bmp", "tiff", "tiff-lzw", "tiff-deflate")
    mean = np.abs(array.astype(int) - hostile.drawing()).mean()
    assert mean == 0 if lossless else mean < 16


def test_reading_leaves_no_file_open(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.gif", tmp_path / "bad.tif"
    good.write_bytes(hostile.animation([hostile.drawing()] * 3, "GIF"))
    bad.write_bytes(FILES["tiff-lzw"][:-400])
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(5):
        read_image(good)
        with pytest.raises(ImageError):
            read_image(bad)
    after = len(os.listdir("/proc/self/fd")) if before else 0
    assert after == before


def test_a_pil_image_is_not_changed() -> None:
    image = Image.fromarray(hostile.drawing())
    image.getexif()[0x0112] = 6
    assert read_image(image).shape == (48, 32, 3)
    assert image.size == (48, 32) and image.getexif()[0x0112] == 6


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 5, 3), np.float32), r"float32\[4, 5, 3\] arrived.*multiply"),
        (np.zeros((4, 5), np.uint8), r"uint8\[4, 5\] arrived.*grey channel"),
        (np.zeros((3, 4, 5), np.uint8), r"uint8\[3, 4, 5\] arrived.*channels last"),
        (np.zeros((4, 5, 4), np.uint8), r"uint8\[4, 5, 4\] arrived.*fromarray"),
        (np.zeros((4, 5, 3), np.int64), r"int64\[4, 5, 3\] arrived.*convert"),
    ],
)
def test_an_array_of_another_kind_is_refused_with_advice(array: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=r"^picture \(array\): " + message) as caught:
        read_image(array)
    assert caught.value.code == "image_unsupported"


def test_an_array_without_pixels_is_empty() -> None:
    assert code_of(np.zeros((0, 5, 3), np.uint8)) == "image_empty"


def test_something_else_is_named_in_the_message() -> None:
    with pytest.raises(ImageError, match=r"^picture \(list\): a builtins.list arrived; a picture"):
        read_image([1, 2, 3])  # type: ignore[arg-type]


def test_the_given_name_begins_the_message() -> None:
    with pytest.raises(ImageError, match=r"^row 7: the file is empty \(0 bytes\)"):
        read_image(b"", name="row 7")


# Files that are not there


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(ImageError, match=r"hollyday.jpg: there is no such file; did you mean hol"):
        read_image(tmp_path / "hollyday.jpg")
    with pytest.raises(ImageError, match=r"nowhere does not exist"):
        read_image(tmp_path / "nowhere" / "a.jpg")
    assert code_of(tmp_path / "hollyday.jpg") == "image_not_found"


def test_a_folder_a_pipe_and_an_impossible_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="this is a folder; name one picture, or list them with"):
        read_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="this is a pipe or a device, not a file"):
        read_image(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match=r"the file cannot be opened \(not a possible file name"):
        read_image("a\0b.jpg")
    assert code_of("x" * 5000 + ".jpg") == "image_not_found"


def test_messages_stay_on_one_printable_line(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/two\nlines \xff\x1b[31m.jpg")
    with pytest.raises(ImageError) as caught:
        read_image(name)
    assert str(caught.value).isprintable()
    str(caught.value).encode("utf-8")


def test_an_unreadable_file_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(FILES["png"])

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageError, match=r"secret.png: the file cannot be opened \(Permission den"):
        read_image(path)


def test_other_address_schemes_are_named() -> None:
    with pytest.raises(ImageError, match="of addresses only http and https are read"):
        read_image("ftp://example.org/a.jpg")


# Bad content


def test_empty_short_and_random_bytes() -> None:
    assert code_of(b"") == "image_empty"
    assert code_of(b"\xff") == "image_undecodable"
    noise = np.random.default_rng(0).integers(0, 256, 10_000, dtype=np.uint8).tobytes()
    assert code_of(noise) == "image_undecodable"
    with pytest.raises(ImageError, match="not a picture of a known format; read are JPEG, PNG"):
        read_image(noise)


@pytest.mark.parametrize("kind", sorted(FILES))
def test_a_cut_file_is_refused_and_never_filled_in(kind: str) -> None:
    whole = read_image(FILES[kind])
    for data in hostile.prefixes(FILES[kind]):
        try:
            array = read_image(data)
        except ImageError as error:
            known = len(data) > 16 and kind not in ("tiff-jpeg", "avif")
            assert error.code == "image_truncated" or not known, str(error)
        else:  # only the end mark was cut
            assert np.array_equal(array, whole) and len(FILES[kind]) - len(data) <= 2


@pytest.mark.parametrize("lost", [128, 400])
def test_a_truncated_jpeg_is_refused_also_where_a_program_tolerates_them(
    lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ImageError, match=r"the file is cut off: .*fetch or copy") as caught:
        read_image(FILES["jpeg"][:-lost])
    assert caught.value.code == "image_truncated"
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize("kind", sorted(hostile.not_pictures()))
def test_what_is_no_picture_is_named_and_not_parsed(kind: str, tmp_path: Path) -> None:
    data, words = hostile.not_pictures()[kind]
    path = tmp_path / "picture.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=f"picture.jpg: the content looks like .*{words}") as error:
        read_image(path)
    assert error.value.code == "image_unsupported"


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_ends_early_with_its_end_mark_is_not_filled_with_grey(
    mode: str, options: dict[str, object]
) -> None:
    data = hostile.encode(
        Image.fromarray(hostile.drawing(200, 150)).convert(mode), "JPEG", **options
    )
    first_scan = data.find(b"\xff\xda")
    next_scan = data.find(b"\xff\xc4", first_scan)
    end = next_scan if next_scan > 0 else len(data)
    read_image(data)
    with pytest.raises(ImageError, match="its pixel data end before the picture does"):
        read_image(data[: (first_scan + end) // 2] + b"\xff\xd9")


def test_a_whole_jpeg_that_is_grey_is_read() -> None:
    for options in ({}, {"progressive": True}):
        grey = np.full((40, 60, 3), 128, np.uint8)
        assert np.array_equal(read_image(hostile.encode(grey, "JPEG", **options)), grey)


def test_a_flipped_bit_in_png_pixels_is_noticed() -> None:
    data = bytearray(FILES["png"])
    data[data.find(b"IDAT") + 30] ^= 1
    with pytest.raises(ImageError, match="damaged: a wrong checksum in its IDAT chunk"):
        read_image(bytes(data))


# Sizes


def test_a_bomb_is_refused_from_its_header_alone() -> None:
    bomb = hostile.png_bomb()
    seconds = []
    for _ in range(5):  # the best of a few, because the machine may be busy
        started = time.perf_counter()
        with pytest.raises(ImageError, match="50,000 x 50,000 pixels are too many; at most 64,00"):
            read_image(bomb)
        seconds.append(time.perf_counter() - started)
    tracemalloc.start()
    assert code_of(bomb) == "image_too_large"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert min(seconds) < 0.05 and peak < MEGABYTE


HEADERS = {
    "png": hostile.png(50_000, 50_000, 8, 2, b""),
    "jpeg": hostile.jpeg_header_size(FILES["jpeg"], 60_000, 60_000),
    "webp": hostile.webp_canvas(16_000, 16_000),
    "gif": b"GIF89a\xff\xff\xff\xff" + FILES["gif"][10:],
    "bmp": FILES["bmp"][:18] + b"\x00\x00\x01\x00" * 2 + FILES["bmp"][26:],
    "bmp-rle": hostile.bmp_run_length(8_000, 8_000),
    "tiff": hostile.tiff(hostile.tiff_tags(60_000, 60_000, 1, 1, 8), bytes(8)),
    "tiff-tile": hostile.tiff_huge_tile(),
}


@pytest.mark.parametrize("kind", sorted(HEADERS))
def test_a_promise_of_too_many_pixels_is_refused_in_every_format(kind: str) -> None:
    assert code_of(HEADERS[kind]) == "image_too_large"


def run_script(script: str) -> str:
    """What a script prints in a process of its own, where memory can be measured and limited."""
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("reads the size of the process from /proc")
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_refusing_hostile_files_needs_little_memory() -> None:
    """All of them in a process that may not grow by more than 200 MB."""
    printed = run_script(
        """
        import resource
        from sightline.core.errors import ImageError
        from sightline.inputs.images import read_image
        from tests.inputs import hostile, test_images
        files = [*test_images.HEADERS.values(), hostile.png_with_huge_chunk(b"zTXt"),
                 hostile.png_with_huge_chunk(b"iCCP"), hostile.gif_of_many_frames()]
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000,) * 2)
        for data in files:
            try:
                print(read_image(data).shape)
            except ImageError as error:
                print(error.code)
        """
    )
    assert printed.count("image_too_large") == len(HEADERS)
    assert printed.count("(32, 48, 3)") == 2 and "(2, 2, 3)" in printed


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_decoding_stays_under_the_documented_memory(kind: str, tmp_path: Path) -> None:
    """32 bytes a pixel, with transparency, a profile and a turn, which need the most."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, side in (("small", 8), ("large", 2000)):
        picture = Image.new("RGBA", (side, side), (9, 9, 9, 99))
        about = {"icc_profile": hostile.swapped_profile(), "exif": exif}
        (tmp_path / name).write_bytes(hostile.encode(picture, kind, **about))
    printed = run_script(
        f"""
        import resource
        from sightline.core.errors import ImageError
        from sightline.inputs.images import read_image
        read_image({str(tmp_path / "small")!r})
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        for each in (32, 3):
            resource.setrlimit(resource.RLIMIT_AS, (used + each * {side}**2, -1))
            try:
                print(read_image({str(tmp_path / "large")!r}).shape)
            except ImageError as error:
                print(error.code, error)
        """
    )
    lines = printed.splitlines()
    assert lines[0] == f"({side}, {side}, 3)"
    assert lines[1].startswith("image_")  # with too little memory: an error, never a crash
    assert kind != "PNG" or "there is not enough memory to decode it" in lines[1]


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 10_000), (10_000, 1)])
def test_extreme_shapes_are_read(width: int, height: int) -> None:
    data = hostile.encode(hostile.drawing(width, height))
    assert read_image(data).shape == (height, width, 3)


def test_limits_can_be_set() -> None:
    data = FILES["png"]
    assert code_of(data, max_pixels=48 * 32 - 1) == "image_too_large"
    assert code_of(data, max_side=47) == "image_too_large"
    assert code_of(Image.fromarray(hostile.drawing()), max_side=47) == "image_too_large"
    assert read_image(data, DecodeOptions(max_pixels=48 * 32, max_side=48)).shape == (32, 48, 3)


def test_a_file_above_the_byte_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(FILES["png"])
    with pytest.raises(ImageError, match="the file has more than 100 bytes, the most that is read"):
        read_image(path, DecodeOptions(max_bytes=100))
    assert code_of(FILES["png"], max_bytes=100) == "image_too_large"


LIES = {
    "png-much-data": (hostile.png(100, 100, 1, 0, hostile.deflated_zeros(300 * MEGABYTE)), "und"),
    "png-little-data": (hostile.png(8_000, 8_000, 8, 2, b"x" * 20), "trunc"),
    "png-short-stream": (hostile.png(100, 100, 8, 0, hostile.deflated_zeros(5_000)), "trunc"),
    "jpeg": (hostile.jpeg_header_size(FILES["jpeg"], 4_000, 4_000), "trunc"),
    "tiff-strips": (hostile.tiff_missing_strips(), "trunc"),
    "jpeg-zero": (hostile.jpeg_header_size(FILES["jpeg"], 0, 0), "und"),
}


@pytest.mark.parametrize("kind", sorted(LIES))
def test_a_header_that_lies_is_refused(kind: str) -> None:
    data, code = LIES[kind]
    assert code_of(data).startswith(f"image_{code}")


@pytest.mark.parametrize(
    "data",
    [
        hostile.jpeg_of_many_scans(),
        hostile.jpeg_of_junk(),
        hostile.gif_of_endless_comments(),
        FILES["png"][:33] + hostile.png_chunk(b"tEXt", b"") * 300_000 + FILES["png"][33:],
    ],
    ids=["scans", "junk", "comments", "chunks"],
)
def test_files_that_ask_for_endless_work_are_refused_at_once(data: bytes) -> None:
    started = time.perf_counter()
    assert code_of(data) == "image_undecodable"
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_chunk_that_unpacks_to_200_mb_costs_neither_picture_nor_memory(
    kind: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    data = hostile.png_with_huge_chunk(kind)
    tracemalloc.start()
    array = read_image(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(array, hostile.drawing()) and peak < 8 * MEGABYTE
    assert ("colour profile is damaged or over 1 MB" in caplog.text) == (kind == b"iCCP")


# Animations and pages


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_is_its_first_frame(kind: str) -> None:
    frames = [hostile.drawing() // 64 * 64, 255 - hostile.drawing(), hostile.drawing()[::-1] // 2]
    options = {"WEBP": {"lossless": True}}.get(kind, {})
    if kind == "TIFF":
        first, *rest = [Image.fromarray(frame) for frame in frames]
        data = hostile.encode(first, "TIFF", save_all=True, append_images=rest)
    else:
        data = hostile.animation(frames, kind, **options)
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 3
    assert np.array_equal(read_image(data), read_image(hostile.encode(frames[0])))


def test_many_frames_and_pages_cost_no_more_than_one() -> None:
    gif, tiff = hostile.gif_of_many_frames(), hostile.tiff_of_many_pages()
    started = time.perf_counter()
    assert read_image(gif).tolist() == [[[0] * 3, [255] * 3], [[255] * 3, [0] * 3]]
    assert np.array_equal(read_image(tiff), hostile.drawing(8, 6))
    assert time.perf_counter() - started < 2


def test_what_a_small_first_frame_leaves_empty_is_white() -> None:
    expected = np.full((4, 4, 3), 255, np.uint8)
    expected[2, 1] = (255, 0, 0)
    assert np.array_equal(read_image(hostile.gif_of_small_frame()), expected)


# Orientation


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_all_eight_orientations_give_the_same_picture(kind: str) -> None:
    from PIL import features

    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    upright = Image.fromarray(hostile.drawing())
    # the stored picture is what turns into the upright one, so the inverse of each turn
    turns = [None, 0, 3, 1, 5, 2, 6, 4]
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    arrays = []
    for number, turn in enumerate(turns, start=1):
        stored = upright if turn is None else upright.transpose(Image.Transpose(turn))
        exif = Image.Exif()
        exif[0x0112] = number
        arrays.append(read_image(hostile.encode(stored, kind, exif=exif, **options)))
    tolerance = {"JPEG": 6, "AVIF": 24}.get(kind, 0)
    assert all(distance(array, arrays[0]) <= tolerance for array in arrays)
    assert distance(arrays[0], hostile.drawing()) <= max(tolerance, 0)


def test_broken_exif_does_not_cost_the_picture() -> None:
    data = hostile.encode(hostile.drawing(), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert np.array_equal(read_image(data), hostile.drawing())


# Transparency and palettes


def on_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return np.rint(rgb * share + 255 * (1 - share)).astype(np.uint8)


def test_transparent_colours_lie_on_white() -> None:
    rgb = hostile.drawing()
    alpha = np.tile(np.linspace(0, 255, 48).astype(np.uint8), (32, 1))
    rgba = np.dstack([rgb, alpha])
    expected = on_white(rgb, alpha)
    assert distance(read_image(hostile.encode(rgba)), expected) <= 1
    assert (
        distance(read_image(hostile.encode(rgba, "WEBP", lossless=True, exact=True)), expected) <= 1
    )
    assert distance(read_image(hostile.encode(rgba, "TIFF")), expected) <= 1
    grey = np.dstack([rgb[..., 0], alpha])
    three = np.repeat(rgb[..., :1], 3, axis=2)
    assert distance(read_image(hostile.encode(grey)), on_white(three, alpha)) <= 1


@pytest.mark.parametrize("mode", ["RGBa", "La"])
def test_premultiplied_pixels_are_understood(mode: str) -> None:
    alpha = Image.new("L", (48, 32), 128)
    image = Image.fromarray(hostile.drawing()).convert(mode[:-1].upper())
    image.putalpha(alpha)
    array = read_image(image.convert(mode))
    assert distance(array, read_image(image)) <= 2


def test_palettes_with_and_without_transparency() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    colours = [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]
    assert read_image(hostile.encode(image)).tolist() == colours
    single = read_image(hostile.encode(image, transparency=1))
    assert single.tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]
    graded = read_image(hostile.encode(image, transparency=bytes([0, 128, 255])))
    assert graded.tolist() == [[[255, 255, 255], [127, 255, 127], [0, 0, 255]]]
    gif = read_image(hostile.encode(image, "GIF", transparency=2))
    assert gif.tolist() == [[[255, 0, 0], [0, 255, 0], [255, 255, 255]]]


def test_one_bit_grey_and_transparent_grey() -> None:
    bits = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert("1")
    for kind in ("PNG", "TIFF", "BMP"):
        assert read_image(hostile.encode(bits, kind))[..., 0].tolist() == [[0, 255], [255, 0]]
    grey = Image.fromarray(np.array([[10, 20]], np.uint8))
    assert read_image(hostile.encode(grey, transparency=10))[..., 0].tolist() == [[255, 20]]


# Deep pixels


def test_16_bit_pictures_are_scaled_and_not_clipped() -> None:
    values = np.array([[0, 257, 32_768, 65_535]], np.uint16)
    scaled = [[0, 1, 128, 255]]
    assert read_image(hostile.png_16_bit(values))[..., 1].tolist() == scaled
    colour = read_image(hostile.png_16_bit(np.stack([values] * 3, axis=-1)))
    assert distance(colour[..., 2], np.array(scaled)) <= 1
    for order in ("<", ">"):
        assert read_image(hostile.tiff_grey(values, order=order))[..., 0].tolist() == scaled
    assert read_image(Image.fromarray(values))[..., 0].tolist() == scaled


def test_16_bit_transparency_and_white_is_zero() -> None:
    values = np.array([[0, 30_000, 65_535]], np.uint16)
    assert read_image(hostile.png_16_bit(values, 30_000))[..., 0].tolist() == [[0, 255, 255]]
    assert read_image(hostile.tiff_grey(values, photometric=0))[..., 0].tolist() == [[255, 138, 0]]


def test_the_transparent_colour_of_a_16_bit_png_is_found() -> None:
    values = np.array([[[1000, 2000, 3000], [40_000, 50_000, 60_000]]], np.uint16)
    array = read_image(hostile.png_16_bit(values, 1000, 2000, 3000))
    assert array[0, 0].tolist() == [255] * 3
    assert distance(array[0, 1], np.array([156, 195, 233])) <= 1


def test_12_bit_tiff_uses_its_own_scale() -> None:
    packed = bytes([0x00, 0x0F, 0xFF, 0x80, 0x00, 0x00])  # 000 fff 800 000, two samples in 3 bytes
    data = hostile.tiff(hostile.tiff_tags(4, 1, 12, 1, 6), packed)
    assert read_image(data)[0, :, 0].tolist() == [0, 255, 128, 0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.25, 0.5]], np.float32), [64, 128]),
        (np.array([[-10.0, 0.0, 10.0]], np.float32), [0, 128, 255]),
        (np.array([[np.nan, np.inf, -np.inf, 0.0, 1.0]], np.float32), [0, 255, 0, 0, 255]),
        (np.array([[np.nan, np.nan]], np.float32), [0, 0]),
        (np.array([[7.0, 7.0]], np.float32), [0, 0]),
        (np.array([[0, 100, 255]], np.int32), [0, 100, 255]),
        (np.array([[0, 32_768, 65_535]], np.int32), [0, 128, 255]),
        (np.array([[-1_000_000, 0, 1_000_000]], np.int32), [0, 128, 255]),
        (np.array([[-32_768, 32_767]], np.int16), [0, 255]),
    ],
)
def test_32_bit_pictures_follow_the_documented_rule(
    values: np.ndarray, expected: list[int]
) -> None:
    assert read_image(hostile.tiff_grey(values))[0, :, 0].tolist() == expected


# Colour spaces


def cmyk_swatches() -> tuple[np.ndarray, np.ndarray]:
    """CMYK in flat blocks of 16 pixels, and the RGB of each by the formula (1 - C)(1 - K)."""
    inks = [[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 255, 0], [60, 120, 30, 80], [0, 0, 0, 255]]
    cmyk = np.repeat(np.repeat(np.array([inks], np.uint8), 16, axis=1), 16, axis=0)
    rest = 1 - cmyk / 255
    return cmyk, np.rint(255 * rest[..., :3] * rest[..., 3:]).astype(np.uint8)


@pytest.mark.parametrize("adobe", [True, False], ids=["inverted", "plain"])
def test_cmyk_jpegs_keep_their_colours(adobe: bool) -> None:
    cmyk, rgb = cmyk_swatches()
    assert distance(read_image(hostile.jpeg_cmyk(cmyk, adobe)), rgb) <= 4


def test_cmyk_tiff_and_ycbcr_and_hsv() -> None:
    cmyk, rgb = cmyk_swatches()
    assert (
        distance(read_image(hostile.encode(Image.fromarray(cmyk, mode="CMYK"), "TIFF")), rgb) <= 1
    )
    picture = Image.fromarray(hostile.drawing())
    for mode, tolerance in (("YCbCr", 3), ("HSV", 8)):
        assert distance(read_image(picture.convert(mode)), hostile.drawing()) <= tolerance


def test_lab_goes_back_to_srgb() -> None:
    rgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(
        Image.fromarray(hostile.drawing()), rgb, lab, outputMode="LAB"
    )
    for source in (image, hostile.encode(image, "TIFF")):
        mean = np.abs(read_image(source).astype(int) - hostile.drawing()).mean()
        assert mean < 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_embedded_profile_is_applied_and_can_be_left_out(kind: str) -> None:
    stored = hostile.drawing()
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    data = hostile.encode(stored, kind, icc_profile=hostile.swapped_profile(), **options)
    swapped = stored[..., [1, 0, 2]]  # the profile says that the first channel is green
    assert distance(read_image(data), swapped) <= 8
    assert distance(read_image(data, DecodeOptions(colour_managed=False)), stored) <= 8


def test_a_profile_applies_beneath_palettes_and_transparency() -> None:
    image = Image.fromarray(np.array([[[255, 0, 0, 255], [255, 0, 0, 0]]], np.uint8))
    data = hostile.encode(image, icc_profile=hostile.swapped_profile())
    assert distance(read_image(data), np.array([[[0, 255, 0], [255, 255, 255]]])) <= 1
    palette = image.convert("RGB").quantize(2)
    data = hostile.encode(palette, icc_profile=hostile.swapped_profile())
    assert distance(read_image(data), np.array([[[0, 255, 0], [0, 255, 0]]])) <= 1


def test_an_srgb_profile_keeps_every_pixel() -> None:
    data = hostile.encode(hostile.drawing(), icc_profile=hostile.srgb_profile())
    assert np.array_equal(read_image(data), hostile.drawing())


@pytest.mark.parametrize("profile", [b"nonsense" * 40, hostile.srgb_profile()[:300], b"x"])
def test_a_broken_profile_is_logged_and_ignored(
    profile: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    data = hostile.encode(hostile.drawing(), icc_profile=profile)
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(read_image(data, name="mine.png"), hostile.drawing())
    assert "mine.png: the embedded colour profile is ignored" in caplog.text


def test_a_profile_for_another_kind_of_picture_is_ignored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cmyk, rgb = cmyk_swatches()
    data = hostile.jpeg_cmyk(cmyk, adobe=True, profile=hostile.srgb_profile())
    assert distance(read_image(data), rgb) <= 4
    assert "it describes RGB, the picture is CMYK" in caplog.text


# HEIC


def test_heic_is_read_upright_with_the_extra() -> None:
    heif = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(hostile.drawing()).transpose(Image.Transpose.ROTATE_90)
    heif.from_pillow(stored).save(stream, quality=95, exif=exif.tobytes())
    array = read_image(stream.getvalue())
    assert np.abs(array.astype(int) - hostile.drawing()).mean() < 4
    assert code_of(stream.getvalue()[:-30]) == "image_truncated"
    assert code_of(stream.getvalue(), max_side=47) == "image_too_large"


def test_heic_without_the_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImportError, match=r"reading HEIC pictures needs .*sightline\[heif\]"):
        read_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")


# Nothing leaks


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    database=None,
)
@given(st.sampled_from(sorted(FILES)), st.data())
def test_any_mutation_is_an_array_or_an_image_error(kind: str, choices: st.DataObject) -> None:
    data = bytearray(FILES[kind])
    places = st.integers(0, len(data) - 1) | st.integers(0, min(len(data) - 1, 200))
    changes = st.tuples(places, st.binary(max_size=8), st.integers(0, 8))
    for at, new, removed in choices.draw(st.lists(changes, min_size=1, max_size=6)):
        data[at : at + removed] = new
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            array = read_image(bytes(data))
        except ImageError as error:
            assert str(error).startswith("picture (bytes): ") and "\n" not in str(error)
        else:
            assert array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3


def test_warnings_of_pillow_do_not_leak() -> None:
    """A hundred million pixels: Pillow warns of a bomb, and only then we see missing strips."""
    data = hostile.tiff(hostile.tiff_tags(10_000, 10_000, 1, 1, 8) | {278: ("long", [1])}, bytes(8))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert code_of(data, max_pixels=200_000_000) == "image_truncated"
        assert seen == []
        with Image.open(io.BytesIO(data)):
            assert [str(warning.category) for warning in seen] != []


def test_reading_in_threads_restores_the_filters_and_never_warns() -> None:
    before = list(warnings.filters)
    bad = FILES["tiff"].replace(b"\x53\x01\x03\0", b"\x53\x01\x02\0")
    failures: list[BaseException] = []

    def work() -> None:
        for _ in range(20):
            for data in (bad, FILES["jpeg"], FILES["gif"]):
                try:
                    read_image(data)
                except ImageError:
                    pass
                except BaseException as error:
                    failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and list(warnings.filters) == before


# Addresses


def test_an_address_is_recognised() -> None:
    assert is_address("http://example.org/a.jpg") and is_address("HTTPS://example.org")
    assert is_address("https:\\\\example.org")  # for the fetcher to refuse, not for the disk
    assert not any(
        is_address(other) for other in ("a.jpg", "ftp://x", b"http://x", Path("http:/x"))
    )


def test_addresses_can_be_switched_off() -> None:
    with pytest.raises(ImageError, match=r"^https://example.org/a.jpg: addresses are not fetched"):
        read_image("https://example.org/a.jpg?key=1", DecodeOptions(remote=False))


def test_the_fetcher_guards_addresses() -> None:
    with pytest.raises(AddressError, match=r"^http://127.0.0.1/a.jpg: it leads to a private"):
        read_image("http://127.0.0.1/a.jpg")
    with pytest.raises(AddressError, match="not on the list of allowed hosts"):
        limits = FetchLimits(only_hosts=frozenset({"example.org"}))
        read_image("http://example.com/a.jpg", DecodeOptions(fetch=limits))


# Folders


def tree(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_folder_stands_for_its_pictures(tmp_path: Path) -> None:
    tree(tmp_path, "b.JPG", "a/2.png", "a/1.webp", "a/deep/er/x.tiff", "z.heic", "a.b/c.gif")
    tree(tmp_path, "notes.txt", ".hidden.png", ".git/x.png", "half.jpg.part", "a/.x/y.png")
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == ["a/1.webp", "a/2.png", "a/deep/er/x.tiff", "a.b/c.gif", "b.JPG", "z.heic"]
    assert find_images(str(tmp_path)) == find_images(tmp_path)


def test_a_file_stands_for_itself(tmp_path: Path) -> None:
    tree(tmp_path, "notes.txt")
    assert find_images(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]


def test_links_are_followed_and_loops_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tree(tmp_path, "a/x.png", "outside/y.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self.png").symlink_to("self.png")
    (tmp_path / "a" / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "a" / "link.png").symlink_to("x.png")
    names = [path.name for path in find_images(tmp_path / "a")]
    assert sorted(names) == ["link.png", "x.png", "y.png"]
    assert "gone.png: skipped, the link leads nowhere" in caplog.text


def test_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        with open(raw, "wb") as file:
            file.write(FILES["png"])
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (path,) = find_images(tmp_path)
    assert os.fsencode(path) == raw and read_image(path).shape == (32, 48, 3)


def test_nothing_to_find_is_an_error(tmp_path: Path) -> None:
    tree(tmp_path, "pictures/notes.txt")
    with pytest.raises(DataError, match=r"pictures: no pictures in this folder; looked for .apng"):
        find_images(tmp_path / "pictures")
    with pytest.raises(DataError, match="no such file or folder; did you mean pictures"):
        find_images(tmp_path / "picture")
    with pytest.raises(DataError, match="cannot be listed"):
        find_images("a\0b")


def jpeg_of(size: tuple[int, int], mode: str = "RGB") -> bytes:
    """A smooth picture, so that reducing it and averaging it are nearly the same."""
    rows, columns = np.mgrid[: size[1], : size[0]]
    levels = [rows * 200 / size[1], columns * 200 / size[0], (rows + columns) * 100 / max(size)]
    pixels = np.stack(levels, axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((640, 480), 224, (320, 240)),  # half, since a quarter would have 120 rows
        ((640, 480), 60, (80, 60)),
        ((640, 480), 61, (160, 120)),
        ((640, 480), 481, (640, 480)),  # never enlarged
        ((300, 1300), 20, (38, 163)),  # at most an eighth
    ],
)
def test_a_jpeg_can_be_decoded_at_a_part_of_its_size(
    size: tuple[int, int], side: int, expected: tuple[int, int]
) -> None:
    whole = read_image(jpeg_of(size))
    part = read_image(jpeg_of(size), DecodeOptions(jpeg_side=side))
    assert part.shape == (expected[1], expected[0], 3)
    again = np.asarray(Image.fromarray(whole).resize(expected, Image.Resampling.BOX))
    assert np.abs(part.astype(int) - again).max() <= 6


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_reduced_pictures_keep_their_colours(mode: str) -> None:
    whole = read_image(jpeg_of((320, 240), mode))
    part = read_image(jpeg_of((320, 240), mode), DecodeOptions(jpeg_side=50))
    assert part.shape == (60, 80, 3)
    assert abs(float(part.mean()) - float(whole.mean())) < 2


def test_a_reduced_picture_is_turned_upright_and_cut_off_ones_are_refused() -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(io.BytesIO(jpeg_of((320, 240)))).save(buffer, "JPEG", exif=exif)
    options = DecodeOptions(jpeg_side=100)
    assert read_image(buffer.getvalue(), options).shape == (160, 120, 3)
    data = jpeg_of((320, 240))
    for kept in (len(data) // 2, len(data) - 200):
        with pytest.raises(ImageError) as caught:
            read_image(data[:kept], options)
        assert caught.value.code == "image_truncated"
        with pytest.raises(ImageError):
            read_image(data[:kept] + b"\xff\xd9", options)


def test_other_formats_are_read_whole(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "whole.png")
    assert read_image(tmp_path / "whole.png", DecodeOptions(jpeg_side=8)).shape == (48, 64, 3)
