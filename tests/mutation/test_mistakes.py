"""Each kind of mistake on a line of its own, what is left alone, and how mutants are told apart."""

import ast

import pytest

from tests.mutation.mistakes import MISTAKES
from tests.mutation.planting import Remark, in_source, mutants, remark, sample

PLANTED = [
    ("arithmetic", "y = a + f(b)", "y = (a - f(b))"),
    ("arithmetic", "y = -torch.exp(x)", "y = torch.exp(x)"),
    ("arithmetic", "y += x", "y -= x"),
    ("comparison", "y = a < b", "y = (a <= b)"),
    ("comparison", "y = a is None", "y = (a is not None)"),
    ("logic", "y = a and b", "y = (a or b)"),
    ("logic", "y = ~a", "y = a"),
    ("logic", "y = 1 if causal else 2", "y = 1 if (not causal) else 2"),
    ("axis", "y = x.sum(dim=-1)", "y = x.sum(dim=0)"),
    ("axis", "y = x.sum(dim=-1)", "y = x.sum(dim=1)"),
    ("axis", "y = torch.cat([a, b], 1)", "y = torch.cat([a, b], 0)"),
    ("axis", "y = x.shape[-2]", "y = x.shape[-1]"),
    ("axis", "y = x.roll(s, dims=(1, 2))", "y = x.roll(s, dims=(1, 1))"),
    ("transpose", "y = x.transpose(1, 2)", "y = x"),
    ("transpose", "y = torch.permute(x, (1, 0))", "y = x"),
    ("transpose", "y = q @ k.T", "y = q @ k"),
    ("residual", "y = x + f(norm(x))", "y = f(norm(x))"),
    ("norm", "y = x + f(self.norm(x))", "y = x + f(x)"),
    ("norm", "y = f(self.norm(x), mask)", "y = self.norm(f(x, mask))"),
    ("norm", "y = self.norm(x + f(x))", "y = (self.norm(x) + f(x))"),
    ("norm", "y = x + norm(f(x))", "y = norm(x + f(x))"),
    ("norm", "y = unit_length(x)", "y = x"),
    ("mask", "y = f(x, mask=mask)", "y = f(x, mask=None)"),
    ("mask", "y = s.masked_fill(m, 0)", "y = s"),
    ("mask", "y = a & b", "y = a"),
    ("clamp", "y = x.clamp(0, 1)", "y = x"),
    ("clamp", "y = torch.clamp(x, 0)", "y = x"),
    ("scale", "y = a * b", "y = a"),
    ("scale", "y = q.shape[-1] ** -0.5", "y = q.shape[-1]"),
    ("scale", "y = t.exp()", "y = t"),
    ("reduction", "y = x.mean()", "y = x.sum()"),
    ("term", "y = a + b", "y = b"),
    ("arguments", "y = f(q, k, v)", "y = f(k, q, v)"),
    ("constant", "y = f(eps=1e-6)", "y = f(eps=0.001)"),
    ("constant", "y = x[:, -1]", "y = x[:, 0]"),
    ("constant", "y = f(bias=True)", "y = f(bias=False)"),
]


def planted(source, path="nn/example.py"):
    """Mistake to the whole texts that it makes of a source."""
    found = {}
    for mutant in in_source(source.encode(), path):
        text = source[: mutant.span[0]] + mutant.written + source[mutant.span[1] :]
        found.setdefault(mutant.mistake, []).append(text)
    return found


@pytest.mark.parametrize(("mistake", "line", "mutated"), PLANTED)
def test_the_mistake_is_planted(mistake, line, mutated):
    texts = planted(f"def f(x):\n    {line}\n    return y\n")
    assert f"def f(x):\n    {mutated}\n    return y\n" in texts[mistake]


def test_every_kind_has_an_example():
    assert {mistake for mistake, *_ in PLANTED} | {"order"} == set(MISTAKES)


def test_statements_around_a_norm_change_places():
    source = "def f(x):\n    x = norm(x)\n    x = g(x)\n    return x\n"
    assert planted(source)["order"] == ["def f(x):\n    x = g(x)\n    x = norm(x)\n    return x\n"]


@pytest.mark.parametrize(
    "source",
    [
        '"""1 + 2"""',
        "def f(x: Float[Tensor, 'B 3'] = None) -> int | None:\n    return x",
        "@dataclass(frozen=True)\nclass A:\n    x: int | str",
        "def f(x):\n    raise ConfigError(f'{x + 1}' + str(x * 2))",
        "def f(x):\n    assert x > 1, x",
        "def f(x):\n    warnings.warn(str(x + 1), stacklevel=2)",
        "class A:\n    def __repr__(self):\n        return str(self.x + 1)",
        "_S = {'B': 12}\ndef _v(s):\n    return s + 1\nVARIANTS = {'B': _v(_S)}\nTINY = 3",
        "Pictures = Float[Tensor, 'B'] | None",
        "def f(x):\n    y = x + 1\n    return x",
        "if TYPE_CHECKING:\n    x = 1",
    ],
)
def test_nothing_is_planted_in(source):
    assert planted(source) == {}


def test_what_has_no_order_and_adds_nothing_is_not_mistaken():
    assert set(planted("def f(a, b):\n    return max(a, b + 0)")) == {"reduction", "constant"}
    assert "arguments" not in planted("def f(x):\n    return x.transpose(1, 2).swapaxes(a, b)")


def test_what_others_read_too_is_no_table_of_sizes():
    source = "_S = {'B': 12}\nVARIANTS = {'B': f(_S)}\ndef g():\n    return _S"
    assert planted(source) == {"constant": [source.replace("12", "13")]}


def test_every_mutant_of_the_library_is_a_program_of_its_own():
    found = [mutant for mutant in mutants(["objectives"]) if "exchange" not in mutant.path][::4]
    assert len(found) > 60
    assert len({mutant.id for mutant in found}) == len(found)
    texts = {(mutant.path, mutant.planted()) for mutant in found}
    assert len(texts) == len(found)
    for path, text in texts:
        ast.parse(text, path)


def test_a_default_is_tested_where_its_function_runs():
    (mutant,) = in_source(b"def f(eps=0.5):\n    g = 0\n    return g, eps\n", "nn/a.py")[:1]
    assert (mutant.before, mutant.lines) == ("0.5", (2, 3))


def test_an_id_survives_moved_lines_and_tells_twins_apart():
    line = "def f(x):\n    return x.sum() + x.sum()\n"
    before, after = (in_source(text.encode(), "nn/a.py") for text in (line, f"\n\n{line}"))
    assert [mutant.id for mutant in before] == [mutant.id for mutant in after]
    assert len({mutant.id for mutant in before}) == len(before)


def test_a_sample_changes_little_when_a_file_comes():
    found = mutants(["nn", "objectives"])
    few = sample([each for each in found if each.room == "nn"], 40, seed=3)
    more = sample(found, 40, seed=3)
    assert [each for each in more if each.room == "nn"] == few[: sum(m.room == "nn" for m in more)]
    assert sample(found, 40, seed=4) != more


def test_a_remark_is_found_by_the_words_of_the_line():
    (mutant,) = in_source(b"def f(x):\n    return x.exp()\n", "nn/a.py")
    known = [Remark("nn/a.py", "return x.exp()", "x.exp()", "x", "because")]
    assert remark(mutant, known) == "because"
    assert remark(mutant, [known[0]._replace(text="return x.exp() + 1")]) is None
