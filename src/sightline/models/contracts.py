"""What every system promises, as functions that anyone can run on a system of their own.

    from sightline.models.contracts import CONTRACTS
    for check in CONTRACTS: check(my_system)

Each check builds the system's tiny variant with random weights and raises AssertionError, with
what was expected and what came, when the promise is broken.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from sightline.core.interfaces import DualEncoder, System
from sightline.core.outputs import EncodedImage, PairScores
from sightline.nn.linear import Conv2d, Linear
from sightline.nn.meta import without_memory
from sightline.nn.precision import lower


def builds_on_meta(system: System) -> None:
    """Building needs no memory on the meta device, for the tiny and every published variant."""
    for name, config in {"tiny": system.tiny, **system.variants}.items():
        with without_memory():
            network = system.build(config)
        assert all(p.is_meta for p in network.parameters()), f"{name} left the meta device"


def answers_with_its_role(system: System) -> None:
    """`forward` returns the role's NamedTuple; embeddings are finite, float32 and unit length."""
    output = _forward(system, _network(system))
    if system.role == "image encoder":
        assert isinstance(output, EncodedImage), type(output)
        assert output.pooled.shape == (3, output.tokens.shape[-1]), output.pooled.shape
        assert output.tokens.isfinite().all(), "tokens are not finite"
        return
    assert isinstance(output, PairScores), type(output)
    for rows in (output.image_embeddings, output.text_embeddings):
        assert rows.dtype == torch.float32, rows.dtype
        assert torch.allclose(rows.norm(dim=-1), torch.ones(len(rows)), atol=1e-5), "not unit"
    assert output.logits.shape == (3, 4), output.logits.shape
    assert output.scale.shape == output.bias.shape == (), "scale and bias are single numbers"


def learns_everywhere(system: System) -> None:
    """A backward pass reaches every parameter with finite gradients.

    A layer that only a classification head reads (ViT's pooler) is not part of `forward`, and a
    loss of cosines alone does not reach an additive bias; both are asked through their own door.
    """
    network = _network(system)
    output = _forward(system, network)
    if isinstance(output, PairScores):
        (output.logits * torch.randn_like(output.logits)).sum().backward()
    else:
        loss = output.tokens.square().sum()
        pre_logits: Callable[[Tensor], Tensor] | None = getattr(network, "pre_logits", None)
        if pre_logits is not None:
            loss = loss + pre_logits(output.pooled).sum()
        loss.backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None]
    assert not silent, f"no gradient reaches {silent}"
    broken = [name for name, p in network.named_parameters() if not _grad(p).isfinite().all()]
    assert not broken, f"gradients of {broken} are not finite"


@torch.no_grad()
def row_equals_batch_of_one(system: System) -> None:
    """A picture or a sentence gets the same answer alone and in a batch (within 1e-5)."""
    network = _network(system)
    for encode, batch in _encoders(system, network):
        together = encode(batch)
        alone = torch.cat([encode(row[None]) for row in batch])
        gap = float((together - alone).abs().max())
        assert gap <= 1e-5 * max(1.0, float(together.abs().max())), f"differs by {gap:.2g}"


@torch.no_grad()
def bfloat16_is_near(system: System) -> None:
    """Lowered weights move no embedding below cosine 0.9995 or by more than 2^-6 of the largest.

    Cosines are taken as they are: random networks agree too well with each other, but here both
    sides are the same network.
    """
    network = _network(system)
    full = [encode(batch) for encode, batch in _encoders(system, network)]
    lower(network, torch.bfloat16)
    kept = [m for m in network.modules() if not isinstance(m, (Linear, Conv2d))]
    own = [p for m in kept for p in m.parameters(recurse=False)]
    assert all(p.dtype == torch.float32 for p in own), "lowering touched more than linear layers"
    low = [encode(batch) for encode, batch in _encoders(system, network)]
    for a, b in zip(full, low, strict=True):
        assert b.dtype == torch.float32, b.dtype
        cosine = float(torch.cosine_similarity(a, b).min())
        assert cosine >= 0.9995, f"cosine {cosine:.5f}"
        gap = float((a - b).abs().max() / a.abs().max())
        assert gap <= 2**-6, f"largest difference {gap:.4f} of the largest value"


def state_and_config_return(system: System) -> None:
    """Config and weights survive writing in the published layout and reading it back."""
    network = _network(system)
    config = system.read_config(system.write_config(system.tiny))
    assert config == system.tiny, f"{config} is not {system.tiny}"
    back = system.build(config)
    back.load_state_dict(system.read_state(system.write_state(network.state_dict())), strict=True)
    for name, value in network.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), f"{name} changed on the way"


CONTRACTS: tuple[Callable[[System], None], ...] = (
    builds_on_meta,
    answers_with_its_role,
    learns_everywhere,
    row_equals_batch_of_one,
    bfloat16_is_near,
    state_and_config_return,
)


def _network(system: System) -> nn.Module:
    """The tiny variant, the same one at every call; no parameter at a value that hides mistakes."""
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = system.build(system.tiny)
    for parameter in network.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = parameter.data + 0.05 * noise
    return network.eval()


def _pixels(system: System) -> Tensor:
    spec = system.preprocessing(system.tiny)
    generator = torch.Generator().manual_seed(2)
    return torch.randn(3, 3, spec.height, spec.width, generator=generator)


def _ids(system: System) -> Tensor:
    """Sentences of different lengths: an end of text (the highest id), then padding."""
    text = system.tiny.text
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, text.vocab_size - 2, (4, text.context_length), generator=generator)
    for row in range(len(ids)):
        ids[row, 2 + row] = text.vocab_size - 1
        ids[row, 3 + row :] = text.pad_id
    return ids


def _forward(system: System, network: nn.Module) -> PairScores | EncodedImage:
    inputs = [_pixels(system)] + ([_ids(system)] if system.role == "dual encoder" else [])
    output: PairScores | EncodedImage = network(*inputs)
    return output


def _encoders(
    system: System, network: nn.Module
) -> list[tuple[Callable[[Tensor], Tensor], Tensor]]:
    if system.role == "dual encoder":
        dual = cast(DualEncoder, network)
        return [(dual.encode_images, _pixels(system)), (dual.encode_texts, _ids(system))]
    return [(lambda pixels: network(pixels).pooled, _pixels(system))]


def _grad(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
