"""Inside a transaction of the caller: nothing is committed, retried or grouped here."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, TypeVar

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from sessionstore.dialects.base import Call, Rows
from sessionstore.errors import InvalidArgumentError, StoreBusyError, StoreTimeoutError
from sessionstore.executors.base import Deadline, Executor, Progress
from sessionstore.executors.tenants import TELL, tenant_of
from sessionstore.executors.translate import translated
from sessionstore.units.unit import Kind, RunInstead, Unit

T = TypeVar("T")


class JoinedExecutor(Executor):
    """Runs units through SQLAlchemy on a caller's connection or session.

    Never on the driver's connection below: SQLAlchemy has not sent its BEGIN there yet, and such a write would survive
    the caller's rollback.
    """

    def __init__(self, parent: Executor, within: AsyncConnection | AsyncSession) -> None:
        dialect = parent.dialect
        super().__init__(replace(dialect, optimistic_ids=False, snapshots=dialect.one_writer, joined=True))
        self._parent = parent
        self._within = within
        self.checked = parent.checked

    async def open(self, deadline: Deadline) -> None:
        """Check the schema once; a database in memory migrates itself, here too."""
        if not self.checked and self._parent.migrates_itself:
            await self._parent.open(deadline)
        await super().open(deadline)

    async def run(self, unit: Unit[T], deadline: Deadline) -> T:
        """Run a unit, and the one that follows it: a cap is best effort here, as nothing is committed yet."""
        result = await super().run(unit, deadline)
        if self.dialect.one_writer and unit.then is not None and (following := unit.then(result)) is not None:
            await self._attempt(following, deadline)
        return result

    async def _retried(self, unit: Unit[T], deadline: Deadline) -> tuple[T, Unit[T]]:
        """Once and no more: a failure may have ended the caller's transaction, and another try would hide why."""
        return await self._attempt(unit, deadline), unit

    async def _attempt(self, unit: Unit[T], deadline: Deadline) -> T:
        try:
            async with asyncio.timeout_at(deadline.at):
                connection = await self._connection()
                await self._begun(connection, unit.kind, deadline)
                return await self._run(connection, unit)
        except TimeoutError:
            raise StoreTimeoutError("the call did not end within its deadline") from None

    async def _connection(self) -> AsyncConnection:
        within = self._within
        connection = await within.connection() if isinstance(within, AsyncSession) else within
        if connection.dialect.name != self.dialect.name:
            raise InvalidArgumentError("within() needs a connection to the same kind of database as the repository's")
        return connection

    async def _begun(self, connection: AsyncConnection, kind: Kind, deadline: Deadline) -> None:
        """Make sure that a transaction is open, also in the database."""
        if not connection.in_transaction():
            await connection.begin()
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection
        autocommit = connection.dialect.detect_autocommit_setting(raw.dbapi_connection)  # type: ignore[arg-type]
        if self.dialect.one_writer and not driver.in_transaction and not autocommit:
            # Python's driver has sent no BEGIN yet, and a savepoint would then be the transaction itself.
            if kind.reads:
                await self._execute(connection, "BEGIN", "begin")
            else:
                await self._lock(connection, deadline)
        elif autocommit and not (self.dialect.one_writer and driver.in_transaction):
            raise InvalidArgumentError("within() needs a transaction; this connection is in autocommit")

    async def _lock(self, connection: AsyncConnection, deadline: Deadline) -> None:
        """Take SQLite's write lock, waiting for it no longer than the deadline, whatever the caller's setting."""
        [(patience,)] = await self._execute(connection, "PRAGMA busy_timeout", "begin")
        # Somewhat less, so that SQLite gives up before the deadline cuts it off, which costs the caller the connection.
        left = max(1, int(deadline.left * 750))
        await self._execute(connection, f"PRAGMA busy_timeout = {min(patience, left)}", "begin")
        try:
            await self._execute(connection, "BEGIN IMMEDIATE", "begin")
        except StoreBusyError:
            await self._execute(connection, f"PRAGMA busy_timeout = {patience}", "begin")
            raise
        await self._execute(connection, f"PRAGMA busy_timeout = {patience}", "begin")

    async def _run(self, connection: AsyncConnection, unit: Unit[T]) -> T:
        while True:
            try:
                async with self._all_or_none(connection, unit.kind):
                    return await self._drive(connection, unit)
            except RunInstead as other:
                unit = other.unit

    @contextlib.asynccontextmanager
    async def _all_or_none(self, connection: AsyncConnection, kind: Kind) -> AsyncIterator[None]:
        """A savepoint around units of several statements, so that they stay whole even if the caller goes on."""
        if kind.reads or (kind is Kind.WRITE and self.dialect.modifying_ctes):
            yield
            return
        async with connection.begin_nested():
            yield

    async def _drive(self, connection: AsyncConnection, unit: Unit[T]) -> T:
        progress = Progress(unit, self.dialect)
        if self.dialect.row_level_security and progress.call is not None:
            tenant = tenant_of(unit, progress.call)
            if tenant is not None:
                await self._execute(connection, TELL, "tenant", (tenant,))
        while progress.call is not None:
            call: Call = progress.call
            sql, arguments, _ = self.dialect.bind(call)
            try:
                rows = await self._execute(connection, sql, call.statement.name, arguments)
            except Exception as error:  # noqa: BLE001  # the unit may know what to make of it
                progress.throw(error)
            else:
                progress.send(rows)
        return progress.result

    async def _execute(self, connection: AsyncConnection, sql: str, name: str, arguments: Any = None) -> Rows:
        try:
            result = await connection.exec_driver_sql(sql, arguments or None)
        except (DBAPIError, sqlite3.Error, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise translated(error, name) from None
        return result.fetchall() if result.returns_rows else ()
