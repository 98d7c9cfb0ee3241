"""Many processes on one database: sixteen on one SQLite file, and hundreds of tasks on one PostgreSQL session."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import SessionRepository
from tests.support.faults_counts import figure, rounds
from tests.support.faults_history import SHARED, History
from tests.support.faults_processes import Worker
from tests.support.templates import sqlite_url

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.processes

PROCESSES = 16
LONGEST_WAIT_SECONDS = 10.0
"""What P13 promises."""


def _history(told: list[list[dict[str, Any]]]) -> History:
    """What all processes were told, none of which heard of an error."""
    history = History()
    for events in told:
        *acknowledged, last = events
        assert last["errors"] == []
        history.longest = max(history.longest, last["longest"])
        history.acknowledged |= {event["batch"]: event["positions"] for event in acknowledged}
    return history


async def test_one_fresh_file(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """P13: sixteen processes create, migrate and write one SQLite file; no error, and nobody waits over 10 s."""
    files, batches = rounds(1, 5), rounds(12, 200)
    longest = opening = 0.0
    for number in range(files):
        url = sqlite_url(tmp_path / f"fresh-{number}.db")
        starting = [Worker.start("first", url, name=f"p{process}", batches=batches) for process in range(PROCESSES)]
        workers = await asyncio.gather(*starting)
        for worker in workers:
            worker.go()
        told = await asyncio.gather(*(worker.ended() for worker in workers))
        history = _history(told)
        assert len(history.acknowledged) == PROCESSES * batches
        await history.check(url)
        longest = max(longest, history.longest)
        opening = max(opening, *(events[-1]["opening"] for events in told))
    figure(request, files=files, processes=PROCESSES, acknowledged=files * PROCESSES * batches, errors=0)
    figure(request, lost=0, doubled=0, longest_append=round(longest, 2), longest_opening=round(opening, 2))
    assert max(longest, opening) < LONGEST_WAIT_SECONDS


async def test_one_session(postgres_database: str, request: pytest.FixtureRequest) -> None:
    """P2, P4: four processes of sixty-four tasks each append to one PostgreSQL session; no error, no gap, no tear."""
    processes, tasks, batches = 4, 64, rounds(4, 40)
    async with SessionRepository.connect(postgres_database) as repository:
        await repository.create(SHARED)
    starting = [
        Worker.start("write", postgres_database, name=f"p{process}", tasks=tasks, batches=batches)
        for process in range(processes)
    ]
    workers = await asyncio.gather(*starting)
    for worker in workers:
        worker.go()
    history = _history(await asyncio.gather(*(worker.ended() for worker in workers)))
    assert len(history.acknowledged) == processes * tasks * batches
    await history.check(postgres_database)
    figure(request, processes=processes, tasks=processes * tasks, acknowledged=len(history.acknowledged), errors=0)
    figure(request, lost=0, doubled=0, longest_wait=round(history.longest, 2))
