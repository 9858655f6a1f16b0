import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.core.errors import DataError
from sightline.training.accumulation import WeightedLoss, accumulate, cached_contrastive
from sightline.training.randomness import restore_torch, torch_state


def gradients(net: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}


def close(ours: dict[str, Tensor], theirs: dict[str, Tensor], atol: float = 1e-9) -> None:
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=0, atol=atol)


def token_batches() -> list[dict[str, Tensor]]:
    """Micro-batches with 9, 1 and 4 supervised tokens."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for rows, supervised in ((3, 9), (1, 1), (2, 4)):
        inputs = torch.randn(rows, 5, 4, dtype=torch.float64, generator=generator)
        targets = torch.randint(0, 7, (rows * 5,), generator=generator)
        targets[supervised:] = -100
        batches.append({"inputs": inputs, "targets": targets.view(rows, 5)})
    return batches


def token_loss(net: nn.Module, batch: dict[str, Tensor]) -> WeightedLoss:
    logits, targets = net(batch["inputs"]).flatten(0, 1), batch["targets"].flatten()
    total = F.cross_entropy(logits, targets, ignore_index=-100, reduction="sum")
    hits = ((logits.argmax(-1) == targets) & (targets >= 0)).sum()
    weight = (targets != -100).sum()
    return WeightedLoss(total, weight, {"hits": hits / weight})


def test_accumulated_gradient_is_that_of_the_big_batch():
    batches = token_batches()
    joined = {key: torch.cat([b[key] for b in batches]) for key in batches[0]}
    net = nn.Linear(4, 7).double()
    big = copy.deepcopy(net)
    loss = F.cross_entropy(big(joined["inputs"]).flatten(0, 1), joined["targets"].flatten())
    loss.backward()  # torch's own mean over the supervised tokens of the joined batch

    result = accumulate(token_loss)(net, batches)
    close(gradients(net), gradients(big), 1e-12)
    assert result.loss == pytest.approx(loss.item(), abs=1e-12)
    assert result.pictures == 6
    whole = accumulate(token_loss)(copy.deepcopy(big), [joined])
    assert result.metrics["hits"] == pytest.approx(whole.metrics["hits"])


def test_mean_of_means_would_be_another_gradient():
    """The negative control of the test above: token counts differ, so the mistake shows."""
    batches = token_batches()
    net = nn.Linear(4, 7).double()
    wrong = copy.deepcopy(net)
    for batch in batches:
        part = token_loss(wrong, batch)
        (part.sum / part.weight / len(batches)).backward()
    accumulate(token_loss)(net, batches)
    assert (net.weight.grad - wrong.weight.grad).abs().max() > 1e-3


def test_one_micro_batch_is_the_plain_backward_bit_for_bit():
    batch = token_batches()[0]
    net = nn.Linear(4, 7).double()
    plain = copy.deepcopy(net)
    part = token_loss(plain, batch)
    (part.sum / float(part.weight)).backward()
    accumulate(token_loss)(net, [batch])
    assert torch.equal(net.weight.grad, plain.weight.grad)


def test_batches_without_weight_are_refused():
    batch = token_batches()[0]
    batch["targets"].fill_(-100)
    with pytest.raises(DataError, match="carry no weight"):
        accumulate(token_loss)(nn.Linear(4, 7).double(), [batch])


def test_micro_batch_without_weight_among_others_counts_for_nothing():
    batches = token_batches()
    net = nn.Linear(4, 7).double()
    without = copy.deepcopy(net)
    empty = {"inputs": batches[0]["inputs"], "targets": torch.full((3, 5), -100)}
    plain = accumulate(lambda n, b: token_loss(n, b)._replace(metrics={}))
    plain(net, [*batches, empty])
    plain(without, batches)
    close(gradients(net), gradients(without), 1e-12)


class Towers(nn.Module):
    """Two towers with dropout, and a scale that only the loss uses."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 4))
        self.right = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 4))
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.runs = 0


def embed(net: Towers, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    net.runs += 1
    left, right = net.left(batch[0]), net.right(batch[1])
    return F.normalize(left, dim=-1), F.normalize(right, dim=-1)


def pair_loss(net: Towers, rows: tuple[Tensor, ...]) -> Tensor:
    logits = rows[0] @ rows[1].T * net.scale.exp()
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def towers() -> tuple[Towers, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(2)
    net = Towers().double()
    sizes = (4, 2, 5)
    return net, [(torch.randn(n, 5).double(), torch.randn(n, 3).double()) for n in sizes]


def test_cached_gradient_is_that_of_the_full_batch():
    net, batches = towers()
    net.eval()
    full = copy.deepcopy(net)
    joined = tuple(torch.cat(parts) for parts in zip(*batches, strict=True))
    loss = pair_loss(full, embed(full, joined))
    loss.backward()
    result = cached_contrastive(embed, pair_loss)(net, batches)
    close(gradients(net), gradients(full))
    assert result.loss == pytest.approx(loss.item(), abs=1e-12) and result.pictures == 11


def test_cached_gradient_with_dropout_is_that_of_one_graph_with_the_same_masks():
    net, batches = towers()
    full = copy.deepcopy(net)
    start = torch_state()
    parts = [embed(full, batch) for batch in batches]
    pair_loss(full, tuple(torch.cat(column) for column in zip(*parts, strict=True))).backward()
    after = torch_state()
    restore_torch(start)
    cached_contrastive(embed, pair_loss)(net, batches)
    close(gradients(net), gradients(full))
    assert torch.equal(torch_state().cpu, after.cpu), "the generator must go on as after one pass"


def test_what_the_loss_draws_is_drawn_once():
    """A loss with noise of its own leaves the generator behind its draw, not before it."""

    def noisy(net: Towers, rows: tuple[Tensor, ...]) -> Tensor:
        return pair_loss(net, rows) + torch.rand(()).double()

    net, batches = towers()
    start = torch_state()
    for batch in batches:
        embed(net, batch)
    torch.rand(())
    after = torch_state()
    restore_torch(start)
    cached_contrastive(embed, noisy)(net, batches)
    assert torch.equal(torch_state().cpu, after.cpu)


def test_one_micro_batch_is_embedded_once_and_several_twice():
    net, batches = towers()
    cached_contrastive(embed, pair_loss)(net, batches[:1])
    assert net.runs == 1
    cached_contrastive(embed, pair_loss)(net, batches)
    assert net.runs == 1 + 2 * len(batches)


def test_frozen_tower_gets_no_gradient():
    net, batches = towers()
    net.left.requires_grad_(False)
    cached_contrastive(embed, pair_loss)(net, batches)
    assert net.left[0].weight.grad is None and net.right[0].weight.grad.abs().sum() > 0


def test_cached_gradient_under_autocast_reaches_the_weights():
    """Casts that autocast remembers from the pass without a graph would give no gradient."""
    net, batches = towers()
    net = net.float().eval()
    full = copy.deepcopy(net)
    batches = [(a.float(), b.float()) for a, b in batches]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cached_contrastive(embed, pair_loss)(net, batches)
        joined = tuple(torch.cat(parts) for parts in zip(*batches, strict=True))
        cached_contrastive(embed, pair_loss)(full, [joined])
    for name, gradient in gradients(full).items():
        torch.testing.assert_close(gradients(net)[name], gradient, rtol=0.05, atol=2e-3)


def test_backward_of_a_float32_loss_stays_float32_under_autocast():
    left = torch.randn(6, 16, requires_grad=True)
    right = torch.randn(16, 6)

    def loss(net: nn.Module, batch: Tensor) -> WeightedLoss:
        with torch.autocast("cpu", enabled=False):
            return WeightedLoss((left @ right).square().sum(), 6)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        accumulate(loss)(nn.Identity(), [left])
    exact = 2 * (left.detach() @ right) @ right.T / 6
    torch.testing.assert_close(left.grad, exact, rtol=1e-5, atol=1e-5)


def test_what_the_loss_needs_row_by_row_is_carried_along():
    """Labels, weights and a tensor with more rows than pictures reach the loss of the batch."""

    def embed_more(net: Towers, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        image, text = embed(net, batch)
        labels = (batch[0][:, 0] * 3).long()
        wrong = F.normalize(net.right(batch[1].repeat_interleave(2, 0).flip(1)), dim=-1)
        return image, text, labels, batch[0][:, 1].abs(), wrong

    def loss(net: Towers, rows: tuple[Tensor, ...]) -> Tensor:
        image, text, labels, weights, wrong = rows
        assert labels.dtype == torch.int64 and len(wrong) == 2 * len(image)
        logits = image @ torch.cat([text, wrong]).T * net.scale.exp()
        same = F.pad(labels[:, None] == labels, (0, len(wrong)))
        return -(weights[:, None] * logits.log_softmax(1) * same).sum()

    net, batches = towers()
    net.eval()
    full = copy.deepcopy(net)
    joined = [tuple(torch.cat(parts) for parts in zip(*batches, strict=True))]
    cached_contrastive(embed_more, loss)(full, joined)
    # the pool of each micro-batch stands behind the one before, as in the joined batch
    cached_contrastive(embed_more, loss)(net, batches)
    close(gradients(net), gradients(full))


def test_patches_left_out_are_the_same_in_both_passes():
    from sightline.models.table import system
    from sightline.objectives.contrastive import sigmoid_contrastive

    entry = system("siglip")
    torch.manual_seed(0)
    net = entry.build(entry.tiny).double().train()
    net.image.patch_dropout.leave_out(0.5)
    pixels, ids = torch.randn(6, 3, 24, 24).double(), torch.randint(3, 90, (6, 9))
    batches = [(pixels[i : i + 2], ids[i : i + 2]) for i in (0, 2, 4)]
    full = copy.deepcopy(net)

    def vectors(net: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return net(*batch)[:2]

    def loss(net: nn.Module, rows: tuple[Tensor, ...]) -> Tensor:
        return sigmoid_contrastive(*rows, *net.pair_scale(), chunk=4)

    start = torch_state()
    parts = [vectors(full, batch) for batch in batches]
    loss(full, tuple(torch.cat(column) for column in zip(*parts, strict=True))).backward()
    restore_torch(start)
    cached_contrastive(vectors, loss)(net, batches)
    close(gradients(net), gradients(full))
    restore_torch(start)
    torch.rand(1)
    net.zero_grad()
    cached_contrastive(vectors, loss)(net, batches)
    gap = max((g - gradients(full)[n]).abs().max() for n, g in gradients(net).items())
    assert gap > 1e-6, "other patches would be another gradient"


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_the_generator_of_the_networks_own_device_is_replayed(kind, monkeypatch):
    module = getattr(torch, kind)
    calls = []
    state = torch.zeros(4, dtype=torch.uint8)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: kind == "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: kind == "cuda")
    monkeypatch.setattr(module, "get_rng_state", lambda *d: calls.append(("get", *d)) or state)
    monkeypatch.setattr(module, "set_rng_state", lambda s, *d: calls.append(("set", *d)))
    device = torch.device("cuda", 1) if kind == "cuda" else torch.device("mps")
    restore_torch(torch_state(device))
    where = (device,) if kind == "cuda" else ()
    assert calls == [("get", *where), ("set", *where)]
