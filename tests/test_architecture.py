"""The house: who may import whom, what importing costs, and what is public.

The table below is the one in ARCHITECTURE.md; a test compares the two.
"""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

import sightline

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "sightline"

BELOW = {
    "core": "",
    "inputs": "core",
    "nn": "core",
    "models": "nn inputs core",
    "generation": "nn core",
    "objectives": "nn core",
    "metrics": "core",
    "search": "core",
    "data": "inputs core",
    "hub": "models inputs nn core",
    "tasks": "hub models generation search inputs nn core",
    "evaluation": "tasks data metrics core",
    "training": "objectives data nn core",
    "recipes": "tasks evaluation training hub models objectives metrics data inputs nn core",
    "jobs": "tasks search data hub inputs core",
    "demo": "tasks evaluation data core",
    "server": "tasks generation hub search inputs core",
    "bench": "recipes tasks evaluation training generation hub models objectives metrics search "
    "data inputs nn core",
    "cli": "bench demo recipes tasks evaluation training generation hub models objectives metrics "
    "search data inputs nn core",
}
OPTIONAL = {
    "matplotlib", "sklearn", "pillow_heif", "transformers", "openvino", "onnxruntime", "av",
    "torchvision", "timm", "open_clip", "diffusers", "torchmetrics", "faster_coco_eval",
    "lancedb", "datasets",
}  # fmt: skip
"""Never imported at the head of a module."""
NEVER = {"torchvision", "timm", "open_clip", "torchmetrics", "diffusers", "peft"}
PEERS = {"transformers", "openvino", "onnxruntime"}
"""Only the benchmarks import these, inside functions. (What is exported is proved by onnxruntime,
which `hub` asks `core.lazy` for.)"""


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def imports(path, everywhere=True):
    """(module, at the head of the file) of every import statement."""
    tree = ast.parse(path.read_text())
    head = set(ast.walk(tree)) - {
        inner
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or _type_checking(node)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module]
            if node.module == "sightline":  # "from sightline import hub" names a room
                names = [f"sightline.{alias.name}" for alias in node.names]
        for name in names:
            yield name, node in head


def _type_checking(node):
    return isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"


def room_of(path):
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


@pytest.mark.parametrize("room", sorted({room_of(path) for path in modules()} - {""}))
def test_a_room_imports_only_the_rooms_below_it(room):
    allowed = {room, *BELOW[room].split()}
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in modules()
        if room_of(path) == room
        for name, _ in imports(path)
        if name.startswith("sightline.") and name.split(".")[1] not in allowed
    ]
    assert wrong == []


def test_no_room_imports_upward_or_in_a_circle():
    order = list(BELOW)
    assert all(order.index(below) < order.index(room)
               for room, rooms in BELOW.items() for below in rooms.split())  # fmt: skip


def test_inner_modules_never_import_the_package_root():
    wrong = [str(path) for path in modules() for name, _ in imports(path) if name == "sightline"]
    assert wrong == []


def test_optional_packages_are_imported_where_they_are_used():
    wrong = [
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in modules()
        for name, head in imports(path)
        if head and name.split(".")[0] in OPTIONAL
    ]
    assert wrong == []


def test_no_peer_is_imported_at_run_time():
    found = {(room_of(path), name.split(".")[0]) for path in modules() for name, _ in imports(path)}
    assert {package for _, package in found} & NEVER == set()
    assert {room for room, package in found if package in PEERS} <= {"bench"}


def test_every_room_says_what_it_is_for():
    for room in {room_of(path) for path in modules()} - {""}:
        text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text()))
        assert text and len(text) > 60, room


def test_the_table_of_the_document_is_the_table_of_the_test():
    document = (ROOT / "ARCHITECTURE.md").read_text()
    rows = [line.split("|") for line in document.splitlines() if line.startswith("| `")]
    written = {row[1].strip(" `"): row[4].strip() for row in rows}
    for room, below in BELOW.items():
        assert room in written, room
        if room not in ("recipes", "bench", "cli"):  # "everything below" in the document
            assert set(written[room].replace(",", " ").split()) - {"nothing"} == set(
                below.split()
            ), room


def run(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=True
    ).stdout


def test_importing_sightline_loads_no_torch():
    heavy = "{'torch', 'numpy', 'PIL', 'jaxtyping', 'tokenizers', 'huggingface_hub', 'rich'}"
    loaded = run("-c", f"import sys, sightline; print({heavy} & set(sys.modules))")
    assert loaded.strip() == "set()"


def test_help_loads_no_torch():
    code = (
        "import sys\nfrom sightline.cli import main\nsys.argv[1:] = ['--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('HEAVY', {'torch', 'numpy', 'PIL', 'jaxtyping', 'transformers'} & set(sys.modules))"
    )
    assert run("-c", code).splitlines()[-1] == "HEAVY set()"


@pytest.mark.parametrize(
    ("arguments", "limit"),
    [(["-c", "import sightline"], 0.1), (["-m", "sightline", "--help"], 0.3)],
    ids=["import", "help"],
)
def test_start_is_quick(arguments, limit):
    """The cost above an empty interpreter in a processor's time, the best of several: other work
    on the machine only adds."""

    def best(command):
        times = []
        for _ in range(7):
            before = os.times()
            run(*command)
            after = os.times()
            user = after.children_user - before.children_user
            times.append(user + after.children_system - before.children_system)
        return min(times)

    assert best(arguments) - best(["-c", "pass"]) < limit


def test_public_names():
    assert set(dir(sightline)) == {"Index", "Model", "__version__", "data", "load", "pipeline"}
    for name in dir(sightline):
        assert getattr(sightline, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sightline.nothing


def test_every_module_imports():
    out = run(str(ROOT / "tests" / "import_every_module.py"))
    assert "modules imported" in out


def _code_lines(node):
    """Lines of a function without its docstring."""
    text = ast.get_docstring(node, clean=False)
    return node.end_lineno - node.lineno + 1 - (text.count("\n") + 1 if text else 0)


def test_functions_fit_on_a_screen():
    """Budgets of CONTRIBUTING.md: most functions within 30 lines, none above 60."""
    lengths = {
        f"{path.relative_to(PACKAGE)}:{node.name}": _code_lines(node)
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    short = sum(length <= 30 for length in lengths.values()) / len(lengths)
    print(f"{len(lengths)} functions, {short:.0%} within 30 lines, longest {max(lengths.values())}")
    assert short >= 0.85
    assert {name: length for name, length in lengths.items() if length > 60} == {}
