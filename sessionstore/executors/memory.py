"""SQLite in memory: one connection for everything, and it belongs to the engine."""

from __future__ import annotations

import asyncio
import sqlite3
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from sessionstore.dialects.base import Dialect
from sessionstore.errors import StoreBusyError, StoreClosedError
from sessionstore.executors.base import Deadline, Executor
from sessionstore.executors.pending import Pending
from sessionstore.executors.sqlite import Worker
from sessionstore.executors.translate import translated
from sessionstore.units.unit import Unit

T = TypeVar("T")


class MemoryExecutor(Executor):
    """A database that lives in the one connection of an engine.

    A unit runs as one function in that connection's own thread, so nothing of the caller's comes between its
    statements.
    """

    migrates_itself = True

    def __init__(self, dialect: Dialect, engine: Engine, *, migrate: Callable[[sqlite3.Connection], Any]) -> None:
        super().__init__(dialect)
        self._engine = weakref.ref(engine)
        self._migrate = migrate
        self._migrated: Any = None
        self._worker = Worker(dialect)
        self._driver: Any = None
        self._connecting = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def _attempt(self, unit: Unit[T], deadline: Deadline) -> T:
        call = Pending(unit, deadline)
        # In a task of its own: the connection's thread may be busy with what the caller does there, for how long ever.
        task = deadline.loop.create_task(self._work(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await call.wait()  # type: ignore[no-any-return]

    async def _work(self, call: Pending) -> None:
        try:
            driver = await self._connection()
            # _execute is private, but there is no other way to run several statements in the connection's thread with
            # nothing in between.
            await driver._execute(partial(self._serve, driver._conn, call))  # noqa: SLF001
        except Exception as error:  # noqa: BLE001  # handed to whoever waits
            call.fail(error)
        call.settle()

    async def _connection(self) -> Any:
        """Fetch the connection once: giving it back to the pool would roll back what the caller has open."""
        # One at a time: several first uses at once would each open a database of their own.
        async with self._connecting:
            if self._driver is None or self._driver._connection is None:  # noqa: SLF001  # closed by engine.dispose()
                engine = self._engine()
                if engine is None:
                    raise StoreClosedError
                async with AsyncEngine(engine).connect() as connection:
                    self._driver = (await connection.get_raw_connection()).driver_connection
            return self._driver

    def _serve(self, connection: sqlite3.Connection, call: Pending) -> None:
        if connection.in_transaction:
            call.fail(StoreBusyError("a transaction is open on the one connection of this database in memory"))
            return
        if self._migrated is not connection:
            self._migrate(connection)
            self._migrated = connection
        try:
            self._worker.write_group(connection, [call])
        except sqlite3.Error as error:
            call.fail(translated(error, "begin"))
            connection.rollback()  # nothing, where nothing is open
