"""Callers that leave: their calls have happened whole or not at all, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, StaticPool

from sessionstore import SessionRepository, StoreSettings
from tests.concurrency.foreign import settled
from tests.concurrency.verbs import APPENDED, HISTORY, ID, VERBS, bodies, body, prepare
from tests.concurrency.worker import batch
from tests.support.invariants import assert_sound, batch_faults

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.concurrency.foreign import Foreign
    from tests.concurrency.verbs import Verb

CANCELLED = 100
SETTINGS = StoreSettings(operation_timeout_seconds=5.0)
"""The innocent writer's deadline: it raises StoreTimeoutError if somebody delays it for longer."""


@pytest.fixture(params=["connect", "engine"])
async def repository(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[SessionRepository]:
    """A repository with an engine of its own, and one on the caller's engine."""
    if request.param == "connect":
        async with SessionRepository.connect(database_url, settings=SETTINGS) as opened:
            yield opened
        return
    memory = database_url == "sqlite+aiosqlite://"
    engine = create_async_engine(database_url, poolclass=StaticPool if memory else None)
    async with SessionRepository(engine, settings=SETTINGS) as opened:
        yield opened
    await engine.dispose()


def _checked_out(engine: AsyncEngine) -> int:
    return engine.pool.checkedout() if isinstance(engine.pool, AsyncAdaptedQueuePool) else 0


async def _leaving(repository: SessionRepository, number: int, chance: random.Random) -> bool:
    """Append, and be cancelled some loop iterations later; whether it was acknowledged."""
    task = asyncio.ensure_future(repository.append(ID, *batch(str(number), 3)))
    for _ in range(chance.choice([0, 1, 2, 3, 5, 8, 13, 21])):
        await asyncio.sleep(0)
    if chance.random() < 0.5:
        await asyncio.sleep(chance.random() / 200)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return False
    return True


async def test_cancelled_appends_beside_an_innocent(database_url: str, repository: SessionRepository) -> None:
    """P4: each cancelled append is stored whole or not at all, and no other writer is delayed beyond its deadline."""
    await repository.create(ID)
    chance = random.Random(11)
    leaving = asyncio.ensure_future(
        asyncio.wait([asyncio.ensure_future(_leaving(repository, number, chance)) for number in range(CANCELLED)])
    )
    innocent = 0
    while not leaving.done() or innocent < 20:
        await repository.append(ID, *batch(f"innocent-{innocent}", 2))
        innocent += 1
    done, _ = await leaving
    await settled(repository)
    assert _checked_out(repository._shared.engine) == 0
    stored = await assert_sound(database_url, repository)
    assert batch_faults(stored.bodies(ID)) == []
    kept = {message["batch"] for message in stored.bodies(ID)}
    assert {f"innocent-{number}" for number in range(innocent)} <= kept
    acknowledged = sum(task.result() for task in done)
    assert innocent + acknowledged <= len(kept) <= innocent + CANCELLED


@pytest.mark.parametrize("verb", VERBS, ids=str)
async def test_cancelled_while_it_waits(shared_url: str, somebody: Foreign, verb: Verb) -> None:
    """P4: a call cancelled while it waits for a lock ends at once, changes nothing, and leaves nothing behind."""
    async with SessionRepository.connect(shared_url, settings=verb.settings) as repository:
        await prepare(repository)
        await somebody.append(ID, *bodies(APPENDED))
        task = asyncio.ensure_future(verb.run(repository))
        await somebody.waited_for(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await somebody.rollback()
        await settled(repository)
        stored = await assert_sound(shared_url)
        happened = verb.left(HISTORY, False)
        # On PostgreSQL the statement is under way and will be finished; on SQLite it had not begun.
        assert [kept["n"] for kept in stored.bodies(ID)] in (HISTORY, happened or [])
        head = stored.sessions["", ID].next if ("", ID) in stored.sessions else 0
        assert await repository.append(ID, body(1), create=True) == [head]
        if shared_url.startswith("sqlite"):
            _check_lock_is_free(shared_url)
    await assert_sound(shared_url)


def _check_lock_is_free(url: str) -> None:
    connection = sqlite3.connect(url.removeprefix("sqlite+aiosqlite:///"), timeout=0, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    finally:
        connection.close()


async def test_lock_is_free_after_all_have_left(shared_url: str, somebody: Foreign) -> None:
    """P4: where every caller has left while the lock was awaited, it is given back as soon as it is got."""
    async with SessionRepository.connect(shared_url) as repository:
        await prepare(repository)
        await somebody.append(ID, *bodies(APPENDED))
        tasks = [asyncio.ensure_future(repository.append(ID, body(number))) for number in range(3)]
        await somebody.waited_for(tasks[0])
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await somebody.commit()
        await settled(repository)
        async with SessionRepository.connect(shared_url, settings=SETTINGS) as other:
            assert await other.trim(ID, 1) == 1
        assert await repository.trim(ID, 0) == 0
    await assert_sound(shared_url)


async def test_closing_beside_callers_who_left(shared_url: str) -> None:
    """P4: a repository can be closed right after its callers were cancelled."""
    async with SessionRepository.connect(shared_url) as repository:
        await repository.create(ID)
        tasks = [asyncio.ensure_future(repository.append(ID, *batch(str(number), 3))) for number in range(10)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    assert batch_faults((await assert_sound(shared_url)).bodies(ID)) == []
