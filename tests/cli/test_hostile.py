"""Pictures and model folders that are broken or hostile: a line each, never a traceback."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Run
from tests.inputs import hostile

JPEG = hostile.encode(hostile.drawing(200, 150), "JPEG", quality=90)

BROKEN: dict[str, bytes] = {
    "empty.jpg": b"",
    "one-byte.jpg": b"\xff",
    "random.jpg": np.random.default_rng(0).bytes(10_000),
    "cut-by-128.jpg": JPEG[:-128],
    "half.jpg": JPEG[: len(JPEG) // 2],
    "header-too-small.png": hostile.png(100, 100, 1, 0, hostile.deflated_zeros(1_000)),
    "header-too-large.png": hostile.png(50_000, 50_000, 8, 2, b"\x78\x9c\x03\x00\x00\x00\x00\x01"),
    "wide.png": hostile.png(100_000, 1, 8, 0, hostile.deflated_zeros(100_001)),
    "bomb.png": hostile.png_bomb(),
    "canvas.webp": hostile.webp_canvas(16_000, 16_000),
    "tile.tiff": hostile.tiff_huge_tile(),
    **{f"{kind}.jpg": data for kind, (data, _) in hostile.not_pictures().items()},
}


def unusual() -> dict[str, bytes]:
    """Valid pictures that are often read wrongly; the pixels themselves are tested in `inputs`."""
    drawing = hostile.drawing()
    picture = Image.fromarray(drawing)
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "anim.gif": hostile.animation([drawing, 255 - drawing, drawing], "GIF"),
        "anim.webp": hostile.animation([drawing, 255 - drawing], "WEBP"),
        "frames.gif": hostile.gif_of_many_frames(1_000),
        "pages.tiff": hostile.tiff_of_many_pages(50),
        "cmyk.jpg": hostile.encode(picture.convert("CMYK"), "JPEG"),
        "deep.png": hostile.png_16_bit(drawing[..., 0].astype(np.uint16) * 257),
        "turned.jpg": hostile.encode(picture, "JPEG", exif=exif),
        "palette.png": hostile.encode(picture.quantize(8), "PNG"),
        "alpha.png": hostile.encode(picture.convert("RGBA"), "PNG"),
        "one-bit.png": hostile.encode(picture.convert("1"), "PNG"),
        "pixel.png": hostile.encode(hostile.drawing(1, 1), "PNG"),
        "strip.png": hostile.encode(hostile.drawing(10_000, 1), "PNG"),
        "pole.png": hostile.encode(hostile.drawing(1, 10_000), "PNG"),
    }


def write(folder: Path, files: dict[str, bytes]) -> list[Path]:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]


def test_each_broken_picture_is_one_line_with_its_name_and_a_code(
    run: Run, model: Path, tmp_path: Path
) -> None:
    paths = write(tmp_path, BROKEN)
    answer = run("classify", *paths, "--labels", "ball,car", "--model", model, "--json")
    assert answer.code == 1
    lines = answer.err.splitlines()
    assert len(lines) == len(paths)
    document = answer.json
    for path, line, item in zip(paths, lines, document["failed"], strict=True):
        assert line.startswith("sightline: ") and path.name in line and len(line) < 400
        assert item["file"] == str(path) and item["code"].startswith("image_")
    codes = {Path(item["file"]).name: item["code"] for item in document["failed"]}
    assert codes["empty.jpg"] == "image_empty"
    assert codes["half.jpg"] == codes["cut-by-128.jpg"] == "image_truncated"
    assert codes["bomb.png"] == codes["wide.png"] == "image_too_large"
    assert codes["svg.jpg"] == codes["html.jpg"] == "image_unsupported"


def test_unusual_pictures_are_answered(run: Run, model: Path, tmp_path: Path) -> None:
    paths = write(tmp_path, unusual())
    answer = run("classify", *paths, "--labels", "ball,car", "--model", model, "--json")
    assert answer.code == 0 and answer.err == ""
    assert [result["file"] for result in answer.json["results"]] == [str(p) for p in paths]


def test_one_broken_picture_costs_nobody_else_an_answer(
    run: Run, model: Path, parks: Path, tmp_path: Path
) -> None:
    (bad,) = write(tmp_path, {"half.jpg": BROKEN["half.jpg"]})
    answer = run("classify", bad, parks, "--labels", "ball,car", "--model", model, "--json")
    assert answer.code == 3 and len(answer.json["results"]) == 4


@pytest.mark.parametrize(
    "name",
    [
        "new\nline.png",
        "title\x1b]0;x\x07.png",
        pytest.param(
            os.fsdecode(b"not-utf8-\xff.png"),
            marks=pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode there"),
        ),
    ],
)
def test_names_of_files_cannot_write_to_the_terminal(
    name: str, run: Run, model: Path, parks: Path, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes((parks / "000000.png").read_bytes())
    (tmp_path / f"bad-{name}").write_bytes(b"")
    answer = run("classify", tmp_path, "--labels", "ball,car", "--model", model, "--json")
    assert answer.code == 3 and "\x1b" not in answer.err and answer.err.count("\n") == 1
    assert answer.json["results"][0]["file"] == str(tmp_path / name)
    plain = run("classify", tmp_path, "--labels", "ball,car", "--model", model)
    assert "\x1b" not in plain.out and "\x07" not in plain.out
    assert plain.out.count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of this process from Linux")
def test_bombs_take_no_memory(model: Path, parks: Path, tmp_path: Path) -> None:
    bombs = {
        "bomb.png": BROKEN["bomb.png"],
        "chunk.png": hostile.png_with_huge_chunk(b"zTXt"),
        "profile.png": hostile.png_with_huge_chunk(b"iCCP"),
        "frames.gif": hostile.gif_of_many_frames(),
        "tile.tiff": BROKEN["tile.tiff"],
    }
    paths = [str(path) for path in write(tmp_path, bombs)]
    shared = ["--labels", "ball,car", "--model", str(model), "--json"]
    code = (
        "import json, resource, sys\nfrom sightline.cli.program import program\n"
        "good, bombs, shared = json.loads(sys.argv[1])\n"
        "def peak(files):\n"
        "    code = program.main(['classify', *files, *shared], standalone_mode=False)\n"
        "    return code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before, after = peak(good), peak(bombs)\n"
        "print(json.dumps([before, after]), file=sys.stderr)"
    )
    arguments = json.dumps([[str(parks / "000000.png")], paths, shared])
    done = subprocess.run(
        [sys.executable, "-c", code, arguments], capture_output=True, text=True, timeout=120
    )
    lines = done.stderr.splitlines()
    (code_before, before), (code_after, after) = json.loads(lines[-1])
    assert code_before == 0 and code_after in (1, 3)
    assert any("bomb.png" in line and "too many" in line for line in lines)
    assert (after - before) / 1024 < 200, f"{(after - before) / 1024:.0f} MB more"


# Row 32: model folders


class Canary:
    """Unpickling this would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return (open, (str(self.path), "w"))


def copied(model: Path, folder: Path) -> Path:
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def pickled(folder: Path, canary: Path) -> None:
    import pickle

    (folder / "model.safetensors").unlink()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Canary(canary)))
        archive.writestr("archive/version", "3\n")
    (folder / "pytorch_model.bin").write_bytes(stream.getvalue())


def foreign_code(folder: Path, canary: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "own"
    config["auto_map"] = {"AutoModel": "modeling_own.Own"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_own.py").write_text(f"open({str(canary)!r}, 'w')\n")


def huge_header(folder: Path, canary: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")


def escaping_index(folder: Path, canary: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    index = {"weight_map": {"logit_scale": "../outside.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def an_archive(folder: Path, canary: Path) -> None:
    (folder / "model.safetensors").unlink()
    with tarfile.open(folder / "model.safetensors", "w") as archive:
        archive.add(folder / "config.json", "../../config.json")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (pickled, "pytorch_model.bin"),
        (foreign_code, "auto_map"),
        (huge_header, "model.safetensors"),
        (escaping_index, "index.json"),
        (an_archive, "model.safetensors"),
    ],
)
def test_a_hostile_model_folder_is_refused_in_a_line(
    spoil: object, message: str, run: Run, model: Path, parks: Path, tmp_path: Path
) -> None:
    folder, canary = copied(model, tmp_path / "model"), tmp_path / "canary"
    spoil(folder, canary)  # type: ignore[operator]
    for command in (["classify", parks, "--labels", "a,b", "--model"], ["info"]):
        answer = run(*command, folder)
        assert not canary.exists()
        if command[0] == "classify" or spoil is not pickled:
            assert answer.code == 1 and answer.err.count("\n") == 1, answer
            assert str(folder) in answer.err
        if command[0] == "classify":
            assert message in answer.err
