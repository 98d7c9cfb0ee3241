"""A PostgreSQL server whose processes are all killed at once, under load."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING

import pytest

from sessionstore import SessionRepository, StoreSettings
from tests.support.faults_counts import figure, rounds
from tests.support.faults_history import SHARED, History, Writer
from tests.support.faults_leases import assert_nothing_held
from tests.support.waiting import until

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.processes

WRITERS = 8
SETTINGS = StoreSettings(operation_timeout_seconds=5.0)


async def test_killed_server(
    mortal: PostgresServer, mortal_database: str, caretaker: ThreadPoolExecutor, request: pytest.FixtureRequest
) -> None:
    """P1, P3: what was acknowledged survives the death of the server; appends with ids are repeated and never twice."""
    chance = random.Random(2)
    history = History()
    kills = rounds(2, 10)
    over = False
    async with contextlib.AsyncExitStack() as stack:
        repositories = [
            await stack.enter_async_context(SessionRepository.connect(mortal_database, settings=SETTINGS))
            for _ in range(WRITERS)
        ]
        await repositories[0].create(SHARED)
        writers = [
            Writer(repository, history, f"w{number}", with_ids=bool(number % 2))
            for number, repository in enumerate(repositories)
        ]
        writing = [asyncio.ensure_future(writer.until(lambda: over)) for writer in writers]
        for _ in range(kills):
            before = [writer.done for writer in writers]
            enough = len(history.acknowledged) + chance.randint(WRITERS, 100)
            await until(
                lambda before=before, enough=enough: (  # type: ignore[misc]
                    all(writer.done > done for writer, done in zip(writers, before, strict=True))
                    and len(history.acknowledged) >= enough
                )
            )
            mortal.kill()
            await asyncio.get_running_loop().run_in_executor(caretaker, mortal.restart)
        over = True
        await asyncio.gather(*writing)
        await history.check(mortal_database)
        for repository in repositories:
            await assert_nothing_held(mortal_database, repository)
    figure(
        request,
        kills=kills,
        writers=WRITERS,
        acknowledged=len(history.acknowledged),
        lost=0,
        doubled=0,
        unknown=len(history.unknown),
        errors=len(history.errors),
    )
