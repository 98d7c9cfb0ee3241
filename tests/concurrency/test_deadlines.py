"""Locks that are not let go of, connections that die and servers that are gone: an error in time, and none after."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import StaticPool
from sqlalchemy.ext.asyncio import create_async_engine

from sessionstore import SessionRepository, StoreBusyError, StoreSettings, StoreTimeoutError, StoreUnavailableError
from sessionstore.migrate import upgrade
from tests.concurrency.foreign import settled
from tests.concurrency.verbs import APPENDED, HISTORY, ID, VERBS, bodies, body, prepare
from tests.support.invariants import assert_sound, connect_postgres
from tests.support.postgres import PostgresServer
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.concurrency.foreign import Foreign
    from tests.concurrency.verbs import Verb

SHORT = StoreSettings(operation_timeout_seconds=0.3)
PATIENCE_SECONDS = 3.0
"""Ten deadlines: far above what a busy machine adds, far below the lock timeouts that would show without them."""
LOCKING = [verb for verb in VERBS if verb.name not in {"evict", "prune by number"}]
IN_FLIGHT = {"append", "append expecting", "append or create", "open", "prune by age", "delete user", "delete all"}
"""One statement on PostgreSQL, which commits for itself: while it is on its way nobody knows what becomes of it."""


@pytest.fixture(scope="module")
def mortal() -> Iterator[PostgresServer]:
    """A server of this module's own, to be killed."""
    with PostgresServer() as server:
        yield server


@pytest.mark.parametrize("verb", LOCKING, ids=str)
async def test_lock_beyond_the_deadline(shared_url: str, somebody: Foreign, verb: Verb) -> None:
    """P4: who cannot get the lock hears of it in time, and that nothing has happened; the next call works."""
    async with SessionRepository.connect(shared_url) as repository:
        await prepare(repository)
        await somebody.append(ID, *bodies(APPENDED))
        repository._settings, patient = SHORT, repository.settings  # for this call alone: opening may take its time
        started = time.monotonic()
        with pytest.raises((StoreBusyError, StoreTimeoutError)) as caught:
            await verb.run(repository)
        assert time.monotonic() - started < PATIENCE_SECONDS
        repository._settings = patient
        assert caught.value.retryable
        in_flight = verb.name in IN_FLIGHT and shared_url.startswith("postgresql")
        assert in_flight or not caught.value.maybe_committed
        await somebody.rollback()

        await settled(repository)
        stored = await assert_sound(shared_url)
        left = [HISTORY, verb.left(HISTORY, False) or []] if caught.value.maybe_committed else [HISTORY]
        assert [kept["n"] for kept in stored.bodies(ID)] in left
        head = stored.sessions["", ID].next if ("", ID) in stored.sessions else 0
        assert await repository.append(ID, body(1), create=True) == [head]
    await assert_sound(shared_url)


async def test_readers_do_not_wait(shared_url: str, somebody: Foreign) -> None:
    """P4: an open append delays no reader."""
    async with SessionRepository.connect(shared_url) as repository:
        await prepare(repository)
        await somebody.append(ID, *bodies(APPENDED))
        assert await repository.length(ID) == len(HISTORY)
        assert len((await repository.snapshot(ID)).messages) == len(HISTORY)
        assert [message.body["n"] for message in await repository.messages(ID, last=2)] == HISTORY[-2:]
        assert len((await repository.list_sessions()).rows) == 2
        await somebody.commit()
        assert await repository.length(ID) == len(HISTORY) + len(APPENDED)


async def _backends(url: str, waiting_for: str) -> list[int]:
    connection = await connect_postgres(url)
    try:
        rows = await connection.fetch(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend' AND ($1 = '' OR wait_event_type = $1)",
            waiting_for,
        )
        return [row[0] for row in rows]
    finally:
        await connection.close()


async def _terminate(url: str, waiting_for: str = "") -> list[int]:
    """End the backends of a database, and wait until they are gone."""
    pids = await _backends(url, waiting_for)
    connection = await connect_postgres(url)
    try:
        for pid in pids:
            await connection.execute("SELECT pg_terminate_backend($1, 5000)", pid)
    finally:
        await connection.close()
    return pids


async def test_backend_ended_while_idle(postgres_database: str) -> None:
    """P4: connections that died while nobody used them are noticed, and no caller hears of it."""
    async with SessionRepository.connect(postgres_database) as repository:
        await repository.create(ID)
        for number in range(3):
            await asyncio.gather(*(repository.exists(ID) for _ in range(4)))
            assert await _terminate(postgres_database)
            assert await repository.append(ID, body(number)) == [number]
        assert await repository.length(ID) == 3


async def test_backend_ended_in_a_transaction(postgres_database: str, somebody_on_postgres: Foreign) -> None:
    """P4: a transaction whose connection dies before its commit has not happened, and is tried again."""
    async with SessionRepository.connect(postgres_database) as repository:
        await prepare(repository)
        await somebody_on_postgres.append(ID, *bodies(APPENDED))
        task = asyncio.ensure_future(repository.trim(ID, 2))
        await somebody_on_postgres.waited_for(task)
        assert await _terminate(postgres_database, "Lock")
        await somebody_on_postgres.rollback()
        assert await task == 2
        stored = await assert_sound(postgres_database)
        assert [kept["n"] for kept in stored.bodies(ID)] == HISTORY[-2:]


async def test_backend_ended_in_an_append(postgres_database: str, somebody_on_postgres: Foreign) -> None:
    """P3, P4: an append whose connection died may have happened, and is not repeated; with ids it is."""
    async with SessionRepository.connect(postgres_database) as repository:
        await prepare(repository)
        await somebody_on_postgres.append(ID, *bodies(APPENDED))
        task = asyncio.ensure_future(repository.append(ID, body(500)))
        await somebody_on_postgres.waited_for(task)
        assert await _terminate(postgres_database, "Lock")
        with pytest.raises(StoreUnavailableError) as caught:
            await task
        assert caught.value.maybe_committed
        with_ids = next(verb for verb in VERBS if verb.name == "append with ids")
        task = asyncio.ensure_future(with_ids.run(repository))
        await somebody_on_postgres.waited_for(task)
        assert await _terminate(postgres_database, "Lock")
        await somebody_on_postgres.commit()
        assert await task == [9, 10]
        stored = await assert_sound(postgres_database)
        assert [kept["n"] for kept in stored.bodies(ID)] == [*HISTORY, *APPENDED, 500, 501]


@pytest.mark.processes
async def test_server_killed_and_restarted(mortal: PostgresServer) -> None:
    """P4, P12: while the server is down callers hear that it is; once it is up the same repository works."""
    url = await mortal.create_database("mortal")
    await upgrade(url)
    settings = StoreSettings(operation_timeout_seconds=1.0)
    async with SessionRepository.connect(url, settings=settings) as repository:
        await prepare(repository)
        mortal.kill()
        for call in (repository.length(ID), repository.trim(ID, 2), repository.append(ID, body(500))):
            started = time.monotonic()
            with pytest.raises((StoreUnavailableError, StoreTimeoutError)):
                await call
            assert time.monotonic() - started < 1.0 + PATIENCE_SECONDS
        with pytest.raises(StoreUnavailableError) as caught:
            await repository.append(ID, body(500))
        assert not caught.value.maybe_committed
        await asyncio.to_thread(mortal.restart)
        assert await repository.append(ID, body(501)) == [len(HISTORY)]
        assert [message.body["n"] for message in await repository.messages(ID)] == [*HISTORY, 501]
    await assert_sound(url)


async def test_the_caller_keeps_the_one_connection_busy() -> None:
    """P4: a database in memory answers in time, and what was dropped meanwhile does not happen afterwards."""
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    entered, released = threading.Event(), threading.Event()

    def busy() -> int:
        entered.set()
        released.wait()
        return 1

    async with SessionRepository(engine, settings=SHORT) as repository:
        await prepare(repository)
        async with engine.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            await driver.create_function("busy", 0, busy)
            working = asyncio.create_task(connection.exec_driver_sql("SELECT busy()"))
            try:
                await until(entered.is_set)
                for call in (repository.append(ID, body(500)), repository.length(ID), repository.trim(ID, 2)):
                    with pytest.raises(StoreTimeoutError) as caught:
                        await asyncio.wait_for(call, PATIENCE_SECONDS)
                    assert not caught.value.maybe_committed
            finally:
                released.set()
                await working
        assert await repository.append(ID, body(501)) == [len(HISTORY)]
        assert [message.body["n"] for message in await repository.messages(ID)] == [*HISTORY, 501]
    await engine.dispose()
