"""What the repositories share: an engine, a tenant, settings, and the way a unit is run."""

from __future__ import annotations

import asyncio
import copy
import logging
import sqlite3
from collections.abc import Coroutine
from types import ModuleType, TracebackType
from typing import Any, Final, Self, TypeVar

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from sessionstore import eventlog, telemetry
from sessionstore.checks import check_tenant
from sessionstore.dialects.urls import is_memory, normalize_url, pooler_of
from sessionstore.errors import InvalidArgumentError, StoreClosedError
from sessionstore.executors.base import Deadline, Executor
from sessionstore.executors.engines import dialect_for, executor_for, own_engine
from sessionstore.executors.joined import JoinedExecutor
from sessionstore.limits import PRUNE_CLOSE_SECONDS
from sessionstore.settings import StoreSettings
from sessionstore.units.unit import Unit

T = TypeVar("T")
_log: Final = logging.getLogger("sessionstore")
_DEFAULTS: Final = StoreSettings()


def _migrations() -> ModuleType:
    # Alembic is a fifth of what importing this package would take, and most processes never migrate.
    from sessionstore import migrate  # noqa: PLC0415

    return migrate


def _migrated_in_memory(connection: sqlite3.Connection) -> None:
    _migrations().upgrade_sqlite(connection)


class _Shared:
    """What all handles made from one repository have in common."""

    def __init__(self, engine: AsyncEngine, *, url: URL, owned: bool, migrate: bool) -> None:
        self.engine = engine
        self.url = url
        self.owned = owned
        self.migrate = migrate
        self.closed = False
        self.closing: asyncio.Task[None] | None = None
        self.executor: Executor | None = None
        self.event_log: eventlog.EventLog | None = None
        self.entered = 0
        self.tasks: set[asyncio.Task[Any]] = set()


class Handle:
    """A view of one tenant's data in one database."""

    def __init__(self, engine: AsyncEngine, *, tenant: str = "", settings: StoreSettings = _DEFAULTS) -> None:
        """Use a caller's engine, which is never disposed of here. The schema is checked on first use.

        Raises:
            InvalidArgumentError: the engine is not one of aiosqlite or asyncpg, or the tenant is not an id.
        """
        if not isinstance(engine, AsyncEngine):
            raise InvalidArgumentError("engine must be an AsyncEngine; connect() takes a URL")
        self._bind(_Shared(engine, url=engine.url, owned=False, migrate=False), tenant, settings)

    def _bind(self, shared: _Shared, tenant: str, settings: StoreSettings) -> None:
        self._tenant = check_tenant(tenant)
        self._settings = settings
        self._shared = shared
        self._joined: Executor | None = None
        dialect_for(shared.engine, settings)

    @classmethod
    def connect(
        cls, url: str | URL, *, tenant: str = "", settings: StoreSettings = _DEFAULTS, migrate: bool = False
    ) -> Self:
        """Make a repository with an engine of its own. No I/O yet: `async with` opens and closes it.

        Args:
            url: of SQLite or PostgreSQL; the driver may be left out. `?pooler=transaction` says that PgBouncer or its
                like stands before the server and lends a connection for a transaction at a time.
            migrate: bring the database to the newest revision when opening, and create a SQLite file. A database in
                memory always migrates itself.

        Raises:
            InvalidArgumentError: another database, driver or pooler.
        """
        handle, address = cls.__new__(cls), normalize_url(url)
        engine = own_engine(address, row_level_security=settings.row_level_security)
        handle._bind(_Shared(engine, url=address, owned=True, migrate=migrate), tenant, settings)
        return handle

    @property
    def tenant(self) -> str:
        """The tenant this handle is bound to."""
        return self._tenant

    @property
    def settings(self) -> StoreSettings:
        """The settings of this handle."""
        return self._settings

    def for_tenant(self, tenant: str) -> Self:
        """Return a handle of another tenant on the same database."""
        other = copy.copy(self)
        other._tenant = check_tenant(tenant)
        return other

    def within(self, connection: AsyncConnection | AsyncSession) -> Self:
        """Return a handle that works inside a transaction of the caller, who commits or rolls back.

        Nothing is retried there. Units of several statements run in a savepoint. A session cap is best effort.
        """
        if not isinstance(connection, (AsyncConnection, AsyncSession)):
            raise InvalidArgumentError("within() takes an AsyncConnection or an AsyncSession")
        other = copy.copy(self)
        other._joined = JoinedExecutor(self._executor, connection)
        return other

    async def __aenter__(self) -> Self:
        """Open the database: migrate it where that was asked for, and check its schema."""
        shared = self._shared
        if self._joined is not None:
            return self
        shared.entered += 1
        try:
            if shared.migrate and not is_memory(shared.url):
                await _migrations().upgrade(shared.url, schema=self._settings.schema)
            await self._executor.open(self._deadline())
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the repository, with the last of the handles on it that were entered."""
        if self._joined is None:
            self._shared.entered -= 1
            if self._shared.entered == 0:
                await self.aclose()

    async def aclose(self) -> None:
        """Wait for work in the background (at most 5 s), and let go of what the store holds.

        A caller's engine stays open; one made by `connect` is disposed of. Later calls raise StoreClosedError, also
        those of other handles made from this one. Inside a caller's transaction there is nothing to close.
        """
        shared = self._shared
        if self._joined is not None:
            return
        if shared.closing is None:
            shared.closing = asyncio.get_running_loop().create_task(self._close())
        if not shared.closing.done():
            # To its end, even if whoever waits for it is cancelled: what is held would never be let go of.
            await asyncio.shield(shared.closing)

    async def _close(self) -> None:
        shared = self._shared
        if shared.tasks:
            await asyncio.wait(shared.tasks, timeout=PRUNE_CLOSE_SECONDS)
        if shared.event_log is not None:
            await shared.event_log.flush(PRUNE_CLOSE_SECONDS)
        executor = self._executor if shared.owned else None
        shared.closed = True
        if shared.executor is not None:
            for listener in list(shared.executor.listeners.values()):
                listener.close(shared)
        if shared.tasks:
            for task in shared.tasks:
                task.cancel()
            await asyncio.wait(shared.tasks)
        if executor is not None:
            await executor.close()
            await shared.engine.dispose()

    @property
    def _executor(self) -> Executor:
        shared = self._shared
        if shared.closed:
            raise StoreClosedError
        if self._joined is not None:
            return self._joined
        executor = shared.executor
        if executor is None or executor.gone:  # as is that of an engine that was disposed of
            executor = shared.executor = executor_for(
                shared.engine,
                self._settings,
                owned=shared.owned,
                pooler=pooler_of(shared.url),
                migrate=_migrated_in_memory,
            )
            self._log_events(executor)
        elif shared.event_log is not None and shared.event_log.hub.ended:
            self._log_events(executor)  # in the event loop that there is now
        return executor

    def _log_events(self, executor: Executor) -> None:
        """Have what happens logged, where that is configured."""
        directory = eventlog.directory_of(self._settings.event_log_dir)
        if directory is not None:
            try:
                self._shared.event_log = eventlog.EventLog.of(
                    executor,
                    self._shared.url.render_as_string(hide_password=True),
                    directory,
                    self._settings.operation_timeout_seconds,
                )
            except RuntimeError:
                self._shared.executor = None  # not in an event loop yet: the first call is

    def _described(self, verb: str) -> telemetry.Call:
        """A call of a verb, as a telemetry hook is told of it."""
        url = self._shared.engine.url
        name = None if url.get_backend_name() == "sqlite" else url.database
        told = telemetry.hashed(self._tenant), name, self._settings.schema, url.host, url.port
        return telemetry.Call(verb, url.get_backend_name(), *told)

    def _deadline(self) -> Deadline:
        return Deadline(self._settings.operation_timeout_seconds)

    def _run(self, unit: Unit[T]) -> Coroutine[Any, Any, T]:
        return self._executor.run(unit, self._deadline())

    def _refuse_within(self, verb: str) -> None:
        """Refuse verbs of many transactions inside one of the caller."""
        if self._joined is not None:
            raise InvalidArgumentError(f"{verb} works in transactions of its own; call it outside within()")

    def _in_background(self, work: Coroutine[Any, Any, Any], what: str) -> None:
        """Run work that nobody waits for; a failure is logged with its kind."""

        async def logged() -> None:
            telemetry.apart()
            try:
                await work
            except asyncio.CancelledError:
                fields = {"event": "sessionstore.background_ended", "work": what}
                _log.warning("%s in the background was ended by closing; the next one finishes it", what, extra=fields)
            except Exception as error:  # noqa: BLE001  # there is nobody to raise it to
                fields = {"event": "sessionstore.background_failed", "work": what, "error": type(error).__name__}
                _log.error("%s in the background failed: %s", what, error, extra=fields)  # no values of frames

        task = asyncio.get_running_loop().create_task(logged())
        self._shared.tasks.add(task)
        task.add_done_callback(self._shared.tasks.discard)
