"""A fault at every point of calls that leave together, and of opening: each caller hears what became of its own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import SessionRepository, SessionStoreError
from sessionstore.errors import TransientStoreError
from tests.concurrency.verbs import ID
from tests.support.faults_counts import figure
from tests.support.points import NEVER, Fault, raised

if TYPE_CHECKING:
    from tests.points.conftest import Bench
    from tests.support.points import Points

TOGETHER = 4
"""Calls that wait while one is under way."""


def _say(name: str) -> dict[str, Any]:
    return {"role": "user", "name": name}


async def _append_together(bench: Bench, fault: Fault | None, at: int) -> list[Any]:
    """Append while an append is under way, so that the others wait for each other; what each caller gets."""
    bench.points.arm(at, fault, NEVER)
    gate = bench.points.hold()
    calls = [asyncio.ensure_future(bench.repository.append(ID, _say("0"), _say("0")))]
    while not bench.points.sent:  # noqa: ASYNC110  # the first of them has begun when it has sent something
        await asyncio.sleep(0.0005)
    calls += [
        asyncio.ensure_future(bench.repository.append(ID, _say(str(number)), _say(str(number))))
        for number in range(1, TOGETHER + 1)
    ]
    for _ in range(3):
        await asyncio.sleep(0)
    gate.set()
    return await asyncio.gather(*calls, return_exceptions=True)


def _judge(answers: list[Any], names: list[str]) -> list[str]:
    """What is wrong with what the callers were told, seen what is stored."""
    wrong = []
    stored = Counter(names)
    for number, answer in enumerate(answers):
        times = stored[str(number)]
        places = [at for at, name in enumerate(names) if name == str(number)]
        if isinstance(answer, list):
            if answer != places:
                wrong.append(f"call {number} was told {answer} and is stored at {places}")
        elif not isinstance(answer, SessionStoreError):
            wrong.append(f"call {number} got {answer!r}")
        elif times not in {0, 2} or (times and not getattr(answer, "maybe_committed", False)):
            wrong.append(f"call {number} is stored {times} times and was told {answer!r}")
    return wrong


async def _names(bench: Bench) -> list[str]:
    return [message.body.get("name", "") for message in await bench.repository.messages(ID)]


async def test_calls_that_leave_together(bench: Bench, request: pytest.FixtureRequest) -> None:
    """P2, P3, P4: whatever happens to the group, each caller is told the truth about its own call."""
    if _in_memory(bench):
        return  # nothing is grouped there
    answers = await _append_together(bench, None, 0)
    points = len(bench.points.sent)
    assert all(isinstance(answer, list) for answer in answers)
    if bench.on_postgres:
        assert points == 2, "the ones that waited leave as one"
    else:
        assert bench.points.sent.count("SAVEPOINT member") == TOGETHER
    await bench.settled()
    await bench.tables.restore()
    wrong = []
    met = Counter[str]()
    for fault in bench.faults:
        for at in range(1, 0 if fault.leaves else points + 1):
            answers = await _append_together(bench, fault, at)
            bench.points.disarm()
            await bench.settled()
            await bench.tables.state()
            found = _judge(answers, await _names(bench))
            wrong += [f"{fault} at {at} of {points}: {line}" for line in found]
            met.update(type(answer).__name__ for answer in answers)
            await bench.tables.restore()
    assert wrong == []
    assert len(met) > 1
    figure(request, faults=bench.points.happened)


def _full_then_failing(points: Points, connection: Any, sql: str, send: Any) -> Any:
    """Undo the group, let the first of its members be stored alone, and let the next one not begin."""
    alone = points.happened_to.count("COMMIT")
    points.happened_to.append(sql)
    points.at = len(points.sent) + 1
    if len(points.happened_to) == 1:
        return raised(sqlite3.SQLITE_FULL, undone=True)(points, connection, sql, send)
    if alone and sql.startswith("BEGIN"):
        points.disarm()
        return raised(sqlite3.SQLITE_IOERR_READ)(points, connection, sql, send)
    return send()


async def test_a_group_that_fails_twice(bench: Bench) -> None:
    """P4: a failure of one member on its own takes nothing back from those that were stored before it."""
    if bench.on_postgres or _in_memory(bench):
        return  # there are no such groups
    await _append_together(bench, None, 0)
    at = bench.points.sent.index("SAVEPOINT member") + 2  # the statement after it
    await bench.settled()
    await bench.tables.restore()
    answers = await _append_together(bench, Fault("twice", _full_then_failing), at)
    bench.points.disarm()
    await bench.settled()
    assert any(isinstance(answer, SessionStoreError) for answer in answers)
    assert _judge(answers, await _names(bench)) == []


def _in_memory(bench: Bench) -> bool:
    return bench.repository._shared.engine.url.database is None


async def test_opening(points_url: str, bench: Bench, request: pytest.FixtureRequest) -> None:
    """P4, F14: a fault anywhere on the way to the first call, after which the same repository works."""

    async def first(at: int, fault: Fault | None) -> Any:
        bench.points.arm(at, fault, NEVER)
        repository = SessionRepository.connect(points_url)
        answer: Any
        try:
            answer = await bench.points.call(repository.append("opened", _say("0"), create=True))
        except (SessionStoreError, sqlite3.Error) as error:
            answer = error
        except asyncio.CancelledError:
            answer = None
        bench.points.disarm()
        length = len(await repository.append("opened", _say("1"), create=True)) and await repository.length("opened")
        await repository.aclose()
        return answer, length

    if _in_memory(bench):
        return  # it is another one each time
    answer, length = await first(0, None)
    sent = tuple(bench.points.sent)
    assert (answer, length) == ([0], 2)
    assert len(sent) > 5
    wrong = []
    for fault in bench.faults:
        for at, name in enumerate(sent, start=1):
            if name == "connect":
                continue  # what may happen there is another list
            await bench.tables.restore()
            answer, length = await first(at, fault)
            told = {1: not isinstance(answer, list), 2: not isinstance(answer, SessionStoreError)}
            unknown = isinstance(answer, TransientStoreError) and answer.maybe_committed
            if not (told[length] or unknown) or isinstance(answer, sqlite3.Error):
                wrong.append(f"{fault} at {at} of {len(sent)} ({name}): {answer!r}, {length} messages")
    assert wrong == []
    figure(request, faults=bench.points.happened)
