"""Whether a repository holds on to anything once its calls have ended, or been left."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import TYPE_CHECKING

from sqlalchemy import make_url
from sqlalchemy.pool import AsyncAdaptedQueuePool

from sessionstore.executors.postgresql import PostgresExecutor
from sessionstore.limits import POSTGRES_CONNECTIONS
from tests.concurrency.foreign import settled
from tests.support.invariants import connect_postgres
from tests.support.waiting import until

if TYPE_CHECKING:
    from sessionstore import SessionRepository

__all__ = ["assert_nothing_held", "assert_nothing_leased", "forgotten"]

_BUSY = (
    "SELECT pid, state, query FROM pg_stat_activity WHERE datname = current_database() "
    "AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND state <> 'idle'"
)

_OURS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'sessionstore'"


async def assert_nothing_leased(repository: SessionRepository) -> None:
    """Check that no call is under way, and that every connection can be used by the next."""
    await settled(repository)
    pool = repository._shared.engine.pool
    if isinstance(pool, AsyncAdaptedQueuePool):
        assert pool.checkedout() == 0
    executor = repository._executor
    if isinstance(executor, PostgresExecutor):
        await until(lambda: not executor._tasks)
        assert executor._free._value == POSTGRES_CONNECTIONS


async def assert_nothing_held(url: str, repository: SessionRepository) -> None:
    """Check moreover that no transaction is open and no lock is held in the database that `url` leads to itself."""
    await assert_nothing_leased(repository)
    if isinstance(repository._executor, PostgresExecutor):
        await _assert_idle_on_server(url)
    elif make_url(url).database:
        _assert_not_locked(url)


async def forgotten(url: str) -> None:
    """Wait until a server has noticed that all clients are dead: it finishes, and may commit, what they asked last."""
    if make_url(url).get_backend_name() != "postgresql":
        return
    connection = await connect_postgres(url)
    try:
        while await connection.fetchval(_OURS):  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.01)
    finally:
        await connection.close()


async def _assert_idle_on_server(url: str) -> None:
    connection = await connect_postgres(url)
    try:
        # A backend whose client has just gone is told so by its next word to it.
        while busy := await connection.fetch(_BUSY):
            assert all(row["state"] == "active" for row in busy), busy
            await asyncio.sleep(0.01)
    finally:
        await connection.close()


def _assert_not_locked(url: str) -> None:
    with contextlib.closing(sqlite3.connect(str(make_url(url).database), timeout=0, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
