"""PostgreSQL: a unit of one statement is one round trip in autocommit; others are a transaction, READ COMMITTED."""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections.abc import Coroutine, Mapping
from typing import Any, Final, NamedTuple, TypeVar

import asyncpg
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from sessionstore.dialects.base import Dialect
from sessionstore.errors import (
    InvalidArgumentError,
    StoreClosedError,
    StoreTimeoutError,
    TransientStoreError,
)
from sessionstore.executors.base import Deadline, Executor, Progress
from sessionstore.executors.coalescer import Coalescer
from sessionstore.executors.pending import Pending
from sessionstore.executors.tenants import telling, tenant_of
from sessionstore.executors.translate import BAD_OPTION, CONNECT, cause_of, lost, never_sent, translated
from sessionstore.limits import POSTGRES_CONNECTIONS
from sessionstore.units.unit import Kind, Unit

T = TypeVar("T")

_BEGIN: Final = {
    Kind.SNAPSHOT: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    Kind.TRANSACTION: "BEGIN ISOLATION LEVEL READ COMMITTED",
}

_BEGIN_ALWAYS: Final = _BEGIN | {
    Kind.READ: "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY",
    Kind.WRITE: "BEGIN ISOLATION LEVEL READ COMMITTED",
}
"""Where each unit must be a transaction, because only a transaction can tell its tenant."""


class Held(NamedTuple):
    """A connection of an engine, and the driver's connection in it."""

    connection: AsyncConnection
    driver: Any


class PostgresExecutor(Executor):
    """A PostgreSQL database, through the driver's connections of an engine.

    With `hold`, connections are taken from the engine once and kept; the newest returned is used first, and a dead one
    is noticed without a ping. Otherwise each unit checks one out of the caller's pool. What `local` says is set in each
    transaction, where connections cannot have settings.
    """

    def __init__(self, dialect: Dialect, engine: Engine, *, hold: bool, local: Mapping[str, str]) -> None:
        super().__init__(dialect)
        # In the round trip that begins it: by the simple protocol several statements are one message.
        settings = [f"SET LOCAL {name} = {value}" for name, value in local.items()]
        kinds = _BEGIN_ALWAYS if dialect.row_level_security else _BEGIN
        self._begin = {kind: "; ".join([begin, *settings]) for kind, begin in kinds.items()}
        # Weakly: whatever hangs on an engine must not keep it alive.
        self._engine = weakref.ref(engine)
        self._hold = hold
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: list[Held]
        self._free: asyncio.Semaphore
        self._tasks: set[asyncio.Task[None]]
        self._coalescer: Coalescer
        self._closed = False

    async def open(self, deadline: Deadline) -> None:
        """Check the schema once.

        Raises:
            InvalidArgumentError: the engine is in use in another event loop.
        """
        self._enter(deadline.loop)
        await super().open(deadline)

    async def run(self, unit: Unit[T], deadline: Deadline) -> T:
        """Run a unit, appends to a session that is being appended to together with others."""
        if self._closed:
            raise StoreClosedError
        self._enter(deadline.loop)
        if unit.joint is None:
            return await super().run(unit, deadline)
        return await self._coalescer.run(unit, unit.joint, deadline)

    def _enter(self, loop: asyncio.AbstractEventLoop) -> None:
        """Belong to one event loop at a time: what was made in one that is closed is of no use any more."""
        if self._loop is loop:
            return
        self._refuse_after_fork()
        if self._loop is not None and not self._loop.is_closed():
            raise InvalidArgumentError("a PostgreSQL engine belongs to one event loop; make another repository here")
        self._loop = loop
        self._idle = []
        self._free = asyncio.Semaphore(POSTGRES_CONNECTIONS)
        self._tasks = set()
        self._coalescer = Coalescer(super().run, self._tasks)

    async def _attempt(self, unit: Unit[T], deadline: Deadline) -> T:
        call = Pending(unit, deadline)
        # In a task of its own: whoever waits may be cancelled at any time, a unit may not.
        call.task = task = _started(self._work(call), deadline.loop)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await call.future  # type: ignore[no-any-return]
        finally:
            if not call.started:
                task.cancel()

    async def _work(self, call: Pending) -> None:
        """Run a call's unit on a connection, to its end or to the deadline."""
        timer = call.timer()
        try:
            if self._hold:
                async with self._free:
                    await self._on_connection(call, await self._take())
            else:
                await self._on_connection(call, await self._connect())
        except Exception as error:  # noqa: BLE001  # handed to whoever waits
            if isinstance(error, TransientStoreError):
                error.maybe_committed = call.unknown
            call.fail(error)
        finally:
            timer.cancel()
        call.settle()

    async def _on_connection(self, call: Pending, held: Held) -> None:
        """Run a call's unit; a connection that was left in the middle of something is not used again."""
        try:
            if call.start():
                call.succeed(await _Run(call, self.dialect, self._begin).on(held.driver))
        except Exception:
            await self._give_back(held)
            raise
        except BaseException:
            # Cancelled in a statement: the driver would first wait for the server to answer its request to stop.
            await _discard(held)
            raise
        await self._give_back(held)

    async def _give_back(self, held: Held) -> None:
        if held.driver.is_closed() or held.driver.is_in_transaction():
            await _discard(held)
        elif self._hold and not self._closed:
            self._idle.append(held)
        else:
            await held.connection.close()

    async def _take(self) -> Held:
        while self._idle:
            held = self._idle.pop()
            if not held.driver.is_closed():
                return held
            await _discard(held)
        return await self._connect()

    async def _connect(self) -> Held:
        engine = self._engine()
        if engine is None:
            raise StoreClosedError
        try:
            connection = await AsyncEngine(engine).connect()
        except TypeError:
            raise InvalidArgumentError(BAD_OPTION) from None
        except PoolTimeoutError:
            raise StoreTimeoutError("no connection of the pool became free") from None
        except (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            if isinstance(cause_of(error), asyncpg.ClientConfigurationError):
                raise InvalidArgumentError(BAD_OPTION) from None
            raise translated(error, CONNECT) from None
        raw = await connection.get_raw_connection()
        return Held(connection, raw.driver_connection)

    async def close(self) -> None:
        """Let calls under way end, then close the connections."""
        self._closed = True
        if self._loop is None:
            return
        while self._tasks:
            await asyncio.wait(self._tasks)
        while self._idle:
            held = self._idle.pop()
            await held.connection.close()


def _started(work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
    """Start a task, where Python can at once: a turn of the event loop is a tenth of what a short read takes."""
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=loop, eager_start=True)
    return loop.create_task(work)


async def _discard(held: Held) -> None:
    """Close a connection at once, whatever state it or the network is in."""
    held.driver.terminate()
    await held.connection.invalidate()
    await held.connection.close()


class _Run:
    """One try of a call's unit; it notes in the call whether it would be unknown now what became of it."""

    __slots__ = ("_begin", "_call", "_dialect", "_unit")

    def __init__(self, call: Pending, dialect: Dialect, begin: Mapping[Kind, str]) -> None:
        self._call = call
        self._unit = call.unit
        self._dialect = dialect
        self._begin = begin
        call.unknown = False

    async def on(self, driver: Any) -> Any:
        """Drive the unit on a connection of the driver."""
        progress = Progress(self._unit, self._dialect)
        begin = self._begin.get(self._unit.kind)
        if begin is None or progress.call is None:
            return await self._drive(driver, progress, autocommit=self._unit.kind is Kind.WRITE)
        if self._dialect.row_level_security and (tenant := tenant_of(self._unit, progress.call)) is not None:
            begin = f"{begin}; {telling(tenant)}"
        await self._send(driver.execute(begin), "begin")
        try:
            result = await self._drive(driver, progress, autocommit=False)
        except Exception:
            # Cancelled in a statement, or with the connection lost, there is nobody to tell: it is discarded.
            if not driver.is_closed():
                await self._send(driver.execute("ROLLBACK"), "rollback")
            raise
        await self._send(driver.execute("COMMIT"), "commit", commits=not self._unit.kind.reads)
        return result

    async def _drive(self, driver: Any, progress: Progress[Any], *, autocommit: bool) -> Any:
        while progress.call is not None:
            sql, arguments, _ = self._dialect.bind(progress.call)
            try:
                rows = await self._send(driver.fetch(sql, *arguments), progress.call.statement.name, commits=autocommit)
            except Exception as error:  # noqa: BLE001  # the unit may know what to make of it
                progress.throw(error)
            else:
                progress.send(rows)
        return progress.result

    async def _send(self, sending: Any, name: str, *, commits: bool = False) -> Any:
        call = self._call
        before, call.unknown = call.unknown, call.unknown or commits
        try:
            return await sending
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
            if never_sent(error) or not lost(error):
                call.unknown = before
            raise translated(error, name) from None
