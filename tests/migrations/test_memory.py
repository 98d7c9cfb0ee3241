"""A database in memory lives on one connection, and is migrated there."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine

from sessionstore import migrate
from sessionstore.errors import InvalidArgumentError, SessionStoreError, StoreBusyError
from sessionstore.schema import REVISION

if TYPE_CHECKING:
    from pathlib import Path

QUERY = "SELECT revision FROM sessionstore_schema"


async def test_on_its_own_connection() -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.connect() as connection:
        assert await migrate.upgrade_connection(connection) == REVISION
        assert not connection.in_transaction()
        assert await migrate.upgrade_connection(connection) == REVISION
        assert (await connection.exec_driver_sql("PRAGMA foreign_keys")).scalar() == 0
    assert await migrate.current(engine) == REVISION
    await engine.dispose()


async def test_by_its_engine_and_with_listeners_of_the_callers() -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    assert await migrate.upgrade(engine) == REVISION
    await migrate.check(engine)
    await engine.dispose()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite+aiosqlite:///file:x?mode=memory&uri=true"])
async def test_not_by_its_url(url: str) -> None:
    with pytest.raises(InvalidArgumentError, match="upgrade_connection"):
        await migrate.upgrade(url)


async def test_not_in_the_middle_of_a_transaction() -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.begin() as connection:
        await connection.exec_driver_sql("SELECT 1")
        with pytest.raises(InvalidArgumentError, match="transaction"):
            await migrate.upgrade_connection(connection)
    await engine.dispose()


def test_a_bare_connection_is_left_as_it_was() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.row_factory, connection.text_factory = sqlite3.Row, bytes
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA busy_timeout = 1234")
    assert migrate.upgrade_sqlite(connection) == REVISION
    gc.collect()  # a pool that is collected closes what it holds
    assert connection.row_factory is sqlite3.Row
    assert connection.isolation_level is None
    assert not connection.in_transaction
    assert connection.execute("PRAGMA foreign_keys").fetchone()[0] == 1
    assert connection.execute("PRAGMA busy_timeout").fetchone()[0] == 1234
    assert connection.execute(QUERY).fetchone()[0] == REVISION.encode()
    assert migrate.upgrade_sqlite(connection) == REVISION
    connection.close()


def test_a_bare_connection_in_a_transaction_is_refused() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("BEGIN")
    with pytest.raises(InvalidArgumentError, match="transaction"):
        migrate.upgrade_sqlite(connection)
    connection.close()


async def test_a_bare_connection_in_a_thread_of_its_own_beside_others() -> None:
    def in_a_thread() -> str:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        try:
            return migrate.upgrade_sqlite(connection)
        finally:
            connection.close()

    reached = await asyncio.gather(*(asyncio.to_thread(in_a_thread) for _ in range(8)))
    assert set(reached) == {REVISION}


def test_a_bare_connection_to_a_locked_file_gives_up(tmp_path: Path) -> None:
    holder = sqlite3.connect(tmp_path / "locked.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    connection = sqlite3.connect(tmp_path / "locked.db", isolation_level=None, timeout=0)
    with pytest.raises(StoreBusyError) as caught:
        migrate.upgrade_sqlite(connection, timeout_seconds=0.05)
    assert isinstance(caught.value, SessionStoreError)
    holder.close()
    assert migrate.upgrade_sqlite(connection) == REVISION
    connection.close()
