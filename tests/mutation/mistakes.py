"""What people get wrong in code that computes with tensors.

One function a kind of mistake: a node of a program goes in, edits of the program's text come out.
Strings are never edited: most are messages, and a wrong name raises where it is looked up.
"""

import ast
import copy
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

Node = ast.expr | ast.stmt


class Edit(NamedTuple):
    """Everything from the first node to the last gives way to a text."""

    first: Node
    last: Node
    text: str


ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult,
}  # fmt: skip
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
AXIS_WORDS = {"dim", "dims", "axis", "dim0", "dim1", "start_dim", "end_dim"}
AXES_FIRST = {
    "all", "amax", "amin", "any", "argmax", "argmin", "argsort", "chunk", "cumsum", "flatten",
    "flip", "gather", "index_select", "log_softmax", "logsumexp", "max", "mean", "median", "min",
    "movedim", "permute", "prod", "size", "softmax", "sort", "squeeze", "std", "sum", "swapaxes",
    "transpose", "unbind", "unflatten", "unsqueeze", "var",
}  # fmt: skip
"""Methods whose positional numbers are axes."""
AXES_SECOND = {"cat", "chunk", "concat", "split", "stack", "topk", "tensor_split", "roll"}
"""Calls whose axis is the second argument."""
TURNS = {"flip", "movedim", "permute", "swapaxes", "t", "transpose"}
CLAMPS = {"clamp", "clamp_", "clamp_max", "clamp_min", "clip"}
SCALINGS = {"abs", "detach", "exp", "log", "rsqrt", "sigmoid", "softmax", "sqrt", "square"}
REDUCTIONS = {
    "sum": "mean", "mean": "sum", "any": "all", "all": "any", "argmax": "argmin", "amax": "amin",
    "amin": "amax", "argmin": "argmax", "max": "min", "min": "max", "maximum": "minimum",
    "minimum": "maximum",
}  # fmt: skip
SYMMETRIC = {
    "allclose", "equal", "isinstance", "issubclass", "logaddexp", "max", "maximum", "min",
    "minimum", "promote_types", "swapaxes", "transpose",
}  # fmt: skip
"""The order of two arguments changes nothing, or is a mistake that nobody makes."""
MASKS = re.compile("mask|allowed|present")
NORMS = re.compile("norm(?!al)|normali[sz]e|unit_length")
LIBRARIES = {"torch", "F", "nn", "np", "math", "self"}
SMALL = 1e-3
"""Below it a number is an epsilon, and a wrong one is wrong by orders of magnitude."""


def called(node: ast.AST) -> str:
    """The last name of what is called, or an empty one."""
    function = node.func if isinstance(node, ast.Call) else node
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def number(node: ast.AST) -> int | float | None:
    """The value of a literal number, with its sign."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = number(node.operand)
        return None if value is None else -value
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value  # type: ignore[return-value]
    return None


def subject(node: ast.Call) -> ast.expr | None:
    """What a call is about: x in `x.exp()`, `torch.exp(x)` and `self.norm(x)`."""
    function = node.func
    root: ast.expr = function
    while isinstance(root, ast.Attribute):
        root = root.value
    if isinstance(function, ast.Attribute) and getattr(root, "id", "") not in LIBRARIES:
        return function.value
    first = node.args[0] if node.args else None
    return None if isinstance(first, ast.Starred) else first


def names(node: ast.AST) -> set[str]:
    """Every plain name in an expression."""
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def _text(node: ast.AST) -> str:
    """Source of a node; in brackets where what is around it could tear it apart."""
    source = ast.unparse(node)
    loose = isinstance(node, (ast.BinOp, ast.BoolOp, ast.Compare, ast.UnaryOp, ast.IfExp))
    return f"({source})" if loose else source


def _instead(node: Node, other: ast.AST | None) -> Iterator[Edit]:
    if other is not None:
        yield Edit(node, node, _text(other))


def _is_string(node: ast.AST) -> bool:
    literal = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return literal or isinstance(node, ast.JoinedStr)


def _of_strings(node: ast.BinOp | ast.AugAssign) -> bool:
    sides = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.value,)
    return any(map(_is_string, sides))


def _neutral(node: ast.BinOp) -> bool:
    """x + 0, x * 1 and the like, which the opposite operation leaves alone too."""
    neutral = 0 if isinstance(node.op, (ast.Add, ast.Sub)) else 1
    return number(node.right) == neutral


def arithmetic(node: ast.AST) -> Iterator[Edit]:
    """Another operation, or the sign lost."""
    if isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in ARITHMETIC:
        if not _of_strings(node) and not (isinstance(node, ast.BinOp) and _neutral(node)):
            other = copy.copy(node)
            other.op = ARITHMETIC[type(node.op)]()
            yield from _instead(node, other)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and number(node) is None:
        yield from _instead(node, node.operand)


def comparison(node: ast.AST) -> Iterator[Edit]:
    """A border in or out; the opposite of equality, identity and membership."""
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            other = copy.copy(node)
            other.ops = [*node.ops]
            other.ops[place] = COMPARISONS[type(operator)]()
            yield from _instead(node, other)


def logic(node: ast.AST) -> Iterator[Edit]:
    """`and` for `or`, a lost `not` or `~`, a condition the wrong way round."""
    if isinstance(node, ast.BoolOp):
        other = copy.copy(node)
        other.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield from _instead(node, other)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.Invert)):
        yield from _instead(node, node.operand)
    elif isinstance(node, (ast.If, ast.IfExp, ast.While)):
        if isinstance(node.test, (ast.Name, ast.Attribute, ast.Call, ast.BinOp)):
            yield Edit(node.test, node.test, f"(not {ast.unparse(node.test)})")


def axes(node: ast.AST) -> list[Node]:
    """The literal numbers in a node that say which axis."""
    found: list[ast.expr] = []
    if isinstance(node, ast.Subscript) and called(node.value) == "shape":
        found = [node.slice]
    elif isinstance(node, ast.Call):
        for word in node.keywords:
            if word.arg in AXIS_WORDS:
                found += word.value.elts if isinstance(word.value, ast.Tuple) else [word.value]
        name, second = called(node), subject(node) in node.args
        if name in AXES_FIRST and isinstance(node.func, ast.Attribute):
            found += node.args[second:]
        if name in AXES_SECOND:
            found += node.args[second + (not second) : 2]
    return [each for each in found if isinstance(number(each), int)]


def axis(node: ast.AST) -> Iterator[Edit]:
    """A neighbouring axis, or the first ones where the last was meant."""
    for place in axes(node):
        value = number(place)
        assert isinstance(value, int)
        others = (0, 1) if value == -1 else (1,) if value == 0 else (value + (-1) ** (value > 0),)
        yield from (Edit(place, place, str(other)) for other in others)


def transpose(node: ast.AST) -> Iterator[Edit]:
    """Axes left as they were."""
    if isinstance(node, ast.Call) and called(node) in TURNS:
        yield from _instead(node, subject(node))
    elif isinstance(node, ast.Attribute) and node.attr in ("T", "mT", "H"):
        yield from _instead(node, node.value)


def constant(node: ast.AST) -> Iterator[Edit]:
    """One more, twice as much, a thousand times an epsilon, True for False."""
    value = number(node)
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield Edit(node, node, str(not node.value))
    elif isinstance(value, int) and isinstance(node, ast.expr):
        yield Edit(node, node, str(value + 1))
    elif isinstance(value, float) and isinstance(node, ast.expr):
        other = 1.0 if value == 0 else value * (1000 if abs(value) < SMALL else 2)
        yield Edit(node, node, repr(other))


def residual(node: ast.AST) -> Iterator[Edit]:
    """x + f(x) without x."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        for kept, lost in ((node.right, node.left), (node.left, node.right)):
            if isinstance(lost, (ast.Name, ast.Attribute)) and kept is not lost:
                if names(lost) <= names(kept) and any(map(called, ast.walk(kept))):
                    yield from _instead(node, kept)


def term(node: ast.AST) -> Iterator[Edit]:
    """One of two terms forgotten, one of two sets or dictionaries."""
    if not isinstance(node, ast.BinOp) or _of_strings(node):
        return
    literal = number(node.left) is not None or number(node.right) is not None
    if isinstance(node.op, (ast.Add, ast.Sub, ast.BitOr)) and not literal:
        yield from _instead(node, node.left)
        if isinstance(node.op, ast.Add) and not any(residual(node)):
            yield from _instead(node, node.right)


def scale(node: ast.AST) -> Iterator[Edit]:
    """A factor, divisor or exponent forgotten; exp, sqrt, softmax and the like left out."""
    if isinstance(node, ast.BinOp) and not _of_strings(node) and not _neutral(node):
        if isinstance(node.op, (ast.Mult, ast.Div, ast.Pow, ast.FloorDiv)):
            yield from _instead(node, node.left)
        if isinstance(node.op, ast.Mult):
            yield from _instead(node, node.right)
    elif isinstance(node, ast.Call) and called(node) in SCALINGS:
        yield from _instead(node, subject(node))


def mask(node: ast.AST) -> Iterator[Edit]:
    """A mask that is not passed on, not applied, or only half of it."""
    if isinstance(node, ast.Call):
        given = [word.value for word in node.keywords if MASKS.search(word.arg or "")]
        given += [each for each in node.args if MASKS.search(called(each).lower())]
        yield from (Edit(each, each, "None") for each in given if "None" != ast.unparse(each))
        if called(node) in ("masked_fill", "masked_fill_", "tril", "triu"):
            yield from _instead(node, subject(node))
        elif called(node) == "where" and len(node.args) == 3:
            yield from _instead(node, node.args[1])
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd):
        yield from _instead(node, node.left)
        yield from _instead(node, node.right)


def arguments(node: ast.AST) -> Iterator[Edit]:
    """Two neighbouring arguments in each other's place."""
    if not isinstance(node, ast.Call) or called(node) in SYMMETRIC:
        return
    for one, two in pairwise(node.args):
        starred = isinstance(one, ast.Starred) or isinstance(two, ast.Starred)
        numbers = number(one) is not None and number(two) is not None
        words = _is_string(one) != _is_string(two)  # raises at once: nobody makes it
        if not (starred or numbers or words or ast.dump(one) == ast.dump(two)):
            yield Edit(one, two, f"{ast.unparse(two)}, {ast.unparse(one)}")


def clamp(node: ast.AST) -> Iterator[Edit]:
    """Nothing held back."""
    if isinstance(node, ast.Call) and called(node) in CLAMPS:
        yield from _instead(node, subject(node))


def reduction(node: ast.AST) -> Iterator[Edit]:
    """The sum for the mean, the least for the most."""
    if isinstance(node, ast.Call) and called(node) in REDUCTIONS:
        other, function = copy.copy(node), copy.copy(node.func)
        word = REDUCTIONS[called(node)]
        if isinstance(function, ast.Attribute):
            function.attr = word
        elif isinstance(function, ast.Name) and word != "mean":  # `sum` of Python has no mean
            function.id = word
        other.func = function
        if ast.dump(other) != ast.dump(node):
            yield from _instead(node, other)


def _is_norm(node: ast.AST) -> bool:
    name = called(node)
    return isinstance(node, ast.Call) and name[:1].islower() and bool(NORMS.search(name))


def _around(outer: ast.Call, inner: ast.expr) -> ast.Call:
    other = copy.copy(outer)
    other.args = [inner, *outer.args[1:]]
    return other


def norm(node: ast.AST) -> Iterator[Edit]:
    """A norm left out, or before what it belongs behind."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        right = node.right
        if isinstance(right, ast.Call) and _is_norm(right) and right.args:
            added = copy.copy(node)
            added.right = right.args[0]
            yield from _instead(node, _around(right, added))  # x + norm(y) to norm(x + y)
    if not isinstance(node, ast.Call):
        return
    if _is_norm(node):
        yield from _instead(node, subject(node))
    first = node.args[0] if node.args else None
    if isinstance(first, ast.Call) and _is_norm(node) != _is_norm(first):
        if first.args and not called(node)[:1].isupper() and not called(first)[:1].isupper():
            yield from _instead(node, _around(first, _around(node, first.args[0])))
    elif isinstance(first, ast.BinOp) and isinstance(first.op, ast.Add) and _is_norm(node):
        added = copy.copy(first)
        added.left = _around(node, first.left)
        yield from _instead(node, added)  # norm(x + y) to norm(x) + y


def order(node: ast.AST) -> Iterator[Edit]:
    """Two statements, one with a norm, the second reading what the first made: swapped."""
    body = getattr(node, "body", None)
    for one, two in pairwise(body) if isinstance(body, list) else ():
        if not (isinstance(one, ast.Assign) and isinstance(two, (ast.Assign, ast.Return))):
            continue
        if (
            two.value is None
            or len({any(map(_is_norm, ast.walk(each))) for each in (one, two)}) < 2
        ):
            continue
        made = {name for target in one.targets for name in names(target)}
        if isinstance(two, ast.Assign) and made & names(two.value) & names(one.value):
            yield Edit(one, two, f"{ast.unparse(two)}\n{' ' * one.col_offset}{ast.unparse(one)}")


MISTAKES: dict[str, Callable[[ast.AST], Iterator[Edit]]] = {
    each.__name__: each
    for each in (
        arithmetic, comparison, logic, axis, transpose, residual, norm, order, mask, clamp, scale,
        reduction, term, arguments, constant,
    )
}  # fmt: skip
"""In the order in which an edit that several kinds propose gets its name."""
