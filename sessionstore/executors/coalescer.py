"""Appends to one session that wait for each other leave as one statement.

The row lock of a session lets one append through at a time. The first caller runs at once; what arrives meanwhile is
collected and driven by a task of its own, so that no caller waits for anybody's cancellation, and nobody serves others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

from sessionstore import telemetry
from sessionstore.errors import TransientStoreError
from sessionstore.executors.base import Deadline
from sessionstore.executors.pending import Pending
from sessionstore.limits import CHUNK_BYTES, COALESCED_ROWS
from sessionstore.units.unit import Joint, Unit

T = TypeVar("T")
Run = Callable[[Unit[Any], Deadline], Awaitable[Any]]


class Coalescer:
    """The lanes of a database: one for each session that is being appended to right now."""

    def __init__(self, run: Run, tasks: set[asyncio.Task[None]]) -> None:
        self._run = run
        self._tasks = tasks
        self._lanes: dict[Hashable, deque[Pending]] = {}

    async def run(self, unit: Unit[T], joint: Joint[T], deadline: Deadline) -> T:
        """Run a unit at once, or together with the others that wait in its lane."""
        key = joint.key
        waiting = self._lanes.get(key)
        if waiting is not None:
            call = Pending(unit, deadline)
            waiting.append(call)
            return await call.wait()  # type: ignore[no-any-return]
        self._lanes[key] = waiting = deque()
        try:
            return await self._run(unit, deadline)  # type: ignore[no-any-return]
        finally:
            if waiting:
                task = deadline.loop.create_task(self._drain(key, waiting))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                del self._lanes[key]

    async def _drain(self, key: Hashable, waiting: deque[Pending]) -> None:
        try:
            while waiting:
                calls = [call for call in _group(waiting) if call.start()]
                if calls:
                    await self._together(calls)
        finally:
            del self._lanes[key]

    async def _together(self, calls: list[Pending]) -> None:
        """Run calls as one; one by one again only after a failure that is definite."""
        deadline = max((call.deadline for call in calls), key=lambda deadline: deadline.at)
        joints = [call.unit.joint for call in calls if call.unit.joint is not None]
        if len(joints) > 1:
            telemetry.count(telemetry.Counter.COALESCED_GROUPS)
            telemetry.count(telemetry.Counter.COALESCED_APPENDS, len(joints))
            try:
                results = await self._run(joints[0].join([joint.part for joint in joints]), deadline)
            except TransientStoreError as error:
                if error.maybe_committed:
                    for call in calls:
                        call.fail(type(error)(error.message, maybe_committed=True))
                        call.settle()
                    return
            except Exception:  # noqa: BLE001, S110  # each gets an error of its own below
                pass
            else:
                for call, result in zip(calls, results, strict=True):
                    call.succeed(result)
                    call.settle()
                return
        await self._one_by_one(calls)

    async def _one_by_one(self, calls: list[Pending]) -> None:
        for call in calls:
            if call.future.done():
                continue  # its caller has left, and it has not happened
            try:
                call.succeed(await self._run(call.unit, call.deadline))
            except Exception as error:  # noqa: BLE001  # handed to whoever waits
                call.fail(error)
            call.settle()


def _group(waiting: deque[Pending]) -> list[Pending]:
    calls = [waiting.popleft()]
    rows, size = calls[0].unit.rows, calls[0].unit.size
    while waiting:
        rows, size = rows + waiting[0].unit.rows, size + waiting[0].unit.size
        if rows > COALESCED_ROWS or size > CHUNK_BYTES:
            break
        calls.append(waiting.popleft())
    return calls
