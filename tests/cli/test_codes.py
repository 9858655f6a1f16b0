"""Exit codes and errors: one or two lines, in the process and in a real one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sightline.cli import loading
from sightline.core.errors import SightlineError
from sightline.hub.bundled import BUNDLED
from tests.cli.conftest import Run


def real(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "sightline", *map(str, arguments)],
        capture_output=True, text=True, env=environment, timeout=120, **options,
    )  # fmt: skip


def test_a_real_process_that_is_done() -> None:
    done = real("models", "--json")
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads(done.stdout)["models"]


def test_a_real_process_with_some_failed(model: Path, parks: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"nothing of the kind")
    picture = parks / "000000.png"
    done = real("classify", picture, tmp_path, "--labels", "ball,car", "--model", model, "--json")
    assert done.returncode == 3
    document = json.loads(done.stdout)
    assert [item["file"] for item in document["failed"]] == [str(tmp_path / "bad.png")]
    assert document["failed"][0]["code"] == "image_unsupported"
    assert done.stderr.count("\n") == 1 and "bad.png" in done.stderr
    assert "\x1b" not in done.stderr and "\r" not in done.stderr


def test_a_real_process_that_failed() -> None:
    done = real("info", "siglip2-bas")
    assert done.returncode == 1 and done.stdout == ""
    assert "called 'siglip2-bas': did you mean siglip2-base" in done.stderr
    assert done.stderr.startswith("sightline: ") and done.stderr.count("\n") == 1


def test_a_missing_file_is_named(run: Run, model: Path) -> None:
    answer = run("classify", "nosuch.png", "--labels", "ball,car", "--model", model)
    assert answer.code == 1 and answer.out == ""
    assert answer.err.startswith("sightline: nosuch.png: there is no such file")


def test_a_real_process_used_wrongly() -> None:
    done = real("classify", "x.png")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == (
        "sightline: give --labels a,b, or --model NAME of a classifier\n"
        "try 'sightline classify --help'\n"
    )


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_interrupting_is_quiet(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sightline", "data", "park", "--count", "1000000"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "parks")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # a shell that runs the tests in its background has children ignore the signal
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    limit = time.monotonic() + 60
    while not list(tmp_path.glob(".parks*/captions.jsonl")) and time.monotonic() < limit:
        os.sched_yield() if hasattr(os, "sched_yield") else None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "sightline: stopped\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_broken_pipe_is_silent() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "sightline", "models"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.wait(timeout=60)
    process.stderr.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clasify", "x.png"], "no command 'clasify': did you mean 'classify'?"),
        (["data"], "Missing command."),
        (["data", "inspct"], "no command 'data inspct': did you mean 'inspect'"),
        (["classify", "x", "--labels", ","], "no word in ','"),
        (["classify", "x", "--labels", "@gone.txt"], "'gone.txt' cannot be read: No such file"),
        (["match", "x.png"], 'no text: give --text "..."'),
        (["embed"], "give pictures (FILE...), or sentences"),
        (["embed", "x.png", "--out", "v.csv"], "end it in .safetensors, .npy, .jsonl"),
        (["retrieve"], "nothing to search for"),
        (["retrieve", "a ball"], "give one thing to search in"),
        (["info"], "give the NAME of a model"),
        (["pull"], "give the NAME of a model"),
        (["models", "--task", "clasify"], "unknown task 'clasify': did you mean 'classify'"),
        (["models", "--family", "siglop"], "unknown family 'siglop': did you mean 'siglip'"),
        (["train"], "give a RECIPE; 'sightline train --list' names them"),
        (["train", "siglip"], "give --out RUN"),
        (["train", "siglop", "--out", "r"], "unknown recipe 'siglop'"),
        (["train", "siglip", "--out", "r", "--set", "lr"], "write key=value"),
        (["train", "siglip", "--out", "r", "--set", "lf=1"], "unknown setting 'lf'"),
        (["train", "siglip", "--out", "r", "--dtype", "float16"], "auto, float32 or bfloat16"),
        (["train", "siglip", "--out", "r", "--dtype", "float16"], "auto, float32 or bfloat16"),
        (["bench", "embed", "--dtype", "float32"], "every number type is measured"),
        (["bench", "embed", "--device", "cuda"], "this benchmark runs on the CPU"),
    ],
)
def test_wrong_usage_is_code_2_with_a_way_out(
    arguments: list[str], message: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = run(*arguments)
    assert answer.code == 2 and answer.out == ""
    assert message in answer.err and answer.err.startswith("sightline: ")
    assert answer.err.count("\n") <= 2


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("--device", "gpu", "unknown device 'gpu'"), ("--dtype", "bf16", "unknown dtype 'bf16'")],
)
def test_a_device_or_type_that_does_not_exist(
    option: str, value: str, message: str, run: Run, model: Path, parks: Path
) -> None:
    answer = run("classify", parks, "--labels", "a,b", "--model", model, option, value)
    assert answer.code == 2 and message in answer.err


def test_labels_given_twice_are_wrong_usage(run: Run, model: Path, parks: Path) -> None:
    answer = run("classify", parks, "--labels", "a,a", "--model", model)
    assert answer.code == 2 and "arrived twice" in answer.err


def test_an_empty_folder_is_named(run: Run, model: Path, tmp_path: Path) -> None:
    answer = run("classify", tmp_path, "--labels", "a,b", "--model", model, "--json")
    assert answer.code == 1 and "no pictures in this folder" in answer.err
    assert answer.json["failed"][0]["code"] == "data_error"


def test_a_model_that_does_not_exist(run: Run, parks: Path) -> None:
    answer = run("classify", parks, "--labels", "a,b", "--model", "siglip2-bas", "--json")
    assert answer.code == 1 and "did you mean siglip2-base" in answer.err
    assert answer.json["error"]["code"] == "hub_not_found_error"


def test_a_place_that_cannot_be_written(run: Run, model: Path, parks: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = run("embed", parks, "--out", tmp_path / "file" / "v.npy", "--model", model)
    assert answer.code == 1 and answer.err.count("\n") == 1
    assert str(tmp_path / "file") in answer.err


def broken_by(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("sightline.cli.pictures.load_model", fail)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "sightline: stopped\n"),
        (MemoryError(), 1, "out of memory: use a smaller --batch or a smaller model"),
        (TypeError("odd\nlines"), 1, "this should not have happened (TypeError: odd): run it"),
        (SightlineError("a \x1b[31mred\x1b[0m message"), 1, "sightline: a \ufffd[31mred"),
    ],
)
def test_whatever_happens_is_one_line(
    error: BaseException, code: int, message: str, run: Run, monkeypatch: pytest.MonkeyPatch,
    parks: Path,
) -> None:  # fmt: skip
    broken_by(monkeypatch, error)
    answer = run("classify", parks, "--labels", "a,b")
    assert answer.code == code and message in answer.err and answer.err.count("\n") == 1


def test_a_traceback_only_with_debug(monkeypatch: pytest.MonkeyPatch, parks: Path) -> None:
    from click.testing import CliRunner

    from sightline.cli.program import program

    broken_by(monkeypatch, SightlineError("on purpose"))
    result = CliRunner().invoke(program, ["classify", str(parks), "--labels", "a,b", "--debug"])
    assert result.exit_code == 1 and "Traceback" in result.stderr


def test_the_log_is_left_as_it_was(run: Run, model: Path, parks: Path) -> None:
    import logging

    logger = logging.getLogger("sightline")
    before = (logger.level, list(logger.handlers))
    run("classify", parks, "--labels", "a,b", "--model", model, "--debug")
    assert (logger.level, logger.handlers) == before


def test_the_environment_names_the_model(
    run: Run, model: Path, parks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_MODEL", str(model))
    document = run("classify", parks, "--labels", "a,b", "--json").json
    assert document["model"] == str(model)


def test_a_drawn_park_model_steps_in_offline_and_says_so(
    run: Run, model: Path, parks: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setitem(BUNDLED, "park-siglip", str(model))
    answer = run("classify", parks, "--labels", "a,b", "--json", "--quiet")
    first = answer.err.splitlines()[0]
    assert answer.code == 0 and loading.PARK_WARNING in first
    assert "sightline pull google/siglip2-base-patch16-224" in first
    assert answer.json["model"] == "park-siglip" and answer.json["domain"] == "drawn parks"


def test_a_named_model_is_never_replaced(
    run: Run, model: Path, parks: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setitem(BUNDLED, "park-siglip", str(model))
    answer = run("classify", parks, "--labels", "a,b", "--model", "ViT-B/16")
    assert answer.code == 1 and "run 'sightline pull openai/clip-vit-base-patch16'" in answer.err
