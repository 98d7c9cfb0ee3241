"""Deletes of many sessions: bounded transactions, and what is left of one that was cut off."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import InvalidArgumentError, PrunePolicy, PruneReport, SessionRepository
from tests.contract._own import fill, ids_of, meddle
from tests.migrations.processes import start
from tests.support.repositories import check_invariants, rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)


async def sizes_of_batches(sessions: SessionRepository, delete: Callable[[], Awaitable[Any]]) -> list[tuple[int, int]]:
    """How many sessions and messages each transaction deleted."""
    counts: list[tuple[int, int]] = []

    async def count(_: int) -> None:
        [pair] = await rows(
            sessions,
            "SELECT (SELECT count(*) FROM sessionstore_sessions), (SELECT count(*) FROM sessionstore_messages)",
        )
        counts.append((pair[0], pair[1]))

    await count(0)
    meddle(sessions, count, after=True)
    await delete()
    steps = pairwise(counts)
    return [found for before, now in steps if (found := (before[0] - now[0], before[1] - now[1])) != (0, 0)]


DELETES: dict[str, Callable[[SessionRepository], Awaitable[Any]]] = {
    "age": lambda sessions: sessions.prune(PrunePolicy(max_sessions=None)),
    "idle": lambda sessions: sessions.prune(PrunePolicy(max_age=None, max_idle=DAY, max_sessions=None)),
    "number": lambda sessions: sessions.prune(PrunePolicy(max_age=None, max_sessions=1)),
    "number of each user": lambda sessions: sessions.prune(PrunePolicy(max_age=None, max_sessions=1, per_user=True)),
    "user": lambda sessions: sessions.delete_user("ann"),
    "tenant": lambda sessions: sessions.delete_all(),
}


@pytest.mark.parametrize("name", DELETES)
async def test_at_most_five_hundred_sessions_a_transaction(sessions: SessionRepository, name: str) -> None:
    """O14, O15: whatever it is that deletes them."""
    await fill(sessions, [f"s{at:04}" for at in range(1101)], user_id="ann")
    expected = [500, 500, 100 if name.startswith("number") else 101]
    deleted = await sizes_of_batches(sessions, lambda: DELETES[name](sessions))
    assert [count for count, _ in deleted] == expected


async def test_the_batch_size_is_the_callers(sessions: SessionRepository) -> None:
    """O14: from 1 to 500."""
    await fill(sessions, [f"s{at}" for at in range(7)])
    deleted = await sizes_of_batches(sessions, lambda: sessions.prune(PrunePolicy(), batch_size=3))
    assert [count for count, _ in deleted] == [3, 3, 1]
    for size in (0, -1, 501, 1.0, "3", True, None):
        with pytest.raises(InvalidArgumentError, match="batch_size"):
            await sessions.prune(PrunePolicy(), batch_size=size)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["age", "tenant"])
async def test_at_most_fifty_thousand_messages_a_transaction(sessions: SessionRepository, name: str) -> None:
    """O14: or one session, however long it is."""
    await fill(sessions, {"a": 1, "b": 50_001, "c": 30_000, "d": 20_000, "e": 1})
    deleted = await sizes_of_batches(sessions, lambda: DELETES[name](sessions))
    assert sum(count for count, _ in deleted) == 5
    assert sum(messages for _, messages in deleted) == 100_003
    assert all(count == 1 or messages <= 50_000 for count, messages in deleted)
    assert len(deleted) <= 4


async def test_a_prune_that_was_cut_off_is_resumed_by_calling_again(sessions: SessionRepository) -> None:
    """O17, P6: what was deleted is deleted whole, the rest is as it was."""
    await fill(sessions, {f"s{at}": 2 for at in range(10)}, step=DAY)

    async def fail(batch: int) -> None:
        if batch == 3:
            raise asyncio.CancelledError

    meddle(sessions, fail)
    with pytest.raises(asyncio.CancelledError):
        await sessions.prune(PrunePolicy(), batch_size=2)
    await check_invariants(sessions)
    assert len(await ids_of(sessions)) == 4
    assert await sessions.prune(PrunePolicy(), batch_size=2) == PruneReport(by_age=4)
    assert await ids_of(sessions) == []


@pytest.mark.processes
async def test_a_killed_prune_is_resumed_by_calling_again(lasting_url: str) -> None:
    """P6, O17: after kill -9 in the middle, the rows are sound and the next prune finishes."""
    async with SessionRepository.connect(lasting_url) as sessions:
        await fill(sessions, {f"s{at:03}": 3 for at in range(300)}, step=TICK)
        process = await start("-m", "tests.contract._worker", "prune", lasting_url)
        assert process.stdout is not None
        assert process.stdin is not None
        assert await process.stdout.readline() == b"ready\n"
        process.stdin.write(b"go\n")
        for _ in range(5):
            assert await process.stdout.readline() == b"pruned\n"
        process.kill()
        await process.wait()
        await check_invariants(sessions)
        left = len(await ids_of(sessions))
        assert 1 <= left <= 295
        assert (await sessions.prune(PrunePolicy(max_age=None, max_sessions=1))).by_number == left - 1
        assert await ids_of(sessions) == ["s299"]
