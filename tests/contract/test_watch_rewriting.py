"""Following a session whose history is rewritten, which goes, and which is made anew; and what cannot be followed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import (
    InvalidArgumentError,
    SessionNotFoundError,
    SessionRepository,
    StoreClosedError,
    StoreSettings,
    WatchLimitError,
)
from tests.contract._watching import END, collecting, ended, following, kinds, told, upto, watching
from tests.support.repositories import execute, say, talk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


REWRITINGS: dict[str, tuple[Callable[[SessionRepository], Awaitable[Any]], str]] = {
    "truncate": (lambda s: s.truncate("s", 2), "truncated"),
    "pop": (lambda s: s.pop("s"), "truncated"),
    "replace": (lambda s: s.replace_messages("s", talk(2)), "replaced"),
    "compact": (lambda s: s.compact("s", say("system", "sum"), keep_last=1), "compacted"),
    "reset": (lambda s: s.reset("s"), "reset"),
    "fork over it": (lambda s: s.fork("other", new_id="s", replace=True), "forked"),
}


@pytest.mark.parametrize("live", [True, False], ids=["live", "later"])
@pytest.mark.parametrize("name", REWRITINGS)
async def test_a_rewritten_history_is_one_change(sessions: SessionRepository, name: str, *, live: bool) -> None:
    """Which says so, with what did it; what is appended then is told, and what is to be read again is not."""
    verb, kind = REWRITINGS[name]
    await sessions.create("other")
    await sessions.append("other", *talk(3))
    await sessions.create("s")
    await sessions.append("s", *talk(4))
    before = (await sessions.get("s")).cursor
    async with watching(sessions, "s", after=before) as feed:
        if live:
            first = asyncio.ensure_future(anext(feed))
            await following(sessions, "", "s")
        await verb(sessions)
        rewritten = await sessions.get("s")
        if live:
            change = await first
            await sessions.append("s", say("user", "after"))
        else:
            await sessions.append("s", say("user", "after"))
            change = await anext(feed)
        assert (change.kind, change.messages, change.generation) == ("rewritten", (), rewritten.generation)
        assert change.event is not None
        assert change.event.kind == kind
        assert change.cursor == rewritten.cursor
        await sessions.record_event("s", END)
        assert told(await upto(feed)) == [("message", rewritten.next_position, "after")]


async def test_many_rewritings_are_told_as_one(sessions: SessionRepository) -> None:
    """Of those made while nobody looked, the last; what led to it is gone, and what came after is told."""
    await sessions.create("s")
    await sessions.append("s", *talk(4))
    cursor = (await sessions.get("s")).cursor
    await sessions.pop("s")
    await sessions.append("s", say("user", "lost"))
    await sessions.record_event("s", "between")
    await sessions.replace_messages("s", talk(1))
    await sessions.append("s", say("user", "after"))
    await sessions.record_event("s", END)
    async with watching(sessions, "s", after=cursor) as feed:
        changes = await upto(feed)
    assert [change.kind for change in changes].count("rewritten") == 1
    assert changes[-1].messages[0].body["content"] == "after"
    assert "lost" not in str(told(changes))
    assert [entry[:2] for entry in told(changes) if entry[0] == "between"] == [("between", 2)]


async def test_resuming_over_hundreds_of_rewritings(sessions: SessionRepository) -> None:
    """More of them than one read takes are one change nevertheless."""
    await sessions.create("s")
    await sessions.append("s", *talk(1))
    cursor = (await sessions.get("s")).cursor
    for _ in range(210):
        await sessions.pop("s")
        await sessions.append("s", say("user", "again"))
    await sessions.record_event("s", END)
    async with watching(sessions, "s", after=cursor) as feed:
        changes = await upto(feed)
    assert "rewritten" in kinds(changes)
    assert changes[-1].cursor.split(".")[:2] == (await sessions.get("s")).cursor.split(".")[:2]
    assert told(changes)[-1][0] == "message"


async def test_a_catch_up_over_many_rewritings(sessions: SessionRepository) -> None:
    """Without a cursor what there is now is told, whatever was before, and nothing has to be read again."""
    await sessions.create("s")
    await sessions.append("s", *talk(3))
    for _ in range(210):
        await sessions.append("s", say("user", "gone"))
        await sessions.pop("s")
    await sessions.append("s", say("user", "last"))
    entries = [entry for entry in told(await ended(sessions, "s")) if entry[0] == "message"]
    assert [entry[1] for entry in entries] == [0, 1, 2, 3]


async def test_a_rewriting_that_nobody_recorded(sessions: SessionRepository) -> None:
    """By code that knows no events, or by hand: known from the generation."""
    await sessions.create("s")
    await sessions.append("s", *talk(2))
    cursor = (await sessions.get("s")).cursor
    async with watching(sessions, "s", after=cursor) as feed:
        first = asyncio.ensure_future(anext(feed))
        await following(sessions, "", "s")
        sql = "UPDATE sessionstore_sessions SET generation = generation + 5, version = version + 1 WHERE id = 's'"
        await execute(sessions, sql)
        change = await first
        assert (change.kind, change.event) == ("rewritten", None)
        assert change.cursor == (await sessions.get("s")).cursor
        await sessions.append("s", say("user", "after"))
        assert told([await anext(feed)]) == [("message", 2, "after")]


@pytest.mark.parametrize("live", [True, False], ids=["live", "later"])
async def test_deleted_and_made_anew(sessions: SessionRepository, *, live: bool) -> None:
    """P5: told as that, with the generation that went, and then all that the new one holds."""
    old = await sessions.create("s")
    await sessions.append("s", *talk(5))
    async with watching(sessions, "s", after=(await sessions.get("s")).cursor) as feed:
        if live:
            first = asyncio.ensure_future(anext(feed))
            await following(sessions, "", "s")
        await sessions.delete("s")
        if not live:
            await sessions.create("s")
            await sessions.append("s", say("user", "new"))
            first = asyncio.ensure_future(anext(feed))
        gone = await first
        assert (gone.kind, gone.messages, gone.generation) == ("deleted", (), old.generation)
        assert gone.event is not None
        assert (gone.event.kind, gone.event.session_id) == ("deleted", "s")
        if live:
            await sessions.create("s")
            await sessions.append("s", say("user", "new"))
        await sessions.record_event("s", END)
        assert told(await upto(feed)) == [("created", 0), ("message", 0, "new")]
    async with watching(sessions, "s", after=gone.cursor) as feed:
        assert told(await upto(feed)) == [("created", 0), ("message", 0, "new")]


async def test_an_evicted_session(rows_url: str) -> None:
    """Is gone for those who watch it, and the event says why."""
    async with SessionRepository.connect(rows_url, settings=StoreSettings(session_cap=1)) as sessions:
        await sessions.create("s")
        async with watching(sessions, "s") as feed:
            assert (await anext(feed)).kind == "created"
            await sessions.create("other")
            change = await anext(feed)
            assert change.kind == "deleted"
            assert change.event is not None
            assert change.event.kind == "evicted"


async def test_erased_without_a_trace(sessions: SessionRepository) -> None:
    """P5: those who watch a session learn that it is gone, and the reason is not known."""
    await sessions.create("s", user_id="ann")
    async with watching(sessions, "s") as feed:
        assert (await anext(feed)).kind == "created"
        await sessions.delete_user("ann")
        change = await anext(feed)
        assert (change.kind, change.event) == ("deleted", None)


async def test_erased_made_anew_and_rewritten(sessions: SessionRepository) -> None:
    """P5: with neither a tombstone nor the event of its creation left, there is one clear change to read again."""
    await sessions.create("s", user_id="ann")
    await sessions.append("s", *talk(2))
    cursor = (await sessions.get("s")).cursor
    await sessions.delete_user("ann")
    await sessions.create("s")
    await sessions.reset("s")
    await sessions.append("s", say("user", "new"))
    await sessions.record_event("s", END)
    async with watching(sessions, "s", after=cursor) as feed:
        changes = await upto(feed)
    assert changes[0].kind in {"rewritten", "deleted"}
    assert told(changes)[-1] == ("message", 0, "new")


# --- what is refused ------------------------------------------------------------------------------


async def test_a_missing_session(sessions: SessionRepository) -> None:
    """P7: cannot be watched, and neither can one of another tenant; with a cursor of it, it is gone."""
    cursor = (await sessions.for_tenant("theirs").create("s")).cursor
    for session_id in ("s", "nowhere"):
        with pytest.raises(SessionNotFoundError):
            async with watching(sessions, session_id) as feed:
                await anext(feed)
        async with watching(sessions, session_id, after=cursor) as feed:
            change = await anext(feed)
            assert (change.kind, change.event, change.session_id) == ("deleted", None, session_id)


BAD_CURSORS: list[Any] = [
    "",
    "1",
    "1.2",
    "1.2.3.4",
    "a.b.c",
    "-1.0.0",
    "1.-2.0",
    "@5",
    "1.2.3\n",
    f"{2**63}.0.0",
    "\uff11.0.0",
    5,
    b"1.2.3",
]


@pytest.mark.parametrize("after", BAD_CURSORS, ids=ascii)
async def test_bad_cursors(sessions: SessionRepository, after: Any) -> None:
    """P8: are refused, whatever they are."""
    await sessions.create("s")
    with pytest.raises(InvalidArgumentError):
        async with watching(sessions, "s", after=after) as feed:
            await anext(feed)


@pytest.mark.parametrize("after", ["1.2.3", "@", "@-1", "5", "@" + "9" * 19, "@1\n", 5], ids=ascii)
async def test_bad_cursors_of_a_tenant(sessions: SessionRepository, after: Any) -> None:
    """P8: as of a session."""
    with pytest.raises(InvalidArgumentError):
        async with watching(sessions, after=after) as feed:
            await anext(feed)


async def test_not_within_a_transaction(joined: SessionRepository) -> None:
    """A watch is for longer than any transaction should be."""
    await joined.create("s")
    for session_id in ("s", None):
        with pytest.raises(InvalidArgumentError):
            async with watching(joined, session_id) as feed:
                await anext(feed)
    with pytest.raises(InvalidArgumentError):
        joined.subscribe("s", print)


async def test_too_many_watchers(rows_url: str) -> None:
    """A clear error; whoever leaves makes room."""
    async with SessionRepository.connect(rows_url, settings=StoreSettings(max_watchers=2)) as sessions:
        await sessions.create("s")
        async with watching(sessions, "s") as first, watching(sessions) as second:
            await anext(first)
            waiting = asyncio.ensure_future(anext(second))
            await following(sessions, "", None)
            with pytest.raises(WatchLimitError):
                async with watching(sessions, "s") as third:
                    await anext(third)
            waiting.cancel()
            await asyncio.wait([waiting])
        async with watching(sessions, "s") as first, watching(sessions, "s") as second:
            assert [(await anext(first)).kind, (await anext(second)).kind] == ["created", "created"]


async def test_closing_ends_watches(rows_url: str) -> None:
    """With an error that says so, of a session and of a tenant, also of other handles of the same store."""
    sessions = SessionRepository.connect(rows_url)
    await sessions.create("s")
    await sessions.for_tenant("theirs").create("s")
    theirs = sessions.for_tenant("theirs")
    async with collecting(sessions, "s") as one, collecting(sessions) as whole, collecting(theirs, "s") as other:
        await following(sessions, "", "s")
        await following(sessions, "", None)
        await following(sessions, "theirs", "s")
        await sessions.aclose()
        for collector in (one, whole, other):
            await asyncio.wait([collector.task])
            assert isinstance(collector.task.exception(), StoreClosedError)
    with pytest.raises(StoreClosedError):
        async with watching(sessions, "s") as feed:
            await anext(feed)


# --- cursors that do not fit ----------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [(1_000_000_000, 0), (0, 1_000_000_000)], ids=["position", "event"])
async def test_a_cursor_that_is_ahead_silences_nobody(sessions: SessionRepository, ahead: tuple[int, int]) -> None:
    """Of a database restored since, or made up: its owner is told to read again, and others hear everything."""
    session = await sessions.create("s")
    position, event = ahead
    made_up = f"{session.generation}.{position}.{session.next_event + event}"
    async with collecting(sessions, "s", after=made_up) as lost, collecting(sessions, "s") as honest:
        await honest.has(("created", 0))
        await following(sessions, "", "s")
        await sessions.append("s", say("user", "x"))
        await sessions.record_event("s", END)
        for taken in (lost, honest):
            await taken.has((END,))
        assert ("message", 0, "x") in told(honest.changes)
        assert kinds(lost.changes)[0] == "rewritten"


async def test_a_rewriting_that_nobody_recorded_comes_before_what_happened_after_it(
    sessions: SessionRepository,
) -> None:
    """So that whoever stores the cursor of that event has been told of both."""
    await sessions.create("s")
    await sessions.append("s", *talk(3))
    before = (await sessions.get("s")).cursor
    change = "UPDATE sessionstore_sessions SET generation = generation + 1, next_position = 1, version = version + 1"
    await execute(sessions, f"{change} WHERE id = 's'")
    await execute(sessions, "DELETE FROM sessionstore_messages WHERE session_id = 's' AND position > 0")
    await sessions.record_event("s", "mine")
    changes = await ended(sessions, "s", after=before)
    assert kinds(changes) == ["rewritten", "mine"]
    assert changes[0].event is None
    assert kinds(await ended(sessions, "s", after=changes[0].cursor))[:1] == ["mine"]
