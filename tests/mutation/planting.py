"""Where mistakes can be planted, which of them change nothing, and a sample of the rest.

Left out: docstrings and all other strings, annotations, decorators, what is raised, asserted,
warned or printed, `__repr__` and its kin, and the tables of published sizes (`VARIANTS`, `TINY`
and what only they read): those have tests of their own, by numbers of parameters. Contracts are
tests themselves, which happen to be shipped.
"""

import ast
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.mutation.mistakes import MISTAKES, Edit, axes, called

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "src" / "sightline"

SILENT_FIELDS = {"annotation", "returns", "decorator_list", "bases"}
SPEAKING = {"warn", "print", "debug", "info", "warning", "error", "cast", "getLogger", "TypeVar"}
DESCRIBING = {"__repr__", "__str__", "extra_repr"}
SIZES = {"VARIANTS", "TINY", "__all__"}


@dataclass(frozen=True)
class Mutant:
    """One planted mistake."""

    path: str
    """Below the package: "nn/attention.py"."""
    where: str
    """The function or class around it."""
    mistake: str
    """A name of `MISTAKES`."""
    before: str
    after: str
    line: int
    text: str
    """The line's own words: with them it is known again when lines move."""
    lines: tuple[int, int] | None
    """First and last line whose execution executes it; None where importing does."""
    span: tuple[int, int] = field(compare=False)
    """Bytes of the file that give way."""
    written: str = field(compare=False)
    """What takes their place, as it is spelled."""
    twin: int = 0
    """How many of the same words came before it."""

    @property
    def id(self) -> str:
        """The same as long as its function and line say what they say."""
        words = (self.path, self.where, self.text, self.before, self.after, str(self.twin))
        return hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]

    @property
    def room(self) -> str:
        return self.path.split("/")[0]

    def planted(self) -> bytes:
        """The whole file with the mistake."""
        source = (PACKAGE / self.path).read_bytes()
        return source[: self.span[0]] + self.written.encode() + source[self.span[1] :]


class Remark(NamedTuple):
    """What is known of a mutant by hand."""

    path: str
    text: str
    before: str
    after: str
    reason: str


def mutants(rooms: Iterable[str]) -> list[Mutant]:
    """All that can be planted in the rooms' files, in their order."""
    paths = [path for room in rooms for path in sorted((PACKAGE / room).rglob("*.py"))]
    return [
        mutant
        for path in paths
        if not path.name.endswith("contracts.py")
        for mutant in in_source(path.read_bytes(), _below(path))
    ]


def sample(all_mutants: Iterable[Mutant], size: int, seed: int) -> list[Mutant]:
    """Those with the smallest hashes: what is drawn stays drawn when other files come or go."""

    def draw(mutant: Mutant) -> str:
        return hashlib.sha256(f"{seed} {mutant.id}".encode()).hexdigest()

    return sorted(all_mutants, key=draw)[:size]


def in_source(source: bytes, path: str) -> list[Mutant]:
    """The mutants of one file."""
    starts = [0, *itertools.accumulate(len(line) for line in source.splitlines(keepends=True))]
    rows = source.decode().splitlines()
    found: dict[tuple[int, int, str], Mutant] = {}
    twins: dict[tuple[str, ...], int] = {}
    for mistake, edit, where, lines in _edits(ast.parse(source)):
        span = _span(edit, starts)
        old, key = source[span[0] : span[1]].decode(), (*span, edit.text)
        if key in found or not _differs(old, edit.text):
            continue
        before, after = " ".join(old.split()), " ".join(edit.text.split())
        text = rows[edit.first.lineno - 1].strip()
        words = (where, text, before, after)
        twins[words] = twins.get(words, -1) + 1
        found[key] = Mutant(
            path, where, mistake, before, after, edit.first.lineno, text, lines, span, edit.text,
            twins[words],
        )  # fmt: skip
    return list(found.values())


def _edits(tree: ast.Module) -> Iterator[tuple[str, Edit, str, tuple[int, int] | None]]:
    """Every edit with its kind, its owner and its lines."""
    silent = {id(number) for node in ast.walk(tree) for number in axes(node)}
    for node, where, lines in _sites(tree, _sizes(tree)):
        for mistake, edits in MISTAKES.items():
            if mistake != "constant" or id(node) not in silent:
                yield from ((mistake, edit, where, lines) for edit in edits(node))


def remarks(name: str) -> list[Remark]:
    """A committed list: file, line, before, after and reason in a row, with " ¦ " between them."""
    rows = (Path(__file__).parent / name).read_text().splitlines()
    return [Remark(*row.split(" ¦ ")) for row in rows if row and not row.startswith("#")]


def remark(mutant: Mutant, known: Iterable[Remark]) -> str | None:
    """The reason that a list gives for the mutant."""
    mine = (mutant.path, mutant.text, mutant.before, mutant.after)
    return next((each.reason for each in known if each[:4] == mine), None)


def _below(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def _span(edit: Edit, starts: list[int]) -> tuple[int, int]:
    first, last = edit.first, edit.last
    assert last.end_lineno is not None and last.end_col_offset is not None
    return (
        starts[first.lineno - 1] + first.col_offset,
        starts[last.end_lineno - 1] + last.end_col_offset,
    )


def _differs(before: str, after: str) -> bool:
    """Whether the words mean another thing, and anything at all."""
    try:
        one, two = (ast.dump(ast.parse(f"(\n{words}\n)")) for words in (before, after))
    except SyntaxError:  # statements, which no brackets hold
        return before != after
    return one != two


Site = tuple[ast.AST, str, tuple[int, int] | None]


def _sites(
    node: ast.AST, sizes: set[str], where: str = "", lines: tuple[int, int] | None = None
) -> Iterator[Site]:
    """Every node in which something may be planted, with its owner and its lines."""
    unread = _unread(node)
    for name, value in ast.iter_fields(node):
        if name in SILENT_FIELDS:
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or _left_out(child, sizes) or child in unread:
                continue
            inner, its_lines = where, _executed(node, child, lines)
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                inner = f"{where}.{child.name}".lstrip(".")
            yield child, inner, its_lines
            yield from _sites(child, sizes, inner, its_lines)


def _executed(
    parent: ast.AST, child: ast.AST, lines: tuple[int, int] | None
) -> tuple[int, int] | None:
    """The lines that a test must run to run the child."""
    if isinstance(parent, ast.FunctionDef) and isinstance(child, ast.arguments):
        return parent.body[0].lineno, parent.end_lineno or parent.lineno  # defaults
    if isinstance(parent, (ast.Module, ast.ClassDef)) and isinstance(child, ast.stmt):
        return None
    if not isinstance(child, ast.stmt) or isinstance(child, (ast.FunctionDef, ast.ClassDef)):
        return lines
    body = getattr(child, "body", None)
    last = max(child.lineno, body[0].lineno - 1) if body else child.end_lineno
    return child.lineno, last or child.lineno


def _left_out(node: ast.AST, sizes: set[str]) -> bool:
    match node:
        case ast.Raise() | ast.Assert() | ast.JoinedStr() | ast.Import() | ast.ImportFrom():
            return True
        case ast.Call():
            return called(node) in SPEAKING or called(node).endswith(("Error", "Warning"))
        case ast.FunctionDef():
            return node.name in DESCRIBING | sizes
        case ast.keyword():
            return node.arg == "strict"  # of zip: an assertion
        case ast.If():
            return called(node.test) == "TYPE_CHECKING"
        case ast.Assign():
            return bool({called(target) for target in node.targets} & sizes) or _is_type(node.value)
        case ast.AnnAssign():
            return called(node.target) in sizes
    return False


def _is_type(value: ast.expr) -> bool:
    """`Float[Tensor, "B D"] | None`: a name for a type."""
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr):
        return _is_type(value.left) or _is_type(value.right)
    owner = called(value.value) if isinstance(value, ast.Subscript) else ""
    return owner in ("Float", "Int", "Bool", "Callable", "Mapping", "dict", "tuple", "list")


def _sizes(tree: ast.Module) -> set[str]:
    """`VARIANTS`, `TINY` and what nothing but they reads."""
    made: dict[str, ast.stmt] = {}
    for statement in tree.body:
        for target in getattr(statement, "targets", [getattr(statement, "target", statement)]):
            made[called(target) or getattr(target, "name", "")] = statement
    reads = {name: _read(statement) for name, statement in made.items()}
    sizes = SIZES & set(made)
    while True:
        others = set().union(*(reads[name] for name in made if name not in sizes))
        below = set().union(*(reads[name] for name in sizes)) & set(made)
        private = {name for name in below if name.startswith("_")} - others - sizes
        if not private:
            return sizes
        sizes |= private


def _read(node: ast.AST) -> set[str]:
    inside = (inner for inner in ast.walk(node) if isinstance(inner, ast.Name))
    return {name.id for name in inside if isinstance(name.ctx, ast.Load)}


def _unread(node: ast.AST) -> set[ast.AST]:
    """Statements of a function that make a value which nobody reads."""
    if not isinstance(node, ast.FunctionDef):
        return set()
    read = _read(node)
    return {
        statement
        for statement in node.body
        if isinstance(statement, ast.Assign)
        and all(isinstance(each, ast.Name) and each.id not in read for each in statement.targets)
    }
