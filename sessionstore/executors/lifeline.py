"""How long a migration waits for a PostgreSQL server, and what ends it when nobody answers any more.

`timeout_seconds` is patience with *others*. Connecting, waiting for the lock and reading where the database is are cut
when it is over. Revisions at work are not: an index may take an hour to build, and each statement is bounded by the
`statement_timeout` of its revision, which the server keeps. In a network gone dark nobody keeps it. So while revisions
run, the connection that holds the lock asks every few seconds whether the server is there and still busy for us; if no
answer comes, both connections are closed without a word, which needs no network, and the call ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, TypeVar

import asyncpg
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from sessionstore import limits
from sessionstore.errors import InvalidArgumentError, StoreTimeoutError
from sessionstore.executors.translate import BAD_OPTION, cause_of

T = TypeVar("T")

_WAITING: Final = "there was no connection or no answer of the server until the time was up; nothing was changed"
_WORKING: Final = (
    "the server stopped answering, or ended a connection, in the middle of a migration; "
    "what it has committed stays: run it again"
)
_ENDED: Final = "the migration came to its end, but then the server did not answer any more; run it again to be sure"

_BUSY: Final = """
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND NOT coalesce(
    state LIKE 'idle%' AND clock_timestamp() - state_change > make_interval(secs => $2), false))
"""
"""No, where a backend is gone, or has been done for long with what we still wait for: its answer was lost."""


class Lifeline:
    """The connections of one migration, or of a look at where a database is.

    Args:
        deadline: until when others are waited for, by `time.monotonic()`.
    """

    def __init__(self, deadline: float) -> None:
        self._left = max(0.0, deadline - time.monotonic()) + limits.MIGRATION_GRACE_SECONDS
        self._held: list[tuple[Connection, Any]] = []
        self._asking = asyncio.Lock()
        self._timeout = asyncio.timeout(None)
        self._phase = _WAITING
        self._lost = self._over = False

    async def connect(self, engine: AsyncEngine, work: Callable[[Connection], T]) -> T:
        """Run blocking work on a connection of an engine.

        Raises:
            StoreTimeoutError: the server did not answer in time. Nor then nor cancelled does it leave a connection.
            InvalidArgumentError: the URL has an option that the driver does not know.
        """
        return await self._bounded(self._connected(engine, work))

    async def run(self, connection: AsyncConnection, work: Callable[[Connection], T]) -> T:
        """The same on a connection that is open, which is of no use any more if it ends in an error of this kind."""
        return await self._bounded(self._on(connection, work))

    @contextlib.contextmanager
    def holding(self, connection: Connection) -> Iterator[None]:
        """Take charge of a connection until it is closed, which it is after the block."""
        driver: Any = connection.connection.driver_connection
        self._held.append((connection, driver))
        try:
            yield
        finally:
            if driver.is_closed():
                connection.invalidate()  # or a pool would keep what is of no use

    @contextlib.contextmanager
    def working(self, connection: Connection, lock: Connection) -> Iterator[None]:
        """Let revisions take their time while the server answers."""
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
        connection.commit()
        loop = asyncio.get_running_loop()
        self._phase = _WORKING
        self._reschedule(None)
        beating = loop.create_task(self._beat(lock.connection.driver_connection, pid))
        try:
            yield
            self._phase = _ENDED
        finally:
            # Not in the middle of a question: the driver would open a connection to take it back.
            _adapted(lock).run_async(lambda _: self._still(beating))
            self._reschedule(loop.time() + limits.OPERATION_TIMEOUT_SECONDS)

    def ask(self, lock: Connection, query: str, *arguments: Any) -> Any:
        """Ask something on the connection of the lock, which never happens beside another question."""
        return _adapted(lock).run_async(lambda driver: self._answer(driver, query, *arguments))

    async def _bounded(self, work: Coroutine[Any, Any, T]) -> T:
        # In a task of its own: where it is waiting, and whoever waits for it is cancelled, its connections end first.
        task = asyncio.get_running_loop().create_task(work)
        try:
            task.add_done_callback(_seen)
            async with asyncio.timeout(self._left) as self._timeout:
                return await asyncio.shield(task)
        except Exception:
            if self._lost or self._timeout.expired():
                raise StoreTimeoutError(self._phase, maybe_committed=self._phase is not _WAITING) from None
            raise
        finally:
            self._over = True
            if not task.done():
                await self._cut(task)

    async def _connected(self, engine: AsyncEngine, work: Callable[[Connection], T]) -> T:
        connection = await _started(engine.connect())
        try:
            return await self._on(connection, work)
        finally:
            await connection.close()

    async def _on(self, connection: AsyncConnection, work: Callable[[Connection], T]) -> T:
        def held(given: Connection) -> T:
            with self.holding(given):
                return work(given)

        return await connection.run_sync(held)

    async def _cut(self, task: asyncio.Task[Any]) -> None:
        """End what is under way, its connections first: what cleans up then fails at once, and waits for nobody."""
        self._terminate()
        await asyncio.wait({task}, timeout=limits.MIGRATION_CUT_SECONDS)
        task.cancel()
        await asyncio.wait({task})

    def _terminate(self) -> None:
        for connection, driver in self._held:
            if not connection.closed:  # else it is a pool's again, and may be somebody's
                driver.terminate()

    def _reschedule(self, when: float | None) -> None:
        if not self._over:
            self._timeout.reschedule(when)

    async def _beat(self, driver: Any, pid: int) -> None:
        while not self._lost:
            await asyncio.sleep(limits.MIGRATION_PULSE_SECONDS)
            try:
                busy = await self._answer(driver, _BUSY, pid, limits.MIGRATION_ANSWER_SECONDS)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
                busy = False
            if not busy:
                self._lose()

    async def _answer(self, driver: Any, query: str, *arguments: Any) -> Any:
        async with self._asking:
            asked = asyncio.ensure_future(driver.fetchval(query, *arguments))
            asked.add_done_callback(_seen)
            await asyncio.wait({asked}, timeout=limits.MIGRATION_ANSWER_SECONDS)
            if not asked.done():
                self._lose()
            return await asked

    async def _still(self, beating: asyncio.Task[None]) -> None:
        try:
            async with self._asking:
                pass
        finally:
            beating.cancel()

    def _lose(self) -> None:
        self._lost = True
        self._terminate()


def _seen(future: asyncio.Future[Any]) -> None:
    """Whoever waited for it may have gone."""
    if not future.cancelled():
        future.exception()


def _adapted(connection: Connection) -> Any:
    """SQLAlchemy's adapter of the driver's connection, by which blocking code awaits."""
    return connection.connection.dbapi_connection


async def _started(connection: AsyncConnection) -> AsyncConnection:
    try:
        return await connection.start()
    except (TypeError, DBAPIError, asyncpg.InterfaceError) as error:  # what a driver makes of an unknown option
        if isinstance(error, TypeError) or isinstance(cause_of(error), asyncpg.ClientConfigurationError):
            raise InvalidArgumentError(BAD_OPTION) from None
        raise
