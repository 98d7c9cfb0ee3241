"""Following all sessions of a tenant: from now on, or from a cursor with nothing missed; and what that costs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from sessionstore import InvalidArgumentError, SessionRepository, StoreSettings, feeds, telemetry
from tests.contract._watching import Collector, collecting, following, told
from tests.contract.test_telemetry import Told
from tests.support.repositories import backdate, callers_engine, say, set_columns, talk
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sqlalchemy.ext.asyncio import AsyncEngine


def _of(collector: Collector, session_id: str) -> list[tuple[Any, ...]]:
    return told(change for change in collector.changes if change.session_id == session_id)


async def _marked(sessions: SessionRepository, collector: Collector) -> None:
    """Wait until a change that is made now has been told."""
    await sessions.append("marker", say("user", "x"), create=True)
    await until(lambda: collector.task.done() or bool(_of(collector, "marker")))


@pytest_asyncio.fixture
async def two(lasting_url: str) -> AsyncIterator[tuple[SessionRepository, SessionRepository]]:
    """Two repositories on engines of their own, as two processes would have them."""
    engine = callers_engine(lasting_url)
    async with SessionRepository.connect(lasting_url) as here, SessionRepository(engine) as there:
        yield here, there
    await engine.dispose()


async def test_changes_from_now_on(sessions: SessionRepository) -> None:
    """Of sessions that were there, of new ones and of those that go; nothing that was before."""
    await sessions.create("old")
    await sessions.append("old", *talk(3))
    async with collecting(sessions) as taken:
        await following(sessions, "", None)
        await sessions.create("new")
        await sessions.append("new", say("user", "a"))
        await sessions.append("old", say("user", "b"))
        await sessions.record_event("old", "mine")
        await until(lambda: ("mine", 1) in _of(taken, "old"))
        await sessions.pop("old")
        await sessions.fork("new", new_id="child")
        await until(lambda: ("message", 0, "a") in _of(taken, "new"))
        await sessions.delete("new")
        await _marked(sessions, taken)
        await until(lambda: any(entry[0] == "deleted" for entry in _of(taken, "new")))
        assert [entry[:2] for entry in _of(taken, "new")[:-1]] == [("created", 0), ("message", 0)]
        assert [entry[:2] for entry in _of(taken, "old")] == [("message", 3), ("mine", 1), ("rewritten", 2)]
        assert [entry[:2] for entry in _of(taken, "child")] == [("forked", 0), ("message", 0)]


async def test_other_tenants_are_not_told_of(two: tuple[SessionRepository, SessionRepository]) -> None:
    """P7, X01: neither live nor after a cursor, whoever makes the changes, and whatever their ids."""
    here, there = two
    async with collecting(here) as taken:
        await following(here, "", None)
        for handle in (here.for_tenant("theirs"), there.for_tenant("theirs"), here.for_tenant("@")):
            await handle.append("s", say("user", "theirs"), create=True)
            await handle.delete("s")
        await here.create("mine")
        await _marked(here, taken)
        assert {change.session_id for change in taken.changes} <= {"mine", "marker"}
        cursor = taken.changes[0].cursor
    await here.for_tenant("theirs").append("t", say("user", "theirs"), create=True)
    async with collecting(here, after=cursor) as taken:
        await _marked(here, taken)
        assert {change.session_id for change in taken.changes} <= {"mine", "marker"}


async def test_changes_of_another_engine(two: tuple[SessionRepository, SessionRepository]) -> None:
    """P2: in order for each session, also where one is deleted and made anew between two looks."""
    here, there = two
    await there.append("old", *talk(2), create=True)
    async with collecting(here) as taken:
        await following(here, "", None)
        await there.append("new", say("user", 0), create=True)
        await there.append("old", say("user", "more"))
        await there.record_event("old", "mine")
        await until(lambda: ("mine", 1) in _of(taken, "old") and ("message", 0, 0) in _of(taken, "new"))
        await there.delete("old")
        await there.append("old", say("user", "anew"), create=True)
        await until(lambda: ("message", 0, "anew") in _of(taken, "old"))
        entries = _of(taken, "old")
        assert entries[:2] == [("message", 2, "more"), ("mine", 1)]
        assert [entry[0] for entry in entries[2:]] == ["deleted", "created", "message"]
        await there.delete("new")
        await until(lambda: _of(taken, "new")[-1][0] == "deleted")
        assert [entry[0] for entry in _of(taken, "new")] == ["created", "message", "deleted"]


async def test_resuming_misses_nothing(sessions: SessionRepository) -> None:
    """What was appended, made, rewritten and deleted while nobody watched."""
    for name in ("stays", "grows", "goes", "renewed"):
        await sessions.append(name, *talk(2), create=True)
    async with collecting(sessions) as taken:
        await following(sessions, "", None)
        await _marked(sessions, taken)
        cursor = taken.changes[-1].cursor
    await sessions.append("grows", say("user", "more"))
    await sessions.append("new", say("user", "new"), create=True)
    await sessions.delete("goes")
    await sessions.delete("renewed")
    await sessions.append("renewed", say("user", "anew"), create=True)
    async with collecting(sessions, after=cursor) as taken:
        await following(sessions, "", None)
        await sessions.append("last", say("user", "x"), create=True)
        await until(lambda: taken.task.done() or bool(_of(taken, "last")))
        assert ("message", 2, "more") in _of(taken, "grows")
        assert ("message", 0, "new") in _of(taken, "new")
        assert _of(taken, "goes")[0][0] == "deleted"
        assert _of(taken, "renewed")[-1] == ("message", 0, "anew")
        assert all(change.cursor.startswith("@") for change in taken.changes)


async def test_resuming_knows_of_saves_that_keep_their_times(sessions: SessionRepository) -> None:
    """A transcript of last week that is saved today was changed today, for those who watch."""
    await sessions.append("s", say("user", "first"), create=True)
    await backdate(sessions, "s", timedelta(days=7))
    transcript = await sessions.snapshot("s")
    async with collecting(sessions) as taken:
        await following(sessions, "", None)
        await _marked(sessions, taken)
        cursor = taken.changes[-1].cursor
    await sessions.save(replace(transcript, messages=(*transcript.messages, say("user", "second"))))
    other = replace(transcript, session=replace(transcript.session, id="other"))
    await sessions.save(other)
    async with collecting(sessions, after=cursor) as taken:
        await following(sessions, "", None)
        await sessions.append("last", say("user", "x"), create=True)
        await until(lambda: taken.task.done() or bool(_of(taken, "last")))
        assert ("message", 1, "second") in _of(taken, "s")
        assert ("message", 0, "first") in _of(taken, "other")


async def test_resuming_while_others_write(two: tuple[SessionRepository, SessionRepository]) -> None:
    """P2: between the catch-up and what happens next there is no gap."""
    here, there = two
    names = [f"s-{at}" for at in range(8)]
    for name in names:
        await there.create(name)
    async with collecting(here) as taken:
        await following(here, "", None)
        await _marked(here, taken)
        cursor = taken.changes[-1].cursor

    async def write(name: str) -> None:
        for at in range(15):
            await (there if at % 2 else here).append(name, say("user", at))

    writers = [asyncio.create_task(write(name)) for name in names]
    async with collecting(here, after=cursor) as taken:
        await asyncio.gather(*writers)
        for name in names:
            await until(lambda name=name: taken.task.done() or ("message", 14, 14) in _of(taken, name))  # type: ignore[misc]
            seen = [entry[1] for entry in _of(taken, name) if entry[0] == "message"]
            assert list(dict.fromkeys(seen)) == list(range(15))


@pytest.mark.parametrize("how", ["late", "stale"])
async def test_the_sweep_catches_what_came_late(lasting_url: str, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """P2: a transaction that was open for hours, and a save that keeps its old times: late, but told."""
    monkeypatch.setattr(feeds, "SWEEP_SECONDS", 0.2)
    engine: AsyncEngine = callers_engine(lasting_url)
    async with SessionRepository.connect(lasting_url) as here, SessionRepository(engine) as there:
        await there.append("s", say("user", 0), create=True)
        async with collecting(here) as taken:
            await following(here, "", None)
            async with engine.connect() as transaction:
                joined = there.within(transaction)
                await joined.append("s", say("user", 1))
                await joined.append("new", say("user", 2), create=True)
                for name in ("s", "new"):
                    old = (await joined.get(name)).updated_at - timedelta(hours=3 if how == "late" else 24 * 30)
                    await set_columns(joined, name, updated_at=old)
                await transaction.commit()
            await until(lambda: ("message", 1, 1) in _of(taken, "s") and ("message", 0, 2) in _of(taken, "new"))
            await there.delete_all()
            await until(lambda: {_of(taken, "s")[-1][0], _of(taken, "new")[-1][0]} == {"deleted"})
    await engine.dispose()


async def test_a_sweep_reads_all_pages(lasting_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P2: however many sessions there are, and whatever their ids sort like."""
    monkeypatch.setattr(feeds, "SWEEP_ROWS", 3)
    monkeypatch.setattr("sessionstore.units.feed.SWEEP_ROWS", 3)
    names = ["a", "B", "é", "Z", "_", "~", "0", "日本", "a b", "aa"]
    async with SessionRepository.connect(lasting_url) as sessions:
        for name in names:
            await sessions.create(name)
        async with collecting(sessions) as taken:
            await following(sessions, "", None)
            for name in names:
                await sessions.append(name, say("user", name))
            await _marked(sessions, taken)
            for name in names:
                await until(lambda name=name: bool(_of(taken, name)))  # type: ignore[misc]
                assert _of(taken, name) == [("message", 0, name)]


# --- what it costs --------------------------------------------------------------------------------


class _Counted:
    """Counts the units of an executor."""

    def __init__(self, sessions: SessionRepository, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        executor: Any = sessions._executor
        run = executor.run

        async def counted(unit: Any, deadline: Any) -> Any:
            self.names.append(unit.name)
            return await run(unit, deadline)

        monkeypatch.setattr(executor, "run", counted)


async def test_any_number_of_watched_sessions_is_one_look(lasting_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look is one statement for all watchers, and an idle one reads nothing else."""
    watched = 1_000
    engine = callers_engine(lasting_url)
    async with SessionRepository.connect(lasting_url) as sessions, SessionRepository(engine) as there:
        cursors = [(await sessions.create(f"s-{at}")).cursor for at in range(watched)]
        collectors = [collecting(sessions, f"s-{at}", after=cursor) for at, cursor in enumerate(cursors)]
        whole = collecting(sessions)
        await following(sessions, "", f"s-{watched - 1}")
        await following(sessions, "", None)
        counted = _Counted(sessions, monkeypatch)
        await until(lambda: len(counted.names) >= 3)
        assert set(counted.names) == {"tick"}
        await there.append("s-7", say("user", "x"))
        await collectors[7].has(("message", 0))
        await until(lambda: ("message", 0, "x") in _of(whole, "s-7"))
        assert counted.names.count("follow") <= 4
        for collector in [*collectors, whole]:
            collector.task.cancel()
        await asyncio.wait([collector.task for collector in [*collectors, whole]])
        assert sum(len(collector.changes) for collector in collectors) == 1
    await engine.dispose()


async def test_nobody_watches_nothing_is_asked(sessions: SessionRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    """An append runs one unit, watched or not, and where nobody watches there is no other."""
    await sessions.create("s")
    counted = _Counted(sessions, monkeypatch)
    await sessions.append("s", say("user", "x"))
    assert counted.names == ["append"]


async def test_looks_get_rarer(sessions: SessionRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing happens for a while the pauses grow up to the longest, and a change makes them short again."""
    monkeypatch.setattr(feeds, "WATCH_EAGER_SECONDS", 0.0)
    monkeypatch.setattr(feeds, "WATCH_MIN_SECONDS", 0.001)
    monkeypatch.setattr(feeds, "WATCH_MAX_SECONDS", 0.02)
    monkeypatch.setattr(feeds, "WATCH_SHARE", 0)
    pauses: list[float] = []
    rest = feeds.Hub._rest

    async def noted(hub: Any, seconds: float) -> None:
        pauses.append(seconds)
        await rest(hub, seconds)

    monkeypatch.setattr(feeds.Hub, "_rest", noted)
    await sessions.create("s")
    async with collecting(sessions, "s"):
        await following(sessions, "", "s")
        await until(lambda: 0.02 in pauses)
    assert pauses == sorted(pauses)
    assert max(pauses) == 0.02


@pytest.fixture
def listening() -> Iterator[Told]:
    """OpenTelemetry, listening."""
    everything = Told()
    telemetry.enable(tracer_provider=everything.tracers, meter_provider=everything.meters)
    yield everything
    telemetry.install(None)


async def test_a_watch_is_one_span(sessions: SessionRepository, listening: Told) -> None:
    """From its beginning to its end, with no span of what it reads."""
    await sessions.create("s")
    listening.forget()
    async with collecting(sessions, "s") as taken:
        await taken.has(("created", 0))
        await following(sessions, "", "s")
        await sessions.append("s", say("user", "canary"))
        await taken.has(("message", 0))
        assert listening.names == ["append"]
    assert listening.names == ["append", "watch"]
    assert "canary" not in listening.text


async def test_max_watchers_is_checked() -> None:
    """P8: a limit below one makes no sense."""
    for bad in (0, -1, "5", None, 1.5):
        with pytest.raises(InvalidArgumentError):
            StoreSettings(max_watchers=bad)  # type: ignore[arg-type]


async def test_a_quiet_tenant_can_be_resumed(sessions: SessionRepository) -> None:
    """A cursor that is used again and again tells what is new since, at least once."""
    await sessions.create("s")
    async with collecting(sessions) as taken:
        await following(sessions, "", None)
        await sessions.append("s", say("user", 0))
        await taken.has(("message", 0))
    cursor = taken.changes[-1].cursor
    for at in range(1, 4):
        await sessions.append("s", say("user", at))
        async with collecting(sessions, after=cursor) as taken:
            await taken.has(("message", at, at))
            cursor = taken.changes[-1].cursor
