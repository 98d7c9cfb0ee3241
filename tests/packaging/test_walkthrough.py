"""A new user, in an empty folder with only the wheel, does what docs/operations.md says, word by word."""

from __future__ import annotations

import asyncio
import os
import subprocess
from typing import TYPE_CHECKING

import asyncpg
import pytest
from sqlalchemy import make_url

from tests.docs.markdown import blocks
from tests.support.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import URL

    from tests.docs.markdown import Block
    from tests.packaging.environments import Environment

pytestmark = pytest.mark.processes

PAGE = "docs/operations.md"
HOST = "db.example"
INSTALLING = ("python3 -m venv .venv && . .venv/bin/activate", "pip install sessionstore")


@pytest.fixture
def server() -> Iterator[URL]:
    """A server of its own: roles belong to all databases of one."""
    with PostgresServer() as running:
        yield make_url(running.url("postgres"))


def steps() -> list[Block]:
    """The blocks of the walk, in their order."""
    found = [block for language in ("sql", "console", "python") for block in blocks(language, PAGE)]
    return sorted((block for block in found if "walkthrough" in block.words), key=lambda block: block.line)


def run_sql(server: URL, block: Block) -> None:
    """Run a block as a superuser, in the database that it names."""
    database = block.words[1] if len(block.words) > 1 else "postgres"

    async def run() -> None:
        url = server.set(drivername="postgresql", database=database)
        connection = await asyncpg.connect(url.render_as_string(hide_password=False))
        await connection.execute(block.code)
        await connection.close()

    asyncio.run(run())


class Shell:
    """A shell that goes on from block to block, in an empty folder."""

    def __init__(self, folder: Path, server: URL, installed: Environment) -> None:
        self._folder = folder
        self._server = server
        self._programs = installed.folder / "bin"
        self._before: list[str] = []

    def run(self, block: Block) -> str:
        """Run the lines of a block; what the block printed."""
        lines = [self._here(line.removeprefix("$ ")) for line in block.code.splitlines()]
        script = "\n".join(["set -e", *self._before, "echo '--- now'", *lines])
        self._before += [line for line in lines if line.startswith("export")]
        path = f"{self._programs}:{os.environ['PATH']}"
        environment = {"PATH": path, "HOME": str(self._folder), "NO_COLOR": "1"}
        ended = subprocess.run(
            ["bash", "-c", script], cwd=self._folder, env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, script + ended.stdout + ended.stderr
        return ended.stdout.partition("--- now\n")[2]

    def _here(self, line: str) -> str:
        """A line with our server's address; the wheel is there already, because tests use no network."""
        if line in INSTALLING:
            return "command -v sessionstore"
        return line.replace(f"@{HOST}/", f"@{self._server.host}:{self._server.port}/")


def test_the_walk(installed: Environment, tmp_path: Path, server: URL) -> None:
    """P9: a migrated database, a role with no more rights than it needs, and a first append."""
    shell = Shell(tmp_path, server, installed)
    said = []
    for block in steps():
        if block.language == "sql":
            run_sql(server, block)
        elif block.language == "python":
            (tmp_path / block.words[1]).write_text(block.code)
        else:
            said.append(shell.run(block))
    set_up, checked, used, deployed = said
    assert "the database is at revision" in set_up
    assert "the tables are at the newest revision" in checked
    assert used.startswith("[0]\n")
    assert "Hello" in used
    assert "unknown" not in used
    assert "the database is at revision" in deployed


def test_the_walk_needs_each_of_its_steps() -> None:
    """P9: this test reads the page, and would notice if it read nothing."""
    assert [block.language for block in steps()] == [
        *("sql", "console", "sql", "console", "python", "console", "console"),
    ]
    lines = [line for block in steps() for line in block.code.splitlines()]
    assert set(INSTALLING) <= {line.removeprefix("$ ") for line in lines}
