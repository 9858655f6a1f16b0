"""The loss on answers: micro-batches and packing change nothing, questions do not count."""

import pytest
import torch
from torch import Tensor, nn

from sightline.core.errors import ConfigError
from sightline.models import paligemma
from sightline.recipes.answer_loss import AnswerBatch, answer_loss
from sightline.training.accumulation import LossFunction, WeightedLoss, accumulate
from sightline.training.parallel import wrap


def network(kind: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = paligemma.PaliGemma(paligemma.TINY).to(kind)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def batch(kind: torch.dtype = torch.float64) -> AnswerBatch:
    """Four rows with answers of unequal length, about two, one, no and one picture."""
    generator = torch.Generator().manual_seed(1)
    asked, told = torch.tensor([3, 5, 2, 4]), torch.tensor([6, 2, 5, 2])
    prompt = torch.randint(3, 90, (4, 5), generator=generator)
    suffix = torch.randint(3, 90, (4, 6), generator=generator)
    prompt_mask = torch.arange(5) < asked[:, None]
    suffix_mask = torch.arange(6) < told[:, None]
    pixels = torch.randn(4, 3, 24, 24, generator=generator, dtype=kind)
    pictures = torch.tensor([2, 1, 0, 1])
    return AnswerBatch(pixels, pictures, prompt, prompt_mask, suffix, suffix_mask)


def step(loss: LossFunction, batches: list[AnswerBatch]) -> tuple[float, Tensor]:
    model = network(batches[0].pixels.dtype)
    result = accumulate(loss)(model, batches)
    grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return result.loss, torch.cat(grads)


def parts(kind: torch.dtype = torch.float64) -> list[AnswerBatch]:
    whole = batch(kind)
    return [
        AnswerBatch(whole.pixels[shown], *(t[rows] for t in whole[1:]))
        for shown, rows in ((slice(0, 2), slice(0, 1)), (slice(2, 4), slice(1, 4)))
    ]


def test_micro_batches_give_the_loss_and_gradient_of_the_whole() -> None:
    whole, gradient = step(answer_loss(0.1), [batch()])
    split, same = step(answer_loss(0.1), parts())
    assert split == pytest.approx(whole, abs=1e-9)
    torch.testing.assert_close(same, gradient, atol=1e-9, rtol=0)


def test_they_do_in_float32_too() -> None:
    whole, gradient = step(answer_loss(), [batch(torch.float32)])
    split, same = step(answer_loss(), parts(torch.float32))
    assert split == pytest.approx(whole, rel=1e-6)
    largest = max(1.0, float(gradient.abs().max()))
    torch.testing.assert_close(same, gradient, atol=1e-6 * largest, rtol=0)


def test_prompts_are_not_learned() -> None:
    """Another word in the padding of an answer, or none, is the same loss."""
    whole, _ = step(answer_loss(), [batch()])
    changed = batch()
    changed.suffix[1, 2:] = 50
    assert step(answer_loss(), [changed])[0] == whole


def test_a_mean_of_means_would_be_seen() -> None:
    def mean(model: nn.Module, part: AnswerBatch) -> WeightedLoss:
        total, weight, _ = answer_loss()(model, part)
        return WeightedLoss(total / weight, 1.0)

    assert abs(step(mean, parts())[0] - step(answer_loss(), [batch()])[0]) > 1e-4


def test_packed_sequences_give_the_same_loss_and_gradient() -> None:
    alone, gradient = step(answer_loss(), [batch()])
    packed, same = step(answer_loss(slots=40), [batch()])
    assert packed == pytest.approx(alone, abs=1e-9)
    torch.testing.assert_close(same, gradient, atol=1e-9, rtol=0)


def test_a_sequence_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not fit into a row of 10: raise row_length"):
        answer_loss(slots=10)(network(), batch())


def test_a_step_goes_through_the_parts_that_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    model, compiled, entered = network(), list[nn.Module](), list[nn.Module]()
    monkeypatch.setattr(nn.Module, "compile", lambda part: compiled.append(part))
    assert wrap(model).compiled() is model
    for part in compiled:
        part.register_forward_hook(lambda part, *_: entered.append(part))
    answer_loss()(model, batch())
    assert compiled == [model.decoder, model.image.transformer]
    assert {id(part) for part in entered} == {id(part) for part in compiled}
