"""Appends that wait for one session leave together, and each still gets what is its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sessionstore import SessionNotFoundError, StoreSettings, StoreUnavailableError
from sessionstore.batch import Batch
from sessionstore.executors.base import Deadline
from sessionstore.executors.coalescer import Coalescer
from sessionstore.limits import COALESCED_ROWS
from sessionstore.units.messages import Append, Appended
from sessionstore.units.unit import Unit
from tests.support.waiting import until


class Database:
    """Runs units by counting: it blocks until released, and fails as told."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.gate = asyncio.Event()
        self.failures: list[Exception | None] = []
        self.next = 0

    async def run(self, unit: Unit[Any], _deadline: Deadline) -> Any:
        """Give the positions that the unit's rows would get."""
        self.sizes.append(unit.rows)
        await self.gate.wait()
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        first, self.next = self.next, self.next + unit.rows
        if unit.joint is not None:
            return Appended(list(range(first, self.next)))
        steps = unit.steps(_FAKE)
        next(steps)
        try:
            steps.send([(first,)])
        except StopIteration as done:
            return done.value
        raise AssertionError


class _Fake:
    modifying_ctes = True
    optimistic_ids = True


_FAKE: Any = _Fake()


def append(count: int = 1) -> Unit[Appended]:
    messages = [{"role": "user"}] * count
    return Append("t", "s", Batch.of(messages, StoreSettings())).unit()


class Lane:
    """A coalescer over a fake database, and a way to start calls in order."""

    def __init__(self) -> None:
        self.database = Database()
        self.tasks: set[asyncio.Task[None]] = set()
        self.coalescer = Coalescer(self.database.run, self.tasks)

    async def started(self, *units: Unit[Appended]) -> list[asyncio.Task[Appended]]:
        deadline = Deadline(5)
        calls = []
        for unit in units:
            assert unit.joint is not None
            calls.append(asyncio.create_task(self.coalescer.run(unit, unit.joint, deadline)))
            await asyncio.sleep(0)
        return calls

    async def only(self, first: asyncio.Task[Appended]) -> None:
        """Release the first call, and return when those that waited for it are on their way together."""
        gate, self.database.gate = self.database.gate, asyncio.Event()
        gate.set()
        await first
        await until(lambda: len(self.database.sizes) == 2)

    async def released(self, calls: list[asyncio.Task[Appended]]) -> list[Any]:
        self.database.gate.set()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        while self.tasks:
            await asyncio.wait(self.tasks)
        assert not self.coalescer._lanes, "no lane is left behind"
        return [outcome.positions if isinstance(outcome, Appended) else outcome for outcome in outcomes]


async def test_what_arrives_while_one_runs_leaves_together() -> None:
    lane = Lane()
    calls = await lane.started(append(1), append(2), append(3), append(1))
    assert await lane.released(calls) == [[0], [1, 2], [3, 4, 5], [6]]
    assert lane.database.sizes == [1, 6]


async def test_a_group_is_bounded() -> None:
    lane = Lane()
    half = COALESCED_ROWS // 2 + 1
    calls = await lane.started(append(1), append(half), append(half), append(half))
    await lane.released(calls)
    assert lane.database.sizes == [1, half, half, half]


async def test_a_definite_failure_is_tried_one_by_one() -> None:
    lane = Lane()
    lane.database.failures = [None, SessionNotFoundError("s"), None, SessionNotFoundError("s")]
    outcomes = await lane.released(await lane.started(append(), append(), append()))
    assert outcomes[:2] == [[0], [1]]
    assert isinstance(outcomes[2], SessionNotFoundError)


async def test_an_unknown_outcome_is_told_to_every_member_and_not_repeated() -> None:
    lane = Lane()
    lane.database.failures = [None, StoreUnavailableError(maybe_committed=True)]
    outcomes = await lane.released(await lane.started(append(), append(), append()))
    assert outcomes[0] == [0]
    for outcome in outcomes[1:]:
        assert isinstance(outcome, StoreUnavailableError)
        assert outcome.maybe_committed
    assert outcomes[1] is not outcomes[2], "each caller may do with its own error what it likes"
    assert lane.database.sizes == [1, 2], "nothing was sent again"


async def test_the_first_caller_serves_nobody_else() -> None:
    """Its cancellation leaves those who wait untouched."""
    lane = Lane()
    first, *waiting = await lane.started(append(), append(), append())
    first.cancel()
    assert await lane.released(waiting) == [[0], [1]]
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_who_leaves_before_the_start_is_dropped() -> None:
    lane = Lane()
    first, gone, stays = await lane.started(append(), append(), append())
    gone.cancel()
    assert await lane.released([first, stays]) == [[0], [1]]
    assert lane.database.sizes == [1, 1]


async def test_who_leaves_after_the_start_is_served_all_the_same() -> None:
    lane = Lane()
    first, leaves, stays = await lane.started(append(), append(), append())
    await lane.only(first)
    leaves.cancel()
    assert await lane.released([stays]) == [[2]]
    assert lane.database.next == 3


async def test_who_left_is_not_run_alone_after_a_definite_failure() -> None:
    """P4: the group it was in has not happened, and nobody waits for it any more."""
    lane = Lane()
    lane.database.failures = [None, SessionNotFoundError("s")]
    first, leaves, stays = await lane.started(append(), append(2), append(3))
    await lane.only(first)
    leaves.cancel()
    assert await lane.released([stays]) == [[1, 2, 3]]
    assert lane.database.sizes == [1, 5, 3]
    with pytest.raises(asyncio.CancelledError):
        await leaves
