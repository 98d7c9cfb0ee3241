"""Callbacks of a session: each change once, after its commit, in order; and none of their faults is anybody else's."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import (
    Change,
    InvalidArgumentError,
    SessionRepository,
    StoreClosedError,
    StoreSettings,
    Subscription,
    feeds,
)
from tests.contract._watching import told
from tests.support.repositories import backdate, callers_engine, say, talk
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable


class Heard:
    """A callback that notes what it is told."""

    def __init__(self, into: list[str] | None = None, name: str = "") -> None:
        self.changes: list[Change] = []
        self._into = into
        self._name = name

    def __call__(self, change: Change) -> None:
        self.changes.append(change)
        if self._into is not None:
            self._into.append(self._name)

    @property
    def told(self) -> list[tuple[Any, ...]]:
        return told(self.changes)

    async def has(self, *entry: Any) -> None:
        await until(lambda: any(one[: len(entry)] == entry for one in self.told))


async def test_a_missing_session_is_created(sessions: SessionRepository) -> None:
    """H33: and what comes after that is told, not what made it."""
    heard = Heard()
    subscription = await sessions.subscribe("s", heard)
    assert isinstance(subscription, Subscription)
    assert subscription.active
    assert await sessions.exists("s")
    await sessions.append("s", say("user", "x"))
    await heard.has("message", 0)
    assert heard.told == [("message", 0, "x")]
    [change] = heard.changes
    assert change.cursor == (await sessions.get("s")).cursor


async def test_what_was_before_is_not_told(sessions: SessionRepository) -> None:
    """H33: subscribing to a session that is there changes nothing of it but its recency."""
    await sessions.create("s")
    await sessions.append("s", *talk(3))
    before = await backdate(sessions, "s")
    heard = Heard()
    await sessions.subscribe("s", heard)
    after = await sessions.get("s")
    assert after.last_accessed_at > before.last_accessed_at
    assert (after.version, after.updated_at) == (before.version, before.updated_at)
    await sessions.append("s", say("user", "new"))
    await heard.has("message", 3)
    assert heard.told == [("message", 3, "new")]


async def test_asking_moves_nothing(sessions: SessionRepository) -> None:
    """H08, H33: who subscribes can be read without a database; 0 of an unknown session."""
    assert sessions.subscriber_count("nowhere") == 0
    assert sessions.subscribers("nowhere") == []
    assert not await sessions.exists("nowhere")
    heard = Heard()
    await sessions.subscribe("s", heard)
    before = await backdate(sessions, "s")
    assert sessions.subscribers("s") == [heard]
    assert sessions.subscriber_count("s") == 1
    assert sessions.for_tenant("theirs").subscriber_count("s") == 0
    assert await sessions.get("s") == before


async def test_order_and_duplicates_are_kept(sessions: SessionRepository) -> None:
    """H33: each is called as often as it was subscribed, in that order, for every change."""
    order: list[str] = []
    one, two = Heard(order, "one"), Heard(order, "two")
    for callback in (one, two, one):
        await sessions.subscribe("s", callback)
    assert sessions.subscribers("s") == [one, two, one]
    assert sessions.subscriber_count("s") == 3
    sessions.subscribers("s").clear()
    assert sessions.subscriber_count("s") == 3
    await sessions.append("s", say("user", 0))
    await sessions.append("s", say("user", 1))
    await until(lambda: len(one.told) == 4)
    assert sorted(one.told) == [("message", 0, 0), ("message", 0, 0), ("message", 1, 1), ("message", 1, 1)]
    assert order == ["one", "two", "one"] * (len(order) // 3)
    assert two.told == [("message", 0, 0), ("message", 1, 1)]


async def test_coroutines_are_awaited_in_order(sessions: SessionRepository) -> None:
    """H33: the next callback begins when the one before has ended, slow as it may be, and nothing is lost."""
    order: list[Any] = []
    release = asyncio.Event()

    async def slow(change: Change) -> None:
        order.append("begun")
        await release.wait()
        order.append([message.position for message in change.messages])

    quick = Heard()
    await sessions.subscribe("s", slow)
    await sessions.subscribe("s", quick)
    await sessions.append("s", say("user", 0))
    await until(lambda: bool(order))
    for at in range(1, 20):
        await sessions.append("s", say("user", at))
    assert quick.changes == []
    release.set()
    await quick.has("message", 19)
    assert quick.told == [("message", at, at) for at in range(20)]
    assert [position for entry in order if isinstance(entry, list) for position in entry] == list(range(20))


async def test_slow_callbacks_lose_nothing(sessions: SessionRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    """H33: also where more is waiting than is kept in memory."""
    monkeypatch.setattr(feeds, "LAG_CHANGES", 3)
    release, heard = asyncio.Event(), Heard()

    async def slow(change: Change) -> None:
        heard(change)
        await release.wait()

    await sessions.subscribe("s", slow)
    for at in range(60):
        await sessions.append("s", say("user", at))
        await asyncio.sleep(0)
    release.set()
    await heard.has("message", 59)
    assert heard.told == [("message", at, at) for at in range(60)]


async def test_an_error_stops_nobody(sessions: SessionRepository, caplog: pytest.LogCaptureFixture) -> None:
    """H33, P11: it is logged without what was said, and the others and the next changes go on."""

    def bad(_: Change) -> None:
        raise ValueError("canary")

    async def worse(_: Change) -> None:
        raise RuntimeError("canary")

    heard = Heard()
    for callback in (bad, heard, worse, heard):
        await sessions.subscribe("s", callback)
    with caplog.at_level(logging.DEBUG, "sessionstore"):
        await sessions.append("s", say("user", "canary"))
        await sessions.append("s", say("user", "canary"))
        await until(lambda: len(heard.told) == 4)
        await until(lambda: len([one for one in caplog.records if one.levelno >= logging.ERROR]) >= 2)
    assert "canary" not in caplog.text
    assert sessions.subscriber_count("s") == 4


async def test_cancelling(sessions: SessionRepository) -> None:
    """H33: takes away the one and no other, also of the same callback, and once more does nothing."""
    heard, other = Heard(), Heard()
    first = await sessions.subscribe("s", heard)
    second = await sessions.subscribe("s", heard)
    third = await sessions.subscribe("s", other)
    first.cancel()
    first.cancel()
    assert (first.active, second.active) == (False, True)
    assert sessions.subscribers("s") == [heard, other]
    await sessions.append("s", say("user", 0))
    await other.has("message", 0)
    assert len(heard.changes) == 1
    second.cancel()
    await sessions.append("s", say("user", 1))
    await other.has("message", 1)
    assert len(heard.changes) == 1
    third.cancel()
    assert sessions.subscriber_count("s") == 0


async def test_cancelling_once_more_leaves_later_ones_alone(sessions: SessionRepository) -> None:
    """H33: a subscription that is cancelled again is not another one of the same session."""
    first = await sessions.subscribe("s", Heard())
    first.cancel()
    heard = Heard()
    await sessions.subscribe("s", heard)
    first.cancel()
    assert sessions.subscribers("s") == [heard]
    await sessions.append("s", say("user", 0))
    await heard.has("message", 0)


async def test_cancelling_before_it_began(sessions: SessionRepository) -> None:
    """H33: neither right after subscribing nor while the session is being opened does another one go with it."""
    for turns in range(4):
        first = sessions.subscribe("s", Heard())
        for _ in range(turns):
            await asyncio.sleep(0)
        first.cancel()
        heard = Heard()
        second = sessions.subscribe("s", heard)
        for _ in range(10):
            await asyncio.sleep(0)
        assert sessions.subscribers("s") == [heard]
        await second
        await sessions.append("s", say("user", turns))
        await heard.has("message", turns)
        second.cancel()


async def test_cancelling_within_a_callback(sessions: SessionRepository) -> None:
    """H33: itself or the next: neither is called again."""
    subscriptions: list[Subscription] = []
    heard, last = Heard(), Heard()

    def once(change: Change) -> None:
        heard(change)
        for subscription in subscriptions[:2]:
            subscription.cancel()

    never = Heard()
    subscriptions += [await sessions.subscribe("s", callback) for callback in (once, never, last)]
    await sessions.append("s", say("user", 0))
    await sessions.append("s", say("user", 1))
    await last.has("message", 1)
    assert len(heard.changes) == 1
    assert never.changes == []
    assert sessions.subscribers("s") == [last]


async def test_the_last_one_cancels_itself(sessions: SessionRepository) -> None:
    """H33: its callback ends as if nothing were, and another may begin."""
    done = asyncio.Event()
    subscription: Subscription

    async def once(_: Change) -> None:
        subscription.cancel()
        await asyncio.sleep(0)
        done.set()

    subscription = await sessions.subscribe("s", once)
    await sessions.append("s", say("user", 0))
    await done.wait()
    assert sessions.subscriber_count("s") == 0
    heard = Heard()
    await sessions.subscribe("s", heard)
    await sessions.append("s", say("user", 1))
    await heard.has("message", 1)


async def test_a_callback_may_use_the_session(sessions: SessionRepository) -> None:
    """H33: appending to the same session, subscribing and reading do not wait for the callback itself."""
    heard = Heard()

    async def answer(change: Change) -> None:
        heard(change)
        for message in change.messages:
            if message.role == "user":
                await sessions.append("s", say("assistant", f"to {message.body['content']}"))
                await sessions.record_event("s", "answered")
                assert await sessions.length("s")

    await sessions.subscribe("s", answer)
    await asyncio.gather(*(sessions.append("s", say("user", at)) for at in range(5)))
    await until(lambda: len([entry for entry in heard.told if entry[0] == "answered"]) == 5)
    assert [entry[1] for entry in heard.told if entry[0] == "message"] == list(range(10))


async def test_a_fork_has_none(sessions: SessionRepository) -> None:
    """H18, H33: of its parent's."""
    heard = Heard()
    await sessions.subscribe("s", heard)
    child = await sessions.fork("s")
    assert sessions.subscriber_count(child.id) == 0
    await sessions.append(child.id, say("user", "child"))
    await sessions.append("s", say("user", "parent"))
    await heard.has("message", 0)
    assert heard.told == [("message", 0, "parent")]


async def test_they_stay_with_a_session_that_is_overwritten(sessions: SessionRepository) -> None:
    """H19: and are told that its history was."""
    heard = Heard()
    await sessions.append("other", *talk(2), create=True)
    await sessions.subscribe("s", heard)
    await sessions.fork("other", new_id="s", replace=True)
    await heard.has("rewritten")
    assert sessions.subscribers("s") == [heard]
    await sessions.append("s", say("user", "x"))
    await heard.has("message", 2)
    assert [entry[:2] for entry in heard.told] == [("rewritten", 1), ("message", 2)]


async def test_they_stay_with_a_session_that_is_reset(sessions: SessionRepository) -> None:
    """H14: and are told."""
    heard = Heard()
    await sessions.subscribe("s", heard)
    await sessions.append("s", *talk(2))
    await heard.has("message", 1)
    await sessions.reset("s")
    await heard.has("rewritten")
    assert sessions.subscribers("s") == [heard]
    await sessions.append("s", say("user", "anew"))
    await heard.has("message", 0, "anew")


async def test_deletion_drops_them(sessions: SessionRepository) -> None:
    """H13: after they were told; the same id used again has none."""
    heard = Heard()
    subscription = await sessions.subscribe("s", heard)
    await sessions.delete("s")
    await heard.has("deleted")
    await until(lambda: sessions.subscriber_count("s") == 0)
    assert not subscription.active
    await sessions.create("s")
    again = Heard()
    await sessions.subscribe("s", again)
    await sessions.append("s", say("user", "x"))
    await again.has("message", 0)
    assert [entry[0] for entry in heard.told] == ["deleted"]


async def test_eviction_drops_them(rows_url: str) -> None:
    """H13: as a deletion does."""
    async with SessionRepository.connect(rows_url, settings=StoreSettings(session_cap=1)) as sessions:
        heard = Heard()
        await sessions.subscribe("s", heard)
        await sessions.create("other")
        await heard.has("deleted")
        await until(lambda: sessions.subscriber_count("s") == 0)
        [change] = heard.changes
        assert change.event is not None
        assert change.event.kind == "evicted"


async def test_after_the_commit_and_only_then(lasting_url: str) -> None:
    """H33, P4: a change of a caller's transaction is told once that is committed, and never if it is not."""
    engine = callers_engine(lasting_url)
    async with SessionRepository(engine) as sessions:
        heard = Heard()
        await sessions.subscribe("s", heard)
        for outcome in ("rollback", "commit"):
            async with engine.connect() as transaction:
                await sessions.within(transaction).append("s", say("user", outcome))
                await asyncio.sleep(0.1)
                assert heard.changes == []
                await getattr(transaction, outcome)()
        await heard.has("message", 0, "commit")
        assert heard.told == [("message", 0, "commit")]
    await engine.dispose()


async def test_changes_of_others_are_told(lasting_url: str) -> None:
    """H33: whoever makes them."""
    async with SessionRepository.connect(lasting_url) as here, SessionRepository.connect(lasting_url) as there:
        heard = Heard()
        await here.subscribe("s", heard)
        assert there.subscriber_count("s") == 0
        await there.append("s", say("user", 0))
        await heard.has("message", 0)


async def test_it_need_not_be_awaited(sessions: SessionRepository) -> None:
    """H33: it begins by itself."""
    heard = Heard()
    sessions.subscribe("s", heard)
    gc.collect()
    assert sessions.subscriber_count("s") == 1
    dispatcher = sessions._dispatcher()
    await until(lambda: bool(dispatcher._lines["", "s"]._seen))
    gc.collect()
    await sessions.append("s", say("user", 0))
    await heard.has("message", 0)
    assert heard.told == [("message", 0, 0)]


@pytest.mark.parametrize("callback", [None, 5, "print", object()], ids=lambda callback: type(callback).__name__)
async def test_what_cannot_be_called_is_refused(sessions: SessionRepository, callback: Any) -> None:
    """H33, P8: at once, and nothing is created."""
    with pytest.raises(InvalidArgumentError):
        sessions.subscribe("s", callback)
    assert not await sessions.exists("s")
    assert sessions.subscriber_count("s") == 0


@pytest.mark.parametrize("session_id", ["", None, 5, "a\0b", "x" * 256], ids=ascii)
async def test_bad_ids_are_refused(sessions: SessionRepository, session_id: Any) -> None:
    """P8: by each of the three."""
    calls: list[Callable[[], Any]] = [
        lambda: sessions.subscribe(session_id, print),
        lambda: sessions.subscribers(session_id),
        lambda: sessions.subscriber_count(session_id),
    ]
    for call in calls:
        with pytest.raises(InvalidArgumentError):
            call()


async def test_closing_drops_them(rows_url: str) -> None:
    """P4: no task is left that waits for anything."""
    sessions = SessionRepository.connect(rows_url)
    subscription = await sessions.subscribe("s", Heard())
    await sessions.aclose()
    await until(lambda: not subscription.active)
    with pytest.raises(StoreClosedError):
        await sessions.subscribe("s", Heard())


async def test_too_many(rows_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """P4: where there is no room for a watcher the subscription waits for it, and says so."""
    async with SessionRepository.connect(rows_url, settings=StoreSettings(max_watchers=1)) as sessions:
        one, two = Heard(), Heard()
        first = await sessions.subscribe("a", one)
        await sessions.subscribe("b", two)
        await until(lambda: "wait" in caplog.text)
        await sessions.append("b", say("user", 0))
        first.cancel()
        await two.has("message", 0)


async def test_subscribing_after_a_deletion(sessions: SessionRepository) -> None:
    """H13, H33: a subscription of the session made anew is not dropped by a deletion that is only told now."""
    release, begun, heard = asyncio.Event(), asyncio.Event(), Heard()

    async def slow(_: Change) -> None:
        begun.set()
        await release.wait()

    old = await sessions.subscribe("s", slow)
    await sessions.append("s", say("user", "old"))
    await begun.wait()
    await sessions.delete("s")
    new = await sessions.subscribe("s", heard)
    release.set()
    await until(lambda: not old.active)
    assert new.active
    assert sessions.subscribers("s") == [heard]
    await sessions.append("s", say("user", "new"))
    await heard.has("message", 0)
    assert heard.told == [("message", 0, "new")]


async def test_a_callback_under_way_is_not_cut_off(sessions: SessionRepository) -> None:
    """H33: cancelling the last subscription from elsewhere calls no more, and lets the callback end."""
    release, begun, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(_: Change) -> None:
        begun.set()
        await release.wait()
        ended.set()

    subscription = await sessions.subscribe("s", slow)
    await sessions.append("s", say("user", "x"))
    await begun.wait()
    subscription.cancel()
    await asyncio.sleep(0)
    release.set()
    await ended.wait()
    assert sessions.subscriber_count("s") == 0


async def test_a_callback_that_was_cancelled_takes_no_other_along(sessions: SessionRepository) -> None:
    """H33: it waited for something that was cancelled; the others are told of this change and the next."""
    heard = Heard()

    async def cancelled(_: Change) -> None:
        raise asyncio.CancelledError

    await sessions.subscribe("s", cancelled)
    await sessions.subscribe("s", heard)
    for at in range(2):
        await sessions.append("s", say("user", "x"))
        await heard.has("message", at)
    assert sessions.subscriber_count("s") == 2
