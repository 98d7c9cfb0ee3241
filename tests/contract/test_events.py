"""What happens to a session beside its messages is recorded once, in the order of commits, in the same transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from sessionstore import (
    InvalidArgumentError,
    InvalidMessageError,
    NewMessage,
    PrunePolicy,
    SessionEvent,
    SessionNotFoundError,
    SessionRepository,
    StoreSettings,
)
from tests.contract._watching import kinds
from tests.support.repositories import backdate, callers_engine, execute, on_postgresql, rows, say, talk

Verb = Callable[[SessionRepository], Awaitable[Any]]


async def _saved(sessions: SessionRepository, *others: Any, keep: int = 9) -> None:
    transcript = await sessions.snapshot("s")
    await sessions.save(replace(transcript, messages=(*transcript.messages[:keep], *others)))


VERBS: dict[str, tuple[Verb, list[str]]] = {
    "trim": (lambda s: s.trim("s", 2), ["trimmed"]),
    "trim to nothing": (lambda s: s.trim("s", 0), ["trimmed"]),
    "trim nothing": (lambda s: s.trim("s", 9), []),
    "truncate": (lambda s: s.truncate("s", 2), ["truncated"]),
    "truncate nothing": (lambda s: s.truncate("s", 9), []),
    "pop": (lambda s: s.pop("s"), ["truncated"]),
    "replace": (lambda s: s.replace_messages("s", talk(1)), ["replaced"]),
    "compact": (lambda s: s.compact("s", say("system", "all"), keep_last=1), ["compacted"]),
    "compact nothing": (lambda s: s.compact("s", say("system", "all"), keep_last=9), []),
    "set_metadata": (lambda s: s.set_metadata("s", {"k": 1}), ["metadata_changed"]),
    "update": (lambda s: s.update("s", title="new"), ["updated"]),
    "append": (lambda s: s.append("s", *talk(3)), []),
    "append with ids": (lambda s: s.append("s", NewMessage(say("user", "x"), message_id="m")), []),
    "append nothing": (lambda s: s.append("s"), []),
    "append or create": (lambda s: s.append("s", *talk(1), create=True), []),
    "open": (lambda s: s.open("s"), []),
    "fork": (lambda s: s.fork("s", new_id="child"), []),
    "save what is stored": (_saved, []),
    "save another history": (lambda s: _saved(s, say("user", "other"), keep=2), ["replaced"]),
    "save one more": (lambda s: _saved(s, say("user", "five")), []),
    "record_event": (lambda s: s.record_event("s", "mine"), ["mine"]),
}


@pytest.mark.parametrize("name", VERBS)
async def test_each_verb_records_what_it_did(every_way: SessionRepository, name: str) -> None:
    """Once, with the next number and where the session stands then; where it did nothing, nothing."""
    sessions, (verb, expected) = every_way, VERBS[name]
    await sessions.create("s")
    await sessions.append("s", *talk(4))
    await verb(sessions)
    created, *others = await sessions.events("s")
    session = await sessions.get("s")
    assert created.kind == "created"
    assert kinds(others) == expected
    assert [event.number for event in others] == list(range(1, len(expected) + 1))
    assert session.next_event == 1 + len(expected)
    for event in others:
        place = (event.generation, event.first_position, event.next_position)
        assert place == (session.generation, session.first_position, session.next_position)
        assert event.created_at == session.updated_at or name.startswith("save")  # which keeps a transcript's times


async def test_pop_of_nothing_records_nothing(sessions: SessionRepository) -> None:
    """And neither do a trim, a truncate and a compact of an empty session."""
    await sessions.create("s")
    await sessions.pop("s")
    await sessions.trim("s", 0)
    await sessions.truncate("s", 0)
    await sessions.compact("s", say("system", "x"), keep_last=0)
    assert kinds(await sessions.events("s")) == ["created"]


CREATING: dict[str, Verb] = {
    "create": lambda s: s.create("new", metadata={"k": 1}),
    "open": lambda s: s.open("new"),
    "append": lambda s: s.append("new", *talk(2), create=True),
    "append with ids": lambda s: s.append("new", NewMessage(say("user", "x"), message_id="m"), create=True),
    "append nothing": lambda s: s.append("new", create=True),
}


@pytest.mark.parametrize("name", CREATING)
async def test_a_new_session_begins_with_its_creation(every_way: SessionRepository, name: str) -> None:
    """Number 0, and once however often it is opened."""
    await CREATING[name](every_way)
    await every_way.open("new")
    await every_way.append("new", create=True)
    [event] = await every_way.events("new")
    assert (event.kind, event.number, event.payload) == ("created", 0, None)


async def test_a_saved_session_begins_with_its_creation(every_way: SessionRepository) -> None:
    """Saving what is not there creates it."""
    await every_way.create("s", metadata={"k": 1})
    await every_way.append("s", *talk(3))
    transcript = await every_way.snapshot("s")
    await every_way.delete("s")
    await every_way.save(transcript)
    assert kinds(await every_way.events("s")) == ["created"]


async def test_a_save_records_each_thing_it_changed(every_way: SessionRepository) -> None:
    """A rewritten history, columns and metadata: an event each, dense, in one transaction."""
    await every_way.create("s", title="old", metadata={"k": 1, "gone": 1})
    await every_way.append("s", *talk(3))
    transcript = await every_way.snapshot("s")
    session = replace(transcript.session, title="new", metadata={"k": 2})
    await every_way.save(replace(transcript, session=session, messages=(say("user", "else"),)))
    _, *events = await every_way.events("s")
    after = await every_way.get("s")
    assert sorted(kinds(events)) == ["metadata_changed", "replaced", "updated"]
    assert [event.number for event in events] == [1, 2, 3]
    assert {(event.generation, event.next_position) for event in events} == {(after.generation, after.next_position)}
    assert after.next_event == 4
    payloads = {event.kind: event.payload for event in events}
    assert payloads["updated"] == {"columns": ["title"]}
    assert payloads["metadata_changed"] == {"keys": ["k"], "removed": ["gone"]}


async def test_a_save_that_trims_says_so(every_way: SessionRepository) -> None:
    """What is gone at the front was trimmed, and nothing is rewritten."""
    await every_way.create("s")
    await every_way.append("s", *talk(3))
    transcript = await every_way.snapshot("s")
    await every_way.trim("s", 2)
    trimmed = await every_way.snapshot("s")
    await every_way.delete("s")
    await every_way.save(transcript)
    await every_way.save(trimmed)
    assert kinds(await every_way.events("s")) == ["created", "trimmed"]


async def test_a_fork_over_a_session_is_an_event_of_it(every_way: SessionRepository) -> None:
    """H19: one, after those it had."""
    await every_way.create("s")
    await every_way.append("s", *talk(3))
    await every_way.create("other")
    await every_way.append("other", say("user", "else"))
    await every_way.fork("other", new_id="s", replace=True)
    session, events = await every_way.get("s"), await every_way.events("s")
    assert kinds(events) == ["created", "forked"]
    assert events[-1].payload == {"parent_id": "other", "fork_position": 1}
    assert (events[-1].generation, session.next_event) == (session.generation, 2)
    assert kinds(await every_way.events("other")) == ["created"]


async def test_forks_say_whence_and_copy_no_events(every_way: SessionRepository) -> None:
    """H18, H19: one event in the child, with parent and place; none in the source."""
    await every_way.create("s")
    await every_way.append("s", *talk(4))
    await every_way.record_event("s", "mine", payload=1)
    child = await every_way.fork_at("s", 3)
    [event] = await every_way.events(child.id)
    assert (event.kind, event.number) == ("forked", 0)
    assert event.payload == {"parent_id": "s", "fork_position": 3}
    assert child.fork_position == 3
    assert kinds(await every_way.events("s")) == ["created", "mine"]


async def test_reset_keeps_only_its_own(every_way: SessionRepository) -> None:
    """H14: the numbers go on, and what was before is gone."""
    await every_way.create("s")
    await every_way.append("s", *talk(2))
    await every_way.record_event("s", "mine", payload="gone")
    await every_way.reset("s")
    [event] = await every_way.events("s")
    assert (event.kind, event.number) == ("reset", 2)
    assert await every_way.record_event("s", "mine") == 3


# --- the caller's own -----------------------------------------------------------------------------


async def test_numbers_are_dense_among_concurrent_writers(sessions: SessionRepository) -> None:
    """P2: in the order of commits, with appends and rewritings between them."""
    await sessions.create("s")

    async def write(at: int) -> int | None:
        if at % 3 == 0:
            await sessions.append("s", *talk(2))
            return None
        if at % 7 == 0:
            await sessions.trim("s", 1)
            return None
        return await sessions.record_event("s", "mine", payload=at)

    numbers = [number for number in await asyncio.gather(*map(write, range(60))) if number is not None]
    events = await sessions.events("s")
    assert [event.number for event in events] == list(range(len(events)))
    assert sorted(numbers) == [event.number for event in events if event.kind == "mine"]
    assert [event.next_position for event in events] == sorted(event.next_position for event in events)
    assert (await sessions.get("s")).next_event == len(events)


async def test_numbers_are_dense_among_handles(lasting_url: str) -> None:
    """P2: of different engines too; an uncommitted one holds the next back."""
    engine = callers_engine(lasting_url)
    async with SessionRepository(engine) as here, SessionRepository.connect(lasting_url) as there:
        await here.create("s")
        async with engine.connect() as transaction:
            assert await here.within(transaction).record_event("s", "first") == 1
            waiting = asyncio.create_task(there.record_event("s", "second"))
            assert kinds(await there.events("s")) == ["created"]
            await transaction.commit()
        assert await waiting == 2
        assert kinds(await here.events("s")) == ["created", "first", "second"]
    await engine.dispose()


async def test_a_rolled_back_event_never_was(lasting_url: str) -> None:
    """P4: nor has its number been used."""
    engine = callers_engine(lasting_url)
    async with SessionRepository(engine) as sessions:
        await sessions.create("s")
        async with engine.connect() as transaction:
            joined = sessions.within(transaction)
            await joined.record_event("s", "mine")
            await joined.update("s", title="x")
            assert kinds(await joined.events("s")) == ["created", "mine", "updated"]
            await transaction.rollback()
        assert kinds(await sessions.events("s")) == ["created"]
        assert await sessions.record_event("s", "mine") == 1
    await engine.dispose()


async def test_recording_moves_version_and_times(every_way: SessionRepository) -> None:
    """H09: as a change does, but history is not rewritten."""
    await every_way.create("s")
    before = await backdate(every_way, "s")
    await every_way.record_event("s", "mine")
    after = await every_way.get("s")
    assert after.version == before.version + 1
    assert after.updated_at > before.updated_at
    assert after.last_accessed_at > before.last_accessed_at
    assert after.generation == before.generation


async def test_reading_moves_nothing(every_way: SessionRepository) -> None:
    """H08: reading events is no use of a session."""
    await every_way.create("s")
    before = await backdate(every_way, "s")
    await every_way.events("s")
    assert await every_way.get("s") == before


async def test_events_are_read_page_by_page(every_way: SessionRepository) -> None:
    """`after` is exclusive, and a limit larger than a page is a page."""
    await every_way.create("s")
    for at in range(5):
        assert await every_way.record_event("s", f"kind-{at}", payload=at) == at + 1
    assert [event.number for event in await every_way.events("s", limit=2)] == [0, 1]
    assert [event.number for event in await every_way.events("s", after=1, limit=2)] == [2, 3]
    assert [event.number for event in await every_way.events("s", after=3)] == [4, 5]
    assert await every_way.events("s", after=5) == []
    assert await every_way.events("s", limit=0) == []
    assert len(await every_way.events("s", limit=10**9)) == 6


PAYLOADS: list[Any] = [
    *(None, True, False, 0, -0.0, 1, 1.0, 1e16, 10**16, 2**63, 10**40, -(2**64), 0.1, 5e-324),
    *("", "text", "\0", "\ud800", "a\x00b\udfff", "\u2028", '"\\', "🦊"),
    *([], {}, [None], {"z": 1, "a": [1.0, {"\ud800": "\0"}]}, {"": ""}, [[[[]]]], {"big": 2**70, "small": -0.0}),
]


@pytest.mark.parametrize("payload", PAYLOADS, ids=ascii)
async def test_payloads_come_back_equal(every_way: SessionRepository, payload: Any) -> None:
    """P8: in type, value, order of keys and sign."""
    await every_way.create("s")
    await every_way.record_event("s", "mine", payload=payload)
    event = (await every_way.events("s"))[-1]
    assert isinstance(event, SessionEvent)
    assert repr(event.payload) == repr(payload)
    assert type(event.payload) is type(payload)


async def test_a_payload_is_not_shown(sessions: SessionRepository) -> None:
    """P11: not in what an event looks like in a log."""
    await sessions.create("s")
    await sessions.record_event("s", "mine", payload={"secret": "canary"})
    assert "canary" not in repr(await sessions.events("s"))


BAD_KINDS: list[Any] = [
    *("", None, 5, "a\0b", "\ud800", "x" * 256, b"mine"),
    *("created", "forked", "trimmed", "truncated", "replaced", "compacted", "reset", "metadata_changed", "updated"),
    *("evicted", "deleted", "messages", "rewritten"),
]


@pytest.mark.parametrize("kind", BAD_KINDS, ids=lambda kind: ascii(kind)[:20])
async def test_bad_kinds_are_refused(sessions: SessionRepository, kind: Any) -> None:
    """P8: what is no id, and what is the store's own; nothing is written."""
    await sessions.create("s")
    before = await sessions.get("s")
    with pytest.raises(InvalidArgumentError):
        await sessions.record_event("s", kind)
    assert await sessions.get("s") == before


BAD_PAYLOADS: list[Any] = [
    float("nan"),
    float("inf"),
    {1: 2},
    {"a": {1, 2}},
    b"bytes",
    (1, 2),
    object(),
    {"x": "y" * 999},
]


@pytest.mark.parametrize("payload", BAD_PAYLOADS, ids=lambda payload: type(payload).__name__)
async def test_bad_payloads_are_refused(rows_url: str, payload: Any) -> None:
    """P8, P11: with their path and not their value; nothing is written."""
    async with SessionRepository.connect(rows_url, settings=StoreSettings(max_body_bytes=500)) as sessions:
        await sessions.create("s")
        before = await sessions.get("s")
        with pytest.raises(InvalidMessageError) as caught:
            await sessions.record_event("s", "mine", payload=payload)
        assert "yyy" not in str(caught.value)
        assert await sessions.get("s") == before
        assert kinds(await sessions.events("s")) == ["created"]


async def test_bad_pages_are_refused(sessions: SessionRepository) -> None:
    """P8: numbers below what makes sense, and what is no number."""
    await sessions.create("s")
    bad: list[dict[str, Any]] = [{"after": -2}, {"after": "1"}, {"limit": -1}, {"limit": None}, {"limit": True}]
    for arguments in bad:
        with pytest.raises(InvalidArgumentError):
            await sessions.events("s", **arguments)


async def test_a_foreign_session_is_a_missing_one(every_way: SessionRepository) -> None:
    """P7, X01: its events can neither be read nor added to."""
    theirs = every_way.for_tenant("theirs")
    if every_way._joined is not None:
        pytest.skip("a handle inside a transaction stays with it")
    await theirs.create("s")
    for session_id in ("s", "nowhere"):
        with pytest.raises(SessionNotFoundError):
            await every_way.record_event(session_id, "mine")
        with pytest.raises(SessionNotFoundError):
            await every_way.events(session_id)
    assert kinds(await theirs.events("s")) == ["created"]


# --- what is left of sessions that are gone -------------------------------------------------------

TOMBSTONES = "SELECT * FROM sessionstore_tombstones"


async def _left(sessions: SessionRepository) -> list[tuple[str, str, int, str]]:
    sql = "SELECT tenant_id, session_id, generation, kind FROM sessionstore_tombstones ORDER BY session_id"
    return [tuple(row) for row in await rows(sessions, sql)]


async def _orphans(sessions: SessionRepository) -> int:
    sql = "SELECT count(*) FROM sessionstore_events WHERE session_id NOT IN (SELECT id FROM sessionstore_sessions)"
    return int((await rows(sessions, sql))[0][0])


async def _secretive(sessions: SessionRepository, session_id: str) -> int:
    await sessions.create(session_id, user_id="ann", title="canary", metadata={"canary": "canary"})
    await sessions.append(session_id, say("user", "canary"))
    await sessions.record_event(session_id, "canary", payload="canary")
    return (await sessions.get(session_id)).generation


async def test_delete_leaves_a_tombstone_without_contents(every_way: SessionRepository) -> None:
    """P5, H13: who, which, when; and no event."""
    generation = await _secretive(every_way, "s")
    assert await every_way.delete("s")
    assert await _left(every_way) == [("", "s", generation, "deleted")]
    assert "canary" not in repr(await rows(every_way, TOMBSTONES))
    assert await _orphans(every_way) == 0
    assert not await every_way.delete("s")
    assert len(await _left(every_way)) == 1


async def test_eviction_leaves_a_tombstone(rows_url: str) -> None:
    """P5: which says that it was one."""
    async with SessionRepository.connect(rows_url, settings=StoreSettings(session_cap=1)) as sessions:
        generation = await _secretive(sessions, "a")
        await sessions.create("b")
        assert await _left(sessions) == [("", "a", generation, "evicted")]
        assert await _orphans(sessions) == 0
        assert "canary" not in repr(await rows(sessions, TOMBSTONES))


async def test_prune_leaves_tombstones(sessions: SessionRepository) -> None:
    """P5: as a deletion does."""
    for session_id in ("a", "b", "c"):
        await _secretive(sessions, session_id)
        await backdate(sessions, session_id, timedelta(days=9))
    await sessions.create("d")
    policy = PrunePolicy(max_age=timedelta(days=1), max_sessions=None)
    await sessions.prune(policy, dry_run=True)
    assert await _left(sessions) == []
    await sessions.prune(policy, batch_size=2)
    assert [(row[1], row[3]) for row in await _left(sessions)] == [(name, "deleted") for name in "abc"]
    assert await _orphans(sessions) == 0


@pytest.mark.parametrize("erase", [lambda s: s.delete_user("ann"), lambda s: s.delete_all()], ids=["user", "all"])
async def test_erasing_leaves_nothing(sessions: SessionRepository, erase: Verb) -> None:
    """P5: neither events nor tombstones."""
    for session_id in ("a", "b"):
        await _secretive(sessions, session_id)
    await erase(sessions)
    assert await _left(sessions) == []
    assert await rows(sessions, "SELECT * FROM sessionstore_events") == []


async def test_erasing_a_tenant_takes_its_tombstones(sessions: SessionRepository) -> None:
    """P5, P7: its own, and no other tenant's."""
    theirs = sessions.for_tenant("theirs")
    for handle in (sessions, theirs):
        await handle.create("s")
        await handle.delete("s")
    await sessions.delete_all()
    assert [row[0] for row in await _left(sessions)] == ["theirs"]


async def test_tombstones_last_a_day(sessions: SessionRepository) -> None:
    """P5: the next deletion takes away what is older, and nothing younger."""
    for session_id in ("old", "young"):
        await sessions.create(session_id)
        await sessions.delete(session_id)
    day = "interval '1 day 1 minute'" if on_postgresql(sessions) else "86460000000"
    almost = "interval '23 hours'" if on_postgresql(sessions) else "82800000000"
    for session_id, age in (("old", day), ("young", almost)):
        sql = f"UPDATE sessionstore_tombstones SET deleted_at = deleted_at - {age} WHERE session_id = :id"  # noqa: S608
        await execute(sessions, sql, id=session_id)
    await sessions.create("s")
    await sessions.delete("s")
    assert [row[1] for row in await _left(sessions)] == ["s", "young"]


async def test_an_id_used_again_begins_anew(sessions: SessionRepository) -> None:
    """P5: its events too, and each time it went is known."""
    for _ in range(2):
        await sessions.create("s")
        await sessions.record_event("s", "mine")
        assert kinds(await sessions.events("s")) == ["created", "mine"]
        await sessions.delete("s")
    assert [row[1] for row in await _left(sessions)] == ["s", "s"]
