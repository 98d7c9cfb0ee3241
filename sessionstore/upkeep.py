"""A copy of a SQLite file in use, and the cleaning after which nothing of what was deleted is left in the live files.

Both work beside a service that goes on, on connections of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from sessionstore.checks import check_seconds
from sessionstore.dialects.base import Dialect
from sessionstore.dialects.urls import sqlite_file
from sessionstore.errors import InvalidArgumentError, ReadOnlyStoreError, StoreBusyError, StoreTimeoutError
from sessionstore.executors.translate import translated
from sessionstore.repository import SessionRepository
from sessionstore.schema import Base
from sessionstore.units import events

__all__ = ["Size", "backup", "maintain"]

# ruff: noqa: SLF001  # verbs of the repository that applications do not need

T = TypeVar("T")

_PAGES: Final = 256
"""Pages of a step of a backup: a megabyte, after which it tells how far it is and may be cancelled."""

_PATIENCE_SECONDS: Final = 60.0
"""How long a backup waits for a lock, which writers of a database in WAL mode never hold for long."""

_TIMEOUT_SECONDS: Final = 3600.0
"""Default patience of the cleaning: it reads and writes every row."""

_WAITING: Final = 0.9
"""How much of that it may wait for locks: then it can still say who was in the way."""

_PAUSE_SECONDS: Final = 0.05
"""Between two tries to empty the log while others read."""

_PRIVATE: Final = 0o600


class Size(NamedTuple):
    """Bytes of the database before and after the cleaning: on PostgreSQL of our tables, with their indexes."""

    before: int
    after: int


# --- backup -------------------------------------------------------------------------------------


async def backup(
    sessions: SessionRepository,
    file: str | Path,
    *,
    force: bool = False,
    on_progress: Callable[[int, int], object] | None = None,
) -> int:
    """Copy the SQLite file of a repository, as of one moment, while others read and write it; gives its bytes.

    The copy holds everything that was acknowledged before the call. It appears under its name when it is complete and
    on the disk, readable by its owner only. A copy that was cut off leaves nothing but a file named `*.partial`, if
    that. Nobody waits for it, but the log of the original grows as long as it takes.

    Args:
        file: where to, on any file system.
        force: replace a file of that name.
        on_progress: told after each step how many bytes are done, and of how many.

    Raises:
        InvalidArgumentError: the repository is not one of a SQLite file, or there is a file of that name, or one that
            a database of that name is using.
        SessionStoreError: the original cannot be read.
        OSError: the copy cannot be written.
    """
    sessions._refuse_within("backup")
    source = _file_of(
        sessions,
        on_server="backup is for SQLite files; on PostgreSQL use pg_dump, see Backups in docs/operations.md",
    )
    target = Path(file)
    _check_target(source, target, force=force)
    loop, stopped = asyncio.get_running_loop(), threading.Event()

    def tell(left: int, total: int, page: int) -> None:
        if stopped.is_set():
            raise InterruptedError
        if on_progress is not None:
            loop.call_soon_threadsafe(on_progress, (total - left) * page, total * page)

    try:
        return await asyncio.to_thread(_backup, source, target, force=force, tell=tell)
    except asyncio.CancelledError:
        stopped.set()  # the thread ends with its next step
        raise


def _file_of(sessions: SessionRepository, *, on_server: str) -> Path:
    url = sessions._shared.engine.url
    if url.get_backend_name() != "sqlite":
        raise InvalidArgumentError(on_server)
    file = sqlite_file(url)
    if file is None:
        raise InvalidArgumentError("a database in memory has no file")
    return file


def _check_target(source: Path, target: Path, *, force: bool) -> None:
    for beside in ("-wal", "-journal"):
        if target.with_name(target.name + beside).exists():
            # Its log would be replayed into the copy by whoever opens that next.
            raise InvalidArgumentError(f"{target}{beside} is there: {target.name} is a database in use")
    if target.exists():
        if not force:
            raise InvalidArgumentError(f"{target} exists already")
        if target.is_dir() or target.samefile(source):
            raise InvalidArgumentError(f"{target} cannot be replaced by a copy of {source}")


def _backup(source: Path, target: Path, *, force: bool, tell: Callable[[int, int, int], None]) -> int:
    partial = target.with_name(f"{target.name}.{secrets.token_hex(4)}.partial")
    # Before SQLite would: it makes files that everybody may read.
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, _PRIVATE))
    try:
        with (
            _opened(source, _PATIENCE_SECONDS) as original,
            contextlib.closing(sqlite3.connect(partial)) as copy,
            _translated("backup"),
        ):
            _copy(original, copy, tell)
        _sync(partial)
        size = partial.stat().st_size
        if force:
            partial.replace(target)
        else:
            _link(partial, target)
        _sync(target.absolute().parent)
        return size
    finally:
        partial.unlink(missing_ok=True)


def _copy(original: sqlite3.Connection, copy: sqlite3.Connection, tell: Callable[[int, int, int], None]) -> None:
    # The file is thrown away if this fails: it needs no journal, and is synchronised once, at the end.
    copy.execute("PRAGMA journal_mode = OFF").fetchone()
    copy.execute("PRAGMA synchronous = OFF")
    (page,) = original.execute("PRAGMA page_size").fetchone()
    # With its moment held, the copy need not begin anew whenever somebody writes.
    original.execute("BEGIN")
    original.execute("SELECT count(*) FROM sqlite_master").fetchone()
    original.backup(copy, pages=_PAGES, progress=lambda _, left, total: tell(left, total, page))
    original.execute("ROLLBACK")


def _link(partial: Path, target: Path) -> None:
    """Give the copy its name, unless somebody has taken that meanwhile."""
    try:
        target.hardlink_to(partial)
    except FileExistsError:
        raise InvalidArgumentError(f"{target} exists already") from None
    except OSError:
        partial.rename(target)  # a file system without links


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _opened(file: Path, patience: float) -> Iterator[sqlite3.Connection]:
    """Open a database that exists, on a connection that others may interrupt."""
    with _translated("open"):
        connection = sqlite3.connect(
            f"{file.absolute().as_uri()}?mode=rw",
            uri=True,
            isolation_level=None,
            timeout=patience,
            check_same_thread=False,
        )
    with contextlib.closing(connection):
        yield connection


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise translated(error, what) from None


# --- maintain -----------------------------------------------------------------------------------


async def maintain(
    sessions: SessionRepository,
    *,
    timeout_seconds: float = _TIMEOUT_SECONDS,
    on_progress: Callable[[str], object] | None = None,
) -> Size:
    """Give back the room of what was deleted, and bring statistics of the planner up to date, for all tenants.

    On SQLite the file is written anew and the log emptied: no byte of what was deleted before the call is left in the
    file, its log or its index. Readers go on meanwhile, writers wait, and there must be room for the file twice more.
    Statistics are made anew where there are any.
    On PostgreSQL: `VACUUM (ANALYZE)` of our tables, beside readers and writers; see docs/operations.md for what that
    leaves. Interrupted, it has done nothing or a part; run it again.

    Args:
        timeout_seconds: for all of it.
        on_progress: told what comes next.

    Raises:
        InvalidArgumentError: a database in memory.
        StoreBusyError: others kept the database, or an old moment of it, in use until the time was up.
        StoreTimeoutError: it was not done in time.
        ReadOnlyStoreError: the role does not own the tables, or the file may not be written.
    """
    sessions._refuse_within("maintain")
    seconds = check_seconds(timeout_seconds, "timeout_seconds")
    tell = on_progress or (lambda _: None)
    try:
        async with asyncio.timeout(seconds):
            tell("forgetting sessions that went a day ago")
            await sessions._run(events.purge_all())
            if sessions._shared.engine.dialect.name != "sqlite":
                return await _clean_tables(sessions, tell)
            return await _clean_file(_file_of(sessions, on_server=""), seconds, tell)
    except TimeoutError:
        raise StoreTimeoutError("the maintenance was not done in time") from None


async def _clean_file(file: Path, seconds: float, tell: Callable[[str], object]) -> Size:
    loop, cleaning = asyncio.get_running_loop(), _Cleaning(time.monotonic() + seconds * _WAITING)

    def step(what: str) -> None:
        cleaning.check()
        loop.call_soon_threadsafe(tell, what)

    try:
        return await asyncio.to_thread(cleaning.run, file, step)
    except asyncio.CancelledError:
        cleaning.stop()
        raise


class _Cleaning:
    """The cleaning of a file, in a thread; whoever no longer waits for it stops it."""

    def __init__(self, until: float) -> None:
        self._until = until
        self._stopped = False
        self._connection: sqlite3.Connection | None = None

    def stop(self) -> None:
        """End it with the statement that is running: what that has not finished is undone."""
        self._stopped = True
        if self._connection is not None:
            with contextlib.suppress(sqlite3.ProgrammingError):  # closed in this moment
                self._connection.interrupt()

    def check(self) -> None:
        """End it between two statements."""
        if self._stopped:
            raise InterruptedError

    def run(self, file: Path, step: Callable[[str], None]) -> Size:
        """Clean a file; `step` is told what comes next."""
        with _opened(file, max(0.0, self._until - time.monotonic())) as connection, _translated("vacuum"):
            self._connection = connection
            before = _bytes(file)
            for pragma in ("foreign_keys = ON", "trusted_schema = OFF", "synchronous = FULL", "secure_delete = ON"):
                connection.execute(f"PRAGMA {pragma}")
            step("folding the log back")
            self._empty_log(connection)
            # Ours are not needed: by those of a small table SQLite would read it whole, also when it has grown. What
            # somebody else has made may quote keys, and has to be made anew before the file is.
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_stat1'").fetchone():
                step("reading statistics")
                connection.execute("ANALYZE")
            step("writing the file anew")
            connection.execute("VACUUM")
            step("emptying the log")
            self._empty_log(connection)
            return Size(before, _bytes(file))

    def _empty_log(self, connection: sqlite3.Connection) -> None:
        """Fold the log back into the file and cut it to nothing, once nobody reads an older moment from it."""
        while True:
            (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not busy:
                return
            self.check()
            if time.monotonic() >= self._until:
                raise StoreBusyError("others read an old moment of the file, or wrote to it, until the time was up")
            time.sleep(_PAUSE_SECONDS)


def _bytes(file: Path) -> int:
    parts = (file.with_name(file.name + end) for end in ("", "-wal"))
    return sum(part.stat().st_size for part in parts if part.exists())


async def _clean_tables(sessions: SessionRepository, tell: Callable[[str], object]) -> Size:
    try:
        async with sessions._shared.engine.connect() as connection:
            return await _vacuum(connection, sessions._executor.dialect, tell)
    except (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise translated(error, "vacuum") from None


async def _vacuum(connection: AsyncConnection, dialect: Dialect, tell: Callable[[str], object]) -> Size:
    connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
    raw: Any = (await connection.get_raw_connection()).driver_connection
    refused: list[Any] = []

    def listen(_connection: Any, message: Any) -> None:
        refused.append(message)

    tables = [dialect.qualified(name) for name in sorted(Base.metadata.tables)]
    before = await _total(connection, tables)
    # A table of somebody else is skipped with no more than a warning.
    raw.add_log_listener(listen)
    try:
        for table in tables:
            tell(f"vacuuming {table}")
            await connection.exec_driver_sql(f"VACUUM (ANALYZE) {table}")
            if any(message.severity_en == "WARNING" for message in refused):
                raise ReadOnlyStoreError("the role may not vacuum these tables: use their owner, or a superuser")
    finally:
        raw.remove_log_listener(listen)
    return Size(before, await _total(connection, tables))


async def _total(connection: AsyncConnection, tables: list[str]) -> int:
    sql = "SELECT sum(pg_total_relation_size(CAST(name AS regclass))) FROM unnest($1::text[]) AS name"
    return int((await connection.exec_driver_sql(sql, (tables,))).scalar_one())
