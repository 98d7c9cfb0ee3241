"""Somebody else, in the middle of an append that is not committed yet, and how to see that others wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from sqlalchemy import make_url

from sessionstore import limits
from sessionstore.batch import Batch
from sessionstore.dialects import dialect_of
from sessionstore.executors import sqlite as sqlite_executor
from sessionstore.executors.base import Progress
from sessionstore.executors.postgresql import PostgresExecutor
from sessionstore.executors.translate import translated
from sessionstore.settings import StoreSettings
from sessionstore.units.messages import Append
from tests.support.invariants import connect_postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncpg
    import pytest

    from sessionstore import SessionRepository
    from sessionstore.units.unit import Unit

POLL_SECONDS = 0.005
"""Between two looks at who waits. It decides nothing: the looking goes on until the wait is seen."""


class Foreign(ABC):
    """A transaction of another client."""

    async def append(self, session_id: str, *bodies: dict[str, Any]) -> None:
        """Append with the statements of the store, and leave the transaction open."""
        await self.run(Append("", session_id, Batch.of(bodies, StoreSettings())).unit())

    @abstractmethod
    async def run(self, unit: Unit[Any]) -> Any:
        """Run a unit inside the open transaction."""

    @abstractmethod
    async def commit(self) -> None: ...

    @abstractmethod
    async def rollback(self) -> None: ...

    @abstractmethod
    async def waited_for(self, task: asyncio.Task[Any]) -> None:
        """Return once `task` waits for this transaction; it must not end before."""


class ForeignOnPostgres(Foreign):
    """A transaction on a plain connection, and another one to watch it."""

    def __init__(self, connection: asyncpg.Connection, watcher: asyncpg.Connection) -> None:
        self._connection = connection
        self._watcher = watcher
        self._dialect = dialect_of("postgresql", "asyncpg")

    async def run(self, unit: Unit[Any]) -> Any:
        progress = Progress(unit, self._dialect)
        while progress.call is not None:
            sql, arguments, _ = self._dialect.bind(progress.call)
            rows: Any = await self._connection.fetch(sql, *arguments)
            progress.send(rows)
        return progress.result

    async def commit(self) -> None:
        await self._connection.execute("COMMIT")

    async def rollback(self) -> None:
        await self._connection.execute("ROLLBACK")

    async def waited_for(self, task: asyncio.Task[Any]) -> None:
        blocked = "SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))"
        while not await self._watcher.fetchval(blocked, self._connection.get_server_pid()):
            assert not task.done(), f"it did not wait: {task}"
            await asyncio.sleep(POLL_SECONDS)


class ForeignOnSqlite(Foreign):
    """A transaction on a connection of our own to the file."""

    def __init__(self, connection: sqlite3.Connection, refused: threading.Event) -> None:
        self._connection = connection
        self._refused = refused
        self._dialect = dialect_of("sqlite", "aiosqlite")

    async def run(self, unit: Unit[Any]) -> Any:
        if not self._connection.in_transaction:  # the one write lock of the file: not while a test prepares its rows
            self._connection.execute("BEGIN IMMEDIATE")
            self._refused.clear()
        return sqlite_executor.Worker(self._dialect)._drive_all(self._connection, unit)

    async def commit(self) -> None:
        self._connection.execute("COMMIT")

    async def rollback(self) -> None:
        self._connection.execute("ROLLBACK")

    async def waited_for(self, task: asyncio.Task[Any]) -> None:
        while not self._refused.is_set():
            assert not task.done(), f"it did not wait: {task}"
            await asyncio.sleep(POLL_SECONDS)


def _note_refusals(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """An event that is set when a writer was refused the lock; it asks often, so that no test waits long."""
    refused = threading.Event()

    def noting(error: BaseException, statement: str) -> Exception:
        if statement == "begin":
            refused.set()
        return translated(error, statement)

    monkeypatch.setattr(sqlite_executor, "translated", noting)
    monkeypatch.setattr(limits, "SQLITE_BUSY_SLICE_SECONDS", 0.01)
    return refused


async def settled(repository: SessionRepository) -> None:
    """Wait until the executor has nothing under way, also for callers who left."""
    executor = repository._executor
    if isinstance(executor, PostgresExecutor):
        while executor._tasks:
            await asyncio.wait(executor._tasks)
    await repository.delete("of no matter: the last in the queue of a writer")


@contextlib.asynccontextmanager
async def foreign(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Foreign]:
    """Another client with an open transaction. Enter it before the repository's first call."""
    address = make_url(url)
    if address.get_backend_name() == "postgresql":
        connection, watcher = await connect_postgres(url), await connect_postgres(url)
        try:
            await connection.execute("BEGIN")
            yield ForeignOnPostgres(connection, watcher)
        finally:
            connection.terminate()
            watcher.terminate()
        return
    refused = _note_refusals(monkeypatch)
    with contextlib.closing(sqlite3.connect(str(address.database), isolation_level=None)) as opened:
        opened.execute("PRAGMA foreign_keys = ON")
        yield ForeignOnSqlite(opened, refused)
