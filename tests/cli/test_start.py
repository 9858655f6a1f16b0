"""Starting: the table and the files agree, help loads no torch, the page is fresh."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from sightline.cli.program import load_command
from sightline.cli.reference import render
from sightline.cli.table import COMMANDS, GROUPS, SECTIONS
from sightline.core.version import __version__
from tests.cli.conftest import Run

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "numpy", "PIL", "rich", "transformers", "huggingface_hub", "jaxtyping")
SHARED = {"--json", "--model", "--device", "--dtype", "--debug", "--quiet"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_exists_and_takes_the_shared_options(name: str) -> None:
    command = load_command(name)
    assert isinstance(command, click.Command)
    options = {spelling for param in command.params for spelling in param.opts}
    assert options >= SHARED
    assert COMMANDS[name].section in SECTIONS
    assert len(name.split()) == 1 or name.split()[0] in GROUPS


def test_every_file_with_a_command_is_in_the_table() -> None:
    targets = {entry.target.partition(":")[0] for entry in COMMANDS.values()}
    folder = ROOT / "src/sightline/cli"
    defining = {f.stem for f in folder.glob("*.py") if "@click.command()" in f.read_text()}
    assert defining == targets


@pytest.mark.parametrize("arguments", [["--help"], ["classify", "--help"], ["data", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from sightline.cli.program import program\n"
        f"program.main({arguments!r}, standalone_mode=False)\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)\n"
        "print([m for m in sys.modules if m.startswith('sightline.cli.')], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, own = done.stderr.splitlines()
    assert heavy == "[]"
    if arguments == ["--help"]:
        assert "sightline.cli.classify" not in own


def test_root_help_lists_every_command_with_its_summary(run: Run) -> None:
    answer = run()
    assert answer.code == 0
    for name, entry in COMMANDS.items():
        assert name in answer.out and entry.summary in answer.out


def test_version(run: Run) -> None:
    assert run("--version").out == f"sightline {__version__}\n"


def test_the_reference_page_is_fresh() -> None:
    page = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    assert page == render(), "run: python -m sightline.cli.reference > docs/cli.md"


def test_completion_is_offered() -> None:
    environment = {**os.environ, "_SIGHTLINE_COMPLETE": "bash_source"}
    done = subprocess.run(
        [sys.executable, "-c", "from sightline.cli import main; main()"],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 0 and "complete" in done.stdout
