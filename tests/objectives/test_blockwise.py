"""In blocks of columns, and around a ring, the losses and gradients are those of the matrix.

The matrix is written out here as plain loops over pairs, in float64.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.core.errors import ConfigError
from sightline.nn.norms import unit_length
from sightline.objectives.blockwise import sum_over_columns
from sightline.objectives.contrastive import sigmoid_contrastive, softmax_contrastive
from tests.objectives.circle import around, rings, together

CLOSE = {"rtol": 0, "atol": 1e-9}


def number(value):
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def unit_rows(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return unit_length(rows).requires_grad_()


def batch(rows=6, width=5, seed=0):
    """Pictures, sentences, scale and bias."""
    return (
        unit_rows(rows, width, seed=seed),
        unit_rows(rows, width, seed=seed + 100),
        number(4.0),
        number(-1.5),
    )


def some_matches(rows):
    generator = torch.Generator().manual_seed(9)
    return (torch.rand(rows, rows, generator=generator) < 0.3) | torch.eye(rows).bool()


def naive_sigmoid(image, text, scale, bias, matches=None, negatives=None):
    """Question by question."""
    total = number(0.0)
    for i, x in enumerate(image):
        for j, y in enumerate(text):
            true = i == j if matches is None else bool(matches[i, j])
            total = total + torch.log1p(torch.exp((-1 if true else 1) * (scale * x @ y + bias)))
        own = [] if negatives is None else negatives if negatives.ndim == 2 else negatives[i]
        for y in own:
            total = total + torch.log1p(torch.exp(scale * x @ y + bias))
    return total / len(image)


def naive_softmax(image, text, scale, smoothing=0.0, negatives=None):
    """Choice by choice: every candidate's share of the target times its log-probability."""
    total = number(0.0)
    count = len(image)

    def choice(query, candidates, right):
        logits = [scale * query @ candidate for candidate in candidates]
        whole = torch.logsumexp(torch.stack(logits), 0)
        return -sum(
            ((1 - smoothing) * (j == right) + smoothing / count) * (logits[j] - whole)
            for j in range(count)
        )

    for i in range(count):
        own = [] if negatives is None else negatives if negatives.ndim == 2 else negatives[i]
        total = total + choice(image[i], [*text, *own], i) + choice(text[i], list(image), i)
    return total / (2 * count)


NEGATIVES = {"none": None, "pool": (4, 5), "own": (6, 3, 5)}


def negatives_of(kind):
    return None if NEGATIVES[kind] is None else unit_rows(*NEGATIVES[kind], seed=7)


def same(value, leaves, expected, other):
    """Equal values and equal gradients with respect to every leaf."""
    torch.testing.assert_close(value, expected, **CLOSE)
    ours, theirs = torch.autograd.grad(value, leaves), torch.autograd.grad(expected, other)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


@pytest.mark.parametrize("chunk", [None, 1, 2, 4, 100])
@pytest.mark.parametrize("kind", NEGATIVES)
@pytest.mark.parametrize("known", [False, True], ids=["own sentences", "matches"])
def test_sigmoid_in_blocks_is_the_sum_over_questions(chunk, kind, known):
    image, text, scale, bias = batch()
    wrong = negatives_of(kind)
    matches = some_matches(6) if known else None
    leaves = [image, text, scale, bias, *([] if wrong is None else [wrong])]
    value = sigmoid_contrastive(
        image, text, scale, bias, matches=matches, negatives=wrong, chunk=chunk
    )
    same(value, leaves, naive_sigmoid(image, text, scale, bias, matches, wrong), leaves)


@pytest.mark.parametrize("chunk", [None, 1, 2, 4, 100])
@pytest.mark.parametrize("kind", NEGATIVES)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_softmax_in_blocks_is_the_sum_over_choices(chunk, kind, smoothing):
    image, text, scale, _ = batch()
    wrong = negatives_of(kind)
    leaves = [image, text, scale, *([] if wrong is None else [wrong])]
    value = softmax_contrastive(
        image, text, scale, label_smoothing=smoothing, negatives=wrong, chunk=chunk
    )
    same(value, leaves, naive_softmax(image, text, scale, smoothing, wrong), leaves)


def test_smoothing_is_that_of_torch_where_nothing_is_added():
    image, text, scale, _ = batch()
    logits, target = scale * image @ text.T, torch.arange(6)
    expected = sum(
        torch.nn.functional.cross_entropy(matrix, target, label_smoothing=0.3) / 2
        for matrix in (logits, logits.T)
    )
    same(
        softmax_contrastive(image, text, scale, label_smoothing=0.3), [image, text, scale],
        expected, [image, text, scale],
    )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 9),
    chunk=st.integers(1, 12),
    seed=st.integers(0, 1000),
    scale=st.floats(0.1, 100.0),
    pool=st.integers(0, 5),
)
def test_any_cut_gives_the_whole(rows, chunk, seed, scale, pool):
    image, text, _, bias = batch(rows, seed=seed)
    wrong = unit_rows(pool, 5, seed=seed + 5)
    for loss in (
        lambda **cut: sigmoid_contrastive(image, text, number(scale), bias, negatives=wrong, **cut),
        lambda **cut: softmax_contrastive(
            image, text, number(scale), negatives=wrong, label_smoothing=0.1, **cut
        ),
    ):
        same(loss(chunk=chunk), [image, text], loss(), [image, text])


LOSSES = {
    "sigmoid": lambda rows, known, **how: sigmoid_contrastive(*rows, *known, **how),
    "softmax": lambda rows, known, **how: softmax_contrastive(*rows, known[0], **how),
    "smoothed": lambda rows, known, **how: softmax_contrastive(
        *rows, known[0], label_smoothing=0.2, **how
    ),
    "sigmoid, pool": lambda rows, known, **how: sigmoid_contrastive(
        *rows[:2], *known, negatives=rows[2], **how
    ),
    "softmax, pool": lambda rows, known, **how: softmax_contrastive(
        *rows[:2], known[0], negatives=rows[2], label_smoothing=0.2, **how
    ),
    "sigmoid, own": lambda rows, known, **how: sigmoid_contrastive(
        *rows[:2], *known, negatives=rows[2], **how
    ),
    "softmax, own": lambda rows, known, **how: softmax_contrastive(
        *rows[:2], known[0], negatives=rows[2], **how
    ),
}


def scene(name):
    """Rows that are dealt out among ranks, and parameters that all have."""
    image, text, scale, bias = batch(12)
    known = [scale, bias] if name.startswith("sigmoid") else [scale]
    if name.endswith("pool"):
        return [image, text, unit_rows(24, 5, seed=7)], known
    if name.endswith("own"):
        return [image, text, unit_rows(12, 3, 5, seed=7)], known
    return [image, text], known


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("name", LOSSES)
def test_around_a_ring_the_gradient_is_that_of_one_process(size, chunk, name):
    rows, known = scene(name)
    expected = LOSSES[name](rows, known)
    value, gradients = together(
        size, rows, known, lambda rows, known, ring: LOSSES[name](
            rows, known, gather=ring, chunk=chunk
        ),
    )  # fmt: skip
    torch.testing.assert_close(value, expected.detach(), **CLOSE)
    for a, b in zip(gradients, torch.autograd.grad(expected, [*rows, *known]), strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("name", LOSSES)
def test_gathered_the_gradient_is_that_of_one_process(chunk, name):
    """The gather of a fake rank hands out the joined leaves themselves."""
    rows, known = scene(name)
    expected = LOSSES[name](rows, known)
    total = 0.0
    for rank in range(3):
        own = [tensor.chunk(3)[rank] for tensor in rows]

        def gather(part, own=own):
            return next(whole for whole, mine in zip(rows, own, strict=True) if part is mine)

        total = total + LOSSES[name](own, known, gather=gather, first_row=4 * rank, chunk=chunk)
    same(total / 3, [*rows, *known], expected, [*rows, *known])


@pytest.mark.parametrize("chunk", [None, 1])
def test_known_matches_travel_by_the_ranks_of_their_sentences(chunk):
    image, text, scale, bias = batch(6)
    matches = some_matches(6)
    expected = sigmoid_contrastive(image, text, scale, bias, matches=matches)

    def loss(rows, known, ring):
        mine = matches.chunk(3)[ring.rank]
        return sigmoid_contrastive(*rows, *known, matches=mine, gather=ring, chunk=chunk)

    value, gradients = together(3, [image, text], [scale, bias], loss)
    torch.testing.assert_close(value, expected.detach(), **CLOSE)
    for a, b in zip(
        gradients, torch.autograd.grad(expected, [image, text, scale, bias]), strict=True
    ):
        torch.testing.assert_close(a, b, **CLOSE)


def test_nobody_holds_more_than_one_shard_at_a_time():
    """What comes by is as large as what one brought, and it comes by once."""
    seen = {}

    def work(ring):
        shapes = []

        def watched(tensors):
            shapes.append([tuple(tensor.shape) for tensor in tensors])
            return ring.pass_on(tensors)

        image, text, scale, bias = (t.detach().clone().requires_grad_() for t in batch(2))
        circle = type(ring)(ring.rank, ring.size, watched)
        sigmoid_contrastive(image, text, scale, bias, gather=circle).backward()
        seen[ring.rank] = shapes

    around(3, work)
    rows = (2, 5)
    assert seen[0] == seen[1] == seen[2] == [[rows, rows], [rows, rows], [rows]]


@pytest.mark.parametrize("frozen", ["image", "text", "nothing learns"])
def test_what_needs_no_gradient_gets_none_and_changes_nothing(frozen):
    image, text, scale, bias = batch()
    learning = {"image": text, "text": image}.get(frozen)
    for tensor in (image, text, scale, bias):
        tensor.requires_grad_(tensor is learning)
    value = sigmoid_contrastive(image, text, scale, bias, chunk=2)
    expected = sigmoid_contrastive(image, text, scale, bias)
    torch.testing.assert_close(value, expected, **CLOSE)
    assert value.requires_grad == (learning is not None)
    if learning is not None:
        same(value, [learning], expected, [learning])


def test_frozen_sentences_travel_without_a_gradient():
    moved = []

    def work(ring):
        def watched(tensors):
            moved.append(len(tensors))
            return ring.pass_on(tensors)

        image, text, scale, bias = (t.detach().clone() for t in batch(2))
        circle = type(ring)(ring.rank, ring.size, watched)
        sigmoid_contrastive(image.requires_grad_(), text, scale, bias, gather=circle).backward()

    around(2, work)
    assert moved == [1, 1]


def test_without_gradients_no_gradient_is_computed():
    image, text, *_ = batch()
    calls = []

    def visit(block, place, *resident):
        calls.append(torch.is_grad_enabled())
        return block.sum()

    with torch.no_grad():
        sum_over_columns(visit, text.detach(), (image.detach(),), chunk=2)
    assert calls == [False, False, False]


def test_a_loss_that_is_weighed_has_a_gradient_that_is_weighed():
    image, text, scale, bias = batch()
    value = 3 * sigmoid_contrastive(image, text, scale, bias, chunk=2) + image.sum()
    expected = 3 * sigmoid_contrastive(image, text, scale, bias) + image.sum()
    same(value, [image, text, scale, bias], expected, [image, text, scale, bias])


def test_numeric_gradients_agree():
    image, text, scale, bias = batch(4)
    assert torch.autograd.gradcheck(
        lambda *tensors: sigmoid_contrastive(*tensors, chunk=3), (image, text, scale, bias)
    )
    assert torch.autograd.gradcheck(
        lambda *tensors: softmax_contrastive(*tensors, label_smoothing=0.1, chunk=3),
        (image, text, scale),
    )


def test_logits_of_a_hundred_stay_finite_in_float32():
    image = unit_rows(8, 4).detach().float().requires_grad_()
    text = image.detach().flip(0).clone().requires_grad_()
    for chunk in (None, 3):
        value = softmax_contrastive(image, text, torch.tensor(1000.0), chunk=chunk)
        value.backward()
        assert value.isfinite() and image.grad.isfinite().all() and text.grad.isfinite().all()
    assert float(value.detach()) == pytest.approx(
        float(softmax_contrastive(image, text, torch.tensor(1000.0)).detach()), rel=1e-5
    )


@pytest.mark.parametrize("chunk", [None, 3])
def test_under_autocast_the_logits_are_not_rounded(chunk):
    """A logit near 100 has a spacing of 0.5 in bfloat16; losses stay float32."""
    image, text, scale, bias = (t.detach().float() for t in batch(8))
    scale = torch.tensor(100.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = [
            softmax_contrastive(image, text, scale, chunk=chunk),
            sigmoid_contrastive(image, text, scale, bias, chunk=chunk),
        ]
    outside = [
        softmax_contrastive(image, text, scale, chunk=chunk),
        sigmoid_contrastive(image, text, scale, bias, chunk=chunk),
    ]
    assert inside == outside and inside[0].dtype == torch.float32


def test_a_hard_negative_costs_its_pictures_and_is_pushed_away():
    """An exchanged caption as close to the picture as the right one adds ln 2 to its choice."""
    image, scale = torch.eye(4, dtype=torch.float64), number(60.0)
    swapped = image.clone().requires_grad_()
    without = softmax_contrastive(image, image, scale)
    with_pool = softmax_contrastive(image, image, scale, negatives=swapped)
    assert float((with_pool - without).detach()) == pytest.approx(math.log(2) / 2, abs=1e-9)
    with_pool.backward()
    assert (swapped.grad.diagonal() > 0).all(), "descending the gradient moves it away"


def test_no_smoothed_target_falls_on_a_hard_negative():
    """Pushing a negative further down can only help, however much is smoothed."""
    image, text, scale, _ = batch()
    wrong = negatives_of("own")
    value = softmax_contrastive(image, text, scale, negatives=wrong, label_smoothing=0.9)
    (gradient,) = torch.autograd.grad(value, [wrong])
    along = torch.einsum("bkd,bd->bk", gradient, image)  # d loss / d logit, up to the scale
    assert (along > 0).all()
    spread = torch.nn.functional.cross_entropy(
        torch.cat([scale * image @ text.T, scale * torch.einsum("bd,bkd->bk", image, wrong)], 1),
        torch.arange(6),
        label_smoothing=0.9,
    )
    (other,) = torch.autograd.grad(spread, [wrong])
    assert (torch.einsum("bkd,bd->bk", other, image) < 0).any(), "torch's own would pull some up"


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_a_chunk_of_nothing_is_refused(loss):
    image, text, scale, bias = batch()
    known = (scale, bias) if loss == "sigmoid" else (scale,)
    function = sigmoid_contrastive if loss == "sigmoid" else softmax_contrastive
    with pytest.raises(ConfigError, match="chunk 0: give the number of columns of a block"):
        function(image, text, *known, chunk=0)


@pytest.mark.parametrize("share", [-0.1, 1.0, 2.0])
def test_smoothing_everything_away_is_refused(share):
    image, text, scale, _ = batch()
    with pytest.raises(ConfigError, match="use a share from 0 up to below 1"):
        softmax_contrastive(image, text, scale, label_smoothing=share)


def test_a_gradient_that_stays_abroad_is_noticed():
    """The negative control: a ring whose last hop is left out gives another's gradient."""
    image, text, scale, bias = batch(6)
    expected = torch.autograd.grad(sigmoid_contrastive(image, text, scale, bias), [text])[0]

    def loss(rows, known, ring):
        def never_home(tensors):
            return ring.pass_on(tensors) if len(tensors) == 2 else tensors

        return sigmoid_contrastive(*rows, *known, gather=type(ring)(ring.rank, 3, never_home))

    _, gradients = together(3, [image, text], [scale, bias], loss)
    assert (gradients[1] - expected).abs().max() > 1e-3
    assert len(rings(3)) == 3
