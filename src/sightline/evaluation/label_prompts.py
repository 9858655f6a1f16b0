"""What a label is called in a prompt, and the vector of a class.

A label of the data may be an id ("n02123045") with one name or several ("tabby", "tabby cat"), and
every name is put into every template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sightline.core.errors import ConfigError, DataError, nearest
from sightline.evaluation import results
from sightline.evaluation.interfaces import DatasetLike, EmbeddingModel, Model
from sightline.evaluation.records import embed_captions

FALLBACK_TEMPLATE = "a photo of a {}."

Names = tuple[str, ...]
"""What one label is called: one name, or several that mean the same."""
Labels = Sequence[str] | Mapping[str, str | Sequence[str]]
"""Names to choose from, or data label to its name or names."""


def label_names(dataset: DatasetLike, labels: Labels | None) -> dict[str, Names]:
    """Data label to its names, in the order of the columns; by default the labels of the data.

    Raises:
        DataError: no record has a label, or a label of the data is not among `labels`.
        ConfigError: fewer than two labels, no name, or a name that two labels share.
    """
    present = sorted({r.label for r in map(dataset.__getitem__, range(len(dataset))) if r.label})
    if not present and len(dataset):
        raise DataError(
            f"no record of {dataset.name!r} has a label: zero-shot classification needs a folder "
            "per class, or a column named label"
        )
    names = _given_names(present if labels is None else labels)
    unknown = [label for label in present if label not in names]
    if unknown:
        close = nearest(unknown[0], names, count=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise DataError(
            f"the data has the label {unknown[0]!r} (and {len(unknown) - 1} more), which is not "
            f"among the {len(names)} labels given{hint}: add it, or leave labels out"
        )
    if len(names) < 2 and len(dataset):
        raise ConfigError(
            f"only one label, {next(iter(names))!r}: give at least two to choose from"
        )
    return names


def own_templates(model: Model, templates: Sequence[str] | None) -> list[str]:
    """The templates; None is the model's own.

    Raises:
        ConfigError: no list, or a template without {}.
    """
    system = getattr(model, "system", None)
    own = getattr(system, "default_template", None) or FALLBACK_TEMPLATE
    chosen = [own] if templates is None else list(templates)
    if isinstance(templates, str) or not chosen:
        raise ConfigError('templates must be a list such as ["a photo of a {}."]')
    for template in chosen:
        if "{}" not in template:
            raise ConfigError(f"template {template!r} has no {{}} where the label goes")
    return chosen


def class_embeddings(
    model: EmbeddingModel, names: Sequence[str | Names], templates: Sequence[str]
) -> Float[Tensor, "C D"]:
    """One unit vector a class: the mean over its names and the prompts of their unit embeddings.

    Summed in float64 (Radford et al. 2021, section 3.1.4).
    """
    called = [(name,) if isinstance(name, str) else name for name in names]
    texts = [t.replace("{}", name) for several in called for name in several for t in templates]
    embedded = nn.functional.normalize(embed_captions(model, texts).double(), dim=1)  # [texts D]
    parts = embedded.split([len(several) * len(templates) for several in called])
    mean = torch.stack([part.mean(dim=0) for part in parts])  # [C D]
    return nn.functional.normalize(mean, dim=1).float()


def names_signature(names: Mapping[str, Names]) -> str:
    """The number of labels and a hash of what they are called, whatever their order."""
    return f"{len(names)}-{results.short_hash(sorted(chr(0).join(own) for own in names.values()))}"


def templates_signature(templates: Sequence[str]) -> str:
    """The number of templates and their hash."""
    return f"{len(templates)}-{results.short_hash(templates)}"


def _given_names(labels: Labels) -> dict[str, Names]:
    if isinstance(labels, Mapping):
        names = {
            label: (name,) if isinstance(name, str) else tuple(name)
            for label, name in labels.items()
        }
    else:
        names = {label: (label,) for label in labels}
        if len(names) != len(labels):
            raise ConfigError("a label is given twice: every label may appear once")
    nameless = [label for label, own in names.items() if not all(own) or not own]
    if nameless:
        raise ConfigError(f"the label {nameless[0]!r} has no name, or an empty one")
    every = [name for own in names.values() for name in set(own)]
    if len(set(every)) != len(every):
        raise ConfigError("two labels have the same name: the model could not tell them apart")
    return names
