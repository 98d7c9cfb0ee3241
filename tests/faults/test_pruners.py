"""Pruners beside writers who use what is about to be deleted, all of them killed at random."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import PrunePolicy, SessionRepository, Transcript
from tests.faults.worker import MAX_AGE
from tests.support.faults_counts import figure, rounds
from tests.support.faults_history import messages_of
from tests.support.faults_leases import forgotten
from tests.support.faults_processes import Worker
from tests.support.invariants import assert_sound, batch_faults
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.support.invariants import Stored

pytestmark = pytest.mark.processes

PRUNERS = 2
WRITING_PROCESSES = 2
TASKS = 4
SESSIONS = 400
OLD = datetime.now(UTC) - 4 * MAX_AGE
FIRST = 3
"""Messages of a session at the beginning, as one batch."""


@dataclass
class Crowd:
    """Processes that use and prune the same sessions."""

    sessions: list[str]
    writers: list[Worker] = field(default_factory=list)
    pruners: list[Worker] = field(default_factory=list)

    async def start(self, url: str, name: str, *, tamper: bool = False) -> None:
        """Let them begin; returns once sessions are both used and deleted."""
        for number in range(WRITING_PROCESSES):
            options: dict[str, Any] = {"name": f"{name}-{number}", "tasks": TASKS, "sessions": self.sessions}
            self.writers.append(await Worker.start("use", url, **options))
        self.pruners += [await Worker.start("prune", url, tamper=tamper) for _ in range(PRUNERS)]
        for worker in self.writers:
            worker.go()
        await until(lambda: bool(self.told("used")))
        for worker in self.pruners:
            worker.go()
        await until(lambda: bool(self.told("missing")) or self._idle())

    async def die(self, chance: random.Random) -> None:
        """Kill one after the other, each after some more sessions were used."""
        living = [*self.writers, *self.pruners]
        chance.shuffle(living)
        for worker in living:
            enough = len(self.told("used")) + chance.randint(1, 60)
            await until(lambda enough=enough: len(self.told("used")) >= enough or self._idle())  # type: ignore[misc]
            await worker.kill()

    def _idle(self) -> bool:
        """Whether no writer has anything left to do."""
        return all(writer.ended_already or (writer.events and "done" in writer.events[-1]) for writer in self.writers)

    def told(self, what: str) -> list[dict[str, Any]]:
        """All that writers told of some kind; none of them may have failed."""
        assert not [worker for worker in [*self.writers, *self.pruners] if worker.has_failed]
        return [event for writer in self.writers for event in writer.events if what in event]


def _faults(stored: Stored, crowd: Crowd) -> list[str]:
    used: dict[str, list[str]] = {}
    for event in crowd.told("used"):
        used.setdefault(event["used"], []).append(event["batch"])
    missing = {event["missing"] for event in crowd.told("missing")}
    found = []
    for session_id in crowd.sessions:
        bodies = stored.bodies(session_id)
        batches = {body["batch"] for body in bodies}
        if not bodies and session_id in used:
            found.append(f"{session_id} was used and is deleted")
        elif bodies and batches < {"first", *used.get(session_id, [])}:
            found.append(f"{session_id} has lost {used[session_id]}")
        elif bodies and session_id in missing:
            found.append(f"{session_id} was missing and is back")
        elif batches == {"first"}:
            found.append(f"{session_id} was never used and is kept")
        found += [f"{session_id}: {fault}" for fault in batch_faults(bodies)]
    return found


async def _prepare(repository: SessionRepository, sessions: list[str]) -> None:
    """Make sessions that are old enough to be pruned."""
    for at in range(0, len(sessions), 100):
        old = [Transcript.of(name, messages_of("first", FIRST), updated_at=OLD) for name in sessions[at : at + 100]]
        await asyncio.gather(*(repository.save(transcript) for transcript in old))


async def test_pruners_beside_writers(shared_url: str, request: pytest.FixtureRequest) -> None:
    """P6: whoever is killed, no session is deleted that was used after the decision, and none is left half."""
    chance = random.Random(9)
    turns = rounds(1, 20)
    kills = used = missing = 0
    for turn in range(turns):
        crowd = Crowd([f"session-{turn}-{number}" for number in range(SESSIONS)])
        async with SessionRepository.connect(shared_url) as repository:
            await _prepare(repository, crowd.sessions)
        await crowd.start(shared_url, f"w{turn}")
        await crowd.die(chance)
        kills += len(crowd.writers) + len(crowd.pruners)
        await forgotten(shared_url)
        async with SessionRepository.connect(shared_url) as repository:
            await repository.prune(PrunePolicy(max_age=MAX_AGE, max_sessions=None))
        assert _faults(await assert_sound(shared_url), crowd) == []
        used += len({event["used"] for event in crowd.told("used")})
        missing += len({event["missing"] for event in crowd.told("missing")})
    assert used
    assert missing
    figure(request, kills=kills, sessions=turns * SESSIONS, used=used, met_a_deleted_one=missing)
    figure(request, used_and_deleted=0, half=0)
