"""Several processes on one database, all let go at the same moment."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from sessionstore import SessionRepository
from tests.concurrency.worker import BATCHES, ROUNDS
from tests.support.invariants import assert_sound, batch_faults
from tests.support.templates import sqlite_url

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 4


async def _start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", "-m", "tests.concurrency.worker", *arguments),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def at_once(job: str, url: str, count: int = WORKERS) -> list[Any]:
    """What so many processes made of a job, none of which may fail."""
    workers = [await _start(job, url, str(number)) for number in range(count)]
    for worker in workers:
        assert worker.stdout is not None
        assert await worker.stdout.readline() == b"ready\n", await worker.communicate()
    ended = await asyncio.gather(*(worker.communicate(b"go\n") for worker in workers))
    assert [(worker.returncode, errors.decode()) for worker, (_, errors) in zip(workers, ended, strict=True)] == [
        (0, "")
    ] * count
    return [json.loads(output) for output, _ in ended]


async def test_appends(shared_url: str) -> None:
    """X02: processes that append to one session get unique positions without gaps, and contiguous batches."""
    async with SessionRepository.connect(shared_url) as repository:
        await repository.create("shared")
    given = await at_once("append", shared_url)
    batches = [positions for worker in given for positions in worker]
    assert len(batches) == WORKERS * BATCHES
    assert all(positions == list(range(positions[0], positions[0] + len(positions))) for positions in batches)
    stored = await assert_sound(shared_url)
    assert sorted(position for positions in batches for position in positions) == [
        message.position for message in stored.messages["", "shared"]
    ]
    assert batch_faults(stored.bodies("shared")) == []


async def test_compare_and_set(shared_url: str) -> None:
    """X03: no update is lost among processes that compare and set."""
    async with SessionRepository.connect(shared_url) as repository:
        await repository.create("shared")
        assert await at_once("count", shared_url) == [ROUNDS] * WORKERS
        session = await repository.get("shared")
    assert (session.title, session.version) == (str(WORKERS * ROUNDS), WORKERS * ROUNDS)


async def test_cap(shared_url: str) -> None:
    """X04: once all processes have returned, no more sessions than the cap are left."""
    assert await at_once("fill", shared_url) == [ROUNDS] * WORKERS
    assert len((await assert_sound(shared_url)).sessions) == 7


async def test_prunes_count_what_they_delete(shared_url: str) -> None:
    """O17: of concurrent prunes each reports what it really deleted."""
    async with SessionRepository.connect(shared_url) as repository:
        for number in range(40):
            await repository.append(f"session-{number:02}", {"role": "user"}, create=True)
    assert sum(await at_once("prune", shared_url)) == 35
    stored = await assert_sound(shared_url)
    assert sorted(session_id for _, session_id in stored.sessions) == [f"session-{number}" for number in range(35, 40)]


async def test_claim(shared_url: str) -> None:
    """O20: of many processes exactly one wins a cooldown."""
    assert sorted(await at_once("claim", shared_url)) == [False] * (WORKERS - 1) + [True]


async def test_fresh_file(tmp_path: Path) -> None:
    """P13: sixteen processes that all open and write one file that does not exist yet; no error reaches a caller."""
    url = sqlite_url(tmp_path / "fresh.db")
    count = 16
    given = await at_once("first", url, count)
    stored = await assert_sound(url)
    assert len(stored.sessions) == count + 1
    assert sorted(position for positions in given for position in positions) == list(range(0, count * 10, 2))
    assert batch_faults(stored.bodies("shared")) == []
