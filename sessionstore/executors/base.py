"""What all executors share: the deadline of a call, its retries, and the walk through a unit."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from abc import ABC, abstractmethod
from typing import Any, Final, Generic, Protocol, TypeVar

from sessionstore import telemetry
from sessionstore.dialects.base import Call, Dialect, Rows
from sessionstore.errors import InvalidArgumentError, SessionStoreError, StoreTimeoutError, TransientStoreError
from sessionstore.executors.guarantees import check_database
from sessionstore.limits import RETRY_FIRST_SECONDS, RETRY_MAX_SECONDS
from sessionstore.units.store import check_schema
from sessionstore.units.unit import RunInstead, Unit

T = TypeVar("T")
_log: Final = logging.getLogger("sessionstore")


class Progress(Generic[T]):
    """A unit on its way: the statement to execute next, or the result.

    It leaves only the executing to its users, which do it in a thread or in a coroutine.
    """

    __slots__ = ("_steps", "call", "result")

    def __init__(self, unit: Unit[T], dialect: Dialect) -> None:
        self._steps = unit.steps(dialect)
        self.result: T
        self.call: Call | None
        self.send(None)

    def send(self, rows: Rows | None) -> None:
        """Hand over the rows of the statement; None to begin."""
        try:
            self.call = self._steps.send(rows)  # type: ignore[arg-type]
        except StopIteration as done:
            self.call = None
            self.result = done.value

    def throw(self, error: Exception) -> None:
        """Tell that the statement failed; raises what the unit makes of it."""
        try:
            self.call = self._steps.throw(error)
        except StopIteration as done:
            self.call = None
            self.result = done.value


class Deadline:
    """When a call must have ended, by the clock of the event loop."""

    __slots__ = ("at", "loop")

    def __init__(self, seconds: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.at = self.loop.time() + seconds

    @property
    def left(self) -> float:
        """Seconds left; not positive once it has passed."""
        return self.at - self.loop.time()


class Listener(Protocol):
    """Whoever follows changes as they happen."""

    def touched(self, tenant: str, session_id: str | None) -> None:
        """A unit on a session has been committed, or on some of a tenant. Called in any event loop."""

    def close(self, owner: object) -> None:
        """Tell those who follow on behalf of an owner that it is closed. Called in any event loop."""


class Executor(ABC):
    """Runs units on one database."""

    migrates_itself = False

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.checked = False
        self.gone = False
        self.listeners: dict[asyncio.AbstractEventLoop, Listener] = {}
        """Who wants to know what has been changed through this executor, one for an event loop."""
        self._process = os.getpid()

    async def open(self, deadline: Deadline) -> None:
        """Check once that the database's schema is one this code can work with, and that its promises can hold.

        Raises:
            SchemaOutOfDateError: it is not.
            SessionStoreError: they cannot.
        """
        self._refuse_after_fork()
        if not self.checked:
            facts, _ = await self._retried(check_schema(), deadline)
            check_database(facts, row_level_security=self.dialect.row_level_security)
            self.checked = True

    def _refuse_after_fork(self) -> None:
        if os.getpid() != self._process:
            raise InvalidArgumentError(
                "this engine was in use before the process forked; make another one, or dispose of it with close=False"
            )

    def _enter(self, _loop: asyncio.AbstractEventLoop) -> None:
        """Belong to an event loop, where that matters."""
        self._refuse_after_fork()

    async def look(self, unit: Unit[T], deadline: Deadline) -> T:
        """Run a unit that only reads, whatever revision the database is at.

        Raises:
            SessionStoreError: of the unit, or translated from the driver's.
        """
        self._enter(deadline.loop)
        return (await self._retried(unit, deadline))[0]

    async def run(self, unit: Unit[T], deadline: Deadline) -> T:
        """Run a unit, and the one that follows it, within the deadline.

        Raises:
            SessionStoreError: of the unit, or translated from the driver's.
        """
        if not self.checked or os.getpid() != self._process:
            await self.open(deadline)
        result, unit = await self._retried(unit, deadline)
        if self.listeners:
            self._tell(unit, result)
        if unit.then is not None and not self.dialect.one_writer and (following := unit.then(result)) is not None:
            try:
                await self._retried(following, deadline)
                self._tell(following, None)
            except TransientStoreError as error:
                error.maybe_committed = True  # the unit itself has been
                raise
            except SessionStoreError as error:
                # The unit has happened, and no error may deny it. The next one that is followed so makes up for this.
                fields = {"event": "sessionstore.follow_up_failed", "unit": unit.name, "error": type(error).__name__}
                _log.error("what follows %s failed: %s", unit.name, error, extra=fields)
        return result

    def _tell(self, unit: Unit[Any], result: Any) -> None:
        """Tell who listens what a unit has changed, with the one that followed it where both were one."""
        following = unit.then(result) if unit.then is not None and self.dialect.one_writer else None
        for each in (unit, following):
            if each is not None and each.touches is not None:
                for listener in list(self.listeners.values()):
                    listener.touched(*each.touches)

    async def _retried(self, unit: Unit[T], deadline: Deadline) -> tuple[T, Unit[T]]:
        """Try again what is safe to try again, until the deadline; gives the unit that ran in the end."""
        pause = RETRY_FIRST_SECONDS
        unknown = False  # once a try may have happened, no later one can say that nothing has
        while True:
            try:
                return await self._attempt(unit, deadline), unit
            except RunInstead as other:
                unit = other.unit
                if deadline.left <= 0:
                    changing = "the session changed hands faster than the call could follow"
                    raise StoreTimeoutError(changing, maybe_committed=unknown) from None
            except TransientStoreError as error:
                unknown = error.maybe_committed = error.maybe_committed or unknown
                safe = unit.kind.reads or unit.repeatable or not error.maybe_committed
                wait = random.uniform(0, pause)  # noqa: S311  # jitter, not a secret
                if isinstance(error, StoreTimeoutError) or not safe or deadline.left <= wait:
                    raise
                telemetry.count(telemetry.Counter.RETRIES, error=type(error).__name__, database=self.dialect.name)
                await asyncio.sleep(wait)
                pause = min(pause * 2, RETRY_MAX_SECONDS)

    @abstractmethod
    async def _attempt(self, unit: Unit[T], deadline: Deadline) -> T:
        """Run a unit once: whole or not at all."""

    def stop(self) -> None:
        """Take no more calls; what is held is let go of in the background."""
        self.gone = True

    async def close(self) -> None:  # noqa: B027  # not every executor holds something
        """Let go of everything held. Calls under way end first."""
