"""Many tasks on one database: what they may and may not see of each other."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest

from sessionstore import (
    NewMessage,
    PrunePolicy,
    SessionExistsError,
    SessionNotFoundError,
    SessionRepository,
    StoreSettings,
    Transcript,
    VersionConflictError,
)
from tests.concurrency.verbs import ID, OLD
from tests.concurrency.worker import batch
from tests.support.invariants import assert_sound, batch_faults

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from sessionstore import Message

CAP = 5


@pytest.fixture
async def repository(database_url: str) -> AsyncIterator[SessionRepository]:
    async with SessionRepository.connect(database_url) as opened:
        yield opened


async def gathered(*calls: Awaitable[Any]) -> list[Any]:
    """All results; the first error, if there is one, when all have ended."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


async def test_appends(database_url: str, repository: SessionRepository) -> None:
    """X02, P2: tasks that append to one session get contiguous batches that fill it without gaps."""
    await repository.create(ID)
    sizes = [1 + number % 5 for number in range(64)]
    given = await gathered(*(repository.append(ID, *batch(str(number), size)) for number, size in enumerate(sizes)))
    assert all(positions == list(range(positions[0], positions[0] + len(positions))) for positions in given)
    assert sorted(itertools.chain(*given)) == list(range(sum(sizes)))
    stored = await assert_sound(database_url, repository)
    assert batch_faults(stored.bodies(ID)) == []
    for number, positions in enumerate(given):
        assert stored.bodies(ID)[positions[0]]["batch"] == str(number)


async def test_appends_of_all_kinds(database_url: str, repository: SessionRepository) -> None:
    """X02, P3: appends with ids, with expectations and those that create mix with plain ones."""
    with_ids = [NewMessage(body, message_id=f"id-{at}") for at, body in enumerate(batch("ids", 3))]
    lost: list[VersionConflictError] = []

    async def expecting(number: int) -> None:
        try:
            await repository.append(ID, *batch(f"expecting-{number}", 2), expected_length=await repository.length(ID))
        except VersionConflictError as conflict:
            lost.append(conflict)

    await repository.append(ID, *batch("first", 1), create=True)
    calls: list[Awaitable[Any]] = []
    for number in range(12):
        calls.append(repository.append(ID, *batch(f"plain-{number}", 2)))
        calls.append(repository.append(ID, *with_ids))
        calls.append(expecting(number))
        calls.append(repository.append(ID, *batch(f"creating-{number}", 1), create=True))
    results = await gathered(*calls)
    assert len({tuple(positions) for positions in results[1::4]}) == 1
    stored = await assert_sound(database_url, repository)
    assert batch_faults(stored.bodies(ID)) == []
    assert len(stored.bodies(ID)) == 1 + 12 * 2 + 3 + (12 - len(lost)) * 2 + 12


async def test_expected_length_lets_one_through(database_url: str, repository: SessionRepository) -> None:
    """X03: of those that expect the same length exactly one appends."""
    await repository.create(ID)
    calls = (repository.append(ID, *batch(str(number), 2), expected_length=0) for number in range(12))
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [result for result in results if isinstance(result, list)] == [[0, 1]]
    assert sum(isinstance(result, VersionConflictError) for result in results) == 11
    await assert_sound(database_url, repository)


async def test_compare_and_set(database_url: str, repository: SessionRepository) -> None:
    """X03: compare-and-set loses no update, and the losers hear both numbers."""
    await repository.create(ID)

    conflicts: list[VersionConflictError] = []

    async def add() -> None:
        while True:
            session = await repository.get(ID)
            count: Any = session.metadata.get("count", 0)
            try:
                await repository.set_metadata(ID, {"count": count + 1}, expected_version=session.version)
            except VersionConflictError as conflict:
                conflicts.append(conflict)
            else:
                return

    await gathered(*(add() for _ in range(16)))
    assert all(conflict.expected < conflict.actual for conflict in conflicts)
    session = await repository.get(ID)
    assert (session.metadata["count"], session.version) == (16, 16)


async def test_open_of_one_new_id(database_url: str, repository: SessionRepository) -> None:
    """X04: concurrent opens of one new id make one row, and all get the same session."""
    calls = (repository.open(ID, title=str(number), metadata={"by": number}) for number in range(16))
    opened = await gathered(*calls)
    assert len({session.created_at for session in opened}) == 1
    assert len({session.title for session in opened}) == 1
    stored = await assert_sound(database_url, repository)
    assert [*stored.sessions] == [("", ID)]
    assert stored.metadata["", ID] == {"by": int(opened[0].title)}


async def test_open_beside_its_owner(database_url: str, repository: SessionRepository) -> None:
    """X04, O09: who opens without saying for whom is never refused, whoever else creates the session meanwhile."""
    for number in range(20):
        sessions = await gathered(
            repository.open(f"s{number}", user_id="owner"),
            repository.open(f"s{number}"),
            repository.open(f"s{number}", user_id="owner"),
        )
        assert {session.id for session in sessions} == {f"s{number}"}


async def test_create_of_one_new_id(database_url: str, repository: SessionRepository) -> None:
    """X04: concurrent creates of one new id let one through."""
    calls = (repository.create(ID, metadata={"by": number}) for number in range(12))
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(result, SessionExistsError) for result in results) == 11
    await assert_sound(database_url, repository)


async def test_cap_after_concurrent_creations(database_url: str, repository: SessionRepository) -> None:
    """X04: after concurrent opens, creates and forks have returned, exactly the cap is left."""
    capped = SessionRepository.connect(database_url, settings=StoreSettings(session_cap=CAP))
    if database_url == "sqlite+aiosqlite://":
        capped = SessionRepository(repository._shared.engine, settings=StoreSettings(session_cap=CAP))
    await repository.append("source", *batch("source", 4), create=True)
    unknown: set[str] = set()

    async def fork(new_id: str) -> None:
        try:
            await capped.fork("source", new_id=new_id)
        except SessionNotFoundError as error:
            unknown.add(error.session_id)

    calls: list[Awaitable[Any]] = []
    for number in range(10):
        calls += [capped.create(f"c{number}"), capped.open(f"o{number}"), fork(f"f{number}")]
        calls += [capped.append(f"a{number}", *batch("a", 2), create=True)]
    await gathered(*calls)
    assert unknown <= {"source"}  # evicted by the others meanwhile
    assert len((await assert_sound(database_url, repository)).sessions) == CAP
    await capped.aclose()


async def test_victim_among_equals(database_url: str, repository: SessionRepository) -> None:
    """H07: with equal recency the least id is evicted."""
    statement = "UPDATE sessionstore_sessions SET last_accessed_at = (SELECT min(last_accessed_at) FROM {0}) "
    for session_id in ("b", "C", "a", "é"):
        await repository.create(session_id)
    async with repository._shared.engine.begin() as connection:
        await connection.exec_driver_sql(statement.format("sessionstore_sessions"))
    capped = SessionRepository(repository._shared.engine, settings=StoreSettings(session_cap=3))
    await capped.create("new")
    stored = await assert_sound(database_url, repository)
    assert {session_id for _, session_id in stored.sessions} == {"b", "é", "new"}


async def test_forks_beside_writers(database_url: str, repository: SessionRepository) -> None:
    """P2: a fork is the source's prefix at one moment, however many append to it and trim it."""
    await repository.append(ID, *batch("first", 3), create=True)
    done = asyncio.Event()
    written = itertools.count()

    async def write() -> None:
        while not done.is_set():
            number = next(written)
            await repository.append(ID, *batch(str(number), 1 + number % 3))
            if number % 4 == 0:
                await repository.trim(ID, 5)

    async def fork() -> None:
        for _ in range(50):
            child = await repository.fork(ID)
            bodies = [message.body for message in await repository.messages(child.id)]
            assert len(bodies) == child.length
            assert child.fork_position == child.next_position

    writers = [asyncio.ensure_future(write()) for _ in range(3)]
    try:
        await gathered(*(fork() for _ in range(4)))
    finally:
        done.set()
        await gathered(*writers)
    stored = await assert_sound(database_url, repository)
    assert len(stored.sessions) == 201
    for _, child in stored.sessions:
        assert _torn_inside(stored.bodies(child)) == []


def _torn_inside(bodies: list[dict[str, Any]]) -> list[str]:
    """Faults of a history whose oldest batch may have been cut by a trim, but no other."""
    start = next((at for at, body in enumerate(bodies) if body["at"] == 0), len(bodies))
    return batch_faults(bodies[start:])


async def test_readers_beside_writers(database_url: str, repository: SessionRepository) -> None:
    """P2: every read is a prefix-consistent window, its batches whole, whatever is being written."""
    await repository.append(ID, *batch("first", 3), create=True)
    done = asyncio.Event()

    async def write(name: str) -> None:
        for number in range(25):
            await repository.append(ID, *batch(f"{name}-{number}", 1 + number % 4))

    async def read() -> int:
        longest = 0
        while not done.is_set():
            for messages in (await repository.messages(ID), list((await repository.snapshot(ID)).messages)):
                _check_window(messages)
                assert len(messages) >= longest
                longest = len(messages)
            window = await repository.messages(ID, last=7)
            assert [message.position for message in window] == list(
                range(window[0].position, window[0].position + len(window))
            )
            snapshot = await repository.snapshot(ID)
            assert snapshot.session.length == len(snapshot.messages)
        return longest

    readers = [asyncio.ensure_future(read()) for _ in range(3)]
    try:
        await gathered(*(write(name) for name in "abcd"))
    finally:
        done.set()
        await gathered(*readers)
    await assert_sound(database_url, repository)


def _check_window(messages: list[Message] | list[Any]) -> None:
    assert [message.position for message in messages] == list(range(len(messages)))
    assert batch_faults([message.body for message in messages]) == []


async def test_snapshots_beside_rewriting(database_url: str, repository: SessionRepository) -> None:
    """P2: a snapshot is of one moment: header and messages never disagree, even where history is rewritten."""
    await repository.append(ID, *batch("first", 6), create=True)
    done = asyncio.Event()

    async def rewrite() -> None:
        for number in range(40):
            await repository.replace_messages(ID, batch(str(number), 1 + number % 6))
            await repository.append(ID, *batch(f"more {number}", 2))
            await repository.trim(ID, 3)

    async def read() -> None:
        while not done.is_set():
            snapshot = await repository.snapshot(ID)
            session = snapshot.session
            positions = [message.position for message in cast("tuple[Message, ...]", snapshot.messages)]
            assert positions == list(range(session.first_position, session.next_position))

    readers = [asyncio.ensure_future(read()) for _ in range(3)]
    try:
        await rewrite()
    finally:
        done.set()
        await gathered(*readers)
    await assert_sound(database_url, repository)


async def test_prune_beside_writers(database_url: str, repository: SessionRepository) -> None:
    """P6, O17: a prune spares what is appended to or opened while it runs, and counts what it deleted."""
    ids = [f"session-{number:03}" for number in range(60)]
    for session_id in ids:
        await repository.save(Transcript.of(session_id, batch("old", 3), updated_at=OLD))
    used = random.Random(7).sample(ids, 20)
    policy = PrunePolicy(max_age=timedelta(days=7), max_sessions=None)
    alive: list[str] = []

    async def use(session_id: str) -> None:
        try:
            await repository.append(session_id, *batch("new", 2))
        except SessionNotFoundError:
            return  # the prune came first
        alive.append(session_id)

    pruned = (repository.prune(policy, batch_size=7) for _ in range(3))
    reports = await gathered(*pruned, *(use(session_id) for session_id in used))
    stored = await assert_sound(database_url, repository)
    assert {session_id for _, session_id in stored.sessions} == set(alive)
    assert sum(report.by_age for report in reports[:3]) == len(ids) - len(alive)
    for session_id in alive:
        assert Counter(body["batch"] for body in stored.bodies(session_id)) == {"old": 3, "new": 2}


async def test_batches_whole_or_not_at_all(database_url: str, repository: SessionRepository) -> None:
    """P2: concurrent deletes and re-creations never leave half a batch, or rows of a life before."""

    async def append(number: int) -> None:
        await repository.append(ID, *batch(str(number), 3), create=True)

    await gathered(*(repository.delete(ID) if number % 3 == 0 else append(number) for number in range(60)))
    stored = await assert_sound(database_url, repository)
    assert batch_faults(stored.bodies(ID)) == []
    await repository.delete(ID)
    await repository.create(ID)
    assert await repository.messages(ID) == []
