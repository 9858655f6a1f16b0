"""The catalogue says what is true: counts, names, defaults."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sightline.core.errors import UnsupportedTaskError
from sightline.hub import bundled
from sightline.hub.catalogue import (
    DEFAULTS,
    PUBLISHED,
    default_model,
    entries,
    find,
    models_for,
    offline_substitute,
)
from sightline.models.table import SYSTEMS, system
from tests.hub.tiny import tiny_folder

QUICK = {
    "B/32", "H/14-laion2B", "B/16-224", "2-B/16-224", "2-So400m/14-384", "2B", "9B", "3B-224",
    "2-10B-448",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        pytest.param(name, variant, marks=() if variant in QUICK else pytest.mark.slow)
        for name, variant in sorted({(e.system, e.variant) for e in PUBLISHED if e.variant})
    ],
)
def test_parameter_counts_are_those_of_the_configurations(name: str, variant: str) -> None:
    with torch.device("meta"):
        network = system(name).build(system(name).variants[variant])
    count = sum(p.numel() for p in network.parameters())
    stated = {e.parameters for e in PUBLISHED if (e.system, e.variant) == (name, variant)}
    assert stated == {count}


@pytest.mark.parametrize(
    ("name", "variant", "size"),
    [("vit-base-patch16-224", "B/16", 224), ("vit-base-patch16-384", "B/16", 384),
     ("vit-base-patch32-384", "B/32", 384), ("vit-large-patch16-224", "L/16", 224),
     ("vit-large-patch16-384", "L/16", 384), ("vit-large-patch32-384", "L/32", 384)],
)  # fmt: skip
def test_counts_of_classifiers_of_1000_labels(name: str, variant: str, size: int) -> None:
    entry = system("vit")
    config = replace(
        entry.variants[variant], image_size=(size, size), pooler=False,
        labels=tuple(map(str, range(1000))),
    )  # fmt: skip
    with torch.device("meta"):
        network = entry.build(config)
    found = find(f"google/{name}")
    assert found is not None
    assert found.parameters == sum(p.numel() for p in network.parameters())


def test_sizes_agree_with_the_published_files() -> None:
    # As the hub lists model.safetensors of these repositories, three digits.
    for name, megabytes in [("google/siglip-base-patch16-224", 813),
                            ("google/siglip-so400m-patch14-384", 3510),
                            ("google/siglip2-so400m-patch14-384", 4540)]:  # fmt: skip
        entry = find(name)
        assert entry is not None
        assert abs(entry.download_bytes / 1e6 - megabytes) <= 5
        assert entry.memory_bytes("bfloat16") * 2 == entry.memory_bytes()


def test_names_and_aliases_are_unique_and_their_systems_exist() -> None:
    names = [name.lower() for e in PUBLISHED for name in (e.name, *e.aliases)]
    assert len(names) == len(set(names))
    assert {entry.system for entry in PUBLISHED} <= set(SYSTEMS)
    assert all(entry.licence and entry.verified for entry in PUBLISHED)


def test_known_names_of_the_systems_lead_into_the_catalogue() -> None:
    for name in SYSTEMS:
        for known, hub_id in system(name).known_names.items():
            entry = find(hub_id)
            assert entry is not None and entry.system == name, hub_id
            alias = find(known)
            assert alias is None or alias.name == hub_id, known


def test_defaults_are_ungated_permissive_and_can_do_their_task() -> None:
    for task, name in DEFAULTS.items():
        entry = find(name)
        assert entry is not None, task
        assert not entry.gated and entry.licence in ("apache-2.0", "mit")
    for task in ("embed", "classify", "tag", "retrieve", "search", "similarity", "match"):
        assert find(DEFAULTS[task]) in models_for(task)


def test_the_model_is_the_named_one_then_the_users_then_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SIGHTLINE_MODEL", "mine")
    assert default_model("classify", "named") == "named"
    assert default_model("classify") == "mine"
    monkeypatch.delenv("SIGHTLINE_MODEL")
    assert default_model("classify") == "google/siglip2-base-patch16-224"
    with pytest.raises(UnsupportedTaskError, match=r"no model of this version can do 'draw'; it"):
        default_model("draw")


def test_choices_are_needed_to_ask() -> None:
    assert models_for("ask-with-choices")
    assert "caption" not in DEFAULTS


def test_gated_models_are_listed_with_their_licence_and_are_no_default() -> None:
    gated = [entry for entry in PUBLISHED if entry.gated]
    assert {entry.system for entry in gated} == {"gemma", "gemma2", "paligemma"}
    assert {entry.licence for entry in gated} == {"gemma"}
    assert not {entry.name for entry in gated} & set(DEFAULTS.values())
    assert {entry.system for entry in models_for("caption")} == {"paligemma"}
    assert all("agreement to Gemma's terms" in entry.note for entry in gated)


def test_a_bundled_model_lists_itself_and_stands_in_when_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundled.resources, "files", lambda _: tmp_path)
    assert offline_substitute("classify") is None
    network = tiny_folder(
        "siglip", tmp_path / "bundled_models/park-siglip", dtype="float16",
        metadata={"domain": "drawn parks"},
    )  # fmt: skip
    assert offline_substitute("classify") == "park-siglip"
    assert offline_substitute("draw") is None
    entry = entries()[0]
    assert (entry.name, entry.system, entry.bundled) == ("park-siglip", "siglip", True)
    assert entry.parameters == sum(p.numel() for p in network.parameters())
    assert entry.download_bytes == 2 * entry.parameters
    assert "drawn parks" in entry.note and "classify" in entry.tasks
