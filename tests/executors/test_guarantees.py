"""What the store reads back at opening, and what it makes of it."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from sessionstore import ReadOnlyStoreError, SessionRepository, SessionStoreError, StoreSettings
from sessionstore.executors import guarantees
from sessionstore.executors.guarantees import check_connection, check_database
from sessionstore.executors.postgresql import _Run
from sessionstore.executors.sqlite import configure
from sessionstore.migrate import upgrade
from sessionstore.status import status
from tests.support.invariants import connect_postgres
from tests.support.repositories import execute
from tests.support.templates import new_database_name, sqlite_url

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgres import Postgres

SAY = {"role": "user", "content": "hello"}
STRONG = {
    "server_encoding": "UTF8",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "default_transaction_read_only": "off",
    "standard_conforming_strings": "on",
    "not_bytewise": None,
}


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has told nothing yet."""
    monkeypatch.setattr(guarantees, "_told", set())


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """The warnings of the store, as they come."""
    lines: list[str] = []

    class Listing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                lines.append(record.getMessage())

    handler = Listing()
    logging.getLogger("sessionstore").addHandler(handler)
    yield lines
    logging.getLogger("sessionstore").removeHandler(handler)


async def _refused(url: str, *, joined: bool = True) -> str:
    """The text with which every way to open a database is refused."""
    texts = set()
    with pytest.raises(SessionStoreError) as caught:
        await SessionRepository.connect(url).__aenter__()
    texts.add(str(caught.value))
    engine = create_async_engine(url)
    try:
        with pytest.raises(SessionStoreError) as caught:
            await SessionRepository(engine).exists("s")
        texts.add(str(caught.value))
        if joined:
            async with engine.connect() as connection:
                with pytest.raises(SessionStoreError) as caught:
                    await SessionRepository(engine).within(connection).exists("s")
                texts.add(str(caught.value))
    finally:
        await engine.dispose()
    assert type(caught.value) is SessionStoreError
    (text,) = texts
    return text


# --- what is read means -----------------------------------------------------------------------------------------------


def test_a_database_as_it_should_be(told: list[str]) -> None:
    """P1: nothing is refused and nothing told; what a database does not know counts as if it were right."""
    check_database(STRONG)
    check_database(dict.fromkeys(STRONG) | {"server_encoding": "UTF8"})
    check_database({})
    for kind in ("local", "remote_write", "remote_apply"):
        check_database(STRONG | {"synchronous_commit": kind})
    assert told == []


@pytest.mark.parametrize("weaker", [pair for pair in guarantees._WEAKER if pair[1] == "off"], ids="=".join)
def test_an_operators_choice_is_told_once(told: list[str], weaker: tuple[str, str]) -> None:
    """P1: a database is used as it is, and the log says once what that costs."""
    name, value = weaker
    for _ in range(3):
        check_database(STRONG | {name: value})
    assert len(told) == 1
    assert f"{name}={value}" in told[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"server_encoding": "LATIN1"},
        {"server_encoding": "SQL_ASCII"},
        {"not_bytewise": "id, key"},
    ],
    ids=str,
)
def test_what_cannot_hold_is_refused(wrong: dict[str, str]) -> None:
    """P8: text that would come back as another, or ids in another order."""
    ((_, value),) = wrong.items()
    with pytest.raises(SessionStoreError, match=value):
        check_database(STRONG | wrong)


# --- SQLite -----------------------------------------------------------------------------------------------------------


async def test_a_file_in_another_encoding(tmp_path: Path) -> None:
    """P8: refused in every way to open it: bodies are read as their bytes. `within()` uses the caller's connection."""
    file = tmp_path / "wide.db"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA encoding = 'UTF-16le'")
        connection.execute("CREATE TABLE other (x)")
    await upgrade(sqlite_url(file))
    found = await _refused(sqlite_url(file), joined=False)
    assert found == "the database file has encoding=UTF-16le, and the store's promises need UTF-8"


async def test_a_file_without_a_write_ahead_log(sqlite_file: Path) -> None:
    """P1: where SQLite cannot keep one it is not written to; reading needs none."""
    with contextlib.closing(sqlite3.connect(sqlite_file)) as connection:
        assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    # This one has no shared memory, as file systems over a network have none.
    async with SessionRepository.connect(f"sqlite:///file:{sqlite_file}?vfs=unix-none&uri=true") as sessions:
        assert not await sessions.exists("s")
        with pytest.raises(SessionStoreError, match="has journal_mode=delete"):
            await sessions.append("s", SAY, create=True)
        assert not await sessions.exists("s")
    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        assert await sessions.append("s", SAY, create=True) == [0]


async def test_a_folder_that_may_not_be_entered(sqlite_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P12, P11: an error of ours, that shows no path; and once mended, no restart."""

    def refused(_path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(sqlite_file))

    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        with monkeypatch.context() as patched:
            patched.setattr(type(sqlite_file), "exists", refused)
            with pytest.raises(ReadOnlyStoreError) as caught:
                await sessions.append("s", SAY, create=True)
        assert str(sqlite_file) not in str(caught.value)
        assert await sessions.append("s", SAY, create=True) == [0]


@pytest.mark.parametrize("setting", ["foreign_keys = OFF", "synchronous = NORMAL", "synchronous = OFF"])
async def test_a_setting_that_does_not_take(sqlite_file: Path, setting: str) -> None:
    """P1: what SQLite was told is not trusted but read back."""
    with contextlib.closing(sqlite3.connect(sqlite_file)) as connection:
        configure(connection, durability="full", writes=True)
        connection.execute(f"PRAGMA {setting}")
        with pytest.raises(SessionStoreError, match=setting.partition(" ")[0]):
            check_connection(connection, durability="full", writes=True)


@pytest.mark.parametrize("omitted", ["foreign_keys", "synchronous", "journal_mode"])
async def test_connections_are_checked(sqlite_file: Path, omitted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P1: at opening, each of them: a SQLite that passes over a setting is found out."""

    class Deaf(sqlite3.Connection):
        def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
            return super().execute("SELECT 'delete'" if sql.startswith(f"PRAGMA {omitted} =") else sql, *arguments)

    with contextlib.closing(sqlite3.connect(sqlite_file)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    real = sqlite3.connect
    monkeypatch.setattr("sessionstore.executors.engines.sqlite3.connect", lambda *a, **kw: real(*a, factory=Deaf, **kw))
    settings = StoreSettings(durability="normal")  # SQLite itself begins with FULL
    with pytest.raises(SessionStoreError, match=omitted):
        async with SessionRepository.connect(sqlite_url(sqlite_file), settings=settings) as sessions:
            await sessions.create("s")


async def test_normal_durability_is_no_warning(sqlite_file: Path, told: list[str]) -> None:
    """P1: it is a named choice of ours."""
    settings = StoreSettings(durability="normal")
    async with SessionRepository.connect(sqlite_url(sqlite_file), settings=settings) as sessions:
        await sessions.create("s")
    assert told == []


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


async def test_one_more_statement(postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P10: all of it is read in one, once."""
    sent: list[str] = []

    async def counted(run: _Run, sending: Any, name: str, **options: Any) -> Any:
        sent.append(name)
        return await real(run, sending, name, **options)

    real = _Run._send
    monkeypatch.setattr(_Run, "_send", counted)
    async with SessionRepository.connect(postgres_database) as sessions:
        assert sent == ["schema_exists", "schema", "guarantees"]
        await sessions.exists("s")
        await sessions.for_tenant("t").exists("s")
    assert sent[3:] == ["head", "head"]


async def test_a_database_in_another_encoding(postgres_server: Postgres) -> None:
    """P8: refused in every way to open it: it cannot hold every text."""
    name = new_database_name("latin")
    await postgres_server.execute(
        f"CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    try:
        await upgrade(postgres_server.url(name))
        found = await _refused(postgres_server.url(name))
    finally:
        await postgres_server.drop_database(name)
    assert found == "the database is encoded in LATIN1; sessionstore needs UTF8"


async def test_columns_of_another_collation(postgres_database: str) -> None:
    """P8: refused in every way to open it: pages and their cursors would disagree about what comes next."""
    connection = await connect_postgres(postgres_database)
    await connection.execute('ALTER TABLE sessionstore_metadata ALTER COLUMN value_key TYPE text COLLATE "default"')
    await connection.close()
    assert "C that they were made with, so pages break: value_key" in await _refused(postgres_database)


async def test_columns_of_another_collation_in_a_schema(postgres_empty: str) -> None:
    """P8: the tables of the store are looked at, not those of the same names elsewhere."""
    settings = StoreSettings(schema="chat")
    await upgrade(postgres_empty, schema="chat")
    connection = await connect_postgres(postgres_empty)
    await connection.execute('CREATE TABLE sessionstore_sessions (id text COLLATE "default")')
    async with SessionRepository.connect(postgres_empty, settings=settings) as sessions:
        await sessions.create("s")
    alter = 'ALTER TABLE chat.sessionstore_sessions ALTER COLUMN parent_id TYPE text COLLATE "default"'
    await connection.execute("DROP VIEW chat.sessionstore_session_facts")
    await connection.execute(alter)
    await connection.close()
    with pytest.raises(SessionStoreError, match="parent_id"):
        await SessionRepository.connect(postgres_empty, settings=settings).__aenter__()


async def test_choices_of_an_operator(postgres_database: str, told: list[str]) -> None:
    """P1: they are told by name, once for all repositories of a process; and the store is used all the same."""
    connection = await connect_postgres(postgres_database)
    name = make_url(postgres_database).database
    for setting in ("synchronous_commit = off", "standard_conforming_strings = off"):
        await connection.execute(f'ALTER DATABASE "{name}" SET {setting}')
    server = {each: await connection.fetchval(f"SHOW {each}") for each in ("fsync", "full_page_writes")}
    await connection.close()
    expected = {f"{each}={value}" for each, value in server.items() if value == "off"}
    for _ in range(3):
        async with SessionRepository.connect(postgres_database) as sessions:
            assert await sessions.append("s", SAY, create=True)
    engine = create_async_engine(postgres_database)
    async with engine.begin() as joining:
        await SessionRepository(engine).within(joining).create("joined")
    await engine.dispose()
    assert {line.partition(" has ")[2].partition(":")[0] for line in told} == expected | {
        "synchronous_commit=off",
        "standard_conforming_strings=off",
    }
    assert len(told) == len(expected) + 2


async def test_a_role_that_only_reads(postgres_database: str, told: list[str]) -> None:
    """P12: a read-only default is told at opening; reading works, and a write has its own error."""
    connection = await connect_postgres(postgres_database)
    name = make_url(postgres_database).database
    await connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    await connection.close()
    async with SessionRepository.connect(postgres_database) as sessions:
        assert not await sessions.exists("s")
    assert sum("default_transaction_read_only=on" in line for line in told) == 1


async def test_a_missing_unique_index(shared_url: str, told: list[str]) -> None:
    """P3: without it a retry would store a message twice; opening warns, and what `status` says mends it."""
    async with SessionRepository.connect(shared_url) as sessions:
        await sessions.append("s", {"role": "user"}, create=True)
        await execute(sessions, "DROP INDEX uq_sessionstore_messages_message_id")
        await execute(sessions, "DROP INDEX ix_sessionstore_sessions_activity")
    assert not any("missing_index" in line for line in told)
    async with SessionRepository.connect(shared_url) as sessions:
        [line] = [line for line in told if "missing_index" in line]
        assert "missing_index=uq_sessionstore_messages_message_id: a retry with the same message ids" in line
        found = await status(sessions)
        assert {repair.index: repair.what.partition(": ")[2] for repair in found.repairs} == {
            "uq_sessionstore_messages_message_id": "missing",
            "ix_sessionstore_sessions_activity": "missing",
        }
        for repair in found.repairs:
            await execute(sessions, repair.sql.replace(" CONCURRENTLY", ""))
        assert (await status(sessions)).repairs == ()
    told.clear()
    async with SessionRepository.connect(shared_url):
        assert not any("missing_index" in line for line in told)
