"""Bring a database to a revision, from a service's start-up, a deploy or a test.

One process migrates, the others wait and find the work done, or fail loudly when their time is up. Whatever is killed,
running again finishes. How that is done for each database stands in `migrations/env.py`, which `alembic` runs too.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import math
import os
import sqlite3
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from alembic import command
from alembic.util import CommandError
from asyncpg import ClientConfigurationError, InterfaceError, PostgresError
from sqlalchemy import URL, column, create_engine, inspect, select, table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import NullPool, StaticPool

from sessionstore.dialects.faults import explained
from sessionstore.dialects.urls import (
    THROUGH_A_POOLER,
    TRANSACTION,
    blocking_sqlite,
    is_memory,
    normalize_url,
    pooler_of,
    sqlite_file,
)
from sessionstore.errors import (
    InvalidArgumentError,
    SchemaOutOfDateError,
    SessionStoreError,
    StoreBusyError,
    StoreTimeoutError,
)
from sessionstore.executors.servers import server_engine
from sessionstore.executors.translate import BAD_OPTION, cause_of
from sessionstore.revisions import Migration, config, head, history, known, location, place
from sessionstore.settings import StoreSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from sqlalchemy import Connection

__all__ = [
    "Migration",
    "check",
    "current",
    "downgrade",
    "history",
    "location",
    "sql",
    "upgrade",
    "upgrade_connection",
    "upgrade_sqlite",
]

_T = TypeVar("_T")

_TIMEOUT_SECONDS: Final = 60.0
"""Default patience with others that migrate: longer than a revision takes, shorter than most deploys wait."""

_LONGEST_SECONDS: Final = 86_400.0
"""More patience is cut to a day, which every clock and lock below can count in."""

_POLL_SECONDS: Final = 0.02
"""Between two looks at the guard of this process."""

_FAULTS: Final = (DBAPIError, PostgresError, InterfaceError, sqlite3.Error, OSError)
"""What drivers raise. Anything else is a bug, and its traceback is wanted."""

# Alembic keeps the running migration in module globals: the second of two at once finds the first one's, or none.
_guard: Final = threading.Lock()


async def upgrade(
    database: str | URL | AsyncEngine,
    *,
    to: str = "head",
    schema: str | None = None,
    timeout_seconds: float = _TIMEOUT_SECONDS,
) -> str:
    """Bring a database up to a revision; any number of processes may do so at once.

    Where nothing is left to do, nothing is locked or written: a service may call this at every start. A database that
    newer code has migrated is left alone as long as it still serves this code.

    Args:
        database: a URL, or an engine; an engine for PostgreSQL needs two free connections, one of them for the lock.
            Through `?pooler=transaction` only what is left to do can be found out.
        to: `"head"` or a revision.
        schema: the PostgreSQL schema of the tables, created if it is missing.
        timeout_seconds: how long to wait for others that migrate the same database, or lock its tables.

    Returns:
        The revision the database is at.

    Raises:
        InvalidArgumentError: no such revision, a database in memory by its URL (it would be gone at once), or something
            to do through a pooler in transaction mode.
        SchemaOutOfDateError: newer code has migrated the database, and this code can no longer work with it.
        StoreBusyError: others held the locks until the time was up. Nothing was done.
        StoreUnavailableError: no connection.
        ReadOnlyStoreError: the file or the role may not be changed.
    """
    job = _Job("upgrade", to, _checked(schema), _deadline(timeout_seconds))
    reached = await _migrate(database, job)
    return reached or "base"


async def downgrade(
    database: str | URL | AsyncEngine,
    to: str,
    *,
    schema: str | None = None,
    timeout_seconds: float = _TIMEOUT_SECONDS,
) -> str | None:
    """Take a database back to a revision, or with `"base"` to before the first: that drops every table with its rows.

    Args:
        database: as for `upgrade`.
        to: a revision, or `"base"`.
        schema: the PostgreSQL schema of the tables; it is never dropped.
        timeout_seconds: as for `upgrade`.

    Returns:
        The revision the database is at; None for none.

    Raises:
        SchemaOutOfDateError: the database is at a revision this code does not know how to take back.
        InvalidArgumentError, StoreBusyError, StoreUnavailableError, ReadOnlyStoreError: as for `upgrade`.
    """
    return await _migrate(database, _Job("downgrade", to, _checked(schema), _deadline(timeout_seconds)))


async def current(database: str | URL | AsyncEngine, *, schema: str | None = None) -> str | None:
    """The revision of a database, None where it has no tables of ours. Never creates a file.

    Read from `sessionstore_schema`, and therefore right also where a team runs our revisions in its own history.

    Raises:
        StoreUnavailableError, CorruptStoreError: it cannot be read.
    """
    state = await _read(database, _checked(schema))
    return _revision(state)


async def check(database: str | URL | AsyncEngine, *, schema: str | None = None) -> None:
    """Succeed only if a database is at the newest revision this code knows. Never creates a file.

    Raises:
        SchemaOutOfDateError: it is not; the error carries the command to run.
        StoreUnavailableError, CorruptStoreError: it cannot be read.
    """
    found = await current(database, schema=schema)
    if found != head():
        raise _out_of_date(found, schema)


def sql(*, start: str = "base", to: str = "head", schema: str | None = None) -> str:
    """The script that takes a PostgreSQL database from one revision to another, for change-controlled databases.

    Up or down, whichever way the second lies. Blocks while another migration of this process runs: in an event loop,
    call it in a thread.

    Args:
        start: the revision the database is at; `"base"` for an empty one.
        to: the revision it shall be at.
        schema: the PostgreSQL schema of the tables.

    Raises:
        InvalidArgumentError: no such revision, or nothing to do.
    """
    schema = _checked(schema)
    before, after = place(start), place(to)
    if before == after:
        raise InvalidArgumentError(f"from {start} to {to} there is nothing to do")
    written = io.StringIO()
    settings = config(output_buffer=written)
    settings.attributes["schema"] = schema
    direction = command.upgrade if before < after else command.downgrade
    last = known()[after] if after >= 0 else "base"
    span = last if before < 0 else f"{known()[before]}:{last}"
    with _alone(_deadline(_TIMEOUT_SECONDS)), _translated():
        direction(settings, span, sql=True)
    return written.getvalue()


async def upgrade_connection(
    connection: AsyncConnection, *, schema: str | None = None, timeout_seconds: float = _TIMEOUT_SECONDS
) -> str:
    """Bring the database of an open connection to head: for one in memory, which exists on its one connection only.

    Raises:
        InvalidArgumentError: the connection has a transaction under way.
        SessionStoreError: as for `upgrade`.
    """
    job = _Job("upgrade", "head", _checked(schema), _deadline(timeout_seconds))
    if connection.in_transaction():
        raise InvalidArgumentError("migrations need a connection without a transaction under way")
    async with _alone_async(job.deadline):
        with _translated():
            reached = await connection.run_sync(job.run)
    return reached or "base"


def upgrade_sqlite(connection: sqlite3.Connection, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> str:
    """Bring the database of a bare SQLite connection to head, in the thread of the call; the connection stays open.

    For code that owns a connection and its thread. Blocks while another migration of this process runs, so never call
    it on the thread of an event loop. The connection needs the transaction control of `isolation_level`, not of
    `autocommit`; its factories, pragmas and isolation level are put back.

    Raises:
        InvalidArgumentError: the connection has a transaction under way.
        SessionStoreError: as for `upgrade`.
    """
    if connection.in_transaction:
        raise InvalidArgumentError("migrations need a connection without a transaction under way")
    job = _Job("upgrade", "head", None, _deadline(timeout_seconds))
    row_factory, text_factory = connection.row_factory, connection.text_factory
    connection.row_factory, connection.text_factory = None, str
    (busy_timeout,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute(f"PRAGMA busy_timeout = {math.ceil(_left(job.deadline) * 1000)}")
    # Never disposed of: that would close the caller's connection.
    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool, hide_parameters=True)
    try:
        with _alone(job.deadline), _translated(), engine.connect() as wrapped:
            return job.run(wrapped) or "base"
    finally:
        connection.execute(f"PRAGMA busy_timeout = {busy_timeout}")
        connection.row_factory, connection.text_factory = row_factory, text_factory


# --- what there is to do ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _State:
    """The one row of `sessionstore_schema`."""

    revision: str
    compatible_from: str


@dataclass(frozen=True, slots=True)
class _Job:
    """One call of `upgrade` or `downgrade`, to be run on a connection without a transaction."""

    direction: Literal["upgrade", "downgrade"]
    to: str
    schema: str | None
    deadline: float
    through_a_pooler: bool = False

    def run(self, connection: Connection) -> str | None:
        """Do what is left to do, and say where the database is then."""
        target = self.target()
        state = _read_state(connection, self.schema)
        if self._is_done(state, target):
            return _revision(state)
        if self.through_a_pooler:
            raise InvalidArgumentError(THROUGH_A_POOLER)
        if state is not None and not inspect(connection).has_table("sessionstore_alembic_version", schema=self.schema):
            raise SessionStoreError("another Alembic history made these tables: migrate them there")
        connection.rollback()
        settings = config()
        settings.attributes.update(connection=connection, schema=self.schema, deadline=self.deadline)
        getattr(command, self.direction)(settings, self.to)
        state = _read_state(connection, self.schema)
        return _revision(state)

    def target(self) -> int:
        """The place of the revision asked for; -1 is before the first."""
        if self.to == ("base" if self.direction == "upgrade" else "head"):
            raise InvalidArgumentError(f"there is no revision {self.to!r} to {self.direction} to")
        return place(self.to)

    def _is_done(self, state: _State | None, target: int) -> bool:
        if state is None:
            return self.direction == "downgrade"
        if state.revision in known():
            found = known().index(state.revision)
            return found >= target if self.direction == "upgrade" else found <= target
        # Newer than this code, which is how an old replica that restarts in the middle of a deploy finds it.
        if self.direction == "upgrade" and state.compatible_from <= head():
            return True
        raise _out_of_date(state.revision, self.schema)


def _revision(state: _State | None) -> str | None:
    return None if state is None else state.revision


def _read_state(connection: Connection, schema: str | None) -> _State | None:
    if not inspect(connection).has_table("sessionstore_schema", schema=schema):
        connection.rollback()
        return None
    rows = table("sessionstore_schema", column("revision"), column("compatible_from"), schema=schema)
    row = connection.execute(select(rows.c.revision, rows.c.compatible_from)).one_or_none()
    connection.rollback()
    return None if row is None else _State(row.revision, row.compatible_from)


def _out_of_date(found: str | None, schema: str | None) -> SchemaOutOfDateError:
    if found is None or found in known():
        run = "sessionstore db upgrade" + (f" --schema {schema}" if schema else "")
    else:
        run = "pip install --upgrade sessionstore"
    return SchemaOutOfDateError(found=found, expected=head(), command=run)


# --- where it is done ---------------------------------------------------------------------------


async def _migrate(database: str | URL | AsyncEngine, job: _Job) -> str | None:
    job.target()  # a wrong revision is refused before anything is opened or created
    if not isinstance(database, AsyncEngine) and pooler_of(normalize_url(database)) == TRANSACTION:
        job = replace(job, through_a_pooler=True)
    return await _connected(database, job.schema, job.run, alone_until=job.deadline)


async def _read(database: str | URL | AsyncEngine, schema: str | None) -> _State | None:
    return await _connected(database, schema, lambda connection: _read_state(connection, schema))


async def _connected(
    database: str | URL | AsyncEngine,
    schema: str | None,
    work: Callable[[Connection], _T | None],
    *,
    alone_until: float | None = None,
) -> _T | None:
    """Run blocking work on a connection; with a deadline it is a migration, else it only reads."""
    url = normalize_url(database.url if isinstance(database, AsyncEngine) else database)
    if schema is not None and url.get_backend_name() == "sqlite":
        raise InvalidArgumentError("schema= is for PostgreSQL; SQLite has no schemas")
    file = sqlite_file(url)
    if file is not None:
        # A thread that cannot be interrupted: a cancelled call is finished there, and leaves no lock behind.
        return await asyncio.to_thread(_on_file, url, file, work, alone_until)
    async with contextlib.AsyncExitStack() as stack:
        if isinstance(database, AsyncEngine):
            engine = database
        elif is_memory(url):
            raise InvalidArgumentError("a database in memory exists on its own connection only: use upgrade_connection")
        else:
            engine = server_engine(url, "sessionstore-migrate")
            stack.push_async_callback(engine.dispose)
        if alone_until is not None:
            await stack.enter_async_context(_alone_async(alone_until))
        with _translated():
            connection = await _started(engine.connect())
            stack.push_async_exit(connection)
            return await connection.run_sync(work)


async def _started(connection: AsyncConnection) -> AsyncConnection:
    try:
        return await connection.start()
    except (TypeError, DBAPIError, InterfaceError) as error:  # what a driver makes of an option it does not know
        if isinstance(error, TypeError) or isinstance(cause_of(error), ClientConfigurationError):
            raise InvalidArgumentError(BAD_OPTION) from None
        raise


def _on_file(url: URL, file: Path, work: Callable[[Connection], _T | None], alone_until: float | None) -> _T | None:
    if alone_until is None and not file.exists():
        return None
    with contextlib.ExitStack() as stack:
        if alone_until is not None:
            stack.enter_context(_alone(alone_until))
        stack.enter_context(_translated())
        if alone_until is not None and not url.query.get("uri"):
            # Messages are private: SQLite would create the file as readable as the umask allows.
            with contextlib.suppress(OSError):  # which SQLite will meet too, and say so by code
                os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
        # A long migration keeps readers out too, even those that only want to know whether there is anything to do.
        waiting = {} if alone_until is None else {"timeout": _left(alone_until)}
        engine = create_engine(blocking_sqlite(url), poolclass=NullPool, hide_parameters=True, connect_args=waiting)
        return work(stack.enter_context(engine.connect()))


@contextlib.contextmanager
def _alone(deadline: float) -> Iterator[None]:
    """Be the only migration of this process, waiting in this thread."""
    if not _guard.acquire(timeout=_left(deadline)):
        raise _not_alone()
    try:
        yield
    finally:
        _guard.release()


@contextlib.asynccontextmanager
async def _alone_async(deadline: float) -> AsyncIterator[None]:
    """Be the only migration of this process, waiting without holding up the event loop that may run the other one."""
    while not _guard.acquire(blocking=False):
        if time.monotonic() > deadline:
            raise _not_alone()
        await asyncio.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        _guard.release()


def _not_alone() -> StoreBusyError:
    return StoreBusyError("another migration of this process did not end in time; nothing was done")


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except CommandError as error:
        raise SessionStoreError(f"the migrations do not fit the database: {error}") from None
    except PoolTimeoutError:
        raise StoreTimeoutError("the engine has no connection free; migrations of PostgreSQL need two") from None
    except _FAULTS as error:
        raise explained(error, "the migration") from None


def _checked(schema: str | None) -> str | None:
    return StoreSettings(schema=schema).schema


def _deadline(timeout_seconds: Any) -> float:
    number = isinstance(timeout_seconds, (int, float)) and not isinstance(timeout_seconds, bool)
    if not number or not math.isfinite(timeout_seconds) or timeout_seconds <= 0:
        raise InvalidArgumentError("timeout_seconds must be a positive number")
    return time.monotonic() + float(min(timeout_seconds, _LONGEST_SECONDS))


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())  # 0 would mean "for ever" or "not at all", as it pleases
