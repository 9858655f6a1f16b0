"""The documentation runs: every snippet, every command, every link; generated pages are fresh."""

import importlib.util
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from sightline.hub import bundled

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
GENERATED = {DOCS / "cli.md"}
"""Pages whose blocks are the output of `--help`, which a test of their own compares."""
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
NOT_RUN = re.compile(r"<!-- not run: *(.*?) *-->")
LARGEST_FIGURE = 100_000


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    code: str
    line: int
    """Of its first line of code, counted from 1."""
    mark: str | None
    """The reason in a `not run` comment above it; None without one."""


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks of a page in order; a fence may be indented, as in a list."""
    found: list[Block] = []
    above, open_at, language = "", 0, ""
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        fence = line.strip().startswith("```")
        if open_at and fence:
            code = "\n".join(lines[open_at : number - 1]) + "\n"
            mark = NOT_RUN.fullmatch(above)
            found.append(Block(language, code, open_at + 1, mark[1] if mark else None))
            open_at, above = 0, ""
        elif fence:
            open_at, language = number, line.strip().removeprefix("```").strip()
        elif not open_at and line.strip():
            above = line.strip()
    assert not open_at, f"a fence opened in line {open_at} is never closed"
    return found


def runnable(page: Path) -> list[Block]:
    blocks = [] if page in GENERATED else blocks_of(page.read_text(encoding="utf-8"))
    return [b for b in blocks if b.mark is None and b.language in ("python", "console")]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """A small untrained model that knows the words of the park."""
    from sightline.data.park import texts
    from sightline.recipes.dual_encoder import DualEncoderRecipe
    from sightline.recipes.towers import start_from

    recipe = DualEncoderRecipe(width=32, depth=1, num_heads=2, text_width=32, text_depth=1,
                               text_heads=2, vocab_size=200)  # fmt: skip
    folder = tmp_path_factory.mktemp("stand-in") / "park-siglip"
    start_from(recipe, texts(seeds=range(40))).save(folder, {"domain": bundled.DRAWN_PARKS})
    return folder


@pytest.fixture(scope="module")
def speaking_stand_in(tmp_path_factory):
    """A small untrained model that writes little, with a mask codec beside it."""
    from tests.tasks.writers import writing_folder

    folder = tmp_path_factory.mktemp("stand-in") / "park-paligemma"
    return writing_folder(folder, domain=bundled.DRAWN_PARKS, everything=["everything"])


@pytest.fixture
def offline_with_a_park_model(request, monkeypatch):
    """No hub; models of parks are the bundled ones, or stand-ins where they were not built yet."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("SIGHTLINE_MODEL", raising=False)
    if "park-siglip" not in bundled.bundled_names():
        folder = request.getfixturevalue("stand_in")
        monkeypatch.setitem(bundled.BUNDLED, "park-siglip", str(folder))
    page = request.node.callspec.params.get("page")
    named = page is not None and "park-paligemma" in page.read_text(encoding="utf-8")
    if named and "park-paligemma" not in bundled.bundled_names():
        folder = request.getfixturevalue("speaking_stand_in")
        monkeypatch.setitem(bundled.BUNDLED, "park-paligemma", str(folder))


def run_python(block: Block, page: Path, namespace: dict[str, Any]) -> None:
    # Empty lines in front make a traceback show the line of the page.
    source = "\n" * (block.line - 1) + block.code
    exec(compile(source, name_of(page), "exec"), namespace)


def run_commands(block: Block, page: Path) -> None:
    from sightline.cli.program import program

    for line in block.code.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if not words:
            continue
        place = f"{name_of(page)}, block at line {block.line}: {line}"
        assert words[0] == "sightline", f"{place}: run by hand, or mark the block as not run"
        result = CliRunner().invoke(program, words[1:], prog_name="sightline")
        assert result.exit_code == 0, f"{place}\n{result.output}"


@pytest.mark.parametrize("page", [p for p in PAGES if runnable(p)], ids=name_of)
def test_snippets_run_in_order(page, tmp_path, monkeypatch, offline_with_a_park_model):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    namespace: dict[str, Any] = {"__name__": "docs"}
    with torch.random.fork_rng():
        for block in runnable(page):
            if block.language == "python":
                run_python(block, page, namespace)
            else:
                run_commands(block, page)
    torch.set_num_threads(threads)


def test_a_block_that_is_not_run_says_why():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for mark in NOT_RUN.finditer(text):
            assert len(mark[1].split()) >= 2, f"{name_of(page)}: {mark[0]} gives no reason"
        marks = len(re.findall("not run:", text))
        used = sum(block.mark is not None for block in blocks_of(text))
        assert marks == used, f"{name_of(page)}: a 'not run' comment stands above no block"


def test_blocks_are_found_with_their_marks():
    text = "a\n```python\nx = 1\n```\n\n<!-- not run: takes long -->\n\n```console\ny\n```\n"
    assert blocks_of(text) == [
        Block("python", "x = 1\n", 3, None),
        Block("console", "y\n", 9, "takes long"),
    ]


def test_an_untold_command_fails(tmp_path):
    with pytest.raises(AssertionError, match="mark the block as not run"):
        run_commands(Block("console", "pip install sightline\n", 1, None), ROOT / "README.md")
    with pytest.raises(AssertionError, match="no-such-command"):
        run_commands(Block("console", "sightline no-such-command\n", 1, None), ROOT / "README.md")


def slug(heading: str) -> str:
    """The anchor that a heading gets: lower case, words joined by dashes."""
    plain = re.sub(r"[`*_]|\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", plain.lower()).strip())


def without_code(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {slug(heading) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page)):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name_of(page)}: {target} does not exist"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{name_of(page)}: {target} has no such heading"


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r"[\w./-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    present = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert present - listed == set(), "add these pages to nav in mkdocs.yml"
    assert listed - present == set(), "mkdocs.yml names pages that do not exist"


def load(name: str) -> Any:
    """A script of the docs folder as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_system_pages_are_fresh():
    pages = load("build").generated_pages()
    committed = set((DOCS / "systems").glob("*.md"))
    assert set(pages) == committed
    stale = [name_of(path) for path, text in pages.items() if path.read_text("utf-8") != text]
    assert not stale, "run python docs/build.py"


def test_every_idea_has_a_figure_and_every_figure_an_idea():
    drawn = set(load("figures").FIGURES)
    committed = {path.stem: path for path in (DOCS / "learn" / "figures").glob("*.png")}
    assert drawn == set(committed)
    for page in (DOCS / "learn").glob("*.md"):
        if page.stem != "index":
            text = page.read_text(encoding="utf-8")
            assert f"](figures/{page.stem}.png)" in text, page.name
            assert "## Questions an interviewer asks" in text, page.name
            questions = text.split("## Questions an interviewer asks")[1].count("\n**")
            assert 5 <= questions <= 8, f"{page.name} has {questions} questions"
    for path in committed.values():
        assert path.stat().st_size < LARGEST_FIGURE, path.name
