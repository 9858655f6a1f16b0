"""Gemma, Gemma 2 and both generations of PaliGemma against transformers on random weights.

Every parameter of the reference is drawn anew; it writes its checkpoint, ours reads it, and both
are asked the same: prompts of unequal lengths with none, one and two pictures, sliding windows that
the prompt and the steps behind it cross.
"""

from __future__ import annotations

import pytest
import torch

from sightline.generation.options import GenerationOptions
from sightline.generation.text import generate
from sightline.models.table import system
from sightline.nn.meta import without_memory
from tests.models.writers import (
    SYSTEMS,
    agree,
    disagreeing,
    in_double,
    our_outputs,
    prompts,
    read,
    reference,
    their_greedy,
    their_inputs,
    their_outputs,
    their_steps,
)

transformers = pytest.importorskip("transformers")  # the reference; part of the test extra


@pytest.fixture(params=SYSTEMS)
def both(request, tmp_path):
    """(name, reference, ours)."""
    theirs = reference(request.param)
    theirs.save_pretrained(tmp_path)
    return request.param, theirs, read(request.param, tmp_path)


def test_logits_pictures_and_every_layer_agree(both):
    name, theirs, ours = both
    assert disagreeing(theirs, ours, name) == set()


def test_they_agree_in_double_precision(both, monkeypatch):
    name, theirs, ours = both
    assert disagreeing(in_double(theirs, monkeypatch), ours.double(), name) == set()


def test_the_gradient_of_every_parameter_agrees(both):
    name, theirs, ours = both
    batch = prompts(name)
    expected, found = their_outputs(theirs, *batch)["logits"], ours(*batch).logits
    found = found[batch[1].mask]
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9))
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    entry = system(SYSTEMS[name])
    mine = entry.write_state({key: p.grad for key, p in ours.named_parameters()})
    mine = (entry.class_names or dict)(mine)
    grads = {key: p.grad for key, p in theirs.named_parameters()}
    assert mine.keys() == grads.keys()
    assert [key for key, grad in grads.items() if not agree(mine[key], grad)] == []


@torch.no_grad()
def test_every_cached_step_agrees(both):
    """Eleven steps, more than the window of five holds."""
    name, theirs, ours = both
    prompt, _ = prompts(name)
    ids = torch.randint(3, 97, (4, 11), generator=torch.Generator().manual_seed(8))
    expected = their_steps(theirs, prompt, ids)
    logits, cache = ours.prefill(prompt, 3)  # less room than is needed
    found = [logits, *(ours.extend(ids[:, n : n + 1], cache)[:, 0] for n in range(ids.shape[1]))]
    assert agree(torch.stack(found, dim=1), expected)


def test_greedy_answers_are_the_same_over_64_tokens(both):
    name, theirs, ours = both
    prompt, _ = prompts(name)
    answers = generate(ours, prompt, GenerationOptions(64), ())
    found = [answer.ids for answer in answers]  # of all four in one batch
    assert [found[1], found[2]] == their_greedy(theirs, prompt, (1, 2), 64)


@torch.no_grad()
@pytest.mark.parametrize("name", ["paligemma", "paligemma2"])
def test_the_last_word_of_the_prompt_reaches_its_first_position(name, tmp_path):
    """As measured on the reference: of the whole sequence, and at the position in front."""
    theirs = reference(name)
    theirs.save_pretrained(tmp_path)
    ours = read(name, tmp_path)
    prompt, suffix = prompts(name)
    ids = prompt.ids.clone()
    ids[1, 1] = 50 if ids[1, 1] != 50 else 51  # the last of two words behind two pictures
    before, after = (
        [outputs(network, prompt._replace(ids=own), suffix)["layer 0"]
         for outputs, network in ((their_outputs, theirs), (our_outputs, ours))]
        for own in (prompt.ids, ids)
    )  # fmt: skip
    _, places = their_inputs(prompt, suffix)
    first = places[0][-1] + 1  # where the second row begins
    for one, two in zip(before, after, strict=True):
        assert float((one[first] - two[first]).abs().max()) > 1e-4
        assert torch.equal(one[:first], two[:first])  # another row sees nothing of it


@pytest.mark.parametrize(
    ("variant", "count"),
    [("3B-224", 2_923_466_480), ("3B-448", 2_924_351_216), ("3B-896", 2_927_890_160)],
)
def test_the_published_sizes_of_paligemma(variant, count):
    entry = system("paligemma")
    with without_memory():
        network = entry.build(entry.variants[variant])
    assert sum(p.numel() for p in network.parameters()) == count


VARIANTS = [
    (name, variant)
    for name in ("gemma", "gemma2", "paligemma")
    for variant in system(name).variants
    if not variant.endswith(("448", "896"))  # larger by rows of the position table alone
]


@pytest.mark.parametrize(("name", "variant"), VARIANTS, ids=lambda value: value)
def test_the_reference_counts_as_many_parameters(name, variant):
    entry = system(name)
    config = entry.write_config(entry.variants[variant])
    kind = getattr(transformers, config["architectures"][0])
    with without_memory():
        theirs = kind(kind.config_class.from_dict(config))
        ours = entry.build(entry.variants[variant])
    theirs.tie_weights()
    counts = [sum(p.numel() for p in network.parameters()) for network in (theirs, ours)]
    assert counts[0] == counts[1]
