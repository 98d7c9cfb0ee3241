"""Callers that leave in the middle of an append, one after the other, beside one who stays."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from sessionstore import SessionRepository
from tests.support.faults_counts import figure, rounds
from tests.support.faults_history import SHARED, History, Writer
from tests.support.faults_leases import assert_nothing_held
from tests.support.repositories import opened
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

AT_ONCE = 8
STALL_SECONDS = 2.0
"""Far above any append on a busy machine, and what the ordinary way of doing it made others wait, at the least."""


@pytest.fixture(params=["connect", "engine"])
async def repository(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[SessionRepository]:
    """A repository whose callers leave: with connections of its own, and with those of a caller's engine."""
    async with opened(request.param, database_url) as repository:
        yield repository


@pytest.fixture
async def beside(database_url: str, repository: SessionRepository) -> AsyncIterator[SessionRepository]:
    """The repository of one who stays: with another engine, as in another process, unless the database is in memory."""
    if database_url == "sqlite+aiosqlite://":
        yield repository
        return
    async with opened("engine", database_url) as other:
        yield other


async def _leave(writer: Writer, chance: random.Random, usual_seconds: float) -> BaseException | None:
    """Append, and leave after a moment; gives the error of leaving, which keeps all frames of the call alive."""
    task = asyncio.ensure_future(writer.append())
    for _ in range(chance.choice([0, 1, 2, 3, 5, 8, 13, 21])):
        await asyncio.sleep(0)
    await asyncio.sleep(chance.choice([0, 1, 3]) * chance.random() * usual_seconds)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError as left:
        return left
    return None


async def _stay(writer: Writer, pause_seconds: float, over: asyncio.Event) -> None:
    """Append with pauses, so that those who leave have begun now and then."""
    while not over.is_set():
        await writer.append()
        await asyncio.sleep(pause_seconds)


async def test_cancelled_appends(
    database_url: str, repository: SessionRepository, beside: SessionRepository, request: pytest.FixtureRequest
) -> None:
    """P2, P4: of cancelled appends each is stored whole or not at all, and who appends beside them never waits."""
    await repository.create(SHARED)
    chance = random.Random(6)
    history, innocent = History(), History()
    staying = Writer(beside, innocent, "innocent", with_ids=False)
    cancels = rounds(100, 500)
    kept: list[BaseException] = []
    leavers = [Writer(repository, history, f"w{number}", with_ids=bool(number % 2)) for number in range(AT_ONCE)]
    for _ in range(2):  # with connections, and statements that are prepared
        await asyncio.gather(staying.append(), *(writer.append() for writer in leavers))
    history.longest = 0.0
    await asyncio.gather(*(writer.append() for writer in leavers))
    usual_seconds = history.longest
    innocent.longest = 0.0
    over = asyncio.Event()
    working = asyncio.ensure_future(_stay(staying, usual_seconds, over))
    while len(kept) < cancels:
        done = staying.done
        left = await asyncio.gather(*(_leave(writer, chance, usual_seconds) for writer in leavers))
        kept += [error for error in left if error is not None]
        await until(lambda done=done: staying.done > done or working.done())  # type: ignore[misc]
    stayed = staying.done
    over.set()
    await working
    assert innocent.errors == history.errors == []
    assert innocent.longest < STALL_SECONDS
    both = History(history.acknowledged | innocent.acknowledged, history.unknown)
    await assert_nothing_held(database_url, repository)
    stored = await both.check(database_url, repository)
    happened = {body["batch"] for body in stored.bodies(SHARED)} & history.unknown
    assert happened, "all had left before anything began, which proves little"
    figure(request, cancelled=len(kept), happened=len(happened), half=0, lost=0, doubled=0, stalled=0)
    figure(request, innocent=stayed, longest_wait=round(innocent.longest, 3))
