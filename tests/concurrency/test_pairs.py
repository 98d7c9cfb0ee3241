"""Every pair of verbs at once on one session, each through a repository of its own."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest

from sessionstore import SessionExistsError, SessionNotFoundError, SessionRepository, VersionConflictError
from tests.concurrency.verbs import VERBS, Verb, bodies, body, prepare
from tests.support.invariants import faults, read_tables

if TYPE_CHECKING:
    from sessionstore import StoreSettings

ROUNDS = 3
LOST_THE_RACE = (SessionExistsError, SessionNotFoundError, VersionConflictError)
"""What a caller may hear because somebody else came first. Deadlocks and locks are not among it."""


class Pair:
    """Two clients of one database, as other processes would be: nothing is shared but the tables."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._open: dict[tuple[int, StoreSettings], SessionRepository] = {}

    def repository(self, side: int, verb: Verb, tenant: str) -> SessionRepository:
        key = side, verb.settings
        if key not in self._open:
            self._open[key] = SessionRepository.connect(self._url, settings=verb.settings)
        return self._open[key].for_tenant(tenant)

    async def close(self) -> None:
        for repository in self._open.values():
            await repository.aclose()


@pytest.mark.parametrize("verb", VERBS, ids=str)
async def test_verb_beside_every_other(shared_url: str, verb: Verb) -> None:
    """P2: whatever two verbs meet on a session, positions stay dense, and no deadlock reaches a caller."""
    clients = Pair(shared_url)
    others = VERBS[VERBS.index(verb) :]
    try:
        for other, number in itertools.product(others, range(ROUNDS)):
            tenant = f"{other.name} {number}".replace(" ", "-")
            await prepare(clients.repository(0, verb, tenant))
            results = await asyncio.gather(
                verb.run(clients.repository(0, verb, tenant)),
                other.run(clients.repository(1, other, tenant)),
                return_exceptions=True,
            )
            unexpected = [result for result in results if isinstance(result, BaseException)]
            assert [error for error in unexpected if not isinstance(error, LOST_THE_RACE)] == [], other
        await _check(clients.repository(0, verb, ""), shared_url)
    finally:
        await clients.close()


async def _check(repository: SessionRepository, url: str) -> None:
    stored = await read_tables(url)
    assert faults(stored) == []
    for (tenant, session_id), session in stored.sessions.items():
        positions = await repository.for_tenant(tenant).append(session_id, *bodies([1, 2]))
        assert positions == [session.next, session.next + 1], (tenant, session_id)
    assert faults(await read_tables(url)) == []


async def test_many_verbs_at_once(shared_url: str) -> None:
    """P2, P4: all verbs at once, again and again, on the same two sessions."""
    clients = Pair(shared_url)
    try:
        for _ in range(3):
            await prepare(clients.repository(0, VERBS[0], "t"))
            calls = [verb.run(clients.repository(at % 2, verb, "t")) for at, verb in enumerate(VERBS)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            errors = [result for result in results if isinstance(result, BaseException)]
            assert [error for error in errors if not isinstance(error, LOST_THE_RACE)] == []
            assert faults(await read_tables(shared_url)) == []
        repository = clients.repository(0, VERBS[0], "t")
        await repository.append("session", body(1), create=True)
        assert faults(await read_tables(shared_url)) == []
    finally:
        await clients.close()
