"""Backfills: columns that follow from values are right again, whatever happens meanwhile, and nothing else changes."""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import InvalidArgumentError, NewMessage, SessionRepository, StoreTimeoutError
from sessionstore.backfill import JOBS, Backfill, backfill, backfills
from sessionstore.dialects.base import Bound, Call, Dialect
from sessionstore.statements import backfill as statements
from sessionstore.units import backfill as units
from sessionstore.units.unit import Unit
from sessionstore.verification import verify
from tests.contract._own import dump
from tests.migrations.processes import start
from tests.support.planting import build, say
from tests.support.repositories import execute

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sessionstore.units.unit import Steps

DAMAGE = """
    UPDATE sessionstore_messages
    SET plain = NOT plain, seed_id = 'wrong', phase_reached = NULL, evaluation_passed = NULL;
    UPDATE sessionstore_messages SET role = 'wrong' WHERE session_id <> 'odd';
    UPDATE sessionstore_metadata SET plain = NOT plain, value_key = 'wrong'
"""
MESSAGES = 2 * (6 + 5 + 3 + 1200 + 1 + 1)
VALUES = 2 * 3


@pytest.fixture
async def store(lasting_url: str) -> AsyncIterator[SessionRepository]:
    """A healthy store of two tenants."""
    await build(lasting_url)
    async with SessionRepository.connect(lasting_url) as sessions:
        yield sessions


async def damage(sessions: SessionRepository) -> None:
    for statement in DAMAGE.split(";"):
        await execute(sessions, statement)


async def everything(sessions: SessionRepository) -> dict[str, Any]:
    """All rows but those of the backfills themselves."""
    return {name: rows for name, rows in (await dump(sessions)).items() if name != "sessionstore_backfills"}


async def test_every_column_is_right_again(store: SessionRepository) -> None:
    """P8: of all tenants, and no row differs from what it was before the damage."""
    before = await everything(store)
    await damage(store)
    assert [finding async for finding in verify(store, all_tenants=True)]
    told: list[Backfill] = []
    done = await backfill(store, "message-columns", on_progress=told.append)
    assert (done.seen, done.changed, done.unreadable) == (MESSAGES, MESSAGES, 0)
    assert [each.seen for each in told] == [*sorted({each.seen for each in told} | {0, MESSAGES}), MESSAGES]
    assert told[-1] == done
    assert done.finished_at is not None
    assert done.started_at <= done.updated_at <= done.finished_at
    done = await backfill(store, "metadata-columns")
    assert (done.seen, done.changed) == (VALUES, VALUES)
    assert await everything(store) == before
    assert [finding async for finding in verify(store, all_tenants=True)] == []


async def test_where_nothing_is_wrong_nothing_changes(store: SessionRepository) -> None:
    """P8: and a finished one stays finished until it is restarted."""
    before = await everything(store)
    done = await backfill(store, "message-columns")
    assert (done.seen, done.changed) == (MESSAGES, 0)
    await damage(store)
    assert await backfill(store, "message-columns") == done
    again = await backfill(store, "message-columns", restart=True)
    assert (again.seen, again.changed) == (MESSAGES, MESSAGES)
    await backfill(store, "metadata-columns")
    assert await everything(store) == before
    assert [each.job for each in await backfills(store)] == sorted(JOBS)


async def test_an_empty_store(lasting_url: str) -> None:
    """P8: there is nothing to do, and that is done at once."""
    async with SessionRepository.connect(lasting_url) as sessions:
        assert await backfills(sessions) == []
        for job in JOBS:
            done = await backfill(sessions, job)
            assert (done.seen, done.changed, done.finished_at is not None) == (0, 0, True)


async def test_a_value_that_is_no_object_is_told_and_left(store: SessionRepository) -> None:
    """P8: never skipped in silence."""
    await execute(store, "UPDATE sessionstore_messages SET body = '[1]' WHERE session_id = 'long' AND position = 7")
    done = await backfill(store, "message-columns")
    assert (done.seen, done.changed, done.unreadable) == (MESSAGES, 0, 2)


@pytest.mark.processes
@pytest.mark.parametrize("within", [False, True], ids=["between", "within"])
@pytest.mark.parametrize("batches", [0, 2, 9])
async def test_killed_and_resumed(store: SessionRepository, lasting_url: str, batches: int, within: bool) -> None:
    """P6: `kill -9` after so many batches, or within the next; the next call looks at every row once, at none twice."""
    before = await everything(store)
    await damage(store)
    process = await start("-m", "tests.contract._backfiller", lasting_url)
    assert process.stdout is not None
    assert process.stdin is not None
    for _ in range(batches):
        assert await process.stdout.readline() == b"batch\n"
        process.stdin.write(b"go\n")
    assert await process.stdout.readline() == b"batch\n"
    if within:
        process.stdin.write(b"go\n")
        await process.stdin.drain()
    process.kill()
    await process.communicate()
    [left] = await backfills(store)
    assert left.finished_at is None
    assert left.seen in ({100 * batches, 100 * (batches + 1)} if within else {100 * batches})
    done = await backfill(store, "message-columns")
    assert (done.seen, done.changed) == (MESSAGES, MESSAGES)
    assert done.started_at == left.started_at
    await backfill(store, "metadata-columns")
    assert await everything(store) == before


async def test_a_batch_that_failed_left_nothing(store: SessionRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    """P4: neither its changes nor its progress; the next call does it."""
    await damage(store)
    damaged = await everything(store)

    def steps_of(job: str, *, limit: int) -> Unit[Any]:
        whole = advance(job, limit=limit)

        def steps(db: Dialect) -> Steps[Any]:
            yield from whole.steps(db)
            raise StoreTimeoutError("it did not end in time")

        return whole._replace(steps=steps)

    advance = units.advance
    with monkeypatch.context() as patched:
        patched.setattr(units, "advance", steps_of)
        with pytest.raises(StoreTimeoutError):
            await backfill(store, "message-columns")
    assert await everything(store) == damaged
    assert [each.seen for each in await backfills(store)] == [0]
    assert (await backfill(store, "message-columns")).changed == MESSAGES


async def test_several_at_once(store: SessionRepository, lasting_url: str) -> None:
    """P2: they share the work; each row is looked at once."""
    await damage(store)

    async def work() -> Backfill:
        async with SessionRepository.connect(lasting_url) as own:
            return await backfill(own, "message-columns", batch_rows=50)

    done = await asyncio.gather(*(work() for _ in range(4)))
    assert {(each.seen, each.changed) for each in done} == {(MESSAGES, MESSAGES)}


async def test_beside_a_service(store: SessionRepository, lasting_url: str) -> None:
    """P8: what is appended, rewritten and deleted meanwhile is as those writers made it."""
    await damage(store)
    stop = asyncio.Event()

    async def serve(sessions: SessionRepository) -> None:
        at = 0
        while not stop.is_set():
            at += 1
            marked = NewMessage(say("user", at, seed_id=f"s{at}"), message_id=f"x{at}")
            await sessions.append("talk", marked)
            await sessions.replace_messages("long", [say("tool", at, phase_reached="9")] * 300)
            await sessions.set_metadata("talk", {"n": at, "\U0001f600": "\ud800"})
            await sessions.delete("trimmed")

    async with SessionRepository.connect(lasting_url, tenant="other") as own:
        service = asyncio.create_task(serve(own))
        for job in JOBS:
            await backfill(store, job, batch_rows=20)
            await backfill(store, job, batch_rows=20, restart=True)
        stop.set()
        await service
    assert [finding async for finding in verify(store, all_tenants=True)] == []


async def test_rewritten_between_the_look_and_the_change(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: a row that another transaction has made anew under the same key keeps what that one wrote."""
    advance = units.advance

    async def rewrite() -> None:
        async with SessionRepository.connect(postgres_database) as other:
            await other.replace_messages("s", [say("tool", at, seed_id="new") for at in range(9)])

    def steps_of(job: str, *, limit: int) -> Unit[Any]:
        whole = advance(job, limit=limit)

        def steps(db: Dialect) -> Steps[Any]:
            walk, given = whole.steps(db), None
            while True:
                try:
                    call = walk.send(given)  # type: ignore[arg-type]
                except StopIteration as done:
                    return done.value
                if call.statement is statements.CHANGE_MESSAGES:
                    thread = threading.Thread(target=asyncio.run, args=[rewrite()])
                    thread.start()
                    thread.join()
                given = yield call

        return whole._replace(steps=steps)

    async with SessionRepository.connect(postgres_database) as sessions:
        await sessions.append("s", *[say("user", at, seed_id="old") for at in range(9)], create=True)
        await execute(sessions, "UPDATE sessionstore_messages SET seed_id = 'wrong'")
        monkeypatch.setattr(units, "advance", steps_of)
        await backfill(sessions, "message-columns")
        assert [finding async for finding in verify(sessions)] == []
        assert {message.body["seed_id"] for message in await sessions.messages("s")} == {"new"}


async def test_large_rows_make_small_batches(store: SessionRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    """P10: a batch is bounded in bytes too."""
    monkeypatch.setattr(units, "CHUNK_BYTES", 1000)
    seen: list[int] = []
    await backfill(store, "message-columns", on_progress=lambda so_far: seen.append(so_far.seen))
    steps = [after - before for before, after in itertools.pairwise(seen)]
    assert max(steps) < 30
    assert seen[-1] == MESSAGES


async def test_tenants_without_such_rows_cost_nothing(lasting_url: str) -> None:
    """P10: however many there are."""
    sent: list[str] = []
    async with SessionRepository.connect(lasting_url) as sessions:
        for number in range(30):
            await sessions.for_tenant(f"t{number:02}").create("s")
        await sessions.for_tenant("t15").set_metadata("s", {"k": 1})
        bind = Dialect.bind

        def noting(db: Dialect, call: Call) -> Bound:
            sent.append(call.statement.name)
            return bind(db, call)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Dialect, "bind", noting)
            assert (await backfill(sessions, "metadata-columns")).seen == 1
    assert len(sent) < 20


@pytest.mark.parametrize(
    ("job", "options", "words"),
    [
        ("all", {}, "there is no backfill 'all'; there are message-columns, metadata-columns"),
        ("message-columns", {"batch_rows": 0}, "batch_rows must be"),
        ("message-columns", {"batch_rows": 10_001}, "batch_rows must be"),
        ("message-columns", {"batch_rows": True}, "batch_rows must be"),
        ("message-columns", {"pause_seconds": -1}, "pause_seconds must be"),
        ("message-columns", {"pause_seconds": float("nan")}, "pause_seconds must be"),
    ],
)
async def test_what_cannot_be_is_refused(
    store: SessionRepository, job: str, options: dict[str, Any], words: str
) -> None:
    """F14: before anything is written."""
    with pytest.raises(InvalidArgumentError, match=words):
        await backfill(store, job, **options)
    assert await backfills(store) == []


async def test_not_within_a_transaction(joined: SessionRepository) -> None:
    """X08: it commits by itself."""
    with pytest.raises(InvalidArgumentError, match="within"):
        await backfill(joined, "message-columns")
