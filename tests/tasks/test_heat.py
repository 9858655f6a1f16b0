"""Heat in pixels of the original: the right place, the right range, the region that is hottest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from sightline.core.errors import ConfigError, InputError
from sightline.tasks.heat import hottest_region, on_picture
from sightline.tasks.occlusion import Occlusion, blurred, lost_by_covering
from sightline.tasks.overlay import HEAT_COLOURS, coloured, heat_items, heat_overlay, heat_sheet


def alone(*rows: list[float]) -> list[list[float]]:
    """The heat of cells that are a pixel each."""
    cells = torch.tensor(rows)
    height, width = cells.shape
    heat: list[list[float]] = on_picture(cells, (0, 0, width, height), (height, width)).tolist()
    return heat


def test_a_map_goes_from_0_to_1_and_below_0_spoke_against() -> None:
    assert alone([-5.0, 0.0], [1.0, 4.0]) == [[0, 0], [0.25, 1]]
    assert alone([2.0, 3.0]) == [[0, 1]]
    for value in (0.0, 0.3, torch.nan, -1.0):
        assert alone([value] * 3) == [[0, 0, 0]]
    assert alone([1.0, torch.inf]) == [[0, 0]]
    even = on_picture(torch.full((3, 3), 0.1), (0, 0, 50, 50), (50, 50))
    assert (even == 0).all()  # no rounding of the resampling becomes a map


def cell(row: int, column: int, shape: tuple[int, int] = (3, 4)) -> torch.Tensor:
    cells = torch.zeros(shape)
    cells[row, column] = 1
    return cells


def test_the_centre_of_a_cell_is_its_hottest_pixel() -> None:
    heat = on_picture(cell(2, 1), (0, 0, 44, 33), (33, 44))  # cells of 11 x 11 pixels
    assert heat.dtype == np.float32 and heat.shape == (33, 44)
    assert np.unravel_index(heat.argmax(), heat.shape) == (27, 16)
    assert heat.max() == 1 and heat[27, 27] == 0
    assert heat[27, 21] == pytest.approx(6 / 11)  # linear on the way to the next centre
    assert (heat[:17] == 0).all() and (heat[28:, 16] == 1).all()  # the border cell reaches its edge


def test_nothing_lies_outside_of_the_box() -> None:
    heat = on_picture(torch.arange(1.0, 13).reshape(3, 4), (10, 5, 30, 25), (40, 50))
    seen = np.zeros((40, 50), bool)
    seen[5:25, 10:30] = True
    assert (heat[~seen] == 0).all() and (heat[seen] > 0).mean() > 0.9
    assert heat[5, 10] == 0 and heat[24, 29] == 1


def test_a_box_beyond_the_picture_loses_what_is_outside() -> None:
    """As where a small picture is padded before it is cut."""
    heat = on_picture(cell(0, 3), (-10, -10, 30, 20), (10, 20))  # that cell is above the picture
    assert heat.shape == (10, 20) and heat[0, 19] == heat.max() == 1
    assert (on_picture(cell(0, 0), (-10, -10, 30, 20), (10, 20))[:, 6:] == 0).all()
    assert (on_picture(cell(0, 0), (30, 30, 40, 40), (10, 20)) == 0).all()


def test_resampling_is_pillow_s_where_pillow_enlarges() -> None:
    cells = np.random.default_rng(0).random((5, 7), np.float32)
    heat = on_picture(torch.from_numpy(cells), (0, 0, 70, 50), (50, 70))
    enlarged = Image.fromarray(cells).resize((70, 50), Image.Resampling.BILINEAR)
    theirs = np.asarray(enlarged) - np.asarray(enlarged).min()
    assert np.abs(heat - theirs / theirs.max()).max() < 1e-5


def test_the_hottest_region_is_connected_and_boxed() -> None:
    heat = np.zeros((30, 40), np.float32)
    heat[5:10, 20:30] = 0.6
    heat[7, 24] = 1.0
    heat[20:25, 2:6] = 0.9  # hotter on the whole, but apart from the hottest pixel
    region = hottest_region(heat)
    assert region is not None and region.box == (20, 5, 30, 10)
    assert region.centre == pytest.approx((25.0, 7.5), abs=0.1)
    assert hottest_region(np.zeros((3, 3), np.float32)) is None


def test_the_region_of_a_large_picture_is_near_enough() -> None:
    heat = np.zeros((1000, 1500), np.float32)
    heat[300:420, 800:1000] = 1
    region = hottest_region(heat)
    assert region is not None
    assert np.abs(np.array(region.box) - (800, 300, 1000, 420)).max() <= 6


# Covering


def test_covering_finds_the_pixels_that_count() -> None:
    picture = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0))

    def score(pictures: torch.Tensor) -> torch.Tensor:
        return pictures[:, 0, 8:12, 16:20].sum(dim=(1, 2))

    picture[0, 8:12, 16:20] += 5
    lost, whole = lost_by_covering(score, picture, Occlusion(4, 2, "grey"))
    assert whole == pytest.approx(float(score(picture[None])))
    hot = lost > 0.5 * lost.max()
    assert hot[8:12, 16:20].all() and not hot[:4].any() and not hot[:, :12].any()


@pytest.mark.parametrize(("window", "stride"), [(None, None), (5, 3), (6, 6), (1, 1), (40, 7)])
@pytest.mark.parametrize("fill", ["blur", "grey"])
def test_every_pixel_is_covered_whatever_the_window(
    window: int | None, stride: int | None, fill: str
) -> None:
    picture = torch.rand(3, 19, 23, generator=torch.Generator().manual_seed(0))
    options = Occlusion(window, stride, fill, batch_size=7)  # type: ignore[arg-type]
    lost, _ = lost_by_covering(lambda p: p.mean(dim=(1, 2, 3)), picture, options)
    assert lost.shape == (19, 23) and torch.isfinite(lost).all()


def test_batches_change_nothing() -> None:
    picture = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    maps = [
        lost_by_covering(lambda p: p[:, 0].amax(dim=(1, 2)), picture, Occlusion(batch_size=size))[0]
        for size in (1, 7, 100)
    ]
    assert torch.equal(maps[0], maps[1]) and torch.equal(maps[0], maps[2])


def test_blur_keeps_the_mean_and_nothing_fine() -> None:
    fine = (torch.arange(32)[:, None] + torch.arange(32)) % 2 * torch.ones(3, 1, 1)
    assert (blurred(fine, 8) - 0.5).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window 0, .* at least 1"),
        ({"window": 4, "stride": 5}, "gaps would stay uncovered"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"fill": "gray"}, "unknown fill 'gray': did you mean 'grey'"),
    ],
)
def test_ways_to_cover_that_cannot_be_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Occlusion(**options)  # type: ignore[arg-type]


# Drawing


def lightness(colours: NDArray[np.float32]) -> NDArray[np.float64]:
    """CIE L* of sRGB."""
    linear = np.where(
        colours <= 0.04045 * 255, colours / 255 / 12.92, ((colours / 255 + 0.055) / 1.055) ** 2.4
    )
    return np.asarray(116 * (linear @ (0.2126, 0.7152, 0.0722)) ** (1 / 3) - 16)


def test_the_scale_is_even_to_the_eye() -> None:
    steps = np.diff(lightness(HEAT_COLOURS))
    assert steps == pytest.approx(np.full(len(steps), 10.0), abs=0.6)
    between = lightness(coloured(np.linspace(0, 1, 200, dtype=np.float32)[None])[0])
    assert (np.diff(between) > -0.3).all()  # rounding to 8 bits


def test_cold_is_the_picture_in_grey_and_hot_is_the_scale() -> None:
    pixels = np.full((4, 6, 3), (250, 30, 30), np.uint8)
    heat = np.zeros((4, 6), np.float32)
    heat[:, 3:] = 1
    drawn = np.asarray(heat_overlay(pixels, heat)).astype(int)
    assert (drawn[:, :3].max() - drawn[:, :3].min()) <= 60  # a red of 220 steps, taken back
    assert np.abs(drawn[0, 5] - HEAT_COLOURS[-1]).max() < 40
    stretched = heat_overlay(pixels, heat[::2, ::2])
    assert stretched.size == (6, 4)


def test_a_sheet_has_a_row_for_each_picture_and_a_scale() -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    heat = np.linspace(0, 1, 2400, dtype=np.float32).reshape(40, 60)
    one = heat_sheet([heat_items(pixels, [("a", heat), ("b", heat)], "c")], "title")
    two = heat_sheet([heat_items(pixels, [("a", heat), ("b", heat)], "c")] * 2, "title")
    assert one.width == two.width and two.height > one.height + 200
    hottest = tuple(HEAT_COLOURS[-1].astype(int))
    legend = np.asarray(one.crop((0, one.height - 44, one.width, one.height)))
    assert (legend == hottest).all(axis=2).any()


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(InputError, match=r"heat must be finite numbers \[H, W\]"):
        heat_overlay(np.zeros((4, 4, 3), np.uint8), np.full((4, 4), np.nan, np.float32))
    with pytest.raises(InputError, match="needs at least one picture"):
        heat_sheet([], "nothing")
