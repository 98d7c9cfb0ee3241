"""Revisions that fail, copy tables or lose rows: whatever they do, the database is at one revision or the other."""

# ruff: noqa: S608 - the names of tables are constants
from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from sessionstore import migrate
from sessionstore.errors import CorruptStoreError, SessionStoreError, StoreTimeoutError
from sessionstore.schema import REVISION
from tests.migrations.databases import VERSION_TABLE, catalog, count_rows, execute, fetch, rows_in_every_table
from tests.migrations.revisions import NEXT

if TYPE_CHECKING:
    from tests.migrations.revisions import Revisions

ADD_COLUMN = "op.add_column('sessionstore_sessions', sa.Column('extra', sa.Text()))"
COPY_SESSIONS = """
op.execute("DROP VIEW sessionstore_session_facts")
with op.batch_alter_table("sessionstore_sessions", recreate="always") as batch:
    batch.add_column(sa.Column("extra", sa.Text()))
"""


async def _filled(url: str) -> None:
    await migrate.upgrade(url, to=REVISION)
    await execute(url, *rows_in_every_table(url))


async def test_a_revision_that_fails_half_way_leaves_nothing(empty_url: str, revisions: Revisions) -> None:
    await _filled(empty_url)
    before = await catalog(empty_url)
    revisions.add(NEXT, REVISION, f"{ADD_COLUMN}\nop.execute('SELECT * FROM missing')")
    with pytest.raises(SessionStoreError, match=r"42P01|SQLITE_ERROR"):
        await migrate.upgrade(empty_url)
    assert await catalog(empty_url) == before
    assert await migrate.current(empty_url) == REVISION
    revisions.add(NEXT, REVISION, ADD_COLUMN)
    assert await migrate.upgrade(empty_url) == NEXT
    assert await fetch(empty_url, f"SELECT * FROM {VERSION_TABLE}") == [(NEXT,)]
    assert await migrate.downgrade(empty_url, REVISION) == REVISION


async def test_one_transaction_a_revision_on_postgresql(postgres_empty: str, revisions: Revisions) -> None:
    revisions.add(NEXT, REVISION, "op.execute('SELECT * FROM missing')")
    with pytest.raises(SessionStoreError, match="SQLSTATE 42P01"):
        await migrate.upgrade(postgres_empty)
    assert await migrate.current(postgres_empty) == REVISION


async def test_one_transaction_for_all_on_sqlite(tmp_path: object, revisions: Revisions) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/sessions.db"
    revisions.add(NEXT, REVISION, "op.execute('SELECT * FROM missing')")
    with pytest.raises(SessionStoreError, match="SQLITE_ERROR"):
        await migrate.upgrade(url)
    assert await migrate.current(url) is None


def test_a_copied_table_keeps_its_children(revisions: Revisions) -> None:
    # With foreign keys on, dropping the old table deletes every message and every metadata key in silence.
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("PRAGMA foreign_keys = ON")
    migrate.upgrade_sqlite(connection)
    for statement in rows_in_every_table("sqlite"):
        connection.execute(statement)
    revisions.add(NEXT, REVISION, COPY_SESSIONS)
    assert migrate.upgrade_sqlite(connection) == NEXT
    assert connection.execute("SELECT count(*) FROM sessionstore_messages").fetchone() == (4,)
    assert connection.execute("SELECT count(*) FROM sessionstore_metadata").fetchone() == (2,)
    assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
    connection.close()


async def test_a_revision_that_orphans_rows_is_rolled_back(sqlite_file: object, revisions: Revisions) -> None:
    url = f"sqlite+aiosqlite:///{sqlite_file}"
    await execute(url, *rows_in_every_table(url))
    before = await count_rows(url)
    revisions.add(NEXT, REVISION, "op.execute('DELETE FROM sessionstore_sessions')")
    with pytest.raises(CorruptStoreError, match="without their session"):
        await migrate.upgrade(url)
    assert await count_rows(url) == before
    assert await migrate.current(url) == REVISION


async def test_rows_orphaned_before_do_not_stop_a_migration(sqlite_file: object, revisions: Revisions) -> None:
    url = f"sqlite+aiosqlite:///{sqlite_file}"
    await execute(url, *rows_in_every_table(url), "DELETE FROM sessionstore_sessions")
    revisions.add(NEXT, REVISION, ADD_COLUMN)
    assert await migrate.upgrade(url) == NEXT


async def test_a_revision_that_runs_too_long_is_cancelled(postgres_empty: str, revisions: Revisions) -> None:
    slow = "op.execute(\"SET LOCAL statement_timeout = '20ms'\")\nop.execute('SELECT pg_sleep(60)')"
    revisions.add(NEXT, REVISION, slow)
    with pytest.raises(StoreTimeoutError):
        await migrate.upgrade(postgres_empty)
    assert await migrate.current(postgres_empty) == REVISION


async def test_the_environment_sets_timeouts_where_a_revision_forgets(
    postgres_empty: str, revisions: Revisions
) -> None:
    read = "INSERT INTO seen SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"
    revisions.add(NEXT, REVISION, f'op.execute("CREATE TABLE seen (a text, b text)")\nop.execute("{read}")')
    await migrate.upgrade(postgres_empty)
    assert await fetch(postgres_empty, "SELECT * FROM seen") == [("4s", "30s")]


async def test_an_index_is_built_concurrently_outside_the_transaction(
    postgres_empty: str, revisions: Revisions
) -> None:
    await _filled(postgres_empty)
    revisions.add(
        NEXT,
        REVISION,
        """
        with op.get_context().autocommit_block():
            op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_extra")
            op.execute("CREATE INDEX CONCURRENTLY ix_extra ON sessionstore_messages (tenant_id, role)")
        """,
    )
    assert await migrate.upgrade(postgres_empty) == NEXT
    assert await fetch(postgres_empty, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_extra'::regclass") == [
        (True,)
    ]


async def test_a_lost_lock_stops_the_migration(postgres_empty: str, revisions: Revisions) -> None:
    end = (
        "SELECT pg_terminate_backend(pid) FROM pg_locks "
        "WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    revisions.add(NEXT, REVISION, f'op.execute("CREATE TABLE unguarded (a int)")\nop.execute("""{end}""")')
    with pytest.raises(SessionStoreError):
        await migrate.upgrade(postgres_empty)
    assert await migrate.current(postgres_empty) == REVISION
    assert await fetch(postgres_empty, "SELECT to_regclass('unguarded')") == [(None,)]
