"""Every verb, started while an append that is not committed yet holds the session, on both sides of its outcome."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sessionstore import SessionRepository
from tests.concurrency.verbs import APPENDED, CHILD, HISTORY, ID, STALE, VERBS, Verb, bodies, body, prepare
from tests.support.invariants import Stored, assert_sound

if TYPE_CHECKING:
    from tests.concurrency.foreign import Foreign


@pytest.mark.parametrize("committed", [True, False], ids=["committed", "rolled-back"])
@pytest.mark.parametrize("verb", VERBS, ids=str)
async def test_verb_waits_for_an_append(shared_url: str, somebody: Foreign, verb: Verb, committed: bool) -> None:
    """P2: a verb that had to wait for an append works on what the append left, and nothing strays."""
    async with SessionRepository.connect(shared_url, settings=verb.settings) as repository:
        await prepare(repository)
        await somebody.append(ID, *bodies(APPENDED))
        task = asyncio.ensure_future(verb.run(repository))
        await somebody.waited_for(task)
        await (somebody.commit() if committed else somebody.rollback())

        history = [*HISTORY, *APPENDED] if committed else HISTORY
        if committed and verb.stale:
            with pytest.raises(STALE):
                await task
            left: list[int] | None = history
        else:
            await task
            left = verb.left(history, committed)

        stored = await assert_sound(shared_url)
        _check(stored, ID, left)
        if verb.child is not None:
            _check(stored, CHILD, verb.child(history))
            assert stored.sessions["", CHILD].fork_position == stored.sessions["", CHILD].next
        await _check_usable(repository, stored, shared_url)


def _check(stored: Stored, session_id: str, numbers: list[int] | None) -> None:
    assert (("", session_id) in stored.sessions) == (numbers is not None)
    assert [kept["n"] for kept in stored.bodies(session_id)] == (numbers or [])


async def _check_usable(repository: SessionRepository, stored: Stored, url: str) -> None:
    """A later append lands at the head, with nothing in its way."""
    for (_, session_id), session in stored.sessions.items():
        assert await repository.append(session_id, body(1), body(2)) == [session.next, session.next + 1]
    await assert_sound(url)
