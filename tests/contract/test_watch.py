"""Following one session: what there is, then every change, in order, without gaps, from any place on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import (
    SessionRepository,
    WatchLagError,
    feeds,
)
from tests.contract._watching import END, collecting, ended, following, told, upto, watching
from tests.support.repositories import callers_engine, on_postgresql, rows, say, talk
from tests.support.waiting import until

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


async def test_what_there_is_and_then_what_comes(sessions: SessionRepository) -> None:
    """Each event at its place between the messages; a marker told at the end of what there was."""
    await sessions.create("s")
    await sessions.append("s", *talk(2))
    await sessions.record_event("s", "mine", payload={"x": 1})
    await sessions.append("s", say("user", "third"))
    async with collecting(sessions, "s") as taken:
        await taken.has(("message", 2))
        await following(sessions, "", "s")
        await sessions.append("s", say("user", "fourth"), say("user", "fifth"))
        await sessions.update("s", title="t")
        await sessions.set_metadata("s", {"k": 1})
        await sessions.append("s", say("user", "sixth"))
        await taken.has(("message", 5))
        assert taken.told == [
            ("created", 0),
            *(("message", 0, "message 0"), ("message", 1, "message 1")),
            ("mine", 1),
            *(("message", 2, "third"), ("message", 3, "fourth"), ("message", 4, "fifth")),
            *(("updated", 2), ("metadata_changed", 3)),
            ("message", 5, "sixth"),
        ]
        session = await sessions.get("s")
        assert {change.session_id for change in taken.changes} == {"s"}
        assert {change.generation for change in taken.changes} == {session.generation}
        assert taken.changes[-1].cursor == session.cursor
        own = next(change.event for change in taken.changes if change.kind == "mine")
        assert own is not None
        assert own.payload == {"x": 1}
        assert [change.event is None for change in taken.changes] == [
            change.kind == "messages" for change in taken.changes
        ]


async def test_long_histories_come_whole(sessions: SessionRepository) -> None:
    """P2: of more messages and more events than one read takes, in order, nothing twice."""
    await sessions.create("s")
    expected: list[tuple[Any, ...]] = [("created", 0)]
    for at in range(230):
        await sessions.append("s", say("user", at), say("user", -at))
        await sessions.record_event("s", "mine")
        expected += [("message", 2 * at, at), ("message", 2 * at + 1, -at), ("mine", at + 1)]
    assert told(await ended(sessions, "s")) == expected


async def test_many_events_and_then_many_messages(sessions: SessionRepository) -> None:
    """P2: where one kind goes on for longer than a read before the other begins."""
    await sessions.create("s")
    for _ in range(205):
        await sessions.record_event("s", "mine")
    await sessions.append("s", *talk(450))
    for _ in range(205):
        await sessions.record_event("s", "mine")
    entries = [entry[:2] for entry in told(await ended(sessions, "s"))]
    events = [("mine", at) for at in range(1, 411)]
    assert entries == [("created", 0), *events[:205], *(("message", at) for at in range(450)), *events[205:]]


async def _history(sessions: SessionRepository) -> None:
    await sessions.create("s")
    await sessions.append("s", *talk(3))
    await sessions.record_event("s", "one")
    await sessions.record_event("s", "two")
    await sessions.append("s", say("user", "x"))
    await sessions.trim("s", 2)
    await sessions.append("s", say("user", "y"), say("user", "z"))
    await sessions.update("s", title="t")
    await sessions.trim("s", 1)
    await sessions.set_metadata("s", {"k": 1})
    await sessions.append("s", say("user", "last"))


async def test_resuming_from_every_cursor(sessions: SessionRepository) -> None:
    """For each change of a recorded feed, watching after it tells exactly the rest, if the rest is still there."""
    await sessions.create("s")
    async with collecting(sessions, "s") as live:
        await live.has(("created", 0))
        await following(sessions, "", "s")
        for at in range(6):
            await sessions.append("s", say("user", at), say("user", at))
            await sessions.record_event("s", f"kind-{at}")
            await sessions.update("s", title=str(at))
        await live.has(("updated", 12))
    await sessions.record_event("s", END)
    for at, change in enumerate(live.changes):
        async with watching(sessions, "s", after=change.cursor) as feed:
            assert told(await upto(feed)) == told(live.changes[at + 1 :]), at


async def test_resuming_catch_up_from_every_cursor(sessions: SessionRepository) -> None:
    """The same of what a watch told that came later, over trims."""
    await _history(sessions)
    changes = await ended(sessions, "s")
    for at, change in enumerate(changes):
        async with watching(sessions, "s", after=change.cursor) as feed:
            assert told(await upto(feed)) == told(changes[at + 1 :]), at


async def test_what_was_trimmed_before_it_was_seen(sessions: SessionRepository) -> None:
    """Is not told; that it was trimmed is."""
    await sessions.create("s")
    await sessions.append("s", *talk(2))
    cursor = (await sessions.get("s")).cursor
    await sessions.append("s", *talk(5))
    await sessions.trim("s", 2)
    await sessions.append("s", say("user", "after"))
    await sessions.record_event("s", END)
    async with watching(sessions, "s", after=cursor) as feed:
        changes = await upto(feed)
    assert [entry[:2] for entry in told(changes)] == [("message", 5), ("message", 6), ("trimmed", 1), ("message", 7)]
    [trimmed] = [change.event for change in changes if change.kind == "trimmed"]
    assert trimmed is not None
    assert (trimmed.first_position, trimmed.next_position) == (5, 7)


async def test_the_cursor_of_a_session(sessions: SessionRepository) -> None:
    """Watching after it tells what came after the session was read, and nothing else."""
    created = await sessions.create("s")
    opened = await sessions.open("s")
    assert created.cursor == opened.cursor == (await sessions.get("s")).cursor
    await _history_of_appends(sessions)
    before = (await sessions.snapshot("s")).session.cursor
    await sessions.append("s", say("user", "new"))
    await sessions.record_event("s", END)
    async with watching(sessions, "s", after=before) as feed:
        assert told(await upto(feed)) == [("message", 4, "new")]


async def _history_of_appends(sessions: SessionRepository) -> None:
    await sessions.append("s", *talk(4))
    await sessions.record_event("s", "mine")


# --- consumers that are slow ----------------------------------------------------------------------


async def upto_the_end(feed: Any, taken: list[Any]) -> None:
    async for change in feed:
        taken.append(change)  # noqa: PERF401  # what was taken before an error counts


@pytest.mark.parametrize("limit", ["LAG_CHANGES", "LAG_BYTES"])
async def test_a_consumer_that_lags(sessions: SessionRepository, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    """Is told so, nothing is kept for it, and watching after what it took last loses nothing."""
    monkeypatch.setattr(feeds, limit, 5 if limit == "LAG_CHANGES" else 500)
    await sessions.create("s")
    async with watching(sessions, "s") as feed:
        first = await anext(feed)
        second = asyncio.ensure_future(anext(feed))
        await following(sessions, "", "s")
        hub: Any = next(iter(sessions._shared.executor.listeners.values()))  # type: ignore[union-attr]
        [follower] = hub._topics["", "s"].followers
        await sessions.append("s", say("user", 0))
        taken = [first, await second]
        for at in range(1, 40):
            await sessions.append("s", say("user", at, filling="x" * 100))
            await asyncio.sleep(0)
        await until(lambda: follower._error is not None)
        assert len(follower._waiting) == 0
        with pytest.raises(WatchLagError):
            await upto_the_end(feed, taken)
    await sessions.record_event("s", END)
    async with watching(sessions, "s", after=taken[-1].cursor) as feed:
        taken += await upto(feed)
    assert [entry[2] for entry in told(taken[1:])] == list(range(40))


async def test_no_transaction_waits_for_a_consumer(lasting_url: str) -> None:
    """P4: neither while it has not taken what there was, nor while it waits for more."""
    engine = callers_engine(lasting_url)
    async with SessionRepository.connect(lasting_url) as sessions:
        await sessions.create("s")
        await sessions.append("s", *talk(500))
        async with (
            watching(sessions, "s") as feed,
            watching(sessions, "s", after="0.-1.0") as other,
            engine.connect() as c,
        ):
            await anext(feed)
            await anext(other)
            await sessions.append("s", *talk(5))
            if on_postgresql(sessions):
                sql = (
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
                )
                assert (await rows(sessions, sql))[0][0] == 0
            else:
                result = await c.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
                assert next(iter(result.one())) == 0
    await engine.dispose()


async def test_leaving_leaves_nothing(sessions: SessionRepository) -> None:
    """P4: whoever stops watching, by closing or by being cancelled, leaves no topic and no counted watcher."""
    await sessions.create("s")
    for session_id in ("s", None):
        async with collecting(sessions, session_id):
            await following(sessions, "", session_id)
    hub: Any = next(iter(sessions._shared.executor.listeners.values()))  # type: ignore[union-attr]
    assert (hub._watchers, hub._topics) == (0, {})
    await until(hub._poller.done)


# --- changes of others ----------------------------------------------------------------------------


async def test_changes_of_another_engine(lasting_url: str) -> None:
    """P2: are seen, in order, and so is what a transaction of the caller's has committed."""
    engine = callers_engine(lasting_url)
    async with SessionRepository.connect(lasting_url) as here, SessionRepository(engine) as there:
        await here.create("s")
        async with collecting(here, "s") as taken:
            await taken.has(("created", 0))
            await there.append("s", say("user", 0))
            await there.record_event("s", "mine")
            async with engine.connect() as transaction:
                await there.within(transaction).append("s", say("user", 1))
                await transaction.commit()
            await taken.has(("message", 1))
            await there.pop("s")
            await taken.has(("rewritten", 2))
            await there.delete("s")
            await taken.has(("deleted",))
            assert [entry[0] for entry in taken.told] == [
                "created",
                "message",
                "mine",
                "message",
                "rewritten",
                "deleted",
            ]
    await engine.dispose()


async def test_a_rolled_back_transaction_tells_nothing(lasting_url: str) -> None:
    """P4: what was never committed was never a change."""
    engine: AsyncEngine = callers_engine(lasting_url)
    async with SessionRepository(engine) as sessions:
        await sessions.create("s")
        async with collecting(sessions, "s") as taken, collecting(sessions) as whole:
            await following(sessions, "", "s")
            await following(sessions, "", None)
            async with engine.connect() as transaction:
                joined = sessions.within(transaction)
                await joined.append("s", say("user", "never"))
                await joined.record_event("s", "never")
                await joined.create("never")
                await transaction.rollback()
            await sessions.append("s", say("user", "ever"))
            for collector in (taken, whole):
                await collector.has(("message", 0))
                assert "never" not in repr(collector.told)
    await engine.dispose()


async def test_several_watchers_of_one_session(sessions: SessionRepository) -> None:
    """Each is told everything, from where it began, once."""
    await sessions.create("s")
    await sessions.append("s", *talk(3))
    async with collecting(sessions, "s") as first:
        await following(sessions, "", "s")
        middle = (await sessions.get("s")).cursor
        await asyncio.gather(*(sessions.append("s", say("user", at)) for at in range(20)))
        async with collecting(sessions, "s", after=middle) as second, collecting(sessions, "s") as third:
            await asyncio.gather(*(sessions.append("s", say("user", at)) for at in range(20)))
            await sessions.record_event("s", END)
            for collector in (first, second, third):
                await collector.has((END,))
            assert [entry[1] for entry in first.told] == [0, *range(43), 1]
            assert third.told == first.told
            assert second.told == first.told[4:]


async def test_all_that_was_trimmed_is_behind_a_watcher(sessions: SessionRepository) -> None:
    """P10: messages that were trimmed before they were seen leave nothing to look for at every look."""
    await sessions.create("s")
    before = (await sessions.get("s")).cursor
    await sessions.append("s", *talk(3))
    await sessions.trim("s", 0)
    await sessions.record_event("s", END)
    session = await sessions.get("s")
    async with watching(sessions, "s", after=before) as feed:
        trimmed, end = await anext(feed), await anext(feed)
        assert (trimmed.kind, end.kind) == ("trimmed", END)
        assert end.cursor == session.cursor
        waiting = asyncio.ensure_future(anext(feed))
        await following(sessions, "", "s")
        hub: Any = next(iter(sessions._shared.executor.listeners.values()))  # type: ignore[union-attr]
        assert not await hub._look()
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_a_trim_that_nobody_recorded(sessions: SessionRepository) -> None:
    """P10: by code that knows no events: what is gone is not looked for again and again."""
    await sessions.create("s")
    async with collecting(sessions, "s") as taken:
        await taken.has(("created", 0))
        await following(sessions, "", "s")
        async with sessions._shared.engine.begin() as connection:
            sql = "UPDATE sessionstore_sessions SET first_position = 3, next_position = 3 WHERE id = 's'"
            await connection.exec_driver_sql(sql)
        hub: Any = next(iter(sessions._shared.executor.listeners.values()))  # type: ignore[union-attr]
        topic = hub._topics["", "s"]
        await until(lambda: topic.members["s"].position == 3)
        assert not await hub._look()
