"""docs/operations.md: the settings, the rights and the backups that it names."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import make_url

from sessionstore import ReadOnlyStoreError, SessionRepository, StoreSettings
from sessionstore.executors.engines import own_engine
from sessionstore.executors.sqlite import configure
from tests.docs.markdown import blocks, read, rows, sections
from tests.support.templates import sqlite_url

PAGE: Final = "docs/operations.md"
SAY: Final = {"role": "user", "content": "hello"}


def test_the_settings_of_sqlite_are_those_that_are_documented(sqlite_file: Path) -> None:
    written = {row[0].strip("`"): row[1] for row in rows(sections(read(PAGE))["SQLite files"])[1:]}
    with contextlib.closing(sqlite3.connect(sqlite_file)) as connection:
        configure(connection, durability="full", writes=True)
        found = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in written}
    assert found.pop("journal_size_limit") == 64 * 2**20
    assert written.pop("journal_size_limit") == "64 MiB"
    assert (found.pop("secure_delete"), written.pop("secure_delete")) == (2, "FAST")
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "trusted_schema": 0}
    assert written == {"journal_mode": "WAL", "synchronous": "FULL", "foreign_keys": "on", "trusted_schema": "off"}


def test_normal_durability_is_a_choice(sqlite_file: Path) -> None:
    assert StoreSettings().durability == "full"
    with contextlib.closing(sqlite3.connect(sqlite_file)) as connection:
        configure(connection, durability="normal", writes=True)
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == 1


async def test_the_settings_of_held_connections(postgres_database: str) -> None:
    engine = own_engine(make_url(postgres_database))
    async with engine.connect() as connection:
        found = {
            name: (await connection.exec_driver_sql(f"SHOW {name}")).scalar_one()
            for name in ("application_name", "lock_timeout", "idle_in_transaction_session_timeout")
        }
    await engine.dispose()
    assert list(found.values()) == ["sessionstore", "3s", "5s"]


async def test_files_are_private(tmp_path: Path) -> None:
    file = tmp_path / "sessions.db"
    async with SessionRepository.connect(f"sqlite:///{file}", migrate=True) as sessions:
        await sessions.append("s", SAY, create=True)
        modes = _modes(tmp_path)
    assert modes == {"sessions.db": 0o600, "sessions.db-wal": 0o600, "sessions.db-shm": 0o600}


def _modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


async def test_a_backup_of_a_file_in_use(sqlite_file: Path, tmp_path: Path) -> None:
    """F08, X08: what was acknowledged is in the copy."""
    (block,) = (block for block in blocks("sql", PAGE) if "backup" in block.words)
    copy = tmp_path / "copy.db"
    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        await sessions.append("s", SAY, SAY, create=True)
        with contextlib.closing(sqlite3.connect(sqlite_file)) as connection:
            connection.execute(block.code.replace("/backups/sessions.db", str(copy)))
    async with SessionRepository.connect(sqlite_url(copy)) as copied:
        assert await copied.length("s") == 2
        await copied.append("s", SAY)


@contextlib.asynccontextmanager
async def role(url: str, *grants: str) -> AsyncIterator[str]:
    """The URL of a role of the test's own, with some rights. Roles belong to the whole server: it goes again."""
    name = f"sessionstore_test_{uuid4().hex[:8]}"
    address = make_url(url)
    plain = address.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(plain)
    try:
        await connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
        for grant in grants:
            await connection.execute(grant.replace("ROLE", name))
        yield address.set(username=name, password=name).render_as_string(hide_password=False)
    finally:
        await connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
        await connection.close()


def _grants(to: str) -> list[str]:
    """What the page grants to a role."""
    (block,) = (block for block in blocks("sql", PAGE) if "grants" in block.words)
    return [part.replace(to, "ROLE") for part in block.code.split(";") if f"TO {to}" in part]


async def test_the_rights_of_a_reader(postgres_database: str) -> None:
    """P12: a role that may only read gets one clear error."""
    async with SessionRepository.connect(postgres_database) as sessions:
        await sessions.append("s", SAY, create=True)
    async with role(postgres_database, *_grants("chat_reader")) as url:
        connection = await _connected(url)
        assert await connection.fetchval("SELECT text FROM sessionstore_message_texts") == "hello"
        await connection.close()
        await _refused(url, "SELECT body FROM sessionstore_messages")
        async with SessionRepository.connect(url) as sessions:
            with pytest.raises(ReadOnlyStoreError):
                await sessions.append("s", SAY)


async def _connected(url: str) -> Any:
    return await asyncpg.connect(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False))


async def _refused(url: str, sql: str) -> None:
    connection = await _connected(url)
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(sql)
    finally:
        await connection.close()


def test_every_error_has_its_advice() -> None:
    cells = [row[0] for row in rows(sections(read(PAGE))["What an error means"])[1:]]
    named = {name.strip().strip("`") for cell in cells for name in cell.removesuffix(" itself").split(",")}
    explained = {row[0].strip("`") for row in rows(sections(read("docs/api.md"))["Errors"])[1:]}
    expected = explained - {"SessionNotFoundError", "SessionExistsError"}
    assert named == expected | {"SessionStoreError"}
