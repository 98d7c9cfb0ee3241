"""A call that somebody waits for while it is worked on elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from sessionstore.errors import StoreTimeoutError, TransientStoreError
from sessionstore.executors.base import Deadline
from sessionstore.units.unit import Unit


class Pending:
    """A unit, and the future of whoever waits for its result.

    The waiter may leave at any time, by cancellation or because the deadline has passed. Work that has not started is
    then dropped; work that has is finished, because a unit happens whole or not at all.
    """

    __slots__ = ("deadline", "error", "future", "hindrance", "result", "started", "task", "unit", "unknown")

    def __init__(self, unit: Unit[Any], deadline: Deadline) -> None:
        self.unit = unit
        self.deadline = deadline
        self.future: asyncio.Future[Any] = deadline.loop.create_future()
        self.started = False
        self.unknown = False
        """Whether nobody could tell, if the waiter left now, what became of the unit."""
        self.task: asyncio.Task[None] | None = None
        """What works on it, where that must end at the deadline too: on PostgreSQL."""
        self.hindrance: TransientStoreError | None = None
        self.result: Any = None
        self.error: BaseException | None = None

    async def wait(self) -> Any:
        """Wait for the result, until the deadline."""
        timer = self.timer()
        try:
            return await self.future
        finally:
            timer.cancel()

    def timer(self) -> asyncio.TimerHandle:
        """Let the call end at the deadline, unless the timer is cancelled before."""
        return self.deadline.loop.call_at(self.deadline.at, self._expire)

    def _expire(self) -> None:
        if self.task is not None:
            self.task.cancel()
        if not self.future.done():
            error = None if self.started else self.hindrance
            self.future.set_exception(
                error or StoreTimeoutError("the call did not end within its deadline", maybe_committed=self.unknown)
            )

    def start(self) -> bool:
        """Begin the work, if somebody still waits for it."""
        # Noted first and looked at second: the deadline may pass in the event loop while a thread is just here.
        self.unknown = not self.unit.kind.reads
        self.started = True
        if self.future.done():
            self.started = self.unknown = False
        return self.started

    def succeed(self, result: Any) -> None:
        """Note the result; `deliver` hands it over."""
        self.result, self.error = result, None

    def fail(self, error: BaseException) -> None:
        """Note the error; `deliver` hands it over."""
        self.error = error

    def settle(self) -> None:
        """Give the outcome to whoever still waits. In the event loop only."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


def deliver(calls: Iterable[Pending]) -> None:
    """Hand over the outcomes of calls from another thread, waking each event loop once."""
    loops: dict[asyncio.AbstractEventLoop, list[Pending]] = {}
    for call in calls:
        loops.setdefault(call.future.get_loop(), []).append(call)
    for loop, those in loops.items():
        try:
            loop.call_soon_threadsafe(_settle, those)
        except RuntimeError:
            continue  # the loop is closed: nobody waits in it any more


def _settle(calls: list[Pending]) -> None:
    for call in calls:
        call.settle()
