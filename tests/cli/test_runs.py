"""Models, data, training and measuring from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sightline.hub.bundled import BUNDLED
from sightline.inputs.images import read_image
from sightline.recipes.table import RECIPES, RecipeEntry
from tests.cli.conftest import Run
from tests.hub.false_hub import false_hub

SMALL = [
    part
    for setting in (
        "steps=2", "batch_size=2", "image_size=16", "width=16", "depth=1", "num_heads=2",
        "text_width=16", "text_depth=1", "text_heads=2", "vocab_size=300", "workers=0",
    )
    for part in ("--set", setting)
]  # fmt: skip


def test_models_lists_the_catalogue(run: Run) -> None:
    document = run("models", "--json").json
    names = {entry["name"]: entry for entry in document["models"]}
    default = names["google/siglip2-base-patch16-224"]
    assert document["model"] is None
    assert default["licence"] == "apache-2.0" and default["gated"] is False
    assert default["memory_bytes"]["float32"] == 4 * default["parameters"]
    header, *rows = run("models", "--family", "clip").out.splitlines()
    assert header.split("\t")[:3] == ["name", "family", "size"]
    assert rows and all(row.split("\t")[1] == "clip" for row in rows)


def test_models_by_task(run: Run) -> None:
    listed = run("models", "--task", "ask", "--json").json["models"]
    kinds = [{"ask", "ask-with-choices"} & {*entry["tasks"]} for entry in listed]
    assert all(kinds) and {"ask"} in kinds and {"ask-with-choices"} in kinds


def test_info_of_a_folder_reads_no_weights(
    run: Run, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sightline.hub.contents.read_weights", None)
    document = run("info", model, "--json").json
    assert document["model"] == str(model) and document["family"] == "siglip"
    assert document["parameters"] > 10_000 and document["stored_as"] == ["F32"]
    assert document["preprocessing"]["height"] == document["config"]["image"]["image_size"][0]
    assert "model.safetensors" in document["files"]
    assert "preprocessing.height\t24" in run("info", model).out


def test_info_of_a_bundled_model_has_its_domain(
    run: Run, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BUNDLED, "park-siglip", str(model))
    document = run("info", "park-siglip", "--json").json
    assert document["domain"] == "drawn parks" and document["bundled"] is True


def test_info_of_a_model_that_was_never_pulled(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    answer = run("info", "ViT-B/16", "--json")
    assert answer.code == 0 and "'sightline pull openai/clip-vit-base-patch16'" in answer.err
    assert answer.json["folder"] is None and answer.json["family"] == "clip"


def test_pull_says_licence_and_size_first(
    run: Run, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with false_hub() as hub:
        hub.publish("someone/tiny", model)
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
        answer = run("pull", "someone/tiny", "--json")
    assert answer.code == 0, answer.err
    assert answer.err.splitlines()[0].startswith("sightline: downloading someone/tiny: licence ")
    assert "model.safetensors" in answer.json["files"] and answer.json["model"] == "someone/tiny"


def test_pull_of_a_folder_has_nothing_to_do(run: Run, model: Path) -> None:
    answer = run("pull", model)
    assert answer.out == f"{model}\n" and "on this machine already" in answer.err


def test_pull_offline_says_so(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    answer = run("pull", "ViT-B/16", "--json")
    assert answer.code == 1 and "HF_HUB_OFFLINE is set" in answer.err
    assert answer.json["error"]["code"] == "hub_offline_error"


def test_data_park_then_inspect(run: Run, tmp_path: Path) -> None:
    written = run("data", "park", "--count", 3, "--out", tmp_path / "p", "--objects", 1, "--json")
    assert written.json["scenes"] == 3
    document = run("data", "inspect", tmp_path / "p", "--json").json
    assert document["report"]["records"] == 3 and document["checked"] == 3
    plain = run("data", "inspect", tmp_path / "p")
    assert plain.code == 0 and "pictures\t3" in plain.out


def test_data_park_draws_several_shapes(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    assert run("data", "park", "--count", 4, "--out", folder, "--shapes", "mixed").code == 0
    sizes = {read_image(file).shape[:2] for file in folder.glob("*.png")}
    assert sizes == {(64, 64), (96, 48), (48, 96), (40, 120)}
    both = run("data", "park", "--out", folder, "--shapes", "40x40", "--size", 64)
    assert both.code == 2 and "give --size or --shapes, not both" in both.err


def test_data_inspect_names_what_is_broken(run: Run, classes: Path, tmp_path: Path) -> None:
    for file in classes.rglob("*.png"):
        (tmp_path / file.parent.name).mkdir(exist_ok=True)
        (tmp_path / file.parent.name / file.name).write_bytes(file.read_bytes())
    (tmp_path / "a red ball" / "9.png").write_bytes(b"")
    answer = run("data", "inspect", tmp_path, "--json")
    assert answer.code == 3 and "9.png" in answer.err
    assert [item["file"] for item in answer.json["failed"]] == ["a red ball/9.png"]


def test_data_digits(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("sightline.data.digits.write_digits", lambda *a: asked.append(a) or a[0])
    answer = run("data", "digits", "--out", tmp_path / "d", "--size", 16, "--json")
    assert asked == [(tmp_path / "d", 500, 0, 16)] and answer.json["pictures"] == 1797


def test_train_lists_and_shows(run: Run) -> None:
    assert set(run("train", "--list", "--json").json["recipes"]) == set(RECIPES)
    shown = run("train", "siglip", "--show", "--set", "lr=0.5", "--dtype", "bfloat16", "--json")
    settings = {s["name"]: s for s in shown.json["settings"]}
    assert settings["lr"]["value"] == 0.5 and settings["autocast"]["value"] == "bfloat16"
    assert settings["warmup"]["meaning"] == "Share of the steps."
    assert "Weight of the per-patch losses" in run("train", "park-siglip", "--show").out


def test_train_writes_a_model_that_the_other_commands_take(
    run: Run, parks: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    answer = run("train", "siglip", "--data", parks, "--out", out, *SMALL, "--json")
    assert answer.code == 0, answer.err
    document = answer.json
    assert document["steps"] == 2 and document["stopped"] == "finished"
    assert document["cost"]["flops"] > 0 and Path(document["report"]).is_file()
    named = run("classify", parks, "--labels", "a,b", "--model", document["model"], "--json")
    assert len(named.json["results"]) == 4
    again = run("train", "siglip", "--data", parks, "--out", out, *SMALL)
    assert "cost: 2 steps" in again.out.splitlines()[-1]


@pytest.mark.parametrize(("stopped", "code"), [("minutes", 0), ("finished", 0), ("signal", 130)])
def test_the_exit_code_of_a_stopped_run(
    stopped: str, code: int, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    summary = SimpleNamespace(
        stopped=stopped, steps=7, loss=0.5, flops=1, hours=0.1, pictures=9, peak_memory_bytes=1,
        out=tmp_path, cost="7 steps",
    )  # fmt: skip
    outcome = SimpleNamespace(
        summary=summary, before={"retrieval": 0.1}, after={}, model=tmp_path, report=tmp_path
    )
    given: list[Any] = []

    def carried_out(settings: Any, out: Path, minutes: float | None, progress: Any) -> Any:
        given.append((settings.init, minutes))
        return outcome

    monkeypatch.setattr(RecipeEntry, "run", lambda entry: carried_out)
    answer = run("train", "clip", "--data", "x", "--out", tmp_path, "--minutes", 2,
                 "--model", "ViT-B/32", "--json")  # fmt: skip
    assert answer.code == code and answer.json["stopped"] == stopped
    assert given == [("ViT-B/32", 2.0)]
    assert ("everything is saved" in answer.err) == (stopped == "signal")


@pytest.mark.parametrize("task", ["zeroshot", "retrieval"])
def test_eval_prints_and_writes_results(
    task: str, run: Run, model: Path, parks: Path, classes: Path, tmp_path: Path
) -> None:
    data = classes if task == "zeroshot" else parks
    arguments = ("eval", task, "--data", data, "--model", model)
    answer = run(*arguments, "--out", tmp_path / "r", "--json")
    document = answer.json
    assert answer.code == 0 and document["model"] == str(model)
    assert 0 <= document["value"] <= 1 and document["n"] == 4
    assert json.loads((tmp_path / "r/results.json").read_text())["value"] == document["value"]
    assert (tmp_path / "r/samples.jsonl").is_file()
    assert "signature\t" in run(*arguments).out


def test_eval_of_unreadable_data_fails(run: Run, model: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(b"no")
    answer = run("eval", "zeroshot", "--data", tmp_path, "--model", model, "--json")
    assert answer.code == 1 and "no score" in answer.err
    assert len(answer.json["failed"]) == 2


def test_eval_takes_labels_and_templates(run: Run, model: Path, classes: Path) -> None:
    document = run(
        "eval", "zeroshot", "--data", classes, "--model", model, "--labels",
        "a red ball,a blue car,a cat", "--template", "{}", "--limit", 2, "--json",
    ).json  # fmt: skip
    assert document["partial"] is True and document["prompt_templates"] == ["{}"]
    assert "labels:3-" in document["signature"]


def test_compare_two_results(run: Run, model: Path, classes: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run("eval", "zeroshot", "--data", classes, "--model", model, "--out", tmp_path / name)
    answer = run("compare", tmp_path / "a", tmp_path / "b", "--json")
    assert answer.json["metrics"]["top1"]["tests"][0]["difference"] == 0
    assert "\t+0.0000\t" in run("compare", tmp_path / "a", tmp_path / "b").out
    assert run("compare", tmp_path / "a", tmp_path / "gone").code == 1


def test_demo_passes_on_what_it_found(
    run: Run, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run_demo(out: Path, model: Any, progress: Any) -> Any:
        progress("draw", 1, 3)
        document = {"format": "x", "model": model.name}
        return SimpleNamespace(
            model=model.name, domain="drawn parks", lines=["one", "two"],
            report=out / "report.html", to_json=lambda: document,
        )  # fmt: skip

    monkeypatch.setattr("sightline.demo.run.run_demo", run_demo)
    arguments = ("demo", "--out", tmp_path, "--model", model)
    assert run(*arguments, "--json").json["domain"] == "drawn parks"
    assert run(*arguments).out == f"one\ntwo\nreport: {tmp_path}/report.html\n"


def test_bench_passes_on_what_it_measured(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    row = SimpleNamespace(
        name="sightline", pictures_per_second=10.0, slowest=9.0, fastest=11.0, cosine=1.0,
        share_of_limit=0.5,
    )  # fmt: skip

    def bench_embed(name: str, batch: int, rounds: int, progress: Any, **options: Any) -> Any:
        assert options == {"start": "pixels", "files": 128, "only": []}
        return SimpleNamespace(
            model=name, batch=batch, rounds=rounds, cores=2, gflop_per_picture=8.0, rows=[row],
            skipped=["peer"], to_json=lambda: {"rounds": rounds},
        )  # fmt: skip

    monkeypatch.setattr("sightline.bench.embed.bench_embed", bench_embed)
    document = run("bench", "embed", "--model", "siglip:B/16-224", "--rounds", 2, "--json").json
    assert document["model"] == "siglip:B/16-224" and document["rounds"] == 2
    assert "sightline\t10.0\t9.0 to 11.0\t1.00000\t50%" in run("bench", "embed").out
