"""A call that somebody waits for while it is worked on elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from sessionstore.errors import StoreTimeoutError, TransientStoreError
from sessionstore.executors.base import Deadline
from sessionstore.units.unit import Unit


class Pending:
    """A unit, and the future of whoever waits for its result.

    The waiter may leave at any time, by cancellation or because the deadline has passed. Work that has not started is
    then dropped; work that has is finished, because a unit happens whole or not at all.
    """

    __slots__ = ("deadline", "future", "hindrance", "outcome", "started", "unit", "unknown")

    def __init__(self, unit: Unit[Any], deadline: Deadline) -> None:
        self.unit = unit
        self.started = False
        self.hindrance: TransientStoreError | None = None
        self.outcome: tuple[bool, Any] = (False, None)
        self.future: asyncio.Future[Any] = deadline.loop.create_future()
        self.deadline = deadline
        self.unknown: Callable[[], bool] = lambda: self.started and not unit.kind.reads

    async def wait(self) -> Any:
        """Wait for the result, until the deadline."""
        timer = self.deadline.loop.call_at(self.deadline.at, self._expire)
        try:
            return await self.future
        finally:
            timer.cancel()

    def _expire(self) -> None:
        if not self.future.done():
            error = None if self.started else self.hindrance
            self.future.set_exception(
                error or StoreTimeoutError("the call did not end within its deadline", maybe_committed=self.unknown())
            )

    def start(self) -> bool:
        """Begin the work, if somebody still waits for it."""
        self.started = not self.future.done()
        return self.started

    def succeed(self, result: Any) -> None:
        """Note the result; `deliver` hands it over."""
        self.outcome = (True, result)

    def fail(self, error: BaseException) -> None:
        """Note the error; `deliver` hands it over."""
        self.outcome = (False, error)

    def settle(self) -> None:
        """Give the outcome to whoever still waits. In the event loop only."""
        if self.future.done():
            return
        good, value = self.outcome
        if good:
            self.future.set_result(value)
        else:
            self.future.set_exception(value)


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
