"""`sessionstore.status`: right numbers on a planted store, and something to say where a store would not even open."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from sqlalchemy import make_url

from sessionstore import (
    InvalidArgumentError,
    SchemaOutOfDateError,
    SessionRepository,
    StoreSettings,
    StoreTimeoutError,
    limits,
)
from sessionstore.backfill import backfill
from sessionstore.migrate import downgrade, upgrade
from sessionstore.schema import REVISION, Base
from sessionstore.status import Sessions, Status, Tenant, status
from tests.access.members import run
from tests.contract._own import PAST, fill
from tests.docs.test_operations import role
from tests.support.invariants import connect_postgres
from tests.support.planting import plant
from tests.support.repositories import callers_engine, execute
from tests.support.templates import sqlite_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CANARY = "kanarienvogel"
STALE = "UPDATE sessionstore_schema SET revision = '0000', compatible_from = '0000'"
NEWER = "UPDATE sessionstore_schema SET revision = '9999', compatible_from = '9998'"


@contextlib.asynccontextmanager
async def unopened(url: str, **options: Any) -> AsyncIterator[SessionRepository]:
    """A repository that was never opened."""
    sessions = SessionRepository.connect(url, **options)
    try:
        yield sessions
    finally:
        await sessions.aclose()


async def looked(url: str, **options: Any) -> Status:
    async with unopened(url, **options) as sessions:
        return await status(sessions)


async def filled(sessions: SessionRepository) -> None:
    """Twelve tenants: each has as many sessions as its number, and the smallest ones the most messages."""
    for number in range(1, 13):
        lengths = {f"s{each}": 100 - number for each in range(number)}
        await fill(sessions.for_tenant(f"t{number:02}"), lengths, at=PAST + timedelta(days=number))


def on_server(url: str) -> bool:
    return url.startswith("postgresql")


def bytes_of(file: Path, beside: str = "") -> int:
    return file.with_name(file.name + beside).stat().st_size


# --- numbers ----------------------------------------------------------------------------------------------------------


async def test_the_numbers_of_a_planted_store(database_url: str) -> None:
    """Sessions, messages and tenants are those that were put in; sizes are those of the tables there are."""
    async with SessionRepository.connect(database_url) as sessions:
        await filled(sessions)
        if on_server(database_url):
            await run(database_url, "ANALYZE sessionstore_sessions", "ANALYZE sessionstore_messages")
        found = await status(sessions)
    of_all = found.sessions
    assert of_all is not None
    messages = {number: number * (100 - number) for number in range(1, 13)}
    assert (of_all.count, of_all.messages, of_all.tenants) == (78, sum(messages.values()), 12)
    assert (of_all.oldest_created_at, of_all.newest_updated_at) == (PAST + timedelta(days=1), PAST + timedelta(days=12))
    assert (of_all.oldest_updated_at, of_all.newest_created_at) == (PAST + timedelta(days=1), PAST + timedelta(days=12))
    expected = [Tenant(tenant=f"t{number:02}", sessions=number, messages=messages[number]) for number in messages]
    assert of_all.most_sessions == tuple(expected[:1:-1])
    assert of_all.most_messages == tuple(sorted(expected, key=lambda each: -each.messages)[:10])
    tables = {table.name: table for table in found.tables}
    assert tables.keys() == Base.metadata.tables.keys()
    assert (tables["sessionstore_sessions"].rows, tables["sessionstore_messages"].rows) == (78, of_all.messages)
    assert all(table.bytes is not None and table.index_bytes for table in tables.values())
    largest = max(tables.values(), key=lambda table: table.bytes or 0)
    assert largest.name == "sessionstore_messages"
    assert {index.table for index in found.indexes} == tables.keys()
    assert sum(index.bytes or 0 for index in found.indexes) == sum(table.index_bytes or 0 for table in tables.values())
    assert found.invalid_indexes == ()
    assert found.unknown == ()
    assert (found.revision, found.compatible_from, found.code_revision) == (REVISION, "0001", REVISION)
    assert (found.refused, found.command) == (None, None)


async def test_most_messages_are_not_most_sessions(database_url: str) -> None:
    """The busiest are ranked by each on its own, and no message row is needed for it."""
    async with SessionRepository.connect(database_url) as sessions:
        await sessions.for_tenant("many").append("s", *[{"role": "user"}] * 9, create=True)
        await fill(sessions.for_tenant("often"), ["a", "b"])
        await execute(sessions, "DELETE FROM sessionstore_messages")
        found = (await status(sessions)).sessions
    assert found is not None
    assert [each.tenant for each in found.most_sessions] == ["often", "many"]
    assert [each.tenant for each in found.most_messages] == ["many", "often"]
    assert found.messages == 9


async def test_an_empty_store(database_url: str) -> None:
    async with SessionRepository.connect(database_url) as sessions:
        found = await status(sessions)
    assert found.sessions == Sessions()
    assert found.unknown == ()


async def test_it_reads_no_conversation(database_url: str) -> None:
    """P11: nothing that was said, nor anything else a caller wrote but names of tenants."""
    async with SessionRepository.connect(database_url, tenant="acme") as sessions:
        await sessions.create(CANARY, user_id=CANARY, title=CANARY, metadata={CANARY: CANARY})
        await sessions.append(CANARY, {"role": CANARY, "content": CANARY})
        found = await status(sessions)
    assert CANARY not in repr(found)
    assert "acme" in repr(found)


async def test_dead_rows_and_hot_updates(postgres_database: str) -> None:
    """They come from the server's statistics, a vacuum clears the first."""
    async with SessionRepository.connect(postgres_database) as sessions:
        await run(postgres_database, "ALTER TABLE sessionstore_sessions SET (autovacuum_enabled = off)")
        for _ in range(20):
            await sessions.append("s", {"role": "user"}, create=True)
        await sessions.delete("s")
        connection = await connect_postgres(postgres_database)
        before = await _reported(sessions, lambda table: bool(table.dead_rows))
        assert before.hot_ratio is not None
        assert 0.5 < before.hot_ratio <= 1
        assert before.last_vacuum is None
        await connection.execute("VACUUM sessionstore_sessions")
        await connection.close()
        after = await _reported(sessions, lambda table: table.last_vacuum is not None)
    assert after.dead_rows == 0


async def _reported(sessions: SessionRepository, as_expected: Any) -> Any:
    """The table of sessions, once the server's statistics have come that far: they lag by up to a second or so."""
    while True:
        (table,) = (each for each in (await status(sessions)).tables if each.name == "sessionstore_sessions")
        if as_expected(table):
            return table
        await asyncio.sleep(0.05)


async def test_an_invalid_index(postgres_database: str) -> None:
    """What a failed concurrent build leaves behind is named."""
    async with SessionRepository.connect(postgres_database) as sessions:
        await fill(sessions, ["a", "b"])
    with pytest.raises(asyncpg.UniqueViolationError):
        await run(postgres_database, "CREATE UNIQUE INDEX CONCURRENTLY ix_bad ON sessionstore_sessions (user_id)")
    found = await looked(postgres_database)
    assert [(index.name, index.table) for index in found.invalid_indexes] == [("ix_bad", "sessionstore_sessions")]


async def test_who_is_connected(postgres_database: str) -> None:
    """By application name, and the oldest open transaction with its process."""
    connection = await connect_postgres(postgres_database)
    await connection.execute("SET application_name = 'a report'")
    async with unopened(postgres_database) as sessions:
        assert (await status(sessions)).oldest_transaction is None
        await connection.execute("BEGIN")
        found = await status(sessions)
        pid = await connection.fetchval("SELECT pg_backend_pid()")
    await connection.close()
    names = {each.application_name: each for each in found.connections}
    assert (names["a report"].count, names["a report"].in_transaction, names["a report"].active) == (1, 1, 0)
    assert (names["sessionstore"].count, names["sessionstore"].hidden) == (1, 0)
    oldest = found.oldest_transaction
    assert oldest is not None
    assert (oldest.pid, oldest.application_name, oldest.state) == (pid, "a report", "idle in transaction")
    assert oldest.seconds >= 0


async def test_the_facts_of_a_file(sqlite_file: Path) -> None:
    """Of its pages, its log, and the settings of the store's own connections."""
    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        await sessions.append("s", {"role": "user", "content": "x" * 50_000}, create=True)
        await sessions.delete("s")
        file = (await status(sessions)).file
        assert file is not None
        assert file.wal_bytes == bytes_of(sqlite_file, "-wal") > 0
    assert (file.journal_mode, file.synchronous) == ("wal", "full")
    assert file.free_pages >= 12
    assert file.bytes == file.page_size * file.pages == bytes_of(sqlite_file)


# --- what is not as it should be --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sql", "advice"), [(STALE, "sessionstore db upgrade"), (NEWER, "pip install --upgrade")])
async def test_tables_of_another_revision(shared_url: str, sql: str, advice: str) -> None:
    """F10: it says so instead of failing, and all the rest besides."""
    async with SessionRepository.connect(shared_url) as sessions:
        await filled(sessions)
    await plant(shared_url, sql)
    with pytest.raises(SchemaOutOfDateError) as refused:
        await SessionRepository.connect(shared_url).__aenter__()
    found = await looked(shared_url)
    assert found.refused == refused.value.message
    assert advice in (found.command or "")
    assert found.revision in {"0000", "9999"}
    assert found.sessions is not None
    assert found.sessions.count == 78


async def test_tables_that_lack_a_column(shared_url: str) -> None:
    """A part that such tables cannot answer is unknown; the others are not."""
    await plant(shared_url, "ALTER TABLE sessionstore_sessions RENAME COLUMN next_position TO other")
    found = await looked(shared_url)
    assert [each.what for each in found.unknown] == ["sessions"]
    assert found.sessions is None
    assert found.revision == REVISION


async def test_a_schema_row_that_is_gone(shared_url: str) -> None:
    """As at opening."""
    await plant(shared_url, "DELETE FROM sessionstore_schema")
    found = await looked(shared_url)
    assert found.revision is None
    assert "has no sessionstore tables" in (found.refused or "")


async def test_without_tables(tmp_path: Path, postgres_empty: str) -> None:
    """F10: one clear error: there is nothing to look at."""
    sqlite3.connect(tmp_path / "empty.db").close()
    for url in (sqlite_url(tmp_path / "empty.db"), sqlite_url(tmp_path / "missing.db"), postgres_empty):
        with pytest.raises(SchemaOutOfDateError, match="has no sessionstore tables"):
            await looked(url)
    assert not (tmp_path / "missing.db").exists()


async def test_in_a_schema_of_its_own(postgres_empty: str) -> None:
    """Tables of the same names elsewhere are somebody else's."""
    settings = StoreSettings(schema="chat")
    await upgrade(postgres_empty, schema="chat")
    await run(postgres_empty, "CREATE TABLE sessionstore_sessions (id text PRIMARY KEY)")
    async with SessionRepository.connect(postgres_empty, settings=settings) as sessions:
        await sessions.create("s")
    found = await looked(postgres_empty, settings=settings)
    assert len(found.tables) == len(Base.metadata.tables)
    assert (found.sessions or Sessions()).count == 1
    with pytest.raises(SchemaOutOfDateError):
        await looked(postgres_empty, settings=StoreSettings(schema="other"))


async def test_a_role_without_rights(postgres_database: str) -> None:
    """What it may not see is unknown, and nothing is an error."""
    other = await connect_postgres(postgres_database)
    async with role(postgres_database) as url:
        found = await looked(url)
    await other.close()
    assert {each.what for each in found.unknown} == {"revision", "sessions", "backfills", "transactions"}
    assert (found.revision, found.refused, found.sessions) == (None, None, None)
    assert len(found.tables) == len(Base.metadata.tables)
    assert all(index.bytes for index in found.indexes)
    assert sum(each.hidden for each in found.connections) >= 1


async def test_a_role_that_may_not_use_the_schema(postgres_empty: str) -> None:
    """The catalog tells what is in it all the same."""
    await upgrade(postgres_empty, schema="chat")
    async with role(postgres_empty) as url:
        found = await looked(url, settings=StoreSettings(schema="chat"))
    assert {each.what for each in found.unknown} >= {"revision", "sessions", "settings"}
    assert all(table.bytes for table in found.tables)


async def test_a_role_that_sees_one_tenant_at_a_time(postgres_database: str) -> None:
    """Counts of a part are not passed off as those of the whole."""
    rights = ("GRANT SELECT ON ALL TABLES IN SCHEMA public TO ROLE",)
    async with role(postgres_database, *rights) as url:
        assert (await looked(url)).sessions == Sessions()
        await run(postgres_database, "ALTER TABLE sessionstore_sessions ENABLE ROW LEVEL SECURITY")
        found = await looked(url)
    assert found.sessions is None
    assert "row-level security" in next(each.why for each in found.unknown if each.what == "sessions")


async def test_a_table_that_others_keep_locked(postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is when somebody looks; what is locked is unknown, the rest is told."""
    monkeypatch.setattr("sessionstore.units.status.STATUS_LOCK_SECONDS", 0.1)
    connection = await connect_postgres(postgres_database)
    await connection.execute("BEGIN")
    await connection.execute("LOCK TABLE sessionstore_sessions")
    engine = callers_engine(postgres_database)  # whose connections would wait for ever
    found = await status(SessionRepository(engine))
    await engine.dispose()
    await connection.close()
    assert {each.what for each in found.unknown} == {"sessions", "sizes"}
    assert found.oldest_transaction is not None
    assert found.revision == REVISION


async def test_a_part_that_takes_too_long(postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server itself ends it, whatever becomes of whoever asked."""
    monkeypatch.setattr("sessionstore.units.status.STATUS_STATEMENT_SECONDS", 2.0)
    rights = ("GRANT SELECT ON ALL TABLES IN SCHEMA public TO ROLE",)
    slow = "CREATE POLICY slow ON sessionstore_schema USING (pg_sleep(60)::text <> 'x')"
    await run(postgres_database, "ALTER TABLE sessionstore_schema ENABLE ROW LEVEL SECURITY", slow)
    async with role(postgres_database, *rights) as url:
        found = await looked(url)
    assert {each.what for each in found.unknown} == {"revision", "transactions"}
    assert found.sessions == Sessions()


async def test_when_the_time_is_up(shared_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P4: what was seen before is told, whatever is slow."""
    async with unopened(shared_url) as sessions:
        look = sessions._executor.look

        async def slow(unit: Any, deadline: Any) -> Any:
            if unit.name == "status_tenants":
                raise StoreTimeoutError
            return await look(unit, deadline)

        monkeypatch.setattr(sessions._executor, "look", slow)
        found = await status(sessions)
    assert [each.what for each in found.unknown] == ["sessions"]
    assert (found.sessions, found.revision) == (None, REVISION)


async def test_settings_that_weaken_a_promise(postgres_database: str) -> None:
    """P1: what opening warns of once is shown each time, with what follows."""
    name = make_url(postgres_database).database
    settings = ("synchronous_commit = off", "default_transaction_read_only = on")
    await run(postgres_database, *(f'ALTER DATABASE "{name}" SET {setting}' for setting in settings))
    for _ in range(2):
        found = {each.setting: each for each in (await looked(postgres_database)).weaknesses}
        assert found["synchronous_commit"].value == "off"
        assert found["default_transaction_read_only"].value == "on"
        assert all(each.consequence for each in found.values())


async def test_columns_of_another_collation(postgres_database: str) -> None:
    """P8: a database that is refused at opening is looked at, and the refusal is told."""
    alter = 'ALTER TABLE sessionstore_metadata ALTER COLUMN value_key TYPE text COLLATE "default"'
    await run(postgres_database, alter)
    found = await looked(postgres_database)
    assert "value_key" in (found.refused or "")
    assert found.sessions == Sessions()


async def test_weaker_settings_of_a_file(sqlite_file: Path) -> None:
    """P1: a journal that is not the store's, and a durability that is the caller's choice."""
    with contextlib.closing(sqlite3.connect(sqlite_file)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    found = await looked(sqlite_url(sqlite_file), settings=StoreSettings(durability="normal"))
    weak = {each.setting: each.value for each in found.weaknesses}
    assert weak == {"journal_mode": "delete", "synchronous": "normal"}
    assert (await looked(sqlite_url(sqlite_file))).weaknesses[0].setting == "journal_mode"


async def test_a_large_file_is_not_read_page_by_page(sqlite_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pages are counted by its header instead."""
    monkeypatch.setattr(limits, "STATUS_DBSTAT_BYTES", bytes_of(sqlite_file) - 1)
    found = await looked(sqlite_url(sqlite_file))
    assert [each.what for each in found.unknown] == ["sizes"]
    assert {table.bytes for table in found.tables} == {None}
    assert found.file is not None
    assert found.file.bytes == bytes_of(sqlite_file)


# --- ways to use it ---------------------------------------------------------------------------------------------------


async def test_through_an_engine_of_the_callers(database_url: str) -> None:
    """It does not matter whose connections they are; within a transaction it makes no sense."""
    engine = callers_engine(database_url)
    async with SessionRepository(engine) as sessions:
        await sessions.create("s")
        assert ((await status(sessions)).sessions or Sessions()).count == 1
        async with engine.connect() as connection:
            with pytest.raises(InvalidArgumentError):
                await status(sessions.within(connection))
    await engine.dispose()


async def test_it_changes_nothing_about_later_calls(postgres_database: str) -> None:
    """Its patience ends with its transactions; nothing of it stays on a connection that is used again."""
    async with SessionRepository.connect(postgres_database) as sessions:
        await status(sessions)
        [held] = sessions._shared.executor._idle  # type: ignore[union-attr]
        assert await held.driver.fetchval("SHOW statement_timeout") == "0"
        assert await held.driver.fetchval("SHOW lock_timeout") == "3s"


async def test_backfills(shared_url: str) -> None:
    """P10: how far each is that was ever begun; on tables without any, there are none."""
    async with SessionRepository.connect(shared_url) as sessions:
        assert (await status(sessions)).backfills == ()
        done = await backfill(sessions, "metadata-columns")
        assert (await status(sessions)).backfills == (done,)
    await downgrade(shared_url, "0002")
    found = await looked(shared_url)
    assert (found.backfills, found.revision) == ((), "0002")
    assert "backfills" not in [each.what for each in found.unknown]
