"""`verify`: every planted fault is found, and nothing else is, whatever others do meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import threading
from contextlib import suppress
from datetime import timedelta
from itertools import cycle
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import make_url

from sessionstore import (
    DocumentRepository,
    InvalidArgumentError,
    NewMessage,
    PrunePolicy,
    SessionRepository,
    SessionStoreError,
    StoreSettings,
)
from sessionstore.dialects.base import Bound, Call, Dialect
from sessionstore.units import verification as units
from sessionstore.units.unit import Kind, Unit
from sessionstore.upkeep import maintain
from sessionstore.verification import Checked, Fault, Finding, verify
from tests.contract._own import meddle
from tests.contract._verbs import DOCUMENT_VERBS, SESSION_VERBS
from tests.support import templates
from tests.support.invariants import connect_postgres
from tests.support.planting import CANARY, PAGE_END, PLANTS, build, plant, say
from tests.support.repositories import rows, set_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sessionstore.units.unit import Steps
    from tests.support.postgres import Postgres


async def findings(sessions: SessionRepository, *, all_tenants: bool = True) -> list[Finding]:
    return [finding async for finding in verify(sessions, all_tenants=all_tenants)]


async def verified(url: str) -> list[Finding]:
    async with SessionRepository.connect(url, settings=StoreSettings(operation_timeout_seconds=60)) as sessions:
        return await findings(sessions)


# --- planted faults -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def healthy_file(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = templates.copy_sqlite(sqlite_template, tmp_path_factory.mktemp("healthy") / "healthy.db")
    asyncio.run(build(templates.sqlite_url(path)))
    return path


@pytest.fixture(scope="module")
def healthy_server(postgres_server: Postgres, postgres_template: str) -> Iterator[str]:
    with templates.postgres_clone(postgres_server, postgres_template) as url:
        asyncio.run(build(url))
        yield url


@pytest.fixture(params=["sqlite-file", "postgresql"])
def damaged_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A copy of a healthy store, to be damaged."""
    if request.param == "sqlite-file":
        file = request.getfixturevalue("healthy_file")
        yield templates.sqlite_url(templates.copy_sqlite(file, tmp_path / "damaged.db"))
        return
    template = make_url(request.getfixturevalue("healthy_server")).database
    with templates.postgres_clone(request.getfixturevalue("postgres_server"), template) as url:
        yield url


@pytest.mark.parametrize("name", PLANTS)
async def test_a_planted_fault_is_found_and_nothing_else(damaged_url: str, name: str) -> None:
    """P2, P5: holes, doubles, orphans, numbers and columns that disagree, what is no JSON; each told once."""
    sql = PLANTS[name].on(damaged_url)
    if sql:
        await plant(damaged_url, sql)
        found = await verified(damaged_url)
        assert sorted(found, key=str) == sorted(PLANTS[name].findings, key=str)
        assert not any(CANARY in f"{finding} {finding!r}" for finding in found), "it quotes the conversation"


def test_there_are_many_ways_to_damage_a_store() -> None:
    """P2: thirty on each database at least, of every kind."""
    for url in ("sqlite+aiosqlite:///x.db", "postgresql+asyncpg://h/x"):
        planted = [each for each in PLANTS.values() if each.on(url)]
        assert len(planted) >= 30
        assert {finding.fault for each in planted for finding in each.findings} == set(Fault)


async def test_the_healthy_store_is_healthy(damaged_url: str) -> None:
    """P8: odd bodies, extreme times and two tenants are no faults; and a page ends where the plants think."""
    assert await verified(damaged_url) == []
    pages = []
    async with SessionRepository.connect(damaged_url) as sessions:
        place: units.Place | None = units.Place()
        while place is not None:
            page = await sessions._run(units.history("", place))
            pages.append(page.end)
            place = page.end
    assert units.Place("long", PAGE_END, whole=False) in pages


async def test_faults_of_other_tenants(damaged_url: str) -> None:
    """P7: one tenant's check tells nothing of another's rows."""
    await plant(damaged_url, "DELETE FROM sessionstore_messages WHERE tenant_id = 'other' AND position = 1")
    async with SessionRepository.connect(damaged_url) as sessions:
        assert await findings(sessions, all_tenants=False) == []
        found = await findings(sessions.for_tenant("other"), all_tenants=False)
        assert {finding.tenant for finding in found} == {"other"}
        assert {finding.session_id for finding in found} == {"talk", "long", "fork"}
        assert await findings(sessions) == found


# --- no false alarm -----------------------------------------------------------------------------


async def test_what_the_verbs_leave_is_healthy(database_url: str) -> None:
    """P2, P5, P8: every verb, on a session of its own."""
    async with SessionRepository.connect(database_url) as sessions:
        documents = DocumentRepository(sessions._shared.engine)
        for number, (name, call) in enumerate(SESSION_VERBS.items()):
            session_id = f"s{number}"
            await sessions.create(session_id, metadata={"k": [1], "v": 1.0})
            await sessions.append(session_id, *[NewMessage(say("user", at), message_id=f"m{at}") for at in range(3)])
            with suppress(SessionStoreError):
                await call(sessions, session_id)
            assert await findings(sessions) == [], name
            await sessions.delete("child")
        for write in DOCUMENT_VERBS.values():
            await write(documents)
            assert await findings(sessions) == []
        await sessions.prune(PrunePolicy(max_age=None, max_sessions=5))
        assert await findings(sessions) == []


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small store has many borders between pages."""
    monkeypatch.setattr(units, "PAGE", 7)
    monkeypatch.setattr(units, "PAGE_SESSIONS", 3)


Change = tuple[str, "Callable[[SessionRepository], Any]"]

CHANGES: list[Change] = [
    ("append", lambda sessions: sessions.append("b", *[say("user", at) for at in range(3)], create=True)),
    ("trim", lambda sessions: sessions.trim("b", 9)),
    ("delete", lambda sessions: sessions.delete("b")),
    ("create", lambda sessions: sessions.append("b", *[say("user", at) for at in range(30)], create=True)),
    ("truncate", lambda sessions: sessions.truncate("b", 12)),
    ("fork", lambda sessions: sessions.fork("a", new_id="aa", replace=True)),
    ("compact", lambda sessions: sessions.compact("b", say("system", 0), keep_last=4)),
    ("replace", lambda sessions: sessions.replace_messages("b", [say("user", at) for at in range(20)])),
    ("delete the fork", lambda sessions: sessions.delete("aa")),
    ("update", lambda sessions: sessions.update("b", title="t")),
]


def change_in_thread(url: str, change: Change) -> None:
    """Change the store, from the middle of a page that is being read in this thread."""

    async def work() -> None:
        async with SessionRepository.connect(url) as sessions:
            with suppress(SessionStoreError):
                await change[1](sessions)

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    thread.join()


def meddling(url: str, real: Callable[..., Unit[Any]], kind: Kind) -> Callable[..., Unit[Any]]:
    """Make pages between whose statements somebody changes what they read."""
    changes = cycle(CHANGES)

    def made(tenant: str, start: Any) -> Unit[Any]:
        unit = real(tenant, start)

        def steps(db: Dialect) -> Steps[Any]:
            inner = unit.steps(db)
            call = next(inner)
            while True:
                found = yield call
                change_in_thread(url, next(changes))
                try:
                    call = inner.send(found)
                except StopIteration as done:
                    return done.value

        return Unit(unit.name, kind, steps)

    return made


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("kind", [Kind.SNAPSHOT, Kind.READ], ids=["one moment", "each its own"])
async def test_changes_in_the_middle_of_a_page(lasting_url: str, monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    """P2: a page is of one moment. Without that there are false alarms, as this test shows too."""
    async with SessionRepository.connect(lasting_url) as sessions:
        for name in ("a", "b", "c"):
            await sessions.append(name, *[say("user", at) for at in range(25)], create=True)
        monkeypatch.setattr(units, "history", meddling(lasting_url, units.history, kind))
        found = [finding for _ in range(3) for finding in await findings(sessions)]
        assert (found == []) is (kind is Kind.SNAPSHOT)
        monkeypatch.undo()
        assert await findings(sessions) == []


ACTS: list[Callable[[SessionRepository, str, str], Any]] = [
    *[lambda sessions, one, _: sessions.append(one, say("user", 0), say("assistant", 1), create=True)] * 6,
    lambda sessions, one, _: sessions.append(one, NewMessage(say("user", 0), message_id=f"{random.random()}")),
    lambda sessions, one, _: sessions.trim(one, 4),
    lambda sessions, one, _: sessions.truncate(one, 6),
    lambda sessions, one, _: sessions.pop(one),
    lambda sessions, one, _: sessions.set_metadata(one, {f"k{random.randrange(5)}": random.randrange(9)}),
    lambda sessions, one, other: sessions.fork(one, new_id=other, replace=True),
    lambda sessions, one, _: sessions.compact(one, say("system", 0), keep_last=3),
    lambda sessions, one, _: sessions.replace_messages(one, [say("user", at) for at in range(12)]),
    lambda sessions, one, _: sessions.reset(one),
    lambda sessions, one, _: sessions.delete(one),
    lambda sessions, *_: sessions.prune(PrunePolicy(max_age=None, max_sessions=18)),
]


@pytest.mark.usefixtures("small_pages")
async def test_no_false_alarm_under_load(database_url: str) -> None:
    """P2: while others append, trim, fork, rewrite, prune and delete, there is nothing to be found."""
    chosen = random.Random(7)
    done = 0
    ended = asyncio.Event()

    async def write(sessions: SessionRepository) -> None:
        nonlocal done
        while not ended.is_set():
            one, other = chosen.sample([f"s{at}" for at in range(20)], 2)
            with suppress(SessionStoreError):
                await chosen.choice(ACTS)(sessions, one, other)
            done += 1

    async with SessionRepository.connect(database_url) as sessions:
        writers = [asyncio.create_task(write(sessions)) for _ in range(4)]
        checked = Checked()
        rounds = 0

        def progress(so_far: Checked) -> None:
            nonlocal checked
            checked = so_far

        try:
            while done < 400 or rounds < 5:
                assert [finding async for finding in verify(sessions, on_progress=progress)] == []
                rounds += 1
        finally:
            ended.set()
            await asyncio.gather(*writers)
        assert checked.total > 0
        assert await findings(sessions) == []


# --- how it goes about it -----------------------------------------------------------------------


async def test_memory_holds_one_page(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P10: pages are bounded in rows and in bytes; a body that is larger than that comes alone."""
    monkeypatch.setattr(units, "CHUNK_BYTES", 10_000)
    pages: list[list[int]] = []
    async with SessionRepository.connect(database_url) as sessions:
        documents = DocumentRepository(sessions._shared.engine)
        await sessions.append("a", *[say("user", at) for at in range(1100)], create=True)
        await sessions.append("b", *[{"role": "user", "content": "x" * 4000}] * 7, create=True)
        await sessions.append("c", *[{"role": "user", "content": "x" * 40_000}] * 3, create=True)
        for at in range(5):
            await documents.save_json("c", f"n{at}", value="x" * 6000)
        run = sessions._run

        async def seen(unit: Unit[Any]) -> Any:
            page = await run(unit)
            place = {"verify_history": 3, "verify_documents": 3}.get(unit.name)
            if place is not None:
                pages.append([len(row[place]) for row in page.rows])
            return page

        sessions._run = seen  # type: ignore[method-assign]
        assert await findings(sessions, all_tenants=False) == []
    assert sum(map(len, pages)) == 1100 + 7 + 3 + 5
    assert all(len(page) <= 500 for page in pages)
    assert all(sum(page) <= 10_000 or len(page) == 1 for page in pages)


async def test_pages_are_read_along_an_index(lasting_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P10: a page costs the same wherever it is: nothing is sorted, and no history is read from its beginning."""
    sent: dict[str, Bound] = {}
    real = Dialect.bind

    def recorded(dialect: Dialect, call: Call) -> Bound:
        bound = real(dialect, call)
        sent[call.statement.name] = bound
        return bound

    async with SessionRepository.connect(lasting_url) as sessions:
        for name in ("a", "b", "c"):
            await sessions.append(name, *[say("user", at) for at in range(3000)], create=True)
        for at in range(300):
            await sessions.create(f"empty {at}")
        await maintain(sessions)
        monkeypatch.setattr(Dialect, "bind", recorded)
        assert await findings(sessions) == []
    for name in ("verify_places", "verify_history", "verify_headers"):
        plan = await explained(lasting_url, sent[name])
        assert "Sort" not in plan, plan
        assert "B-TREE" not in plan, plan
        assert "Index Scan using pk_" in plan or "SEARCH" in plan, plan


async def explained(url: str, bound: Bound) -> str:
    if make_url(url).get_backend_name() == "postgresql":
        connection = await connect_postgres(url)
        plan = [row[0] for row in await connection.fetch(f"EXPLAIN {bound.sql}", *bound.args)]
        await connection.close()
        return "\n".join(plan)
    with contextlib.closing(sqlite3.connect(str(make_url(url).database))) as file:
        return "\n".join(row[3] for row in file.execute(f"EXPLAIN QUERY PLAN {bound.sql}", bound.args))


async def test_each_page_has_a_deadline_of_its_own(database_url: str) -> None:
    """P4: a check of many pages may take longer than a call; a page may not."""
    async with SessionRepository.connect(database_url) as sessions:
        await sessions.append("a", *[say("user", at) for at in range(1100)], create=True)
        made: list[Any] = []
        deadline = sessions._deadline

        def counted() -> Any:
            made.append(deadline())
            return made[-1]

        sessions._deadline = counted  # type: ignore[method-assign]
        assert await findings(sessions, all_tenants=False) == []
        assert len(made) == 3 + 4, "three pages of messages, and one each of ids, metadata, events and documents"


async def test_progress_tells_what_has_been_looked_at(database_url: str) -> None:
    """H01: each row is counted once, also where a session goes over several pages."""
    async with SessionRepository.connect(database_url) as sessions:
        documents = DocumentRepository(sessions._shared.engine)
        await sessions.append("a", *[say("user", at) for at in range(1100)], create=True)
        await sessions.create("b", metadata={"k": 1, "l": 2})
        await documents.save_json("c", "n", value=1)
        told: list[Checked] = []
        assert [finding async for finding in verify(sessions, on_progress=told.append)] == []
        assert told[-1] == Checked(sessions=2, messages=1100, metadata=2, events=2, documents=1)
        assert [each.total for each in told] == sorted(each.total for each in told)


async def test_whoever_stops_listening_leaves_nothing_behind(database_url: str) -> None:
    """P4: a check that is given up holds no connection and no lock."""
    async with SessionRepository.connect(database_url) as sessions:
        for name in ("a", "b"):
            await sessions.create(name)
            await set_columns(sessions, name, activity_bucket=1)
        looking = verify(sessions)
        assert (await anext(looking)).session_id == "a"
        await sessions.append("a", say("user", 0))
        await looking.aclose()  # type: ignore[attr-defined]
        await sessions.append("b", say("user", 0))
        assert len(await rows(sessions, "SELECT position FROM sessionstore_messages")) == 2


async def test_it_has_transactions_of_its_own(joined: SessionRepository) -> None:
    """X08: inside one of the caller there is nothing to check."""
    with pytest.raises(InvalidArgumentError, match="verify"):
        await findings(joined)


async def test_a_fault_does_not_hide_the_next(damaged_url: str) -> None:
    """P2: thirty sessions are damaged in thirty ways, and each is told."""
    async with SessionRepository.connect(damaged_url) as sessions:
        for at in range(30):
            await sessions.append(f"x{at:02}", say("user", 0), say("user", 1), say("user", 2), create=True)
            await sessions.set_metadata(f"x{at:02}", {"k": at})
    for at in range(30):
        column = ("position = 9", "role = 'tool'", "plain = false")[at % 3]
        await plant(
            damaged_url,
            f"UPDATE sessionstore_messages SET {column} WHERE session_id = 'x{at:02}' AND position = 2",  # noqa: S608
        )
    found = await verified(damaged_url)
    assert {finding.session_id for finding in found} == {f"x{at:02}" for at in range(30)}
    assert len(found) == 40, "a message that was moved is missed in one place and too many in another"


async def test_a_prune_killed_between_batches_leaves_no_finding(sessions: SessionRepository) -> None:
    """P6: what a cut-off prune leaves is whole."""
    for at in range(12):
        await sessions.append(f"s{at}", say("user", 0), create=True)
        await sessions.set_metadata(f"s{at}", {"k": at})

    async def fail(batch: int) -> None:
        if batch == 2:
            raise asyncio.CancelledError

    meddle(sessions, fail)
    with pytest.raises(asyncio.CancelledError):
        await sessions.prune(PrunePolicy(max_age=None, max_idle=timedelta(microseconds=1)), batch_size=3)
    assert await findings(sessions) == []
