"""UniCL's loss against CLIP's, supervised contrast, and plain loops over pairs, in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.core.errors import ConfigError, InputError
from sightline.objectives import unicl
from sightline.objectives.contrastive import softmax_contrastive
from sightline.objectives.unicl import group_labels, label_contrastive
from tests.objectives.circle import around, together

CLOSE = {"rtol": 0, "atol": 1e-9}
MIXED = [7, -3, 7, 0, -3, 7, 5, 9]
"""Eight pairs: one class three times, another twice, three of their own."""


def number(value):
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def embeddings(batch=8, width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(2, batch, width, generator=generator, dtype=torch.float64)
    image, text = F.normalize(rows, dim=-1)
    return image.requires_grad_(), text.requires_grad_()


def naive(image, text, scale, labels):
    """Equations 2 to 4, pair by pair."""
    total = number(0.0)
    for queries, others in ((image, text), (text, image)):
        for i, query in enumerate(queries):
            exponentials = [torch.exp(scale * query @ other) for other in others]
            alike = [k for k in range(len(others)) if labels[k] == labels[i]]
            for k in alike:
                chance = exponentials[k] / sum(exponentials)
                total = total - torch.log(chance) / len(alike) / len(queries)
    return total


def supervised_contrast(queries, others, labels, scale):
    """Khosla et al. 2020 (arXiv:2004.11362), equation 2, with anchors of one tower and the
    contrasts of the other, so that no pair is left out."""
    logits = scale * queries @ others.T
    positive = labels[:, None] == labels
    log_chance = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    means = [row[mask].mean() for row, mask in zip(log_chance, positive, strict=True)]
    return -torch.stack(means).mean()


def gradients(loss, *inputs):
    return torch.autograd.grad(loss, inputs)


@pytest.mark.parametrize("labels", [MIXED, [1] * 8, list(range(8))])
def test_the_loss_is_that_of_plain_loops(labels):
    image, text = embeddings()
    scale = number(3.0)
    got = label_contrastive(image, text, scale, torch.tensor(labels))
    expected = naive(image, text, scale, labels)
    torch.testing.assert_close(got, expected, **CLOSE)
    inputs = (image, text, scale)
    for a, b in zip(gradients(got, *inputs), gradients(expected, *inputs), strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


@given(st.integers(1, 9), st.integers(0, 1000), st.floats(0.1, 30))
@settings(max_examples=25, deadline=None)
def test_with_a_label_for_each_pair_it_is_clips_loss_or_twice_that(batch, seed, scale):
    image, text = embeddings(batch, seed=seed)
    labels = torch.randperm(batch, generator=torch.Generator().manual_seed(seed)) - 4
    clip = softmax_contrastive(image, text, number(scale))
    mean = label_contrastive(image, text, number(scale), labels, directions="mean")
    torch.testing.assert_close(mean, clip, **CLOSE)
    total = label_contrastive(image, text, number(scale), labels)
    torch.testing.assert_close(total, 2 * clip, **CLOSE)


def test_with_a_class_for_each_picture_it_is_supervised_contrast():
    image, text = embeddings()
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 2, 2])
    expected = sum(
        supervised_contrast(a, b, labels, 6.0) for a, b in ((image, text), (text, image))
    )
    got = label_contrastive(image, text, number(6.0), labels)
    torch.testing.assert_close(got, expected, **CLOSE)


@given(st.permutations(range(8)), st.lists(st.integers(-3, 3), min_size=8, max_size=8))
@settings(max_examples=25, deadline=None)
def test_neither_order_nor_names_of_labels_matter(order, labels):
    image, text = embeddings()
    labels, order = torch.tensor(labels), torch.tensor(order)
    here = label_contrastive(image, text, number(5.0), labels)
    there = label_contrastive(image[order], text[order], number(5.0), labels[order])
    renamed = label_contrastive(image, text, number(5.0), 1000 - 7 * labels)
    swapped = label_contrastive(text, image, number(5.0), labels)
    for other in (there, renamed, swapped):
        torch.testing.assert_close(other, here, **CLOSE)


@given(st.lists(st.integers(0, 4), min_size=2, max_size=8), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_the_loss_is_at_least_the_entropy_of_the_labels(labels, seed):
    """Cross-entropy is never below the entropy of its target, which is ln |P(i)|."""
    image, text = embeddings(len(labels), seed=seed)
    floor = 2 * sum(math.log(labels.count(label)) for label in labels) / len(labels)
    loss = label_contrastive(image, text, number(20.0), torch.tensor(labels)).item()
    assert loss >= floor - 1e-9


@pytest.mark.parametrize("batch", [1, 5])
def test_one_class_alone_is_content_when_everything_is_alike(batch):
    same = (torch.ones(batch, 4, dtype=torch.float64) / 2).requires_grad_()
    scale = number(9.0)
    loss = label_contrastive(same, same, scale, torch.zeros(batch, dtype=torch.int64))
    assert loss.item() == pytest.approx(2 * math.log(batch), abs=1e-12)
    for found in gradients(loss, same, scale):
        torch.testing.assert_close(found, torch.zeros_like(found), **CLOSE)


def pull(labels, loss=label_contrastive):
    """How the loss moves the logits: below 0, a pair is drawn together.

    Against orthonormal texts, the gradient of a picture is that of its logits.
    """
    image = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    text = torch.eye(3, dtype=torch.float64)
    return gradients(loss(image, text, number(1.0), torch.tensor(labels)), image)[0]


def test_a_caption_that_occurs_twice_is_no_negative():
    moved = pull([4, 4, 9])
    assert (moved[:2, :2] < 0).all()  # both pictures to both copies
    assert (moved[:2, 2] > 0).all() and (moved[2, :2] > 0).all()
    torch.testing.assert_close(moved[0, 0], moved[0, 1])


def test_clips_loss_pushes_the_second_copy_away():
    moved = pull([4, 4, 9], lambda image, text, scale, _: softmax_contrastive(image, text, scale))
    assert moved[0, 1] > 0 and moved[1, 0] > 0


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_together_give_the_gradient_of_one_process(ranks):
    image, text = embeddings()
    labels, scale = torch.tensor(MIXED), number(3.0)
    whole = label_contrastive(image, text, scale, labels)
    expected = gradients(whole, image, text, scale)
    rows = 8 // ranks
    total = number(0.0)
    for rank in range(ranks):
        own = slice(rank * rows, (rank + 1) * rows)

        def gather(part, own=own):
            return next(x for x in (image, text, labels) if x[own].equal(part))

        total = total + label_contrastive(
            image[own], text[own], scale, labels[own], gather=gather
        ) / ranks  # fmt: skip
    torch.testing.assert_close(total, whole, **CLOSE)
    for a, b in zip(gradients(total, image, text, scale), expected, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


def test_a_rank_that_looks_at_itself_alone_gives_another_loss():
    """The mistake that the test above is there for: labels not gathered with the rows."""
    image, text = embeddings()
    labels, scale = torch.tensor(MIXED), number(3.0)
    whole = label_contrastive(image, text, scale, labels).item()
    parts = [label_contrastive(image[p], text[p], scale, labels[p]).item()
             for p in (slice(0, 4), slice(4, 8))]  # fmt: skip
    assert abs(sum(parts) / 2 - whole) > 0.1


@pytest.mark.parametrize("chunk", [1, 3, 8, 50])
@pytest.mark.parametrize("labels", [MIXED, list(range(8))])
def test_in_blocks_the_loss_is_the_same(chunk, labels):
    image, text = embeddings()
    scale = number(3.0)
    inputs = (image, text, scale)
    whole = label_contrastive(*inputs, torch.tensor(labels))
    blocks = label_contrastive(*inputs, torch.tensor(labels), chunk=chunk)
    torch.testing.assert_close(blocks, whole, **CLOSE)
    for a, b in zip(gradients(blocks, *inputs), gradients(whole, *inputs), strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("chunk", [None, 1])
def test_around_a_ring_the_loss_is_that_of_one_process(size, chunk):
    image, text = embeddings()
    scale, labels = number(3.0), torch.tensor(MIXED)

    def loss(rows, known, ring):
        own = labels.chunk(size)[ring.rank]
        return label_contrastive(*rows, *known, own, gather=ring, chunk=chunk)

    value, found = together(size, [image, text], [scale], loss)
    whole = label_contrastive(image, text, scale, labels)
    torch.testing.assert_close(value, whole.detach(), **CLOSE)
    for a, b in zip(found, gradients(whole, image, text, scale), strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


def test_labels_come_round_in_the_order_of_the_ranks():
    found = around(3, lambda ring: unicl._all_labels(torch.tensor([ring.rank, 10]), ring).tolist())
    assert found == [[0, 10, 1, 10, 2, 10]] * 3


def test_bfloat16_embeddings_are_judged_in_float32_under_autocast():
    image, text = (rows.detach().bfloat16() for rows in embeddings())
    labels = torch.tensor(MIXED)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = label_contrastive(image, text, torch.tensor(10.0), labels)
    full = label_contrastive(image.float(), text.float(), torch.tensor(10.0), labels)
    assert low.dtype == torch.float32
    assert torch.equal(low, full)


@pytest.mark.parametrize("large", [1e3, 1e5])
def test_large_logits_stay_finite(large):
    image, text = embeddings()
    loss = label_contrastive(image, text, number(large), torch.tensor(MIXED))
    assert loss.isfinite() and all(g.isfinite().all() for g in gradients(loss, image, text))


def test_settings_that_do_not_exist_are_refused():
    image, text = embeddings()
    with pytest.raises(ConfigError, match="unknown directions 'average'"):
        label_contrastive(image, text, number(1.0), torch.tensor(MIXED), directions="average")
    with pytest.raises(ConfigError, match="chunk 0"):
        label_contrastive(image, text, number(1.0), torch.tensor(MIXED), chunk=0)


# What belongs together.


def test_classes_and_captions_are_numbered_alike_everywhere():
    labels = group_labels(["dog", None, "dog", None, None], ["a", "a dog.", "b", "A  dog. ", "x"])
    assert labels.dtype == torch.int64
    assert labels[0] == labels[2] and labels[1] == labels[3]
    assert labels.unique().numel() == 3
    assert (labels >= 0).tolist() == [True, False, True, False, False]
    assert torch.equal(group_labels([None], ["a dog."])[0], labels[1])  # in another batch too


def test_a_class_and_a_caption_of_the_same_words_are_two_things():
    assert group_labels(["dog", None], ["dog", "dog"]).unique().numel() == 2


def test_numbered_classes_are_taken_as_they_are_written():
    assert torch.equal(group_labels([3, "3"], ["a", "b"]), group_labels(["3", 3], ["c", "d"]))


@given(
    st.lists(st.text(max_size=8), max_size=12, unique_by=lambda t: " ".join(t.split()).casefold())
)
@settings(max_examples=50, deadline=None)
def test_different_captions_get_different_numbers_whatever_they_hold(captions):
    labels = group_labels([None] * len(captions), captions)
    assert labels.unique().numel() == len(captions)


def test_as_many_labels_as_captions_are_needed():
    with pytest.raises(InputError, match="2 labels for 1 captions"):
        group_labels([None, None], ["a"])


# Known mistakes.


def logarithm_outside(queries, scale, among, chunk):
    """Any text of the label will do: -log of the summed chances."""
    shares = among.shares(scale * queries @ among.rows.T, unicl.Place(0, 0))
    logits = scale * queries @ among.rows.T
    chosen = logits.masked_fill(shares == 0, -torch.inf).logsumexp(1)
    return (logits.logsumexp(1) - chosen).mean()


def not_divided(queries, scale, among, chunk):
    """A class that is common in the batch weighs more."""
    logits = scale * queries @ among.rows.T
    alike = among.shares(logits, unicl.Place(0, 0)) > 0
    return -(alike * F.log_softmax(logits, dim=1)).sum() / len(queries)


def positives_left_out_of_the_sum(queries, scale, among, chunk):
    """Each positive against the negatives alone."""
    logits = scale * queries @ among.rows.T
    shares = among.shares(logits, unicl.Place(0, 0))
    rest = logits.masked_fill(shares > 0, -torch.inf).logsumexp(1, keepdim=True)
    return -(shares * (logits - torch.logaddexp(rest, logits))).sum() / len(queries)


def own_pair_alone(queries, scale, among, chunk):
    """CLIP's loss, whatever the labels say."""
    return F.cross_entropy(scale * queries @ among.rows.T, torch.arange(len(queries)))


@pytest.mark.parametrize(
    "mistake",
    [logarithm_outside, not_divided, positives_left_out_of_the_sum, own_pair_alone],
    ids=lambda mistake: mistake.__name__,
)
def test_the_comparison_notices(mistake, monkeypatch):
    image, text = embeddings()
    expected = naive(image, text, number(3.0), MIXED).item()
    monkeypatch.setattr(unicl, "_choice", mistake)
    got = label_contrastive(image, text, number(3.0), torch.tensor(MIXED)).item()
    assert abs(got - expected) > 0.01
