"""The model of a command: the one named, the public default, or a drawn park's when offline."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sightline.core.errors import HubOfflineError

if TYPE_CHECKING:
    from sightline.cli.output import Call
    from sightline.tasks.model import Model

PARK_WARNING = "a model of drawn parks, not for photographs"


def load_model(call: Call, task: str, made_with: tuple[str, str | None] | None = None) -> Model:
    """Load the model for a task and note it for the document.

    `--model`, then what a collection was `made_with` (name and revision), then `SIGHTLINE_MODEL`,
    then the task's public default. Only where nobody named a model and that default cannot be
    reached, or there is none, the bundled model of drawn parks steps in, and the first line says so,
    also with --quiet.

    Raises:
        SightlineError: what `sightline.load` raises.
    """
    from sightline.hub.catalogue import DEFAULTS, default_model, offline_substitute
    from sightline.tasks.model import load

    own, revision = (None, None) if call.model_name or made_with is None else made_with
    chosen = call.model_name or own or os.environ.get("SIGHTLINE_MODEL")
    _use_all_cores()
    if not chosen and task not in DEFAULTS and not call.adapter:
        model = _park_model(call, task)
        if model is not None:
            return model
    name = default_model(task, call.model_name or own)
    try:
        model = load(
            name, call.device, call.dtype, revision, adapter=call.adapter, quantize=call.quantize
        )
    except HubOfflineError:
        substitute = None if chosen or call.adapter else offline_substitute(task)
        if substitute is None:
            raise
        call.warn(
            f"{PARK_WARNING}, answers because the hub cannot be reached; once connected: "
            f"sightline pull {name}"
        )
        model = load(substitute, call.device, call.dtype, quantize=call.quantize)
    call.answered_by(model)
    return model


def _park_model(call: Call, task: str) -> Model | None:
    """The bundled model for a task that no public model does by default; None where none can."""
    from sightline.hub.catalogue import offline_substitute
    from sightline.tasks.model import load

    substitute = offline_substitute(task)
    if substitute is None:
        return None
    call.warn(f"{PARK_WARNING}, answers because none is named; --model NAME takes another")
    model = load(substitute, call.device, call.dtype, quantize=call.quantize)
    call.answered_by(model)
    return model


def _use_all_cores() -> None:
    # torch counts the machine's cores, not the container's; a person's own choice is kept.
    if "OMP_NUM_THREADS" not in os.environ:
        from sightline.core.devices import set_threads

        set_threads()
