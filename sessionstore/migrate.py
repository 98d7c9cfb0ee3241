"""Bring a database to a revision, from a service's start-up, a deploy or a test.

One process migrates, the others wait and find the work done, or fail loudly when their time is up. Whatever is killed,
running again finishes. How that is done for each database stands in `migrations/env.py`, which `alembic` runs too.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import math
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeVar, cast

from alembic import command
from alembic.util import CommandError
from asyncpg import InterfaceError, InternalClientError, PostgresError
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
    CorruptStoreError,
    InvalidArgumentError,
    SchemaOutOfDateError,
    SessionStoreError,
    StoreBusyError,
    StoreTimeoutError,
)
from sessionstore.executors.files import make_private
from sessionstore.executors.lifeline import Lifeline
from sessionstore.executors.servers import server_engine
from sessionstore.limits import OPERATION_TIMEOUT_SECONDS
from sessionstore.revisions import (
    Migration,
    compatible_from,
    config,
    head,
    history,
    known,
    location,
    place,
)
from sessionstore.schema import VERSION_TABLE
from sessionstore.settings import StoreSettings
from sessionstore.units.store import misfit, upgrade_command

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

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
_Work = Callable[["Connection", Lifeline | None], _T | None]
"""Blocking work on a connection without a transaction; of PostgreSQL, with what bounds its waits."""

_TIMEOUT_SECONDS: Final = 60.0
"""Default patience with others that migrate: longer than a revision takes, shorter than most deploys wait."""

_LONGEST_SECONDS: Final = 86_400.0
"""More patience is cut to a day, which every clock and lock below can count in."""

_POLL_SECONDS: Final = 0.02
"""Between two looks at the guard of this process."""

_FAULTS: Final = (DBAPIError, PostgresError, InterfaceError, InternalClientError, sqlite3.Error, OSError)
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
        timeout_seconds: how long to wait for others: to connect, for those that migrate the same database or lock its
            tables, for a look at where it is. Revisions at work are not cut: see `sessionstore.executors.lifeline`.

    Returns:
        The revision the database is at.

    Raises:
        InvalidArgumentError: no such revision, a database in memory by its URL (it would be gone at once), or something
            to do through a pooler in transaction mode.
        SchemaOutOfDateError: newer code has migrated the database, and this code can no longer work with it.
        StoreBusyError: others held the locks until the time was up. Nothing was done.
        StoreTimeoutError: the server did not answer in time, or not any more; `maybe_committed` if revisions had begun.
        CorruptStoreError: the row of `sessionstore_schema` is missing; the text has the INSERT that puts it back.
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
        SessionStoreError: others as for `upgrade`.
    """
    return await _migrate(database, _Job("downgrade", to, _checked(schema), _deadline(timeout_seconds)))


async def current(database: str | URL | AsyncEngine, *, schema: str | None = None) -> str | None:
    """The revision of a database, None where it has no tables of ours. Never creates a file.

    Read from `sessionstore_schema`, and therefore right also where a team runs our revisions in its own history.

    Raises:
        StoreUnavailableError, CorruptStoreError: it cannot be read.
        StoreTimeoutError: it was not read within the 15 s that a call has.
    """
    state = await _read(database, _checked(schema))
    return _revision(state)


async def check(database: str | URL | AsyncEngine, *, schema: str | None = None) -> None:
    """Succeed only if a database is at the newest revision this code knows. Never creates a file.

    Raises:
        SchemaOutOfDateError: it is not; the error carries the command to run.
        StoreUnavailableError, CorruptStoreError: it cannot be read.
        StoreTimeoutError: it was not read within the 15 s that a call has.
    """
    state = await _read(database, _checked(schema))
    if state is None or state.revision != head():
        raise _out_of_date(state, schema)


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
            if connection.dialect.name == "sqlite":
                reached = await connection.run_sync(job.run, None)
            else:
                lifeline = Lifeline(job.deadline)
                reached = await lifeline.run(connection, lambda given: job.run(given, lifeline))
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
            return job.run(wrapped, None) or "base"
    finally:
        connection.execute(f"PRAGMA busy_timeout = {busy_timeout}")
        connection.row_factory, connection.text_factory = row_factory, text_factory


# --- what there is to do ------------------------------------------------------------------------


class _State(NamedTuple):
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

    def run(self, connection: Connection, lifeline: Lifeline | None) -> str | None:
        """Do what is left to do, and say where the database is then."""
        done = self._is_done(connection)
        connection.rollback()
        if not done:
            if self.through_a_pooler:
                raise InvalidArgumentError(THROUGH_A_POOLER)
            settings = config()
            settings.attributes.update(connection=connection, schema=self.schema, deadline=self.deadline)
            settings.attributes.update(lifeline=lifeline, is_done=self._is_done)
            getattr(command, self.direction)(settings, self.to)
        return _revision(_read_state(connection, self.schema))

    def target(self) -> int:
        """The place of the revision asked for; -1 is before the first."""
        if self.to == ("base" if self.direction == "upgrade" else "head"):
            raise InvalidArgumentError(f"there is no revision {self.to!r} to {self.direction} to")
        return place(self.to)

    def _is_done(self, connection: Connection) -> bool:
        """Whether nothing is left to do; asked before the lock, and again under it, when others may have done it."""
        state, target = _look(connection, self.schema), self.target()
        if state is None:
            return self.direction == "downgrade"
        if state.revision in known():
            found = known().index(state.revision)
            done = found >= target if self.direction == "upgrade" else found <= target
            if not done and not inspect(connection).has_table(VERSION_TABLE, schema=self.schema):
                raise SessionStoreError("another Alembic history made these tables: migrate them there")
            return done
        # Newer than this code, which is how an old replica that restarts in the middle of a deploy finds it.
        if self.direction == "upgrade" and misfit([state], self.schema) is None:
            return True
        raise _out_of_date(state, self.schema)


def _revision(state: _State | None) -> str | None:
    return None if state is None else state.revision


def _read_state(connection: Connection, schema: str | None) -> _State | None:
    state = _look(connection, schema)
    connection.rollback()
    return state


def _look(connection: Connection, schema: str | None) -> _State | None:
    """Read the row in whatever transaction there is."""
    if not inspect(connection).has_table("sessionstore_schema", schema=schema):
        return None
    rows = table("sessionstore_schema", column("revision"), column("compatible_from"), schema=schema)
    row = connection.execute(select(rows.c.revision, rows.c.compatible_from)).one_or_none()
    if row is None:
        raise CorruptStoreError(_missing_row(connection, schema))
    return _State(row.revision, row.compatible_from)


def _missing_row(connection: Connection, schema: str | None) -> str:
    """What to say where somebody has deleted the row: which it is, and how to get it back."""
    found = None
    if inspect(connection).has_table(VERSION_TABLE, schema=schema):
        found = connection.scalar(select(table(VERSION_TABLE, column("version_num"), schema=schema).c.version_num))
    if found in known():
        values = f"(1, '{found}', '{compatible_from(found)}')"
    else:
        values = "(1, '<newest revision that ran>', '<oldest revision whose code may use the tables>')"
    at = f'"{schema}".sessionstore_schema' if schema else "sessionstore_schema"
    mend = f"INSERT INTO {at} (id, revision, compatible_from) VALUES {values}"  # noqa: S608 - for somebody to read
    return f"the row of sessionstore_schema that says at which revision the tables are is missing; put it back: {mend}"


def _out_of_date(state: _State | None, schema: str | None) -> SchemaOutOfDateError:
    """Why these tables will not do: this code cannot use them, or could, and they are not where they should be."""
    refusal = misfit([] if state is None else [state], schema)
    if state is None or refusal is not None:
        return cast("SchemaOutOfDateError", refusal)
    run = upgrade_command(schema) if state.revision in known() else "pip install --upgrade sessionstore"
    return SchemaOutOfDateError(found=state.revision, expected=head(), command=run)


# --- where it is done ---------------------------------------------------------------------------


async def _migrate(database: str | URL | AsyncEngine, job: _Job) -> str | None:
    job.target()  # a wrong revision is refused before anything is opened or created
    if not isinstance(database, AsyncEngine) and pooler_of(normalize_url(database)) == TRANSACTION:
        job = replace(job, through_a_pooler=True)
    return await _connected(database, job.schema, job.run, deadline=job.deadline, alone=True)


async def _read(database: str | URL | AsyncEngine, schema: str | None) -> _State | None:
    def work(connection: Connection, _lifeline: Lifeline | None) -> _State | None:
        return _read_state(connection, schema)

    return await _connected(database, schema, work, deadline=_deadline(OPERATION_TIMEOUT_SECONDS), alone=False)


async def _connected(
    database: str | URL | AsyncEngine, schema: str | None, work: _Work[_T], *, deadline: float, alone: bool
) -> _T | None:
    """Run blocking work on a connection; what is not alone only reads."""
    url = normalize_url(database.url if isinstance(database, AsyncEngine) else database)
    if schema is not None and url.get_backend_name() == "sqlite":
        raise InvalidArgumentError("schema= is for PostgreSQL; SQLite has no schemas")
    file = sqlite_file(url)
    if file is not None:
        # A thread that cannot be interrupted: a cancelled call is finished there, and leaves no lock behind.
        return await asyncio.to_thread(_on_file, url, file, work, deadline, alone=alone)
    async with contextlib.AsyncExitStack() as stack:
        if isinstance(database, AsyncEngine):
            engine = database
        elif is_memory(url):
            raise InvalidArgumentError("a database in memory exists on its own connection only: use upgrade_connection")
        else:
            engine = server_engine(url, "sessionstore-migrate")
            stack.push_async_callback(engine.dispose)
        if alone:
            await stack.enter_async_context(_alone_async(deadline))
        stack.enter_context(_translated())
        if is_memory(url):
            connection = await stack.enter_async_context(engine.connect())
            return await connection.run_sync(work, None)
        lifeline = Lifeline(deadline)
        return await lifeline.connect(engine, lambda connection: work(connection, lifeline))


def _on_file(url: URL, file: Path, work: _Work[_T], deadline: float, *, alone: bool) -> _T | None:
    if not alone and not file.exists():
        return None
    with contextlib.ExitStack() as stack:
        if alone:
            stack.enter_context(_alone(deadline))
        stack.enter_context(_translated())
        if alone:
            make_private(url)
        # A long migration keeps readers out too, even those that only want to know whether there is anything to do.
        waiting = {"timeout": _left(deadline)}
        engine = create_engine(blocking_sqlite(url), poolclass=NullPool, hide_parameters=True, connect_args=waiting)
        return work(stack.enter_context(engine.connect()), None)


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
