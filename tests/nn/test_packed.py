"""Packed weights: the same numbers, the same names, no gradients."""

import copy

import pytest
import torch
from torch import nn

from sightline.core.devices import fast_bfloat16
from sightline.core.errors import ConfigError
from sightline.nn import packed as packing
from sightline.nn.blocks import Block, Transformer
from sightline.nn.linear import Linear
from sightline.nn.mlp import ACTIVATIONS, MLP
from sightline.nn.packed import PackedLinear, PackedMLP, PackedTransformer, pack, unpack
from sightline.nn.precision import lower

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN"
)
TYPES = [torch.float32] + [torch.bfloat16] * fast_bfloat16("cpu")
"""Types that oneDNN multiplies on this processor."""


class Network(nn.Module):
    """One of everything that is packed, and layers that are not."""

    def __init__(self, activation: str = "quick_gelu") -> None:
        super().__init__()
        self.first = Linear(6, 10)
        self.norm = nn.LayerNorm(10)
        self.mlp = MLP(10, 24, activation)
        self.last = Linear(10, 5, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.last(x + self.mlp(self.norm(x.float())))


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(3, 7, 6, generator=torch.Generator().manual_seed(1))


def network(activation: str = "quick_gelu", dtype: torch.dtype = torch.float32) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Network(activation)
        for parameter in made.parameters():
            nn.init.normal_(parameter, std=0.5)
    lower(made, dtype)
    return made.eval().requires_grad_(False)


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.float() - b.float()).abs().max() / max(1.0, float(b.abs().max())))


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("dtype", TYPES)
def test_packed_answers_are_the_plain_ones(name: str, dtype: torch.dtype, x: torch.Tensor) -> None:
    plain = network(name, dtype)
    expected = plain(x)
    answered = pack(copy.deepcopy(plain))(x)
    limit = 1e-5 if dtype == torch.float32 else 2**-6
    assert gap(answered, expected) <= limit


def test_the_comparison_notices_another_slope(
    monkeypatch: pytest.MonkeyPatch, x: torch.Tensor
) -> None:
    monkeypatch.setattr(packing, "QUICK", 1.72)
    plain = network()
    assert gap(pack(copy.deepcopy(plain))(x), plain(x)) > 1e-4


@pytest.mark.parametrize("dtype", TYPES)
def test_names_and_weights_return_bit_for_bit(dtype: torch.dtype, x: torch.Tensor) -> None:
    plain = network(dtype=dtype)
    before = copy.deepcopy(plain.state_dict())
    packed = pack(plain)
    assert isinstance(packed.first, PackedLinear) and isinstance(packed.mlp, PackedMLP)
    for state in (packed.state_dict(), unpack(copy.deepcopy(packed)).state_dict()):
        assert list(state) == list(before)
        assert all(torch.equal(state[name], value) for name, value in before.items())
    back = unpack(copy.deepcopy(packed))
    assert type(back.first) is Linear and type(back.mlp) is MLP
    assert torch.equal(back(x), network(dtype=dtype)(x))


def test_other_weights_can_be_put_in(x: torch.Tensor) -> None:
    other = network()
    for parameter in other.parameters():
        parameter.mul_(1.5)
    packed = pack(network())
    packed.load_state_dict(other.state_dict())
    assert gap(packed(x), other(x)) <= 1e-5
    incomplete = {n: v for n, v in other.state_dict().items() if n != "mlp.fc1.weight"}
    with pytest.raises(RuntimeError, match=r"Missing key.*mlp\.fc1\.weight"):
        packed.load_state_dict(incomplete)


def test_what_gives_no_gradient_says_so(x: torch.Tensor) -> None:
    packed = pack(network())
    with pytest.raises(ConfigError, match=r"no gradients.*dtype='float32'.*unpack\(network\)"):
        packed(x.requires_grad_())
    unpacked = unpack(packed)
    unpacked(x).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_a_packed_network_stays_where_it_is() -> None:
    packed = pack(network())
    assert packed.to("cpu") is packed
    for move in (lambda: packed.double(), lambda: packed.to("meta")):
        with pytest.raises(ConfigError, match=r"packed for the CPU.*unpack\(network\)"):
            move()


def test_what_carries_more_than_a_linear_layer_stays_plain() -> None:
    class Adapted(Linear):
        pass

    made = nn.ModuleDict({"adapted": Adapted(3, 3), "wide": Linear(3, 3).double()})
    pack(made)
    assert type(made["adapted"]) is Adapted and type(made["wide"]) is Linear


class Stack(nn.Module):
    """Blocks as a tower holds them."""

    def __init__(self, activation: str = "quick_gelu", post_norm: bool = False) -> None:
        super().__init__()
        self.transformer = Transformer(
            Block(12, 3, 20, activation=activation, norm_eps=1e-5, post_norm=post_norm)
            for _ in range(3)
        )

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.transformer(x, mask)


def stack(dtype: torch.dtype = torch.float32, **options: object) -> Stack:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Stack(**options)  # type: ignore[arg-type]
        for parameter in made.parameters():
            nn.init.normal_(parameter, std=0.4)
    lower(made, dtype)
    return made.eval().requires_grad_(False)


def rows(count: int = 5, length: int = 7) -> torch.Tensor:
    return torch.randn(count, length, 12, generator=torch.Generator().manual_seed(2))


def some_masked(count: int, length: int) -> torch.Tensor:
    """Another number of keys for each of the batch, as padded pictures have."""
    return torch.arange(length) < (torch.arange(count) % 4 + 3)[:, None, None, None]


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu", "gelu_pytorch_tanh"])
@pytest.mark.parametrize("dtype", TYPES)
def test_packed_blocks_answer_as_plain_ones(dtype: torch.dtype, activation: str) -> None:
    plain = stack(dtype, activation=activation)
    packed = pack(copy.deepcopy(plain))
    assert isinstance(packed.transformer, PackedTransformer)
    for mask in (None, some_masked(5, 7), torch.ones(7, 7, dtype=torch.bool).tril()):
        x = rows()
        before = x.clone()
        limit = 1e-5 if dtype == torch.float32 else 2**-5
        assert gap(packed(x, mask), plain(before, mask)) <= limit
        assert torch.equal(x, before)  # what came in is not changed


@pytest.mark.parametrize("lengths", [(5, 7), (1, 40), (9, 5), (2, 3)])
def test_a_batch_in_pieces_answers_as_a_whole_one(
    monkeypatch: pytest.MonkeyPatch, lengths: tuple[int, int]
) -> None:
    plain, packed = stack(), pack(stack())
    x, mask = rows(*lengths), some_masked(*lengths)
    whole = plain(x, mask)
    for size in (1, 8, 512):
        monkeypatch.setattr(packing, "ROWS_A_CORE", size)
        assert gap(packed(x, mask), whole) <= 1e-5
    # The comparison can fail: every piece with the mask of the first.
    monkeypatch.setattr(packing, "by_picture", lambda mask: False)
    if lengths[0] > 2:
        assert gap(packed(x, mask[:1]), whole) > 1e-3


@pytest.mark.parametrize("cores", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 2, 7, 33, 64])
def test_pieces_cover_the_batch_and_are_as_many_for_each_core(
    monkeypatch: pytest.MonkeyPatch, batch: int, cores: int
) -> None:
    monkeypatch.setattr(packing, "streams", lambda: cores)
    pieces = packing.pieces_of(batch, 50)
    assert [n for piece in pieces for n in range(batch)[piece]] == list(range(batch))
    sizes = [piece.stop - piece.start for piece in pieces]
    assert max(sizes) - min(sizes) <= 1
    assert len(pieces) == batch or len(pieces) % cores == 0
    assert max(sizes) * 50 <= packing.ROWS_A_CORE + 50


def test_names_of_blocks_return_bit_for_bit() -> None:
    plain = stack()
    before = copy.deepcopy(plain.state_dict())
    packed = pack(plain)
    for state in (packed.state_dict(), unpack(copy.deepcopy(packed)).state_dict()):
        assert list(state) == list(before)
        assert all(torch.equal(state[name], value) for name, value in before.items())
    back = unpack(packed)
    assert type(back.transformer) is Transformer and type(back.transformer.blocks[0]) is Block
    assert torch.equal(back(rows()), stack()(rows()))


def test_blocks_with_norms_behind_keep_their_form() -> None:
    packed = pack(stack(post_norm=True))
    assert type(packed.transformer) is Transformer
    assert isinstance(packed.transformer.blocks[0].mlp, PackedMLP)
    assert gap(packed(rows()), stack(post_norm=True)(rows())) <= 1e-5
