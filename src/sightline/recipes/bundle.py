"""A finished run to a bundled model: scored in full, stored as float16, described by a card.

python -m sightline.recipes.bundle RUN FOLDER [--note TEXT] [--blind RUN]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from sightline.core.errors import ConfigError
from sightline.data.park.scenes import digest
from sightline.data.park.vocabulary import VERSION as PARK_VERSION
from sightline.evaluation.mask_codec import round_trip
from sightline.evaluation.results import Metric
from sightline.hub.bundled import BUNDLED, CARD_FORMAT, CARD_VERSION, DRAWN_PARKS, read_card
from sightline.hub.save import save_checkpoint
from sightline.recipes.mask_data import park_objects
from sightline.recipes.park_scores import park_scores
from sightline.recipes.run import best_model
from sightline.recipes.speech_scores import speech_metrics
from sightline.tasks.model import Model, load
from sightline.tasks.segment import FOLDER

COMMANDS = {
    "siglip": "sightline train park-siglip --out RUN",
    "mask_codec": "sightline train mask-codec --data park --out RUN",
    "paligemma": "sightline train park-paligemma --set codec=CODEC --out RUN",
}
"""System to the command that trains its bundled model."""
LARGEST, LARGEST_SPEAKING = 5_000_000, 10_000_000
"""Bytes of weights that a bundled model may have, and one that speaks, its mask codec included."""


def bundle(
    run: str | Path,
    folder: str | Path,
    note: str = "",
    count: int = 2000,
    blind: str | Path | None = None,
) -> dict[str, Any]:
    """Write the best model of a park run into `folder`; returns its card.

    The scores are those of the stored float16 weights, not of the run's own.

    Args:
        note: what the settings do not say.
        count: scenes of each score; half of them for those that a score is compared with.
        blind: a run that was shown grey pictures, whose scores stand beside.

    Raises:
        ConfigError: the run has no model, or its weights are too large.
    """
    source = best_model(Path(run))
    model = load(source, device="cpu", dtype="float32")
    card = {
        "format": CARD_FORMAT,
        "version": CARD_VERSION,
        "domain": DRAWN_PARKS,
        "licence": "Apache-2.0",
        "park": {"version": PARK_VERSION, "digest": digest()},
        **_history(source.parent, COMMANDS[model.system.name]),
        "note": note,
    }
    speaks = model.system.role == "vision-language model"
    known = read_card(source)
    if "everything" in known:
        card["everything"] = known["everything"]
    beside = {FOLDER: source / FOLDER} if (source / FOLDER).is_dir() else {}
    parts = (model.network, model.processor, model.config, model.system, folder)
    save_checkpoint(*parts, dtype="float16", metadata=card, beside=beside)
    size = sum(file.stat().st_size for file in Path(folder).rglob("*.safetensors"))
    most = LARGEST_SPEAKING if speaks else LARGEST
    if size > most:
        raise ConfigError(f"the weights take {size} bytes, a bundled model at most {most}")
    stored = load(folder, device="cpu", dtype="float32")
    found = _scores(stored, count)
    if blind is not None:
        sightless = load(best_model(Path(blind)), device="cpu", dtype="float32")
        found |= _speech(sightless, count // 2, "blind", shown="grey")
    card["scores"] = {n: _score(m) for n, m in found.items()}
    save_checkpoint(*parts, dtype="float16", metadata=card, beside=beside)
    return card


def _scores(model: Model, count: int) -> dict[str, Metric]:
    """On so many test scenes of one object, or test objects."""
    if model.system.role == "mask codec":
        return round_trip(model, park_objects(count)).metrics()
    if model.system.role == "vision-language model":
        return {
            **_speech(model, count, "test"),
            **_speech(model, count, "pairs", split="pairs"),
            **_speech(model, count // 2, "other picture", shown="other"),
        }
    return park_scores(model, count)


def _speech(model: Model, count: int, name: str, **how: Any) -> dict[str, Metric]:
    codec = model.folder / FOLDER if (model.folder / FOLDER).is_dir() else None
    found = speech_metrics(model, count, codec=codec, **how)
    return {f"{name} {score}": metric for score, metric in found.items()}


def _score(metric: Metric) -> dict[str, Any]:
    low, high = metric.ci95 or (None, None)
    ends = [None if end is None else round(end, 4) for end in (low, high)]
    return {"value": round(metric.value, 4), "ci95": ends, "n": metric.n}


def _history(checkpoint: Path, command: str) -> dict[str, Any]:
    """Command, settings, time and steps of the run, from its own files."""
    settings = json.loads((checkpoint / "recipe.json").read_text(encoding="utf-8"))
    for name in ("init", "codec"):  # a folder that only the trainer has; the note says what it was
        if settings.get(name) and settings[name] not in BUNDLED:
            settings[name] = "an earlier run"
    state = json.loads((checkpoint / "training" / "state.json").read_text(encoding="utf-8"))
    seen = state["state"]["run"]
    return {
        "command": command,
        "settings": settings,
        "steps": seen["step"],
        "pictures": seen["pictures"],
        "minutes": round(seen["seconds"] / 60, 1),
        "petaflop": round(seen["flops"] / 1e15, 3),
    }


def main() -> None:
    """Bundle the run named on the command line and print its scores."""
    parser = argparse.ArgumentParser(description="A finished park run to a bundled model.")
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--note", default="", help="what the settings do not say")
    parser.add_argument("--blind", type=Path, help="a run that was shown grey pictures")
    given = parser.parse_args()
    card = bundle(given.run, given.folder, given.note, blind=given.blind)
    print(json.dumps(card["scores"], indent=2))


if __name__ == "__main__":
    main()
