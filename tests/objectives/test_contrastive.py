"""The contrastive losses against the formulas, written out in plain loops in float64."""

import math

import pytest
import torch

from sightline.nn.norms import unit_length
from sightline.objectives.contrastive import sigmoid_contrastive, softmax_contrastive


def embeddings(batch=5, width=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(2, batch, width, generator=generator, dtype=torch.float64)
    image, text = torch.nn.functional.normalize(rows, dim=-1)
    return image.requires_grad_(), text.requires_grad_()


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def test_softmax_is_the_mean_of_both_cross_entropies():
    image, text = embeddings()
    logits = 3.0 * image.detach() @ text.detach().T
    expected = 0.0
    for matrix in (logits, logits.T):
        for i, row in enumerate(matrix):
            expected -= math.log(float(row[i].exp() / row.exp().sum())) / len(matrix) / 2
    assert softmax_contrastive(image, text, number(3.0)).item() == pytest.approx(
        expected, abs=1e-12
    )


@pytest.mark.parametrize("batch", [1, 4, 9])
def test_softmax_of_identical_embeddings_is_ln_n(batch):
    same = torch.ones(batch, 4) / 2
    assert float(softmax_contrastive(same, same, torch.tensor(10.0))) == pytest.approx(
        math.log(batch), abs=1e-6
    )


def test_softmax_is_symmetric_under_swapping_the_towers():
    image, text = embeddings()
    a = softmax_contrastive(image, text, number(4.0))
    assert torch.equal(a, softmax_contrastive(text, image, number(4.0)))


def test_sigmoid_is_the_sum_over_sentences_and_the_mean_over_pictures():
    image, text = embeddings()
    expected = 0.0
    for i, x in enumerate(image.detach()):
        for j, y in enumerate(text.detach()):
            sign = 1 if i == j else -1
            expected += math.log1p(math.exp(-sign * (3.0 * float(x @ y) - 2.0))) / len(image)
    got = sigmoid_contrastive(image, text, number(3.0), number(-2.0))
    assert got.item() == pytest.approx(expected, abs=1e-12)


def test_sentences_that_are_true_of_several_pictures_count_for_each():
    image, text = embeddings(batch=3)
    scale, bias = number(3.0), number(-2.0)
    matches = torch.tensor([[True, False, True], [False, True, False], [True, False, True]])
    expected = 0.0
    for i in range(3):
        for j in range(3):
            logit = float((3.0 * image[i] @ text[j] - 2.0).detach())
            expected += math.log1p(math.exp(-logit if matches[i, j] else logit)) / 3
    got = sigmoid_contrastive(image, text, scale, bias, matches=matches)
    assert got.item() == pytest.approx(expected, abs=1e-12)
    own = sigmoid_contrastive(image, text, scale, bias, matches=torch.eye(3, dtype=torch.bool))
    assert torch.equal(own, sigmoid_contrastive(image, text, scale, bias))


def test_sigmoid_starts_where_the_paper_says():
    """Orthogonal embeddings at t' = ln 10, b = -10: softplus(10) + (N - 1) softplus(-10)."""
    rows = torch.eye(8, dtype=torch.float64)
    loss = sigmoid_contrastive(rows[:4], rows[4:], number(10.0), number(-10.0))
    assert float(loss) == pytest.approx(10.0002, abs=5e-5)


def test_sigmoid_pulls_true_pairs_up_and_false_pairs_down():
    logits = torch.zeros((), dtype=torch.float64)
    image = torch.eye(4, dtype=torch.float64).requires_grad_()
    sigmoid_contrastive(
        image, torch.eye(4, dtype=torch.float64), number(1.0), logits - 1
    ).backward()
    assert (image.grad.diagonal() < 0).all()
    off = image.grad[~torch.eye(4, dtype=torch.bool)]
    assert (off > 0).all()


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_ranks_together_give_the_gradient_of_one_process(ranks, loss):
    image, text = embeddings(batch=6)
    scale, bias = number(3.0), number(-2.0)

    def whole():
        return (
            softmax_contrastive(image, text, scale)
            if loss == "softmax"
            else sigmoid_contrastive(image, text, scale, bias)
        )

    expected = torch.autograd.grad(whole(), [image, text])
    rows = 6 // ranks
    total = torch.zeros((), dtype=torch.float64)
    for rank in range(ranks):
        own = slice(rank * rows, (rank + 1) * rows)

        def gather(part, own=own):
            return image if torch.equal(part, image[own]) else text

        options = {"gather": gather, "first_row": rank * rows}
        local = (
            softmax_contrastive(image[own], text[own], scale, **options)
            if loss == "softmax"
            else sigmoid_contrastive(image[own], text[own], scale, bias, **options)
        )
        total = total + local / ranks
    assert total.item() == pytest.approx(whole().item(), abs=1e-12)
    for a, b in zip(torch.autograd.grad(total, [image, text]), expected, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def commonly_printed(image, text, scale, bias):
    """The wrong form: (1 - 2 delta) inside the sigmoid and once more outside."""
    logits = scale * image @ text.T + bias
    wrong = 1 - 2 * torch.eye(len(logits))
    return -(wrong * torch.nn.functional.logsigmoid(wrong * logits)).sum(dim=1).mean()


def learn(loss):
    """Sixteen pairs of free vectors: the last loss, and the share of the 256 pairs judged right."""
    generator = torch.Generator().manual_seed(3)
    free = torch.randn(2, 16, 8, generator=generator).requires_grad_()
    log_scale = torch.tensor(math.log(10.0), requires_grad=True)
    bias = torch.tensor(-10.0, requires_grad=True)
    optimiser = torch.optim.Adam([free, log_scale, bias], lr=0.05)
    for _ in range(200):
        image, text = unit_length(free[0]), unit_length(free[1])
        value = loss(image, text, log_scale.exp(), bias)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    with torch.no_grad():
        logits = log_scale.exp() * unit_length(free[0]) @ unit_length(free[1]).T + bias
    return value.item(), float(((logits > 0) == torch.eye(16).bool()).float().mean())


def test_the_right_form_learns_and_the_commonly_printed_one_does_not():
    """The wrong form falls without bound by calling every pair a match: 16 of 256 are right."""
    loss, right = learn(sigmoid_contrastive)
    assert 0 <= loss < 0.1
    assert right == 1.0
    loss, right = learn(commonly_printed)
    assert loss < -1000
    assert right == pytest.approx(1 / 16)


def test_the_commonly_printed_form_pushes_every_logit_up():
    """Against the unit vectors the logits are the image embeddings, and so are their gradients."""
    scale, bias, text = torch.tensor(1.0), torch.tensor(0.0), torch.eye(4)
    logits = torch.zeros(4, 4, requires_grad=True)
    commonly_printed(logits, text, scale, bias).backward()
    assert torch.allclose(logits.grad, torch.full((4, 4), -0.125))
    logits.grad = None
    sigmoid_contrastive(logits, text, scale, bias).backward()
    assert torch.allclose(logits.grad, 0.125 - 0.25 * torch.eye(4))
