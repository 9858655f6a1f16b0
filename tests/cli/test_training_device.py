"""`train --device`: the recipe gets the name, and one that is not here is wrong usage."""

from pathlib import Path

import torch

from tests.cli.conftest import Run


def test_a_device_that_is_not_here_is_named(run: Run, parks: Path, tmp_path: Path) -> None:
    name = "cuda" if not torch.cuda.is_available() else "cuda:99"
    small = ("--set", "batch_size=2", "--data", parks, "--out", tmp_path / "r")
    done = run("train", "siglip", *small, "--device", name)
    assert done.code == 2
    assert "not present on this machine" in done.err or "cuda:99" in done.err
