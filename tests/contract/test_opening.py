"""What a repository may be opened on, what it refuses and how it is closed."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import URL, NullPool, StaticPool, create_engine, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from sessionstore import (
    CorruptStoreError,
    DocumentRepository,
    InvalidArgumentError,
    ReadOnlyStoreError,
    SchemaOutOfDateError,
    SessionRepository,
    SessionStoreError,
    StoreSettings,
)
from sessionstore.migrate import upgrade
from sessionstore.schema import REVISION
from tests.migrations.databases import execute, fetch, files_in
from tests.support.postgres import PostgresServer
from tests.support.repositories import callers_engine, say

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine

MEMORY = "sqlite+aiosqlite://"


def all_text(error: BaseException) -> str:
    """Whatever somebody who logs an error would see."""
    return "".join(traceback.format_exception(error)) + repr(error)


# --- the schema -----------------------------------------------------------------------------------


async def refusal(url: str, settings: StoreSettings | None = None) -> SchemaOutOfDateError:
    """What opening a database says, which must be what a first call says."""
    with pytest.raises(SchemaOutOfDateError) as opening:
        async with SessionRepository.connect(url, settings=settings or StoreSettings()):
            pass
    sessions = SessionRepository.connect(url, settings=settings or StoreSettings())
    with pytest.raises(SchemaOutOfDateError) as reading:
        await sessions.find("s")
    with pytest.raises(SchemaOutOfDateError) as writing:
        await sessions.create("s")
    await sessions.aclose()
    assert str(opening.value) == str(reading.value) == str(writing.value)
    return opening.value


async def test_an_older_database(shared_url: str) -> None:
    """F10: refused, naming found, expected and the command."""
    await execute(shared_url, "UPDATE sessionstore_schema SET revision = '0000', compatible_from = '0000'")
    error = await refusal(shared_url)
    assert (error.found, error.expected, error.command) == ("0000", REVISION, "sessionstore db upgrade")
    for part in ("0000", REVISION, "sessionstore db upgrade"):
        assert part in str(error)


async def test_a_newer_database_for_newer_code(shared_url: str) -> None:
    """F10: refused, with the command that brings newer code."""
    await execute(shared_url, "UPDATE sessionstore_schema SET revision = '0009', compatible_from = '0008'")
    error = await refusal(shared_url)
    assert (error.found, error.expected) == ("0009", REVISION)
    assert error.command.startswith("pip install --upgrade sessionstore")
    assert "0009" in str(error)


async def test_a_newer_database_that_this_code_may_use(shared_url: str) -> None:
    """F10: old code keeps working while expand migrations run."""
    await execute(shared_url, "UPDATE sessionstore_schema SET revision = '0009', compatible_from = '0001'")
    async with SessionRepository.connect(shared_url) as sessions:
        await sessions.create("s")
    async with SessionRepository.connect(shared_url, migrate=True) as sessions:
        assert await sessions.exists("s")


@pytest.mark.parametrize("what", ["DROP TABLE sessionstore_schema", "DELETE FROM sessionstore_schema"])
async def test_a_database_without_our_row(shared_url: str, what: str) -> None:
    """F10: found is None."""
    await execute(shared_url, what)
    error = await refusal(shared_url)
    assert (error.found, error.expected, error.command) == (None, REVISION, "sessionstore db upgrade")


async def test_an_empty_server_database(postgres_empty: str) -> None:
    """F10: one that no migration has touched."""
    assert (await refusal(postgres_empty)).found is None


async def test_an_empty_file(tmp_path: Path) -> None:
    """F10: it is an empty database to SQLite, and stays one."""
    file = tmp_path / "empty.db"
    file.touch()
    assert (await refusal(f"sqlite:///{file}")).found is None
    assert (files_in(tmp_path), file.read_bytes()) == (["empty.db"], b"")


async def test_a_missing_file_is_not_created(tmp_path: Path) -> None:
    """F10: only a migration makes a file."""
    assert (await refusal(f"sqlite:///{tmp_path / 'missing.db'}")).found is None
    assert (await refusal(f"sqlite:///file:{tmp_path / 'missing.db'}?uri=true")).found is None
    assert files_in(tmp_path) == []


async def test_another_schema(postgres_database: str) -> None:
    """F10: tables in `public` are not those of `schema=`; the command says which schema to upgrade."""
    error = await refusal(postgres_database, StoreSettings(schema="team"))
    assert error.found is None
    assert error.command == "sessionstore db upgrade --schema team"


async def test_a_schema_of_its_own(postgres_database: str) -> None:
    """F10: all tables are there, and those in `public` are left alone."""
    await upgrade(postgres_database, schema="team")
    async with SessionRepository.connect(postgres_database, settings=StoreSettings(schema="team")) as sessions:
        await sessions.create("s", metadata={"k": 1})
        await sessions.append("s", say("user", "x"))
    assert await fetch(postgres_database, "SELECT count(*) FROM team.sessionstore_messages") == [(1,)]
    assert await fetch(postgres_database, "SELECT count(*) FROM public.sessionstore_sessions") == [(0,)]


async def test_once_it_is_upgraded_the_next_call_works(shared_url: str) -> None:
    """F10: a refusal is not remembered; no restart is needed."""
    await execute(shared_url, "UPDATE sessionstore_schema SET revision = '0000'")
    sessions = SessionRepository.connect(shared_url)
    with pytest.raises(SchemaOutOfDateError):
        await sessions.create("s")
    await execute(shared_url, f"UPDATE sessionstore_schema SET revision = '{REVISION}'")  # noqa: S608
    assert (await sessions.create("s")).id == "s"
    await sessions.aclose()


async def test_a_refusal_leaves_the_callers_transaction_alone(shared_url: str) -> None:
    """F10: also where the tables are missing, what the caller has written can be committed."""
    await execute(shared_url, "DROP TABLE sessionstore_schema", "CREATE TABLE mine (x INTEGER)")
    engine = callers_engine(shared_url)
    async with engine.begin() as connection:
        await connection.exec_driver_sql("INSERT INTO mine VALUES (1)")
        with pytest.raises(SchemaOutOfDateError):
            await SessionRepository(engine).within(connection).create("s")
    assert await fetch(shared_url, "SELECT x FROM mine") == [(1,)]
    await engine.dispose()


# --- files that are no store ----------------------------------------------------------------------


def content_of(file: Path) -> bytes:
    return file.read_bytes()


def cut(size: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:size]


DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "text": lambda _: b"these are my notes, and nobody may touch them\n" * 100,
    "zeros": lambda _: bytes(8192),
    "short": lambda _: b"notes",
    "another header": lambda content: b"SQLite format 4\0" + content[16:],
    "within the header": cut(60),
    "after a page": cut(4096),
    "half": lambda content: content[: len(content) // 2],
    "without its last page": lambda content: content[:-4096],
}


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("migrate", [False, True])
async def test_a_file_that_is_no_store(sqlite_file: Path, tmp_path: Path, kind: str, migrate: bool) -> None:
    """F10: `CorruptStoreError`, also when asked to migrate it; the file stays as it is, and nothing beside it."""
    file = tmp_path / "folder" / "notes.db"
    file.parent.mkdir()
    damaged = DAMAGED[kind](content_of(sqlite_file))
    file.write_bytes(damaged)
    with pytest.raises(CorruptStoreError):
        async with SessionRepository.connect(f"sqlite:///{file}", migrate=migrate):
            pass
    for_writing = SessionRepository.connect(f"sqlite:///{file}")
    with pytest.raises(CorruptStoreError):
        await for_writing.create("s")
    await for_writing.aclose()
    assert content_of(file) == damaged
    assert files_in(file.parent) == ["notes.db"]


async def test_a_refused_file_is_untouched(sqlite_file: Path) -> None:
    """F10: a store for newer code, opened for reading and for writing, keeps every byte."""
    with contextlib.closing(sqlite3.connect(sqlite_file)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("UPDATE sessionstore_schema SET revision = '0009', compatible_from = '0009'")
        connection.commit()
    before = content_of(sqlite_file)
    await refusal(f"sqlite:///{sqlite_file}")
    assert content_of(sqlite_file) == before
    assert files_in(sqlite_file.parent) == [sqlite_file.name]


async def test_a_file_that_may_only_be_read(sqlite_file: Path) -> None:
    """F14, P12: reads work, a write is one clear error."""
    async with SessionRepository.connect(f"sqlite:///{sqlite_file}") as sessions:
        await sessions.create("s")
    async with SessionRepository.connect(f"sqlite:///file:{sqlite_file}?mode=ro&uri=true") as sessions:
        assert await sessions.exists("s")
        with pytest.raises(ReadOnlyStoreError):
            await sessions.create("t")
        with pytest.raises(ReadOnlyStoreError):
            await sessions.append("s", say("user", "x"))
        assert await sessions.length("s") == 0


async def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """F14: nor is a file in a folder that is missing; an error of ours in each case."""
    for path in (tmp_path, tmp_path / "missing" / "x.db"):
        with pytest.raises(SessionStoreError):
            async with SessionRepository.connect(f"sqlite:///{path}", migrate=True):
                pass
    assert files_in(tmp_path) == []


# --- URLs -----------------------------------------------------------------------------------------


async def test_urls_without_a_driver(lasting_url: str) -> None:
    """F14: as hosting services and people write them."""
    url = make_url(lasting_url)
    names = ["sqlite", "sqlite+aiosqlite"]
    if url.get_backend_name() == "postgresql":
        names = ["postgresql", "postgres", "postgresql+asyncpg"]
    for name in names:
        written = url.set(drivername=name)
        for given in (written, written.render_as_string(hide_password=False)):
            async with SessionRepository.connect(given) as sessions:
                assert (await sessions.open("s")).id == "s"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg2://ann:hunter2@localhost/db",
        "postgresql+psycopg://ann:hunter2@localhost/db",
        "mysql+aiomysql://ann:hunter2@localhost/db",
        "sqlite+pysqlite:///hunter2.db",
        "oracle://ann:hunter2@localhost/db",
        "postgresql://ann:hunter2@localhost:port/db",
        "hunter2",
        "",
        None,
        7,
        b"postgresql://ann:hunter2@localhost/db",
    ],
)
async def test_urls_of_others(url: Any) -> None:
    """F14: refused at once, without the password."""
    for kind in (SessionRepository, DocumentRepository):
        with pytest.raises(InvalidArgumentError) as caught:
            kind.connect(url)
        assert "hunter2" not in all_text(caught.value).replace(repr(url), "")


async def test_a_server_that_is_not_there() -> None:
    """F14, P11: an error that says so, without the URL's password."""
    url = "postgresql://ann:hunter2@127.0.0.1:1/db"
    settings = StoreSettings(operation_timeout_seconds=0.3)
    with pytest.raises(SessionStoreError) as caught:
        async with SessionRepository.connect(url, settings=settings):
            pass
    assert "hunter2" not in all_text(caught.value)


async def test_connecting_does_nothing_yet(tmp_path: Path) -> None:
    """F10: no file, no connection; a repository that was never used is closed without one."""
    sessions = SessionRepository.connect(f"sqlite:///{tmp_path / 'x.db'}", migrate=True)
    await sessions.aclose()
    await SessionRepository.connect("postgresql://127.0.0.1:1/db").aclose()
    assert files_in(tmp_path) == []


async def test_migrating_makes_the_file(tmp_path: Path) -> None:
    """F10: with `migrate=True`, for nobody but its owner to read; again it finds what is there."""
    url = f"sqlite:///{tmp_path / 'x.db'}"
    async with SessionRepository.connect(url, migrate=True) as sessions:
        await sessions.create("s")
    assert (tmp_path / "x.db").stat().st_mode & 0o777 == 0o600
    async with SessionRepository.connect(url, migrate=True) as sessions:
        assert await sessions.exists("s")


PATHS = ["a@b", "a:b", "a%b", "a%20b", "a b", "a?b", "a#b", "ключ", "a;b", "a'b"]


@pytest.mark.parametrize("name", PATHS)
async def test_files_with_unusual_names(tmp_path: Path, name: str) -> None:
    """F14: a path is a path, whatever a URL would make of its characters."""
    folder = tmp_path / name
    folder.mkdir()
    url = URL.create("sqlite", database=str(folder / f"{name}.db"))
    async with SessionRepository.connect(url, migrate=True) as sessions:
        await sessions.create("s")
        assert f"{name}.db" in files_in(folder)
    async with SessionRepository.connect(url) as sessions:
        assert await sessions.exists("s")
    assert {file.removesuffix("-wal").removesuffix("-shm") for file in files_in(folder)} == {f"{name}.db"}
    assert files_in(tmp_path) == [name]


@pytest.mark.processes
async def test_a_password_with_signs_of_urls() -> None:
    """F14: it reaches the server, which checks it, as it is; a wrong one is an error without it."""
    password = "p@ss:w/ord%20?#&'"  # noqa: S105
    with PostgresServer() as server:
        await server.execute(f"CREATE ROLE ann LOGIN SUPERUSER PASSWORD '{password.replace(chr(39), chr(39) * 2)}'")
        rules = "host all postgres 127.0.0.1/32 trust\nhost all ann 127.0.0.1/32 scram-sha-256\n"
        (server.folder / "data" / "pg_hba.conf").write_text(rules)
        await server.execute("SELECT pg_reload_conf()")
        url = make_url(await server.create_database("d")).set(username="ann", password=password)
        for given in (url, url.render_as_string(hide_password=False)):
            async with SessionRepository.connect(given, migrate=True) as sessions:
                assert (await sessions.open("s")).id == "s"
        wrong = SessionRepository.connect(url.set(password=password[:-1]))
        with pytest.raises(SessionStoreError) as caught:
            await wrong.exists("s")
        await wrong.aclose()
        assert "p@ss" not in all_text(caught.value)


@pytest.mark.parametrize("options", ["nonsense=1", "sslmode=nonsense", "ssl=disable&timezone=x"])
async def test_options_that_no_driver_knows(postgres_database: str, options: str) -> None:
    """F14: an error of ours that blames the URL, not one of the driver's, nor the server."""
    settings = StoreSettings(operation_timeout_seconds=1)
    for migrate in (False, True):
        with pytest.raises(InvalidArgumentError):
            async with SessionRepository.connect(f"{postgres_database}?{options}", settings=settings, migrate=migrate):
                pass


@pytest.mark.parametrize("way", ["connect", "engine"])
async def test_many_use_it_first(database_url: str, way: str) -> None:
    """F10: a repository is usable at once, also by tasks that all begin together."""
    engine = callers_engine(database_url)
    sessions = SessionRepository.connect(database_url) if way == "connect" else SessionRepository(engine)
    made = await asyncio.gather(*(sessions.create(f"s{at}") for at in range(20)))
    assert len(made) == 20
    assert len((await sessions.list_sessions()).rows) == 20
    await sessions.aclose()
    await engine.dispose()


# --- engines of callers ---------------------------------------------------------------------------


async def test_engines_of_other_kinds(engine: AsyncEngine) -> None:
    """F14: refused where the repository is made."""
    for other in (None, "sqlite://", create_engine("sqlite://"), engine.sync_engine, MEMORY):
        for kind in (SessionRepository, DocumentRepository):
            with pytest.raises(InvalidArgumentError, match="AsyncEngine"):
                kind(other)  # type: ignore[arg-type]


async def test_engines_of_other_drivers(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """F14: the error names the drivers that there are."""
    monkeypatch.setattr(engine.sync_engine.dialect, "driver", "psycopg")
    with pytest.raises(InvalidArgumentError, match=r"aiosqlite.*asyncpg"):
        SessionRepository(engine)
    monkeypatch.undo()
    assert await SessionRepository(engine).exists("s") is False


async def test_a_database_in_memory_needs_one_connection() -> None:
    """F14: with a pool of several each would have a database of its own."""
    for pool in (NullPool, None):
        engine = create_async_engine(MEMORY, **({"poolclass": pool} if pool else {}))
        if isinstance(engine.pool, StaticPool):
            assert await SessionRepository(engine).exists("s") is False
        else:
            with pytest.raises(InvalidArgumentError, match="StaticPool"):
                await SessionRepository(engine).exists("s")
        await engine.dispose()


@pytest.mark.parametrize("path", ["", "/:memory:", "/file::memory:?uri=true", "/file:x?mode=memory&uri=true"])
async def test_databases_in_memory(path: str) -> None:
    """F10: they migrate themselves, and two of them are two."""
    async with (
        SessionRepository.connect(f"sqlite://{path}") as first,
        SessionRepository.connect(f"sqlite://{path}") as second,
    ):
        await first.create("s")
        assert await first.exists("s")
        assert not await second.exists("s")


async def test_schemas_are_for_postgresql(sqlite_file: Path) -> None:
    """F14: SQLite has none, and says so at once."""
    for url in (MEMORY, f"sqlite:///{sqlite_file}"):
        with pytest.raises(InvalidArgumentError, match="schema"):
            SessionRepository.connect(url, settings=StoreSettings(schema="team"))


async def test_tenants_and_settings_are_checked(engine: AsyncEngine) -> None:
    """X01: a tenant is an id, or empty; what a handle has cannot be changed."""
    for tenant in (None, 7, b"t", " ", "a\x00", "\u202ea", "x" * 256):
        with pytest.raises(InvalidArgumentError, match="tenant"):
            SessionRepository(engine, tenant=tenant)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError, match="tenant"):
            SessionRepository(engine).for_tenant(tenant)  # type: ignore[arg-type]
    sessions = SessionRepository(engine, tenant="t", settings=StoreSettings(session_cap=3))
    assert (sessions.tenant, sessions.settings.session_cap) == ("t", 3)
    assert (sessions.for_tenant("u").tenant, sessions.for_tenant("u").settings.session_cap) == ("u", 3)
    for name in ("tenant", "settings"):
        with pytest.raises(AttributeError):
            setattr(sessions, name, "x")


REFUSED: dict[str, list[Any]] = {
    "operation_timeout_seconds": [0, -1, 0.0, float("nan"), float("inf"), "15", True, None],
    "durability": ["FULL", "off", "", None, True],
    "schema": ["", "Team", "a b", 'a"b', "a;b", "1a", "a.b", "é", "x" * 64, 7, True],
    "session_cap": [0, -1, 1.0, "7", True, 100_001, 2**63],
    "max_body_bytes": [0, -1, 1.0, "7", True, None, 2**63],
    "max_call_bytes": [0, -1, 1.0, "7", True, None, 2**63],
    "max_batch": [0, -1, 1.0, "7", True, None, 2**63],
    "max_depth": [0, -1, 1.0, "7", True, None, 251],
}


@pytest.mark.parametrize("name", REFUSED)
def test_settings_that_are_refused(name: str) -> None:
    """H05: each names what is wrong."""
    for value in REFUSED[name]:
        with pytest.raises(InvalidArgumentError, match=name):
            StoreSettings(**{name: value})


def test_the_default_settings() -> None:
    """H05: the safe choice."""
    settings = StoreSettings()
    assert (settings.operation_timeout_seconds, settings.durability) == (15.0, "full")
    assert (settings.schema, settings.session_cap) == (None, None)
    assert (settings.max_body_bytes, settings.max_call_bytes) == (16 * 2**20, 64 * 2**20)
    assert (settings.max_batch, settings.max_depth) == (10_000, 200)
    other = StoreSettings(session_cap=100_000, operation_timeout_seconds=1, schema="team_1", durability="normal")
    assert (other.session_cap, other.schema) == (100_000, "team_1")
    with pytest.raises(TypeError):
        StoreSettings(15.0)  # type: ignore[call-arg]
