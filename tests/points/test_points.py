"""A fault at every point of every verb: what is left is whole, what is said of it true, and the next call works."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from sessionstore import DocumentRepository, SessionRepository, SessionStoreError, StorageFullError, StoreSettings
from sessionstore.verification import verify
from tests.contract._verbs import ABOUT_THE_HANDLE, public
from tests.points.verbs import CASES, READS, Case, plain
from tests.support.faults_counts import FULL, figure
from tests.support.points import NEVER, Fault

if TYPE_CHECKING:
    from tests.points.behind import State
    from tests.points.conftest import Bench

LEFT = "the caller left"
PROBE = "probe"
SAY = {"role": "user", "content": "next"}


@dataclass
class Clean:
    """What a verb does where nothing happens.

    Attributes:
        between: what there is once the call has happened and the cap has not been kept yet.
        sent: its points, by name.
    """

    answer: Any
    before: State
    after: State
    between: State
    sent: tuple[str, ...]

    def allows(self, state: State) -> bool:
        """Whether a call has happened whole or not at all."""
        return state in (self.before, self.after, self.between)


async def _answer(bench: Bench, case: Case) -> Any:
    """What the caller gets: an answer as plain data, or an error."""
    try:
        return await bench.points.call(case.answer(bench.repository))
    except Exception as error:  # noqa: BLE001  # any may be wrong: `_judge` says which
        return error
    except asyncio.CancelledError:
        return LEFT


async def _sound(bench: Bench) -> State:
    """What there is; `verify` finds nothing wrong in it, nor in what a fault leaves, as that must be the same."""
    assert [str(finding) async for finding in verify(bench.repository, all_tenants=True)] == []
    return await bench.tables.state()


async def _clean(bench: Bench, case: Case) -> Clean:
    between = None
    if case.in_two and bench.on_postgres:
        await _answer(bench, Case(case.name, case.run, StoreSettings()))
        between = await _sound(bench)
        await bench.tables.restore()
    before = await _sound(bench)
    bench.points.arm(0, None, NEVER)
    answer = plain(await _answer(bench, case))
    sent = tuple(bench.points.sent)
    after = await _sound(bench)
    return Clean(answer, before, after, between or after, sent)


class Meeting(NamedTuple):
    """A call that meets a fault."""

    case: Case
    clean: Clean
    fault: Fault
    at: int
    pause: float

    async def wrong(self, bench: Bench) -> str:
        """Let it happen; returns what is wrong with what comes of it."""
        points = bench.points
        points.arm(self.at, self.fault, self.pause)
        happened = points.happened
        answer = await _answer(bench, self.case)
        points.disarm()
        await bench.settled()
        wrong = self.judge(answer, await bench.tables.state())
        if points.happened != happened + 1:
            wrong += f"; it met {points.happened - happened} faults"
        if await bench.repository.append(PROBE, SAY, create=True) != [0] or not await bench.repository.exists(PROBE):
            wrong += "; the next call does not work"
        await bench.tables.restore()
        place = f"{self.at} of {len(self.clean.sent)} ({self.clean.sent[self.at - 1]})"
        return f"{self.fault} at {place}, pause {self.pause}: {wrong}" if wrong else ""

    def judge(self, answer: Any, state: State) -> str:
        """What is wrong with an answer, and with what it leaves."""
        if not self.clean.allows(state):
            return f"neither before nor after: {answer!r}"
        if answer == LEFT:
            return "" if self.fault.leaves else "the caller was cancelled"
        if plain(answer) == self.clean.answer:
            return "" if state in {self.clean.after, self.clean.between} else "it was said to have happened"
        if not isinstance(answer, SessionStoreError) or self.fault.leaves:
            return f"answered {answer!r}"
        return self._judge_error(answer, state)

    def _judge_error(self, error: SessionStoreError, state: State) -> str:
        unknown = getattr(error, "maybe_committed", False)
        if state != self.clean.before and not self.case.in_batches and not unknown:
            return f"it happened, and {error!r} was raised"
        safe = self.case.name in READS or (self.fault.definite and not unknown)
        return f"it was not tried again: {error!r}" if self.fault.retried and safe and self.pause != NEVER else ""


def _pauses(fault: Fault) -> tuple[float, ...]:
    """Let what is tried again once succeed and once not."""
    return (0.0, NEVER) if fault.retried and (fault.name == "busy" or FULL) else (0.0,)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_every_point(bench: Bench, case: Case, request: pytest.FixtureRequest) -> None:
    """P2, P3, P4: whatever happens wherever, a call has happened whole or not at all, and says so."""
    clean = await _clean(bench, case)
    await bench.tables.restore()
    assert clean.sent
    wrong = []
    for fault in bench.faults:
        for pause in _pauses(fault):
            for at in range(1, len(clean.sent) + 1):
                wrong += [await Meeting(case, clean, fault, at, pause).wrong(bench)]
    if bench.on_postgres:
        for fault in bench.faults_of_connecting:
            bench.disconnect()
            wrong += [await Meeting(case, clean, fault, 1, 0.0).wrong(bench)]
    assert [line for line in wrong if line] == []
    figure(request, faults=bench.points.happened)


@pytest.mark.parametrize("name", ["exists", "snapshot", "append"])
async def test_a_begin_that_fails(bench: Bench, name: str) -> None:
    """F14, P11: the error is one of ours then too, and the next call works."""
    (case,) = (case for case in CASES if case.name == name)
    clean = await _clean(bench, case)
    await bench.tables.restore()
    begins = [at for at, sent in enumerate(clean.sent, start=1) if sent.startswith("BEGIN")]
    full = next(fault for fault in bench.faults if fault.name == "full")
    for at in begins:
        bench.points.arm(at, full, NEVER)
        answer = await _answer(bench, case)
        assert isinstance(answer, StorageFullError), repr(answer)
        assert await bench.repository.exists(PROBE) is False


def test_no_verb_is_missing() -> None:
    """P4: every public verb is among the cases."""
    words = {case.name.removeprefix("all: ").removeprefix("documents: ") for case in CASES}
    verbs = (public(SessionRepository) | public(DocumentRepository)) - ABOUT_THE_HANDLE
    assert {verb for verb in verbs if not any(word.replace(" ", "_").startswith(verb) for word in words)} == {
        "replace_messages"
    }
