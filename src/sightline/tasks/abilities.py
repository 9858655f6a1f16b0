"""What a network can be asked for, by its role, and the sentence when it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sightline.core.errors import UnsupportedTaskError

if TYPE_CHECKING:
    from sightline.inputs.instructions import Instructions
    from sightline.tasks.model import Model

TASKS_OF_ROLE = {
    "image encoder": ("embed",),
    "text encoder": ("embed-texts",),
    "mask codec": (),
    "dual encoder": (
        "embed", "similarity", "classify", "tag", "match", "retrieve", "ask", "explain",
    ),
    "vision-language model": (
        "caption", "ask", "chat", "detect", "segment", "logprob", "match", "classify",
    ),
}  # fmt: skip
"""Task names as the command line and the catalogue spell them."""

WRITES = "vision-language model"
"""The role of a network that writes about pictures."""

DEEDS = {"detect": "find boxes", "segment": "cut out masks"}
"""The verb phrase behind "cannot", where several files need it."""

CLASSIFY, EXPLAIN = "classify", "explain"
"""What an image encoder with labels of its own can do as well."""

EXPLAIN_METHODS = ("gradient", "rollout", "occlusion")
"""The ways to explain a score, the best measured first; here, where the command line can read them
without torch."""

CAPTION_DETAILS = ("short", "long")
"""How much a caption may say; which of them a checkpoint knows stands in its instructions."""

PLACE_SCORES = ("geometric", "product")
"""How the score of a written box is made of its tokens' probabilities (`tasks.detect`)."""

_NAMED = 4


def closed_labels(model: Any) -> tuple[str, ...]:
    """The labels that a classifier was trained on, one for each logit.

    Empty for a model without a classification layer, such as one that reads any words.
    """
    if getattr(getattr(model, "system", None), "role", None) != "image encoder":
        return ()
    return tuple(getattr(model.config, "labels", ()))


def tasks_of(model: Model) -> tuple[str, ...]:
    """Names of the tasks that a model can do."""
    own = TASKS_OF_ROLE.get(model.system.role, ())
    instructions = instructions_of(model)
    if instructions is not None:
        own = tuple(task for task in own if instructions.knows(task))
    return (*own, CLASSIFY, EXPLAIN) if closed_labels(model) else own


def instructions_of(model: Model) -> Instructions | None:
    """How a model that writes wants to be asked; None for others."""
    instructions = getattr(model.system, "instructions", None)
    return None if instructions is None else instructions(model.config)


def cannot(model: Model, task: str, deed: str, instead: str = "") -> UnsupportedTaskError:
    """The error for a task that the model cannot do: what it can, who can, what to do next.

    Args:
        model: the one that was asked.
        task: the catalogue's name of the task.
        deed: the verb phrase after "cannot".
        instead: how to ask this model, where there is a way.
    """
    from sightline.hub.catalogue import DEFAULTS, models_for

    able_models = [entry.name for entry in models_for(task) if entry.name != model.name]
    names = sorted(able_models, key=lambda name: name != DEFAULTS.get(task))  # the default first
    able = f"it can {', '.join(model.tasks)}" if model.tasks else "it can do no task"
    who = "models which can: " + ", ".join(names[:_NAMED]) if names else (
        f"no model of this version can {deed}"
    )  # fmt: skip
    ways = "; ".join(part for part in (instead, able, who) if part)
    return UnsupportedTaskError(f"{model.name} ({model.system.role}) cannot {deed}: {ways}")
