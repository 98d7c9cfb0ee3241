"""SQLite: a whole unit in one hop to a thread that holds a connection.

Write units that wait are grouped under one commit. Nobody is told of success before the COMMIT.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final, TypeVar

from sessionstore.dialects.base import Call, Dialect, Rows
from sessionstore.errors import ReadOnlyStoreError, StoreBusyError, StoreClosedError, StoreUnavailableError
from sessionstore.executors.base import Deadline, Executor, Progress
from sessionstore.executors.guarantees import check_connection
from sessionstore.executors.pending import Pending, deliver
from sessionstore.executors.translate import translated
from sessionstore.limits import CHUNK_BYTES, CHUNK_ROWS, GROUP_UNITS, SQLITE_READERS
from sessionstore.units.unit import Kind, RunInstead, Unit

T = TypeVar("T")
Opener = Callable[[], sqlite3.Connection]


class SqliteExecutor(Executor):
    """A database in a file: one thread writes, others read."""

    def __init__(self, dialect: Dialect, *, open_writer: Opener, open_reader: Opener) -> None:
        super().__init__(dialect)
        self._writer = Lane(open_writer, Worker(dialect).write_group, threads=1, most=GROUP_UNITS)
        self._readers = Lane(open_reader, Worker(dialect).read_each, threads=SQLITE_READERS, most=1)

    async def _attempt(self, unit: Unit[T], deadline: Deadline) -> T:
        call = Pending(unit, deadline)
        (self._readers if unit.kind.reads else self._writer).put(call)
        return await call.wait()  # type: ignore[no-any-return]

    async def close(self) -> None:
        """Finish what waits, and close the connections.

        The writer last: SQLite folds the write-ahead log into the file when the last connection closes, and two that
        close at once may each take the other for the last.
        """
        for lane in (self._readers, self._writer):
            lane.stop()
            await asyncio.to_thread(lane.join)

    def stop(self) -> None:
        """Take no more calls; the threads end once what waits is done."""
        super().stop()
        self._writer.stop()
        self._readers.stop()


class Lane:
    """Threads, each with a connection of its own, that serve calls from one queue."""

    def __init__(
        self, opener: Opener, serve: Callable[[sqlite3.Connection, list[Pending]], None], *, threads: int, most: int
    ) -> None:
        self._open = opener
        self._serve = serve
        self._most = most
        self._size = threads
        self._waiting: SimpleQueue[Pending | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._stopped = False

    def put(self, call: Pending) -> None:
        """Let a call wait for a thread.

        Raises:
            StoreClosedError: the lane was stopped.
        """
        if len(self._threads) < self._size:
            self._start()
        if self._stopped:
            raise StoreClosedError
        self._waiting.put(call)

    def _start(self) -> None:
        with self._lock:
            while len(self._threads) < self._size and not self._stopped:
                # Daemons: a service that forgets to close must still be able to end. What was acknowledged is on disk.
                thread = threading.Thread(target=self._work, name="sessionstore-sqlite", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    if self._threads:
                        return  # those there are will do
                    raise StoreUnavailableError("the process cannot start another thread") from None
                self._threads.append(thread)

    def stop(self) -> None:
        """Refuse further calls, and end each thread after what waits now."""
        with self._lock:
            if not self._stopped:
                self._stopped = True
                for _ in self._threads:
                    self._waiting.put(None)

    def join(self) -> None:
        """Wait for the threads to end."""
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        connection: sqlite3.Connection | None = None
        while (call := self._waiting.get()) is not None:
            calls = self._group(call)
            try:
                if connection is None:
                    connection = self._open()
                self._serve(connection, calls)
            except BaseException as error:  # noqa: BLE001  # whatever it was, those who wait must hear of it
                for waiting in calls:
                    waiting.fail(translated(error, "open") if isinstance(error, sqlite3.Error) else error)
                spoiled = True  # whatever state the connection is in
            else:
                # One that was opened while the file was read-only stays so when the rights are mended.
                spoiled = any(isinstance(waiting.error, ReadOnlyStoreError) for waiting in calls)
            if spoiled and connection is not None:
                connection.close()  # the next call opens another one
                connection = None
            deliver(calls)
        if connection is not None:
            connection.close()

    def _group(self, call: Pending) -> list[Pending]:
        """The call and what waits behind it, within the bounds of a group."""
        calls = [call]
        rows, size = call.unit.rows, call.unit.size
        while len(calls) < self._most and rows < CHUNK_ROWS and size < CHUNK_BYTES:
            try:
                following = self._waiting.get_nowait()
            except Empty:
                break
            if following is None:
                self._waiting.put(None)
                break
            calls.append(following)
            rows, size = rows + following.unit.rows, size + following.unit.size
        return calls


class Worker:
    """Drives units on a connection, in the connection's thread."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def read_each(self, connection: sqlite3.Connection, calls: list[Pending]) -> None:
        """Run units that read."""
        for call in calls:
            if not call.start():
                continue
            try:
                if call.unit.kind is Kind.SNAPSHOT:
                    connection.execute("BEGIN")
                call.succeed(self._drive(connection, call.unit))
            except Exception as error:  # noqa: BLE001  # handed to whoever waits
                call.fail(translated(error, "begin") if isinstance(error, sqlite3.Error) else error)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def write_group(self, connection: sqlite3.Connection, calls: list[Pending]) -> None:
        """Run units that write, under one commit."""
        calls = self._begin(connection, calls)
        if not calls:
            if connection.in_transaction:
                connection.execute("ROLLBACK")  # the last of them left just as the lock was taken
            return
        whole = self._run_members(connection, calls)
        if whole and connection.in_transaction:
            try:
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                for call in calls:
                    call.fail(translated(error, "commit"))
                whole = False
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if not whole and len(calls) > 1:
            # One of them filled the disk, or the disk failed: SQLite undid them all, so each gets a verdict of its own.
            for call in calls:
                self._write_alone(connection, call)

    def _write_alone(self, connection: sqlite3.Connection, call: Pending) -> None:
        """Run one unit of a group that was undone; its failure takes nothing back from those before it."""
        try:
            self.write_group(connection, [call])
        except sqlite3.Error as error:
            call.fail(translated(error, "begin"))
            connection.rollback()  # nothing, where nothing is open

    def _begin(self, connection: sqlite3.Connection, calls: list[Pending]) -> list[Pending]:
        """Take the write lock, waiting as long as somebody waits for us; who still does?"""
        while True:
            calls = [call for call in calls if not call.future.done()]
            if not calls:
                return []
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                busy = translated(error, "begin")
                if not isinstance(busy, StoreBusyError):
                    raise
                for call in calls:
                    call.hindrance = busy
            else:
                return [call for call in calls if call.start()]

    def _run_members(self, connection: sqlite3.Connection, calls: list[Pending]) -> bool:
        """Run each unit of a group; False if SQLite gave the whole transaction up."""
        alone = len(calls) == 1
        for call in calls:
            unit = call.unit
            while True:
                if not alone:
                    connection.execute("SAVEPOINT member")
                try:
                    call.succeed(self._drive_all(connection, unit))
                except RunInstead as other:
                    unit = other.unit
                    _undo(connection, alone=alone)
                    if alone:
                        connection.execute("BEGIN IMMEDIATE")
                    continue
                except Exception as error:  # noqa: BLE001  # handed to whoever waits
                    call.fail(error)
                    if not connection.in_transaction:
                        return False
                    _undo(connection, alone=alone)
                else:
                    if not alone:
                        connection.execute("RELEASE member")
                break
        return True

    def _drive_all(self, connection: sqlite3.Connection, unit: Unit[T]) -> T:
        """Run a unit and the one that follows it."""
        result = self._drive(connection, unit)
        following = unit.then(result) if unit.then is not None else None
        if following is not None:
            self._drive(connection, following)
        return result

    def _drive(self, connection: sqlite3.Connection, unit: Unit[T]) -> T:
        progress = Progress(unit, self._dialect)
        while progress.call is not None:
            try:
                rows = self._execute(connection, progress.call)
            except sqlite3.Error as error:
                progress.throw(translated(error, progress.call.statement.name))
            else:
                progress.send(rows)
        return progress.result

    def _execute(self, connection: sqlite3.Connection, call: Call) -> Rows:
        sql, arguments, many = self._dialect.bind(call)
        if many:
            connection.executemany(sql, arguments)
            return ()
        # Read to the end: a RETURNING that is not holds its lock as long as the cursor lives.
        return connection.execute(sql, arguments).fetchall()


def _undo(connection: sqlite3.Connection, *, alone: bool) -> None:
    if alone:
        connection.execute("ROLLBACK")
    else:
        connection.execute("ROLLBACK TO member")
        connection.execute("RELEASE member")


_DURABILITY: Final = {"full": "FULL", "normal": "NORMAL"}


def configure(connection: sqlite3.Connection, *, durability: str, writes: bool) -> sqlite3.Connection:
    """Give a connection the settings that the guarantees rest on."""
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute(f"PRAGMA synchronous = {_DURABILITY[durability]}")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    connection.execute("PRAGMA secure_delete = FAST")  # the full form costs a prune a quarter
    if writes and connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
    check_connection(connection, durability=durability, writes=writes)
    return connection
