"""Processes that end with SIGKILL in the middle of whatever they do."""

from __future__ import annotations

import random

import pytest

from sessionstore import SessionRepository
from tests.support.faults_counts import figure, rounds
from tests.support.faults_history import SHARED, History
from tests.support.faults_leases import forgotten
from tests.support.faults_processes import Worker
from tests.support.invariants import assert_sound

pytestmark = pytest.mark.processes

TASKS = 4


async def test_killed_writers(shared_url: str, request: pytest.FixtureRequest) -> None:
    """P1, P2: what a writer was told is there after its process was killed; nothing is twice, torn or half done."""
    chance = random.Random(1)
    history = History()
    async with SessionRepository.connect(shared_url) as repository:
        await repository.create(SHARED)
    unheard = 0
    kills = rounds(3, 30)
    for number in range(kills):
        writer = await Worker.start("write", shared_url, name=f"w{number}", tasks=TASKS, rewriting=2)
        writer.go()
        enough = chance.randint(1, 60)
        await writer.until(lambda events, enough=enough: len(events) >= enough)  # type: ignore[misc]
        told = {event["batch"]: event["positions"] for event in await writer.kill()}
        history.acknowledged |= told
        await forgotten(shared_url)
        stored = (await assert_sound(shared_url)).messages["", SHARED]
        untold = {message.body["batch"] for message in stored} - history.acknowledged.keys() - history.unknown
        assert len(untold) <= TASKS, "a task has one append under way"
        assert all(batch.startswith(f"w{number}-") for batch in untold)
        unheard += len(untold)
        history.unknown |= untold
        await history.check(shared_url)
    acknowledged = len(history.acknowledged)
    figure(request, kills=kills, acknowledged=acknowledged, lost=0, doubled=0, stored_but_not_told=unheard)
    assert acknowledged >= kills
    async with SessionRepository.connect(shared_url) as repository:
        length = await repository.length(SHARED)
        assert await repository.append(SHARED, {"role": "user", "batch": "end", "at": 0, "of": 1}) == [length]
