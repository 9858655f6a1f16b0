"""A linear probe of a few pictures of each class, and how much it varies with which ones.

From one picture of each class nobody can choose a penalty, so it is fixed: the probe uses the
labels of its pictures and no others. (Published tables often choose it on further labelled
pictures.) So that one penalty means the same for every model, the pictures of a draw are centred
and divided by one number, to unit variance a feature: some models put all pictures into a narrow
cone, where a penalty on unit vectors would let them learn nothing. Draws are nested: the pictures
of 4 shots are among those of 8. Beside the probe stands the zero-shot accuracy of the same model
on the same pictures, where it has texts; it is a mark to compare with, and no part of the
signature.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.core.errors import ConfigError, UnsupportedTaskError
from sightline.data.records import Dataset
from sightline.evaluation.interfaces import EmbeddingModel
from sightline.evaluation.label_prompts import (
    Labels,
    Names,
    class_embeddings,
    label_names,
    own_templates,
)
from sightline.evaluation.label_scores import cosines
from sightline.evaluation.probe import Outcome, probe_result, probe_scores
from sightline.evaluation.probe_data import (
    Embedded,
    Known,
    ProbeData,
    drawn_shots,
    embed_parts,
    joined,
)
from sightline.evaluation.records import Progress
from sightline.evaluation.results import Metric, Result, Sample
from sightline.metrics.classification import target_ranks
from sightline.metrics.intervals import wilson
from sightline.metrics.linear_probe import fit_linear_probe
from sightline.metrics.student import student

SHOTS = (1, 2, 4, 8, 16)
DRAWS = 5
PENALTY = 1.0
"""As scikit-learn's default, C = 1."""


def few_shot(
    model: EmbeddingModel,
    data: ProbeData,
    shots: Sequence[int] = SHOTS,
    draws: int = DRAWS,
    penalty: float = PENALTY,
    labels: Labels | None = None,
    templates: Sequence[str] | None = None,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Result:
    """Top-1 of probes of N pictures a class: the mean over draws, with Student's interval of it.

    The interval tells how the mean moves with the pictures that are drawn to learn from, not with
    the test pictures. A class with fewer pictures gives all that it has. A sample's score is the
    share of the draws in which it was right, its rank the mean rank.

    Args:
        model: what `sightline.load` returns.
        data: what `probe_data` returns.
        shots: pictures of each class; the last one is the headline.
        draws: different pictures each time, the same for every model.
        penalty: of `metrics.linear_probe`.
        labels: for zero-shot, see `zeroshot`.
        templates: likewise.
        batch_size: pictures embedded at a time.
        progress: called with pictures embedded and their total.

    Raises:
        DataError: no picture to learn from can be read, they are of one class alone, or a label is
            not among `labels`.
        ConfigError: shots that do not rise from 1, no draw, or a penalty that is not above 0.
        UnsupportedTaskError: the model sees no pictures.
    """
    started = time.monotonic()
    if not shots or list(shots) != sorted(set(shots)) or shots[0] < 1 or draws < 1:
        raise ConfigError(
            f"shots are {list(shots)} and draws {draws}: give rising numbers from 1, such as "
            "1, 2, 4, and at least one draw"
        )
    names = label_names(Dataset((*data.learned, *data.test), data.name), labels)
    prompts = own_templates(model, templates)
    seen = embed_parts(model, data, batch_size, progress)
    learned = joined(seen.train, seen.validation)
    metrics: dict[str, Metric] = {}
    samples: list[Sample] = []
    for count in shots:
        drawn = (drawn_shots(learned, count, draw) for draw in range(draws))
        ranks = torch.stack([_ranks(seen, taken, penalty) for taken in drawn])  # [draws N]
        right = (ranks == 1).double()
        shares = right.mean(dim=1)
        ends = torch.tensor(student(shares), dtype=torch.float64).clamp(0, 1)  # of a share
        interval = (ends[0].item(), ends[1].item())
        metrics[f"{count}-shot/top1"] = Metric(shares.mean().item(), interval, len(data.test))
        samples += _samples(data, seen, f"{count}-shot", ranks.mean(dim=0), right.mean(dim=0))
    pictures = {str(n): len(drawn_shots(learned, n, 0).records) for n in shots}
    beside = _zero_shot(model, data, seen, names, prompts)
    outcome = Outcome(
        task="few-shot",
        variant="logistic regression",
        headline=f"{shots[-1]}-shot/top1",
        metrics={**metrics, **beside},
        samples=tuple(samples),
        invalid=int((seen.test.read & ~torch.isfinite(seen.test.embeddings).all(dim=1)).sum()),
        signature={
            "shots": ",".join(map(str, shots)), "draws": draws, "penalty": f"{penalty:g}",
        },
        settings={"draws": draws, "penalty": penalty, "pictures": pictures},
        templates=tuple(prompts) if beside else (),
    )  # fmt: skip
    return probe_result(model, data, seen, outcome, started)


def _ranks(seen: Embedded, taken: Known, penalty: float) -> Float[Tensor, " N"]:
    """Of the true labels of the test pictures, by a probe of these pictures."""
    vectors = taken.embeddings.double()
    centre = vectors.mean(dim=0)
    spread = (vectors - centre).square().mean().sqrt().clamp_min(1e-6)
    scaled = (vectors - centre) / spread
    probe = fit_linear_probe(scaled, taken.targets, len(seen.labels), penalty)
    weight = probe.weight / spread  # the same probe for vectors as they are
    probe = probe._replace(weight=weight, bias=probe.bias - weight @ centre)
    return target_ranks(probe_scores(seen, probe), seen.targets)


def _samples(
    data: ProbeData,
    seen: Embedded,
    kind: str,
    ranks: Float[Tensor, " N"],
    shares: Float[Tensor, " N"],
) -> list[Sample]:
    finite = torch.isfinite(seen.test.embeddings).all(dim=1)
    return [
        Sample(
            id=record.id,
            kind=kind,
            target=(str(record.label),),
            ranking=(),
            rank=ranks[row].item(),
            score=shares[row].item(),
            group=record.id,
            status="missing" if not seen.test.read[row] else "ok" if finite[row] else "invalid",
        )
        for row, record in enumerate(data.test)
    ]


def _zero_shot(
    model: EmbeddingModel,
    data: ProbeData,
    seen: Embedded,
    names: Mapping[str, Names],
    prompts: Sequence[str],
) -> dict[str, Metric]:
    """Top-1 by names alone; nothing of a model without texts."""
    try:
        classes = class_embeddings(model, list(names.values()), prompts)
    except UnsupportedTaskError:
        return {}
    places = {label: place for place, label in enumerate(names)}
    targets = torch.tensor([places[str(record.label)] for record in data.test])
    scores = torch.full((len(targets), len(names)), torch.nan)
    scores[seen.test.read] = cosines(seen.test.embeddings[seen.test.read], classes)
    hits = int((target_ranks(scores, targets) == 1).sum())
    metric = Metric(hits / len(targets), wilson(hits, len(targets)), len(targets))
    return {"zeroshot/top1": metric}
