"""What waits for the SQLite writer shares one commit, and each member still gets a verdict of its own."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import (
    SessionNotFoundError,
    SessionRepository,
    StorageFullError,
    StoreBusyError,
    StoreClosedError,
    StoreSettings,
    StoreUnavailableError,
)
from sessionstore.executors import engines
from sessionstore.executors.sqlite import Lane, SqliteExecutor, configure
from tests.support.templates import sqlite_url
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MESSAGE = {"role": "user", "content": "hello"}


@contextmanager
def locked(file: Path) -> Iterator[sqlite3.Connection]:
    """Hold the write lock of a file from outside."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that a connection of the store executes."""
    seen: list[str] = []

    def traced(connection: sqlite3.Connection, **settings: Any) -> sqlite3.Connection:
        configured = configure(connection, **settings)
        configured.set_trace_callback(seen.append)
        return configured

    monkeypatch.setattr(engines, "configure", traced)
    return seen


async def started(sessions: SessionRepository, count: int) -> list[asyncio.Task[list[int]]]:
    """Begin appends that wait for the writer, which waits for a lock."""
    tasks = [asyncio.create_task(sessions.append("s", MESSAGE)) for _ in range(count)]
    await asyncio.sleep(0)  # each task runs up to where it waits
    return tasks


async def test_waiting_appends_share_one_commit(sqlite_file: Path, statements: list[str]) -> None:
    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        await sessions.create("s")
        with locked(sqlite_file):
            first = asyncio.create_task(sessions.append("s", MESSAGE))
            await until(lambda: "BEGIN IMMEDIATE" in statements[-1])
            waiting = await started(sessions, 20)
            before = len(statements)
        positions = [await first, *await asyncio.gather(*waiting)]
    commits = statements[before:].count("COMMIT")
    assert commits == 2, "one for the append that came first, one for all that waited behind it"
    assert sorted(position for (position,) in positions) == list(range(21))


async def test_a_member_that_fails_takes_nobody_along(sqlite_file: Path) -> None:
    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        await sessions.create("s")
        with locked(sqlite_file):
            tasks = [asyncio.create_task(sessions.append(name, MESSAGE)) for name in ("s", "missing", "s")]
            await asyncio.sleep(0)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [outcomes[0], outcomes[2]] == [[0], [1]]
        assert isinstance(outcomes[1], SessionNotFoundError)
        assert await sessions.length("s") == 2


async def test_a_full_disk_gives_each_member_a_verdict_of_its_own(
    sqlite_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P12: the large append does not fit, the small ones do."""

    def small(connection: sqlite3.Connection, **settings: Any) -> sqlite3.Connection:
        configured = configure(connection, **settings)
        pages = configured.execute("PRAGMA page_count").fetchone()[0]
        configured.execute(f"PRAGMA max_page_count = {pages + 20}")
        return configured

    monkeypatch.setattr(engines, "configure", small)
    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        await sessions.create("s")
        large = {"role": "user", "content": "x" * 1_000_000}
        with locked(sqlite_file):
            tasks = [asyncio.create_task(sessions.append("s", message)) for message in (MESSAGE, large, MESSAGE)]
            await asyncio.sleep(0)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [outcomes[0], outcomes[2]] == [[0], [1]]
        assert isinstance(outcomes[1], StorageFullError)
        assert [message.body for message in await sessions.messages("s")] == [MESSAGE, MESSAGE]


async def test_a_waiting_append_whose_caller_left_is_dropped(sqlite_file: Path) -> None:
    """P4: cancelled before it started, it has not happened."""
    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        await sessions.create("s")
        with locked(sqlite_file):
            gone, stays = await started(sessions, 2)
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
        assert await stays == [0]
        assert await sessions.length("s") == 1


async def test_a_lock_that_stays_is_reported_at_the_deadline(sqlite_file: Path) -> None:
    settings = StoreSettings(operation_timeout_seconds=0.3)
    async with SessionRepository.connect(sqlite_url(sqlite_file), settings=settings) as sessions:
        await sessions.create("s")
        with locked(sqlite_file), pytest.raises(StoreBusyError) as caught:
            await sessions.append("s", MESSAGE)
        assert caught.value.maybe_committed is False
        patient = SessionRepository.connect(sqlite_url(sqlite_file))
        async with patient:
            assert await patient.append("s", MESSAGE) == [0], "what was given up has not happened"


async def test_each_verb_is_one_hop(sqlite_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P10: a whole unit goes to the thread at once, whatever the length of the session."""
    hops: list[str] = []

    def counted(lane: Lane, call: Any) -> None:
        hops.append(call.unit.name)
        real(lane, call)

    real = Lane.put
    monkeypatch.setattr(Lane, "put", counted)
    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        hops.clear()
        await sessions.create("s", metadata={"a": 1})
        await sessions.append("s", *[MESSAGE] * 100)
        await sessions.messages("s", last=20)
        await sessions.get("s")
        await sessions.trim("s", 5, align="turn")
        await sessions.fork("s", new_id="child")
        await sessions.snapshot("child")
        await sessions.delete("child")
    assert hops == ["create", "append", "messages", "find", "trim", "fork", "snapshot", "delete"]


async def test_the_threads_end_with_the_repository(sqlite_file: Path) -> None:
    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        await sessions.create("s")
        executor = sessions._executor
        assert isinstance(executor, SqliteExecutor)
        threads = [*executor._writer._threads, *executor._readers._threads]
        assert all(thread.is_alive() for thread in threads)
    assert not any(thread.is_alive() for thread in threads)
    with pytest.raises(StoreClosedError):
        await sessions.get("s")


async def test_calls_that_wait_at_closing_are_finished(sqlite_file: Path) -> None:
    sessions = SessionRepository.connect(sqlite_url(sqlite_file))
    async with sessions:
        await sessions.create("s")
        tasks = await started(sessions, 50)
    positions = sorted(position for (position,) in await asyncio.gather(*tasks))
    assert positions == list(range(50))


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the next thread of the store cannot start, and the one after it, and so on; those after the last can."""
    planned: list[bool] = []
    start = threading.Thread.start

    def refusing(thread: threading.Thread) -> None:
        if thread.name == "sessionstore-sqlite" and planned and planned.pop(0):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refusing)
    return planned


@pytest.mark.parametrize("refused", range(3), ids=["first reader", "second reader", "writer"])
async def test_a_thread_that_cannot_start_is_started_later(
    sqlite_file: Path, refusals: list[bool], refused: int
) -> None:
    """P4: no caller hears of it, and its lane has all of its threads in the end."""
    refusals += [at == refused for at in range(refused + 1)]
    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        await sessions.create("s")
        assert await sessions.append("s", MESSAGE) == [0]
        assert await sessions.length("s") == 1
        assert not refusals
        executor = sessions._executor
        assert isinstance(executor, SqliteExecutor)
        for lane in (executor._readers, executor._writer):
            assert len(lane._threads) == lane._size
            assert all(thread.is_alive() for thread in lane._threads)


async def test_the_threads_that_there_are_will_do(sqlite_file: Path, refusals: list[bool]) -> None:
    """P4: while no second reader can start, the first one serves all."""
    settings = StoreSettings(operation_timeout_seconds=0.3)
    refusals += [False, *[True] * 10_000]
    async with SessionRepository.connect(sqlite_url(sqlite_file), settings=settings) as sessions:
        for _ in range(3):
            assert not await sessions.exists("s")
        executor = sessions._executor
        assert isinstance(executor, SqliteExecutor)
        assert len(executor._readers._threads) == 1
        refusals.clear()
        assert not await sessions.exists("s")
        assert len(executor._readers._threads) == 2


async def test_threads_that_never_start_are_reported_at_the_deadline(sqlite_file: Path, refusals: list[bool]) -> None:
    """P4: nothing has happened, and once they can start again the same repository works."""
    settings = StoreSettings(operation_timeout_seconds=0.3)
    sessions = SessionRepository.connect(sqlite_url(sqlite_file), settings=settings)
    refusals += [True] * 10_000
    async with asyncio.timeout(10):
        with pytest.raises(StoreUnavailableError):
            await sessions.exists("s")
        refusals.clear()
        assert not await sessions.exists("s")
        refusals += [True] * 10_000
        with pytest.raises(StoreUnavailableError) as caught:
            await sessions.create("s")
        assert caught.value.maybe_committed is False
        refusals.clear()
        assert not await sessions.exists("s")
        await sessions.create("s")
        await sessions.aclose()
