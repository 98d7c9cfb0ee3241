"""Fault points: whatever is sent to a database is counted, and something may happen at one of the points.

The store's own drivers run, on real databases; only the connections they hand out are of a class that looks up before
each statement whether this is the point. A connection that is lost is lost, a transaction that fails is failed.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import aiosqlite.core
import asyncpg

from sessionstore.executors import base, engines

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import pytest

NEVER: Final = float("inf")
"""A pause before the next try that no deadline allows: whatever fails is raised at once."""

_execute: Final = asyncpg.Connection.execute
_connect: Final = asyncpg.connect
_connect_sqlite: Final = sqlite3.connect


class Fault(NamedTuple):
    """Something that happens at a point.

    Attributes:
        rare: much like another one; left to the long run.
        act: does it; on PostgreSQL a coroutine function.
        definite: the statement it happens to has surely not been executed.
        retried: a call that meets it is tried again inside.
        leaves: the caller is cancelled.
    """

    name: str
    act: Callable[..., Any]
    definite: bool = True
    retried: bool = False
    leaves: bool = False
    rare: bool = False

    def __str__(self) -> str:
        return self.name


@dataclass
class Points:
    """What was sent since it was armed, and where to interfere.

    Attributes:
        at: number of the point, from 1; 0 for none.
        sent: each point by name.
        pause: between tries.
        happened: how often a fault took place.
        happened_to: what a fault that comes back has seen.
    """

    at: int = 0
    fault: Fault | None = None
    sent: list[str] = field(default_factory=list)
    pause: float = 0.0
    caller: asyncio.Task[Any] | None = None
    happened: int = 0
    happened_to: list[str] = field(default_factory=list)
    watcher: Any = None
    _left: threading.Event = field(default_factory=threading.Event)
    _gate: threading.Event | None = None

    def arm(self, at: int, fault: Fault | None, pause: float) -> None:
        """Let a fault happen once, at a point from here on."""
        self.at, self.fault, self.pause = at, fault, pause
        self.sent.clear()
        self._left.clear()

    def disarm(self) -> None:
        """Let nothing happen any more."""
        self.at, self.fault = 0, None

    def hold(self) -> threading.Event:
        """Let every connection stop at its next point, until the event is set."""
        self._gate = threading.Event()
        return self._gate

    def wait(self) -> None:
        """Stop where that was asked for. In a thread of the store."""
        assert self._gate is None or self._gate.wait(30), "nobody opened the gate"

    async def waited(self) -> None:
        """Stop where that was asked for. In the event loop."""
        while self._gate is not None and not self._gate.is_set():  # noqa: ASYNC110  # threads wait for it too
            await asyncio.sleep(0.0005)

    def call(self, call: Awaitable[Any]) -> asyncio.Task[Any]:
        """Begin a call as somebody who may be made to leave."""
        self.caller = asyncio.ensure_future(call)
        self.caller.add_done_callback(lambda _: self._left.set())
        return self.caller

    def due(self, name: str) -> Fault | None:
        """Note a point; the fault that is to happen there."""
        self.sent.append(name)
        if self.fault is None or len(self.sent) != self.at:
            return None
        self.happened += 1
        return self.fault

    async def let_leave(self) -> None:
        """Cancel the caller, and go on when it has left. In its event loop."""
        assert self.caller is not None
        self.caller.cancel()
        await asyncio.wait({self.caller})

    def let_leave_elsewhere(self) -> None:
        """Cancel the caller, and go on when it has left. In another thread."""
        assert self.caller is not None
        self.caller.get_loop().call_soon_threadsafe(self.caller.cancel)
        assert self._left.wait(30), "the caller did not leave"


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


def _postgres_connection(points: Points) -> type[asyncpg.Connection]:
    """The class of connections with points."""

    class Pointed(asyncpg.Connection):
        async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
            return await self._passing(query, lambda: super(Pointed, self).fetch(query, *args, **options))

        async def execute(self, query: str, *args: Any, **options: Any) -> Any:
            return await self._passing(query, lambda: super(Pointed, self).execute(query, *args, **options))

        async def prepare(self, query: str, **options: Any) -> Any:
            return await self._passing(query, lambda: super(Pointed, self).prepare(query, **options))

        async def _passing(self, query: str, send: Callable[[], Awaitable[Any]]) -> Any:
            fault = points.due(_head(query))
            await points.waited()
            return await (send() if fault is None else fault.act(points, self, query, send))

    return Pointed


def _head(query: str) -> str:
    return " ".join(query.split()[:3])


def on_postgres(points: Points, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every connection that the store opens from now on have points."""
    pointed = _postgres_connection(points)

    async def connect(*args: Any, **options: Any) -> Any:
        if options.get("server_settings", {}).get("application_name") != "sessionstore":
            return await _connect(*args, **options)
        fault = points.due("connect")

        def send() -> Awaitable[Any]:
            return _connect(*args, connection_class=pointed, **options)

        return await (send() if fault is None else fault.act(points, None, "connect", send))

    monkeypatch.setattr(asyncpg, "connect", connect)
    _no_jitter(points, monkeypatch)


def _no_jitter(points: Points, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "random", SimpleNamespace(uniform=lambda _low, _high: points.pause))


async def _lost_before(_points: Points, connection: Any, _query: str, send: Any) -> Any:
    connection.terminate()
    return await send()


async def _lost_after(_points: Points, connection: Any, _query: str, send: Any) -> Any:
    await send()
    connection.terminate()
    raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")


async def _reset_on_the_way(_points: Points, connection: Any, _query: str, _send: Any) -> Any:
    connection.terminate()
    raise ConnectionResetError(104, "Connection reset by peer")


async def _terminated_before(points: Points, connection: Any, _query: str, send: Any) -> Any:
    await points.watcher.execute("SELECT pg_terminate_backend($1, 5000)", connection.get_server_pid())
    return await send()


async def _terminated_after(points: Points, connection: Any, _query: str, send: Any) -> Any:
    pid = connection.get_server_pid()
    result = await send()
    await points.watcher.execute("SELECT pg_terminate_backend($1, 5000)", pid)
    return result


def _answered(state: str) -> Callable[..., Awaitable[Any]]:
    """The server refuses the statement with a code, as a real error of its own."""

    async def act(_points: Points, connection: Any, query: str, send: Any) -> Any:
        if query == "ROLLBACK":
            return await send()  # which no server refuses
        try:
            return await _execute(connection, f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$")
        finally:
            if query == "COMMIT":  # one that fails ends the transaction all the same
                await _execute(connection, "ROLLBACK")

    return act


async def _outdated_plan(points: Points, connection: Any, query: str, send: Any) -> Any:
    try:
        await _answered("0A000")(points, connection, query, send)
    except asyncpg.FeatureNotSupportedError:
        raise asyncpg.InvalidCachedStatementError("cached statement plan is invalid") from None


async def _drivers_timeout(_points: Points, connection: Any, _query: str, send: Any) -> Any:
    await send()
    raise TimeoutError


async def _left_before(points: Points, _connection: Any, _query: str, send: Any) -> Any:
    await points.let_leave()
    return await send()


async def _left_after(points: Points, connection: Any, _query: str, send: Any) -> Any:
    result = await send()
    if connection is None:  # just opened: only whoever gets it can close it
        assert points.caller is not None
        points.caller.cancel()
    else:
        await points.let_leave()
    return result


ON_POSTGRES: Final = (
    Fault("lost before sending", _lost_before, retried=True),
    Fault("lost after sending", _lost_after, definite=False, retried=True),
    Fault("reset on the way", _reset_on_the_way, definite=False, retried=True, rare=True),
    Fault("backend terminated before", _terminated_before, definite=False, retried=True),
    Fault("backend terminated after", _terminated_after, definite=False, retried=True, rare=True),
    Fault("serialization", _answered("40001"), retried=True),
    Fault("lock", _answered("55P03"), retried=True, rare=True),
    Fault("full", _answered("53100")),
    Fault("statement timeout", _answered("57014"), rare=True),
    Fault("outdated plan", _outdated_plan, retried=True, rare=True),
    Fault("driver's timeout", _drivers_timeout, definite=False, rare=True),
    Fault("left before", _left_before, leaves=True),
    Fault("left after", _left_after, leaves=True, rare=True),
)
"""What may happen at a statement."""


def _refused(make: Callable[[], BaseException]) -> Callable[..., Awaitable[Any]]:
    async def act(_points: Points, _connection: Any, _query: str, _send: Any) -> Any:
        raise make()

    return act


CONNECTING: Final = (
    Fault("refused", _refused(lambda: ConnectionRefusedError(111, "Connection refused")), retried=True),
    Fault("starting", _refused(lambda: asyncpg.CannotConnectNowError("starting up")), retried=True, rare=True),
    Fault("too many", _refused(lambda: asyncpg.TooManyConnectionsError("too many clients")), retried=True, rare=True),
    Fault("dark", _refused(TimeoutError), retried=True, rare=True),
    Fault("left before", _left_before, leaves=True),
    Fault("left after", _left_after, leaves=True),
)
"""What may happen when a connection is opened."""


# --- SQLite -----------------------------------------------------------------------------------------------------------


def _sqlite_connection(points: Points) -> type[sqlite3.Connection]:
    """The class of connections with points."""

    class Pointed(sqlite3.Connection):
        def execute(self, sql: str, *args: Any) -> Any:
            return self._passing(sql, lambda: super(Pointed, self).execute(sql, *args))

        def executemany(self, sql: str, *args: Any) -> Any:
            return self._passing(sql, lambda: super(Pointed, self).executemany(sql, *args))

        def _passing(self, sql: str, send: Callable[[], Any]) -> Any:
            fault = points.due(_head(sql))
            points.wait()
            return send() if fault is None else fault.act(points, self, sql, send)

    return Pointed


def on_sqlite(points: Points, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every connection that the store opens from now on have points, in files and in memory."""
    pointed = _sqlite_connection(points)

    def connect(*args: Any, **options: Any) -> Any:
        fault = points.due("connect")

        def send() -> Any:
            return _connect_sqlite(*args, factory=pointed, **options)

        return send() if fault is None else fault.act(points, None, "connect", send)

    monkeypatch.setattr(engines, "sqlite3", SimpleNamespace(connect=connect, Connection=sqlite3.Connection))
    monkeypatch.setattr(aiosqlite.core, "sqlite3", _Module(connect))
    _no_jitter(points, monkeypatch)


class _Module:
    """The module sqlite3 with another `connect`."""

    def __init__(self, connect: Callable[..., Any]) -> None:
        self.connect = connect

    def __getattr__(self, name: str) -> Any:
        return getattr(sqlite3, name)


def raised(code: int, *, undone: bool = False, after: bool = False) -> Callable[..., Any]:
    """SQLite refuses a statement with a code; it gives up the whole transaction with some."""

    def act(_points: Points, connection: Any, sql: str, send: Any) -> Any:
        if sql == "ROLLBACK":
            return send()  # which SQLite never refuses
        if after and sql.split(maxsplit=1)[0] not in {
            "BEGIN",
            "COMMIT",
        }:  # with these SQLite has done nothing if it fails
            send()
        if undone and connection is not None and connection.in_transaction:
            sqlite3.Connection.execute(connection, "ROLLBACK")
        error = sqlite3.OperationalError("as it happens")
        error.sqlite_errorcode = code
        error.sqlite_errorname = f"CODE_{code}"
        raise error

    return act


def _left_thread_before(points: Points, _connection: Any, _sql: str, send: Any) -> Any:
    points.let_leave_elsewhere()
    return send()


def _left_thread_after(points: Points, _connection: Any, _sql: str, send: Any) -> Any:
    result = send()
    points.let_leave_elsewhere()
    return result


ON_SQLITE: Final = (
    Fault("busy", raised(sqlite3.SQLITE_BUSY), retried=True),
    Fault("full", raised(sqlite3.SQLITE_FULL, undone=True)),
    Fault("full, half written", raised(sqlite3.SQLITE_FULL, undone=True, after=True)),
    Fault("disk fails", raised(sqlite3.SQLITE_IOERR_WRITE, undone=True)),
    Fault("disk fails, transaction open", raised(sqlite3.SQLITE_IOERR_READ, after=True)),
    Fault("damaged", raised(sqlite3.SQLITE_CORRUPT)),
    Fault("interrupted", raised(sqlite3.SQLITE_INTERRUPT, undone=True)),
    Fault("left before", _left_thread_before, leaves=True),
    Fault("left after", _left_thread_after, leaves=True),
)
"""What may happen at a statement."""
