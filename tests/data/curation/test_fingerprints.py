"""What is remembered of a picture."""

import hashlib

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import laplace

from sightline.core.errors import ImageError
from sightline.data.curation.fingerprints import (
    difference_hash,
    fingerprint,
    joined,
    laplacian_variance,
    picture_bytes,
)
from sightline.data.records import Dataset, Record
from tests.data.curation.copies import png, prints, scenes


def by_hand(image, side):
    """The hash as its author words it, pixel by pixel."""
    small = image.convert("L").resize((side + 1, side), Image.Resampling.LANCZOS)
    bits = [
        small.getpixel((x + 1, y)) > small.getpixel((x, y))
        for y in range(side)
        for x in range(side)
    ]
    return np.packbits(bits)


@pytest.mark.parametrize("side", [8, 16])
def test_the_hash_compares_each_pixel_with_its_left_neighbour(side):
    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 256, (31, 77, 3), np.uint8))
    for image in [noise, *scenes(3)]:
        np.testing.assert_array_equal(difference_hash(image, side), by_hand(image, side))


def test_a_picture_that_darkens_to_the_right_has_no_bit_and_its_mirror_all():
    ramp = Image.fromarray(np.tile(np.arange(250, 0, -2, dtype=np.uint8), (40, 1))).convert("RGB")
    found = prints([ramp])
    assert not found.dhash.any() and not found.dhash256.any()
    assert (found.mirrored == 255).all()


def test_sharpness_agrees_with_scipy():
    grey = np.random.default_rng(0).integers(0, 256, (23, 31), np.uint8)
    expected = laplace(grey.astype(np.float64), mode="nearest").var()
    assert laplacian_variance(grey) == pytest.approx(expected, rel=1e-5)


def test_sharpness_of_large_pictures_is_measured_at_one_size():
    small = Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 512, 3), np.uint8))
    large = small.resize((1024, 512), Image.Resampling.NEAREST)
    found = prints([small, large])
    assert found.sharpness[0] == pytest.approx(found.sharpness[1], rel=1e-3)


def test_files_and_pixels_are_hashed_apart(tmp_path):
    image = scenes(1)[0]
    (tmp_path / "a.png").write_bytes(png(image, compress_level=0))
    (tmp_path / "b.png").write_bytes(png(image, compress_level=9))
    records = [Record(name, tmp_path / f"{name}.png") for name in "ab"]
    records.append(Record("array", np.asarray(image)))
    found = fingerprint(Dataset(records))
    digest = hashlib.sha256((tmp_path / "a.png").read_bytes()).digest()
    assert found.files[0].tobytes() == digest
    assert (found.files[0] != found.files[1]).any()
    assert (found.pixels == found.pixels[0]).all()
    assert found.in_file.tolist() == [True, True, False]


def test_equal_bytes_of_another_shape_have_other_pixels():
    wide, high = (Image.new("RGB", size, (9, 9, 9)) for size in ((8, 2), (2, 8)))
    assert (prints([wide]).pixels != prints([high]).pixels).any()


def test_sizes_are_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "side.jpg", exif=exif)
    found = fingerprint(Dataset([Record("side", tmp_path / "side.jpg")]))
    assert found.sizes.tolist() == [[20, 30]] and found.areas.tolist() == [600]


def test_a_broken_picture_costs_its_own_row_only(tmp_path, caplog):
    for name, content in (("good", png(scenes(1)[0])), ("bad", b"nothing"), ("gone", None)):
        if content is not None:
            (tmp_path / f"{name}.png").write_bytes(content)
    names = ["bad", "good", "gone"]
    data = Dataset([Record(name, tmp_path / f"{name}.png") for name in names])
    seen = []
    found = fingerprint(data, lambda done, total: seen.append((done, total)))
    assert found.read.tolist() == [False, True, False]
    assert sorted(found.broken) == [0, 2] and "no such file" in found.broken[2]
    assert sorted(data.report.broken) == ["bad", "gone"]
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_picture_inside_an_archive_is_read_from_there():
    class Member:
        name = "0001.png"

        def __init__(self, data):
            self.data = data

        def read_stored(self):
            if self.data is None:
                raise ImageError("0001.png: the archive ends before it", "image_truncated")
            return self.data

    data = Dataset([Record("in", Member(png(scenes(1)[0]))), Record("cut", Member(None))])
    found = fingerprint(data)
    assert found.in_file.tolist() == [True, False]
    assert found.broken == {1: "0001.png: the archive ends before it"}


def test_a_folder_or_a_pipe_is_not_opened_for_hashing(tmp_path):
    assert picture_bytes(tmp_path) is None
    assert picture_bytes(tmp_path / "nothing") is None


def test_order_does_not_depend_on_threads(monkeypatch):
    images = scenes(40)
    one = prints(images)
    monkeypatch.setattr("sightline.data.curation.fingerprints.available_cores", lambda: 4)
    np.testing.assert_array_equal(one.pixels, prints(images).pixels)


def test_joined_rows_stand_one_after_the_other(tmp_path):
    left, right = prints(scenes(2)), prints(scenes(1, 5))
    both = joined([left, right])
    assert len(both) == 3 and both.ids == ("0", "1", "0")
    np.testing.assert_array_equal(both.dhash[2], right.dhash[0])


def test_a_row_takes_a_third_of_a_kilobyte():
    found = prints(scenes(1))
    arrays = [value for value in vars(found).values() if isinstance(value, np.ndarray)]
    assert sum(array.nbytes for array in arrays) <= 330
