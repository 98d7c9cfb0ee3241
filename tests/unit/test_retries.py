"""What is tried again inside a call, how often, and what the caller hears in the end; without a database."""

from __future__ import annotations

import asyncio
import os
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from sessionstore import (
    CorruptStoreError,
    InvalidArgumentError,
    NewMessage,
    ReadOnlyStoreError,
    SessionNotFoundError,
    SessionRepository,
    SessionStoreError,
    StorageFullError,
    StoreBusyError,
    StoreSettings,
    StoreTimeoutError,
    StoreUnavailableError,
)
from sessionstore.batch import Batch
from sessionstore.dialects import dialect_of
from sessionstore.executors import base
from sessionstore.executors.base import Deadline, Executor
from sessionstore.limits import RETRY_FIRST_SECONDS, RETRY_MAX_SECONDS
from sessionstore.units.messages import Append, Appended
from sessionstore.units.unit import Kind, RunInstead, Unit

if TYPE_CHECKING:
    from collections.abc import Callable

POSTGRES = dialect_of("postgresql", "asyncpg")
SECONDS = 10.0
DONE = Appended([0])
"""The result of a unit."""


def unit(kind: Kind, **facts: Any) -> Unit[Any]:
    """A unit of a kind; what it does does not matter here."""
    return Unit("unit", kind, lambda _: iter(()), **facts)  # type: ignore[arg-type, return-value]


def append(*ids: str | None) -> Unit[Any]:
    """The unit of an append of messages with these ids."""
    messages = [NewMessage({"role": "user"}, message_id=message_id) for message_id in ids]
    return Append("", "s", Batch.of(messages, StoreSettings())).unit()


UNITS: dict[str, Unit[Any]] = {
    "read": unit(Kind.READ),
    "snapshot": unit(Kind.SNAPSHOT),
    "write": unit(Kind.WRITE),
    "transaction": unit(Kind.TRANSACTION),
    "append with ids": append("a", "b"),
    "append with some ids": append("a", None),
    "append without ids": append(None),
}
SAFE = {"read", "snapshot", "append with ids"}
"""What may be done twice."""

ERRORS: dict[str, Callable[[], SessionStoreError]] = {
    "busy": StoreBusyError,
    "away": StoreUnavailableError,
    "away, unknown": lambda: StoreUnavailableError(maybe_committed=True),
    "busy, unknown": lambda: StoreBusyError(maybe_committed=True),
    "late": StoreTimeoutError,
    "late, unknown": lambda: StoreTimeoutError(maybe_committed=True),
    "full": StorageFullError,
    "read-only": ReadOnlyStoreError,
    "damaged": CorruptStoreError,
    "missing": lambda: SessionNotFoundError("s"),
    "other": SessionStoreError,
}


class Scripted(Executor):
    """An executor whose tries end as a script says; after its end they succeed."""

    def __init__(self, *script: Exception | Any) -> None:
        super().__init__(POSTGRES)
        self.checked = True
        self.script = list(script)
        self.tried: list[Unit[Any]] = []

    async def _attempt(self, unit: Unit[Any], deadline: Deadline) -> Any:
        self.tried.append(unit)
        outcome = self.script.pop(0) if self.script else DONE
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class Clock:
    """Time that passes only in pauses, and in tries if they say so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ceilings: list[float] = []
        self.pauses: list[float] = []

    def time(self) -> float:
        return self.now

    def uniform(self, low: float, high: float) -> float:
        assert low == 0, "without the small ones there is no jitter to speak of"
        self.ceilings.append(high)
        return high

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def deadline(self) -> Deadline:
        made = Deadline(SECONDS)
        made.loop, made.at = self, SECONDS  # type: ignore[assignment]
        return made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time that the executor sees."""
    made = Clock()
    monkeypatch.setattr(base, "random", made)
    monkeypatch.setattr(base, "asyncio", SimpleNamespace(sleep=made.sleep, get_running_loop=asyncio.get_running_loop))
    return made


@pytest.mark.parametrize("what", UNITS)
@pytest.mark.parametrize("how", ERRORS)
async def test_what_is_tried_again(clock: Clock, what: str, how: str) -> None:
    """P3, P4: what has surely not happened, and what may happen twice; never a timeout or what stays as it is."""
    error = ERRORS[how]()
    executor = Scripted(error, error)
    again = isinstance(error, (StoreBusyError, StoreUnavailableError)) and (not error.maybe_committed or what in SAFE)
    if again:
        assert await executor.run(UNITS[what], clock.deadline()) == DONE
    else:
        with pytest.raises(type(error)) as caught:
            await executor.run(UNITS[what], clock.deadline())
        assert caught.value is error
    assert len(executor.tried) == (3 if again else 1)


async def test_pauses_grow_and_end_in_time(clock: Clock) -> None:
    """P4: doubled up to the largest, with full jitter, and none that would end after the deadline."""
    executor = Scripted(*[StoreBusyError() for _ in range(1000)])
    with pytest.raises(StoreBusyError):
        await executor.run(UNITS["write"], clock.deadline())
    expected = [min(RETRY_FIRST_SECONDS * 2**at, RETRY_MAX_SECONDS) for at in range(len(clock.ceilings))]
    assert clock.ceilings == expected
    assert clock.pauses == expected[:-1]
    assert clock.now < SECONDS <= clock.now + expected[-1]


async def test_no_try_after_the_deadline(clock: Clock) -> None:
    """P4: a try that itself took all the time is the last one."""
    executor = Scripted(StoreUnavailableError())
    deadline = clock.deadline()
    clock.now = SECONDS
    with pytest.raises(StoreUnavailableError):
        await executor.run(UNITS["read"], deadline)
    assert clock.pauses == []


async def test_an_unknown_outcome_stays_unknown(clock: Clock) -> None:
    """P3: a repeated append whose first try may have happened never says that it has not."""
    for last in (StoreBusyError, StoreUnavailableError, StoreTimeoutError):
        executor = Scripted(StoreUnavailableError(maybe_committed=True), *[last() for _ in range(1000)])
        clock.now = 0.0
        with pytest.raises(last) as caught:
            await executor.run(UNITS["append with ids"], clock.deadline())
        assert caught.value.maybe_committed


async def test_a_unit_may_hand_over(clock: Clock) -> None:
    """P4: to another one, whose own rules hold from then on; and not for ever."""
    other = UNITS["append with ids"]
    executor = Scripted(RunInstead(other), StoreUnavailableError(maybe_committed=True))
    assert await executor.run(UNITS["write"], clock.deadline()) == DONE
    assert executor.tried == [UNITS["write"], other, other]
    executor = Scripted(RunInstead(other))
    deadline = clock.deadline()
    clock.now = SECONDS
    with pytest.raises(StoreTimeoutError) as caught:
        await executor.run(UNITS["write"], deadline)
    assert not caught.value.maybe_committed


@pytest.mark.parametrize("how", ["busy", "away", "late", "full", "other"])
async def test_what_follows_has_its_own_tries(clock: Clock, how: str) -> None:
    """P4: where it fails for good, what went before it has happened all the same, and no error denies it."""
    following = unit(Kind.WRITE, repeatable=True)
    first = unit(Kind.WRITE, then=lambda _: following)
    executor = Scripted(DONE, StoreBusyError(), DONE)
    assert await executor.run(first, clock.deadline()) == DONE
    assert executor.tried == [first, following, following]
    executor = Scripted(DONE, *[ERRORS[how]() for _ in range(1000)])
    answers = list(await asyncio.gather(executor.run(first, clock.deadline()), return_exceptions=True))
    assert answers == [DONE] or getattr(answers[0], "maybe_committed", False), repr(answers)
    assert executor.tried[:2] == [first, following]
    assert first not in executor.tried[1:]


def test_only_these_units_may_happen_twice() -> None:
    """P3: an append all of whose messages carry ids."""
    repeatable = {name for name, each in UNITS.items() if each.repeatable}
    assert repeatable == {"append with ids"}


# --- where an executor does not belong --------------------------------------------------------------------------------


def _in_a_fork(call: Callable[[], Any]) -> str:
    """What a call says in a child process."""
    readable, writable = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons advise against what is tested here
        child = os.fork()
    if child == 0:
        try:
            text = repr(call())
        except BaseException as error:  # noqa: BLE001  # the parent reads it
            text = f"{type(error).__name__}: {error}"
        os.write(writable, text.encode())
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


async def test_after_a_fork(shared_url: str) -> None:
    """F14: threads and connections stay with the parent; a child that would use them is told so, and harms nothing."""
    async with SessionRepository.connect(shared_url) as sessions:
        await sessions.create("s")

        def elsewhere() -> Any:
            asyncio.events._set_running_loop(None)
            return asyncio.run(sessions.append("s", {"role": "user"}))

        said = _in_a_fork(elsewhere)
        assert said.startswith(InvalidArgumentError.__name__)
        assert "fork" in said
        assert await sessions.append("s", {"role": "user"}) == [0]


async def test_the_engine_goes_on_after_a_fork(shared_url: str) -> None:
    """F14: the error says how, and a child that does so works, without taking anything from its parent."""
    engine = create_async_engine(shared_url)
    sessions = SessionRepository(engine)
    await sessions.create("s")

    async def in_the_child() -> list[list[int]]:
        with pytest.raises(InvalidArgumentError, match="close=False"):
            await sessions.append("s", {"role": "user"})
        await engine.dispose(close=False)
        return [await sessions.append("s", {"role": "user"}) for _ in range(2)]

    def elsewhere() -> Any:
        asyncio.events._set_running_loop(None)
        return asyncio.run(in_the_child())

    assert _in_a_fork(elsewhere) == "[[0], [1]]"
    assert await sessions.append("s", {"role": "user"}) == [2]
    await engine.dispose()
