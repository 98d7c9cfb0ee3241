"""Forks of a session that others append to and trim meanwhile."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from sessionstore import SessionRepository
from tests.support.faults_counts import figure, rounds
from tests.support.faults_history import SHARED, History, Writer
from tests.support.invariants import assert_sound
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.support.invariants import Stored

WRITERS = 4
FORKERS = 2
KEPT = 30


@dataclass
class Moment:
    """What was known of the source just before a fork began."""

    child: str
    acknowledged_before: int
    trimmed_before: int


class Source:
    """The session that is forked, and what its writers and its trimmer know of it."""

    def __init__(self) -> None:
        self.history = History()
        self.trimmed = 0
        self.trims = 0
        self.over = False

    @property
    def head(self) -> int:
        """The smallest next position the source can have."""
        return max((positions[-1] + 1 for positions in self.history.acknowledged.values()), default=0)

    async def trim(self, repository: SessionRepository) -> None:
        """Trim again and again."""
        while not self.over:
            head = self.head
            kept = await repository.trim(SHARED, KEPT)
            self.trims += 1
            # The trim came after `head` was known, so what it kept began at least here.
            self.trimmed = max(self.trimmed, head - kept)
            await asyncio.sleep(0)


async def _fork(repository: SessionRepository, source: Source, moments: list[Moment], name: str, times: int) -> None:
    chance = random.Random(name)
    acknowledged = source.history.acknowledged
    for number in range(times):
        enough = len(acknowledged) + chance.randint(1, 20)
        await until(lambda enough=enough: len(acknowledged) >= enough)  # type: ignore[misc]  # at different moments
        moment = Moment(f"{name}-{number}", source.head, source.trimmed)
        if number % 2:
            await repository.fork(SHARED, new_id=moment.child)
        else:
            await repository.fork_at(SHARED, 10**6, new_id=moment.child)
        moments.append(moment)


def _faults(stored: Stored, source: Source, moments: list[Moment]) -> list[str]:
    """Which forks are not what the source was at one moment, between the beginning and the end of the fork."""
    places = {
        position: (batch, at)
        for batch, positions in source.history.acknowledged.items()
        for at, position in enumerate(positions)
    }
    found = []
    for moment in moments:
        header = stored.sessions["", moment.child]
        messages = stored.messages["", moment.child]
        if header.fork_position != header.next:
            found.append(f"{moment.child}: forked at {header.fork_position}, its head is {header.next}")
        if not moment.acknowledged_before <= header.next:
            found.append(f"{moment.child}: misses what was acknowledged before it began")
        if header.first < moment.trimmed_before:
            found.append(f"{moment.child}: holds what was trimmed before it began")
        if not all(places.get(message.position) == (message.body["batch"], message.body["at"]) for message in messages):
            found.append(f"{moment.child}: a message is not the source's of that position")
        if messages and messages[-1].body["at"] + 1 != messages[-1].body["of"]:
            found.append(f"{moment.child}: its last batch is torn")
    return found


async def test_forks_under_append_and_trim(shared_url: str, request: pytest.FixtureRequest) -> None:
    """P2: a fork is what its source was at one moment, whoever appends to it and trims it meanwhile."""
    forks = rounds(40, 200)
    source = Source()
    moments: list[Moment] = []
    async with SessionRepository.connect(shared_url) as writing, SessionRepository.connect(shared_url) as forking:
        await writing.create(SHARED)
        writers = [
            Writer(writing, source.history, f"w{number}", with_ids=bool(number % 2)) for number in range(WRITERS)
        ]
        working = [asyncio.ensure_future(writer.until(lambda: source.over)) for writer in writers]
        working.append(asyncio.ensure_future(source.trim(forking)))
        forkers = [
            asyncio.ensure_future(_fork(forking, source, moments, f"fork-{number}", forks // FORKERS))
            for number in range(FORKERS)
        ]
        try:
            await asyncio.gather(*forkers)
        finally:
            source.over = True
            await asyncio.gather(*working)
    stored = await assert_sound(shared_url)
    assert _faults(stored, source, moments) == []
    assert source.history.errors == []
    windows = {(stored.sessions["", moment.child].first, stored.sessions["", moment.child].next) for moment in moments}
    assert len(moments) == forks
    assert len(windows) > forks // 4, "too few different moments to prove anything"
    figure(request, forks=forks, moments=len(windows), appends=len(source.history.acknowledged), trims=source.trims)
    figure(request, torn=0)
