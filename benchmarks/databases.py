"""The databases of a run: migrated, filled in bulk, and copied, so that each contender has one of its own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import sqlite3
import statistics
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg
from sqlalchemy import make_url

from benchmarks.data import (
    MESSAGE_COLUMNS,
    MESSAGE_TIMES,
    METADATA_COLUMNS,
    SESSION_COLUMNS,
    SESSION_TIMES,
    Seeded,
    message_rows,
    metadata_rows,
    session_rows,
)
from sessionstore.migrate import upgrade
from tests.support.postgres import Postgres, PostgresServer

SERVER_SETTINGS: Final = {
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",  # one that falls into somebody's turn would be charged to whose it is
    "log_min_messages": "error",
}
COPY_ROWS: Final = 500_000


class Database(ABC):
    """A kind of database, and the means to make any number of them."""

    kind: str
    version: str

    @abstractmethod
    async def create(self, name: str) -> str:
        """Make an empty database; its URL."""

    @abstractmethod
    async def copy(self, source: str, name: str) -> str:
        """Copy a database that nobody is connected to; the URL of the copy."""

    @abstractmethod
    async def drop(self, url: str) -> None:
        """Remove a database that nobody is connected to."""

    @abstractmethod
    async def fill(self, url: str, sessions: Iterable[Seeded]) -> None:
        """Store sessions with their messages, as they would be had they been appended. Iterates more than once."""

    @abstractmethod
    async def settle(self, url: str) -> None:
        """Leave a filled database as one that has been in use for a while."""

    async def calm(self) -> None:
        """Bring what was copied onto the disk: the first commit after it would have to wait for all of it."""
        await asyncio.to_thread(os.sync)

    @abstractmethod
    async def query(self, url: str, sql: str) -> list[tuple[Any, ...]]:
        """Ask behind everybody's back, to check what a workload left."""

    async def build(self, name: str, sessions: Iterable[Seeded]) -> str:
        """Make a migrated database with these sessions in it; its URL."""
        url = await self.create(name)
        await upgrade(url)
        await self.fill(url, sessions)
        await self.settle(url)
        return url


class Sqlite(Database):
    """SQLite files in one folder."""

    kind = "sqlite"
    version = sqlite3.sqlite_version

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def create(self, name: str) -> str:
        """Name a file; migrating makes it."""
        return f"sqlite+aiosqlite:///{self._folder / name}.db"

    async def copy(self, source: str, name: str) -> str:
        """Copy the file."""
        url = await self.create(name)
        await asyncio.to_thread(shutil.copyfile, sqlite_path(source), sqlite_path(url))
        return url

    async def drop(self, url: str) -> None:
        """Remove the file and what SQLite keeps beside it."""
        for ending in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                await asyncio.to_thread(os.remove, f"{sqlite_path(url)}{ending}")

    async def fill(self, url: str, sessions: Iterable[Seeded]) -> None:
        """Insert in one transaction a table."""
        with self._connected(url) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            for table, columns, rows in (
                ("sessionstore_sessions", SESSION_COLUMNS, session_rows(sessions)),
                ("sessionstore_messages", MESSAGE_COLUMNS, message_rows(sessions)),
                ("sessionstore_metadata", METADATA_COLUMNS, metadata_rows(sessions)),
            ):
                places = ", ".join("?" * len(columns))
                sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})"  # noqa: S608  # of constants
                connection.execute("BEGIN")
                connection.executemany(sql, rows)
                connection.execute("COMMIT")

    async def settle(self, url: str) -> None:
        """Bring everything into the main file."""
        with self._connected(url) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    async def query(self, url: str, sql: str) -> list[tuple[Any, ...]]:
        """Ask on a connection of its own."""
        with self._connected(url) as connection:
            return connection.execute(sql).fetchall()

    @contextlib.contextmanager
    def _connected(self, url: str) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(sqlite_path(url), isolation_level=None)) as connection:
            yield connection


def sqlite_path(url: str) -> str:
    """The file of a URL."""
    return str(make_url(url).database)


class Postgresql(Database):
    """Databases on one server."""

    kind = "postgresql"

    def __init__(self, server: Postgres) -> None:
        self.version = server.version
        self._server = server
        self._names: set[str] = set()

    async def create(self, name: str) -> str:
        """Make an empty database."""
        return await self._server.create_database(f"bench_{name}")

    async def copy(self, source: str, name: str) -> str:
        """Let the server copy it."""
        return await self._server.create_database(f"bench_{name}", make_url(source).database)

    async def drop(self, url: str) -> None:
        """Remove it, cutting whatever is connected."""
        await self._server.drop_database(str(make_url(url).database))

    async def fill(self, url: str, sessions: Iterable[Seeded]) -> None:
        """COPY each table, past the foreign keys if we may: the rows are right by the way they are made."""
        async with self.connected(url) as connection:
            with contextlib.suppress(asyncpg.InsufficientPrivilegeError):
                await connection.execute("SET session_replication_role = replica")
            for table, columns, rows in (
                ("sessionstore_sessions", SESSION_COLUMNS, _with_moments(session_rows(sessions), SESSION_TIMES)),
                ("sessionstore_messages", MESSAGE_COLUMNS, _with_moments(message_rows(sessions), MESSAGE_TIMES)),
                ("sessionstore_metadata", METADATA_COLUMNS, metadata_rows(sessions)),
            ):
                for chunk in _chunks(rows):
                    await connection.copy_records_to_table(table, records=chunk, columns=columns)

    async def settle(self, url: str) -> None:
        """Count and vacuum, as autovacuum would have."""
        async with self.connected(url) as connection:
            await connection.execute("VACUUM (ANALYZE)")

    async def calm(self) -> None:
        """Bring what was copied out of the server's memory onto the disk."""
        await self._server.execute("CHECKPOINT")
        await super().calm()

    async def query(self, url: str, sql: str) -> list[tuple[Any, ...]]:
        """Ask on a connection of its own."""
        async with self.connected(url) as connection:
            return [tuple(row) for row in await connection.fetch(sql)]

    @contextlib.asynccontextmanager
    async def connected(self, url: str) -> AsyncIterator[Any]:
        """Lend a plain connection."""
        address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        connection = await asyncpg.connect(address)
        try:
            yield connection
        finally:
            await connection.close()


def _chunks(rows: Iterable[tuple[Any, ...]]) -> Iterator[Iterable[tuple[Any, ...]]]:
    """The rows, so many for each transaction."""
    rest = iter(rows)
    for first in rest:
        yield itertools.chain((first,), itertools.islice(rest, COPY_ROWS - 1))


def _with_moments(rows: Iterable[tuple[Any, ...]], places: tuple[int, ...]) -> Iterator[tuple[Any, ...]]:
    """The rows with times as the driver takes them."""
    for row in rows:
        entries = list(row)
        for place in places:
            entries[place] = datetime.fromtimestamp(entries[place] / 1_000_000, UTC)
        yield tuple(entries)


@contextlib.contextmanager
def workplace(folder: Path | None) -> Iterator[Path]:
    """A temporary folder for SQLite files; a server started meanwhile has its data beside it, on the same disk."""
    before = tempfile.tempdir
    if folder is not None:
        tempfile.tempdir = str(folder)
    try:
        with tempfile.TemporaryDirectory(prefix="sessionstore-bench-") as name:
            yield Path(name)
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def server(**settings: str) -> Iterator[PostgresServer]:
    """A PostgreSQL server that writes through to the disk; `settings` are of postgresql.conf."""
    with PostgresServer(fsync=True, settings=SERVER_SETTINGS | settings) as started:
        yield started


def fsync_micros(folder: Path, times: int = 50) -> float:
    """How long the disk takes to write one page through, by the median: most of what a commit costs."""
    path = folder / "fsync-probe"
    taken = []
    with path.open("wb", buffering=0) as file:
        for _ in range(times):
            file.write(b"\0" * 4096)
            start = time.perf_counter_ns()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter_ns() - start)
    path.unlink()
    return statistics.median(taken) / 1000
