"""The command line, called in this process and in one of its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import make_url
from typer.testing import CliRunner, Result

from sessionstore import SessionRepository
from sessionstore.cli import app
from sessionstore.cli.running import DATABASE_VARIABLE
from tests.support import templates

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")


class Cli:
    """Runs commands on one database, and looks into it behind their back."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder

    @property
    def environment(self) -> dict[str, str | None]:
        return {DATABASE_VARIABLE: self.url, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}

    def run(self, *arguments: str, given: str | bytes | None = None, code: int = 0, **variables: str | None) -> Result:
        """Run a command in this process; what it must end with."""
        environment = {**self.environment, **variables}
        result = CliRunner(env=environment).invoke(app, list(arguments), input=given, prog_name="sessionstore")
        assert result.exit_code == code, f"{arguments}: {result.exit_code}\n{result.output}\n{result.exception!r}"
        assert "Traceback" not in result.output
        return result

    def json(self, *arguments: str, code: int = 0, given: str | bytes | None = None) -> Any:
        """The JSON that a command prints, which has to be all that it prints on standard output."""
        result = self.run(*arguments, "--json", code=code, given=given)
        lines = result.stdout_bytes.decode().splitlines()
        assert len(lines) == 1, result.stdout
        return json.loads(lines[0])

    def refused(self, *arguments: str, given: str | bytes | None = None) -> str:
        """The one line of an error, and nothing on standard output."""
        result = self.run(*arguments, code=1, given=given)
        assert result.stdout == ""
        [line] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        return line.removeprefix("error: ")

    def misused(self, *arguments: str) -> str:
        """What is said about bad usage, with the frame around it taken off."""
        result = self.run(*arguments, code=2)
        assert result.stdout == ""
        assert "Usage: sessionstore" in result.stderr
        return " ".join(result.stderr.translate(str.maketrans("", "", "│╭╮╰╯─")).split())

    def store(self, work: Callable[[SessionRepository], Awaitable[T]], tenant: str = "") -> T:
        """Do something with the library."""

        async def inside() -> T:
            async with SessionRepository.connect(self.url, tenant=tenant) as sessions:
                return await work(sessions)

        return asyncio.run(inside())

    def process(self, *arguments: str, module: str = "sessionstore", **options: Any) -> subprocess.Popen[bytes]:
        """Start a command in a process of its own."""
        environment = {**os.environ, DATABASE_VARIABLE: self.url, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
        environment["PYTHONUNBUFFERED"] = ""  # what is written at once, the command itself has to flush
        streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        command = [sys.executable, "-m", module, *arguments]
        process: subprocess.Popen[bytes] = subprocess.Popen(
            command, cwd=self.folder, env=environment, **(streams | options)
        )
        return process

    def lines(self, *entries: Any, name: str = "sessions.jsonl") -> str:
        """Write a file of JSON Lines; its path."""
        path = self.folder / name
        texts = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
        path.write_text("".join(f"{text}\n" for text in texts))
        return str(path)


@pytest.fixture(params=["sqlite", "postgresql"])
def cli(request: pytest.FixtureRequest, tmp_path: Path) -> Cli:
    """The command line on a migrated database of the test's own, which each process has to be able to reach."""
    if request.param == "postgresql":
        url = make_url(request.getfixturevalue("postgres_database"))
        # As people write it, without a driver.
        return Cli(url.set(drivername="postgresql").render_as_string(hide_password=False), tmp_path)
    return Cli(f"sqlite:///{request.getfixturevalue('sqlite_file')}", tmp_path)


@pytest.fixture
def sqlite_cli(sqlite_file: Path, tmp_path: Path) -> Cli:
    """On SQLite alone, for what has nothing to do with the database."""
    return Cli(f"sqlite:///{sqlite_file}", tmp_path)


@pytest.fixture
def no_database(tmp_path: Path) -> Cli:
    """On a SQLite file that is not there."""
    (tmp_path / "nowhere").mkdir()
    return Cli(f"sqlite:///{tmp_path}/nowhere/sessions.db", tmp_path)


@pytest.fixture
def unmigrated_postgres(postgres_empty: str, tmp_path: Path) -> Cli:
    """On a PostgreSQL database without our tables."""
    return Cli(postgres_empty, tmp_path)


def line(session_id: str, *contents: Any, **columns: Any) -> dict[str, Any]:
    """A session as an import reads it."""
    return {"id": session_id, "messages": [{"role": "user", "content": content} for content in contents], **columns}


__all__ = ["Cli", "line", "templates"]
