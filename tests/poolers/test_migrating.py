"""Migrations and the command line through PgBouncer: what is safe works, what is not is refused by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import InvalidArgumentError, SchemaOutOfDateError, SessionRepository, migrate
from sessionstore.schema import REVISION
from tests.cli.conftest import Cli
from tests.support.invariants import connect_postgres

if TYPE_CHECKING:
    from tests.support.pgbouncer import PgBouncer

ROOT = Path(__file__).resolve().parents[2]


async def _tables(url: str) -> int:
    connection = await connect_postgres(url)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM pg_class WHERE relname LIKE 'sessionstore%'"))
    finally:
        await connection.close()


async def _opened(url: str) -> None:
    async with SessionRepository.connect(url, migrate=True) as sessions:
        await sessions.create("s")


async def test_an_empty_database(pooler: PgBouncer, postgres_empty: str) -> None:
    """P9: migrating is refused and nothing was done; reading the revision works."""
    url = pooler.url(postgres_empty)
    calls: list[Any] = [migrate.upgrade, _opened]
    for call in calls:
        with pytest.raises(InvalidArgumentError, match="URL of the server itself"):
            await call(url)
    assert await migrate.current(url) is None
    with pytest.raises(SchemaOutOfDateError):
        await migrate.check(url)
    assert await migrate.downgrade(url, "base") is None
    assert await _tables(postgres_empty) == 0


async def test_a_migrated_database(pooler: PgBouncer, postgres_database: str) -> None:
    """P9: where nothing is left to do, every call succeeds, so a service may migrate at its start."""
    url = pooler.url(postgres_database)
    assert await migrate.upgrade(url) == await migrate.current(url) == REVISION
    await migrate.check(url)
    await _opened(url)
    with pytest.raises(InvalidArgumentError, match="URL of the server itself"):
        await migrate.downgrade(url, "base")
    assert await _tables(postgres_database) > 0


def test_alembic_itself(pooler: PgBouncer, postgres_empty: str) -> None:
    """P9: the same refusal by Alembic's own command."""
    command = [sys.executable, "-m", "alembic", "-c", str(ROOT / "alembic.ini"), "upgrade", "head"]
    environment = {**os.environ, "SESSIONSTORE_DATABASE_URL": pooler.url(postgres_empty), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "use the URL of the server itself" in done.stderr


def test_the_command_line(pooler: PgBouncer, postgres_database: str, tmp_path: Path) -> None:
    """P2: commands that read, write, measure, verify and clean."""
    cli = Cli(pooler.url(postgres_database), tmp_path)
    cli.run("import", cli.lines({"id": "s", "messages": [{"role": "user", "content": "hello"}]}))
    assert [row["id"] for row in cli.json("list")["sessions"]] == ["s"]
    assert "hello" in cli.run("show", "s").stdout
    for command in (("stats",), ("verify", "--all-tenants"), ("maintain",), ("db", "check")):
        cli.run(*command)
    assert cli.json("db", "current") == {"revision": REVISION}
    assert cli.json("db", "upgrade") == {"revision": REVISION}


def test_the_command_line_does_not_migrate(pooler: PgBouncer, postgres_empty: str, tmp_path: Path) -> None:
    """F14: one line, and no password."""
    assert "use the URL of the server itself" in Cli(pooler.url(postgres_empty), tmp_path).refused("db", "upgrade")
