"""Backends of PostgreSQL that an administrator ends again and again, under load."""

from __future__ import annotations

import asyncio

import pytest

from sessionstore import SessionRepository
from tests.support.faults_counts import figure, rounds
from tests.support.faults_history import SHARED, History, Writer
from tests.support.faults_leases import assert_nothing_held
from tests.support.invariants import connect_postgres

WRITERS = 8
PAUSE_SECONDS = 0.5
"""Between two times. It decides nothing: each time begins when every writer has got on since the last."""
END_ALL = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name = 'sessionstore'"
)


async def test_all_backends_ended(postgres_database: str, request: pytest.FixtureRequest) -> None:
    """P3, P4: appends with ids and reads never fail; others are stored once, or fail and may be stored once."""
    history = History()
    ended = 0
    times = rounds(4, 40)
    over = False
    async with SessionRepository.connect(postgres_database) as repository:
        await repository.create(SHARED)
        writers = [Writer(repository, history, f"w{number}", with_ids=bool(number % 2)) for number in range(WRITERS)]

        async def read() -> int:
            reads = 0
            while not over:
                positions = [message.position for message in await repository.messages(SHARED, last=50)]
                assert positions == list(range(positions[0], positions[0] + len(positions))) if positions else True
                reads += 1
            return reads

        working = [asyncio.ensure_future(writer.until(lambda: over)) for writer in writers]
        reading = asyncio.ensure_future(read())
        administrator = await connect_postgres(postgres_database)
        for _ in range(times):
            await asyncio.sleep(PAUSE_SECONDS)
            ended += await administrator.fetchval(END_ALL)
        await administrator.close()
        over = True
        await asyncio.gather(*working)
        reads = await reading
        await history.check(postgres_database)
        await assert_nothing_held(postgres_database, repository)
    # With ids every error is hidden inside; what callers did hear of are the others, each of an unknown outcome.
    assert len(history.errors) == len(history.unknown) > 0
    assert ended > times
    figure(
        request,
        times=times,
        backends_ended=ended,
        acknowledged=len(history.acknowledged),
        reads=reads,
        lost=0,
        doubled=0,
        unknown=len(history.unknown),
        longest=round(history.longest, 2),
    )
