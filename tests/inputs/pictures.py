"""Awkward pictures, made here: sizes and contents that show rounding, cropping and ordering."""

import numpy as np

SIZES = [(1, 1), (1, 500), (500, 1), (3, 7), (224, 224), (225, 224), (480, 640), (4000, 30),
         (30, 4000), (97, 61)]  # fmt: skip
CONTENTS = ["noise", "gradient", "checkerboard", "white"]


def picture(height: int, width: int, content: str = "noise") -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    if content == "noise":
        # A linear congruence, so that the pixels depend on no library's generator.
        state = (np.arange(height * width * 3, dtype=np.uint64) + 12345) * 6364136223846793005
        return ((state >> 33) % 256).astype(np.uint8).reshape(height, width, 3)
    if content == "gradient":
        plane = (columns * 255) // max(1, width - 1)
    elif content == "checkerboard":
        plane = ((rows + columns) % 2) * 255
    else:
        plane = np.full((height, width), 255)
    return np.repeat(plane[..., None], 3, axis=2).astype(np.uint8)
