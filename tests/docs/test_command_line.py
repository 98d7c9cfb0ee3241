"""docs/command-line.md: the reference is that of the commands, and its examples are understood."""

from __future__ import annotations

import re
import shlex

import pytest
from typer.testing import CliRunner

from sessionstore.cli import app
from tests.docs import command_line
from tests.docs.markdown import blocks

PAGES = ("docs/command-line.md", "docs/operations.md", "docs/formats.md", "README.md")


def test_the_reference_is_up_to_date() -> None:
    assert command_line.PAGE.read_text() == command_line.page(), "run python -m tests.docs.command_line"


def test_every_command_is_there() -> None:
    names = {name.removeprefix("sessionstore ") for name, _ in command_line.commands()}
    assert names == {
        *("db upgrade", "db downgrade", "db current", "db check", "db history", "db sql", "db backfill", "db roles"),
        *("demo", "import", "export", "list", "show", "events", "watch", "tree"),
        *("fork", "trim", "prune", "delete", "stats", "verify", "backup", "maintain", "status"),
    }


def _examples() -> list[str]:
    lines = [line for block in blocks("console", *PAGES) for line in block.code.splitlines()]
    parts = [part for line in lines for part in re.split(r" \| | && ", line.removeprefix("$ "))]
    return sorted({part for part in parts if re.match(r"([A-Z_]+=\S+ )?sessionstore ", part)})


@pytest.mark.parametrize("example", _examples())
def test_an_example_is_understood(example: str) -> None:
    """Every option of it exists: with --help behind it, nothing else is done."""
    words = [word for word in shlex.split(re.sub(r" >.*", "", example)) if not re.match(r"[A-Z_]+=", word)]
    ended = CliRunner().invoke(app, [*words[1:], "--help"])
    assert ended.exit_code == 0, ended.output
    unknown = [word for word in words if word.startswith("--") and word not in ended.output]
    assert unknown == []
