"""How a repository is closed, and in which event loop it may be used."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import NullPool, event
from sqlalchemy.ext.asyncio import create_async_engine

from sessionstore import (
    DocumentRepository,
    InvalidArgumentError,
    SessionRepository,
    StoreClosedError,
    StoreUnavailableError,
)
from sessionstore.executors import base
from tests.contract._verbs import DOCUMENT_VERBS, SESSION_VERBS, STORE_VERBS
from tests.migrations.databases import fetch, files_in
from tests.support.repositories import say

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine


async def test_after_aclose(database_url: str) -> None:
    """F14: every verb of every handle says so, at once."""
    sessions = SessionRepository.connect(database_url)
    async with sessions:
        other = sessions.for_tenant("other")
        await other.create("s")
    await sessions.aclose()
    await other.aclose()
    for handle in (sessions, other, sessions.for_tenant("third")):
        for name, verb in SESSION_VERBS.items():
            with pytest.raises(StoreClosedError):
                pytest.fail(f"{name} answered {await verb(handle, 's')!r}")
        for name, store_verb in STORE_VERBS.items():
            with pytest.raises(StoreClosedError):
                pytest.fail(f"{name} answered {await store_verb(handle)!r}")
    with pytest.raises(StoreClosedError):
        await sessions.__aenter__()
    documents = DocumentRepository.connect(database_url)
    await documents.aclose()
    for name, document_verb in DOCUMENT_VERBS.items():
        with pytest.raises(StoreClosedError):
            pytest.fail(f"{name} answered {await document_verb(documents)!r}")


async def test_closing_leaves_the_callers_engine(engine: AsyncEngine) -> None:
    """F14: it goes on, also for the other repositories on it."""
    first, second = SessionRepository(engine), SessionRepository(engine, tenant="t")
    await first.create("s")
    await second.create("s")
    await first.aclose()
    async with engine.connect() as connection:
        assert (await connection.exec_driver_sql("SELECT count(*) FROM sessionstore_sessions")).scalar() == 2
    assert await second.length("s") == 0
    with pytest.raises(StoreClosedError):
        await first.length("s")
    await second.aclose()
    assert await SessionRepository(engine).exists("s")


async def test_closing_one_disturbs_no_other_at_work(engine: AsyncEngine) -> None:
    """F14: a repository for each web request may be closed at its end, whatever others are doing then."""
    await SessionRepository(engine).create("s")

    async def request(number: int) -> None:
        async with SessionRepository(engine) as sessions:
            await sessions.append("s", say("user", f"{number}"))
            await sessions.messages("s", last=1)

    await asyncio.gather(*(request(number) for number in range(30)))
    assert await SessionRepository(engine).length("s") == 30


async def test_closing_waits_for_calls_under_way(lasting_url: str) -> None:
    """F14: what was begun is finished or refused; what was acknowledged is there."""
    sessions = SessionRepository.connect(lasting_url)
    await sessions.create("s")
    calls = [asyncio.ensure_future(sessions.append("s", say("user", "x"))) for _ in range(20)]
    await asyncio.sleep(0)
    await sessions.aclose()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(answer) for answer in answers} <= {list, StoreClosedError}
    async with SessionRepository.connect(lasting_url) as again:
        assert await again.length("s") == sum(isinstance(answer, list) for answer in answers)


async def test_a_cancelled_closing_goes_on(rows_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """F14, P4: whoever closes may leave; what is held is let go of, and the next one who closes waits for that."""
    sessions = SessionRepository.connect(rows_url)
    await sessions.create("s")
    executor, engine = sessions._executor, sessions._shared.engine.sync_engine
    close, entered, gate, disposed = executor.close, asyncio.Event(), asyncio.Event(), list[Any]()

    async def waiting() -> None:
        entered.set()
        await gate.wait()
        await close()

    monkeypatch.setattr(executor, "close", waiting)
    event.listen(engine, "engine_disposed", disposed.append)
    leaving = asyncio.create_task(sessions.aclose())
    await entered.wait()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert disposed == []
    gate.set()
    await sessions.aclose()
    assert disposed == [engine]
    with pytest.raises(StoreClosedError):
        await sessions.exists("s")


async def _held(url: str) -> int:
    """How many connections of our own engines there are."""
    [(held,)] = await fetch(url, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sessionstore'")
    return int(held)


async def _held_in_the_end(url: str) -> int:
    """The same, after the server had its time to notice that one was closed."""
    for _ in range(100):
        if not (held := await _held(url)):
            break
    return held


async def test_nothing_of_ours_stays_connected(postgres_database: str) -> None:
    """F14: connections of our own engine are closed with it."""
    async with SessionRepository.connect(postgres_database) as sessions:
        await asyncio.gather(*(sessions.create(f"s{at}") for at in range(5)))
        assert await _held(postgres_database) > 0
    assert await _held_in_the_end(postgres_database) == 0


async def test_a_call_that_pauses_while_closing_keeps_no_connection(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F14: a call between two tries when the store closes is finished or refused, and its connection is closed."""
    sessions = SessionRepository.connect(postgres_database)
    await sessions.create("s")
    paused, gate = asyncio.Event(), asyncio.Event()
    executor: Any = sessions._executor
    attempt, failures = executor._attempt, [StoreUnavailableError()]

    async def failing(*args: Any) -> Any:
        if failures:
            raise failures.pop()
        return await attempt(*args)

    async def pausing(_seconds: float) -> None:
        paused.set()
        await gate.wait()

    monkeypatch.setattr(executor, "_attempt", failing)
    monkeypatch.setattr(base, "asyncio", SimpleNamespace(sleep=pausing, get_running_loop=asyncio.get_running_loop))
    call = asyncio.create_task(sessions.exists("s"))
    await paused.wait()
    await sessions.aclose()
    gate.set()
    [answer] = await asyncio.gather(call, return_exceptions=True)
    assert answer is True or isinstance(answer, StoreClosedError)
    assert await _held_in_the_end(postgres_database) == 0


async def test_nothing_of_ours_stays_beside_the_file(sqlite_file: Path) -> None:
    """F14: the last connection takes the write-ahead log along, so that the file can be copied; each time."""
    for _ in range(100):
        async with SessionRepository.connect(f"sqlite:///{sqlite_file}") as sessions:
            await sessions.open("s")
            await asyncio.gather(*(sessions.exists("s") for _ in range(4)))
            assert len(files_in(sqlite_file.parent)) == 3
        assert files_in(sqlite_file.parent) == [sqlite_file.name]


# --- event loops ----------------------------------------------------------------------------------


async def test_another_event_loop_at_the_same_time(lasting_url: str) -> None:
    """F14: connections of PostgreSQL belong to the loop that made them, and the error says so; SQLite does not mind."""
    async with SessionRepository.connect(lasting_url) as sessions:
        await sessions.create("s")

        def elsewhere() -> bool:
            return asyncio.run(sessions.exists("s"))

        if lasting_url.startswith("sqlite"):
            assert await asyncio.to_thread(elsewhere) is True
        else:
            with pytest.raises(InvalidArgumentError, match="event loop"):
                await asyncio.to_thread(elsewhere)
        assert await sessions.exists("s")


def test_one_event_loop_after_the_other(lasting_url: str) -> None:
    """F14: a script may call `asyncio.run` again, on PostgreSQL with an engine that keeps no connection in between."""
    sessions = SessionRepository(create_async_engine(lasting_url, poolclass=NullPool))
    made = asyncio.run(sessions.create()).id
    assert asyncio.run(sessions.append(made, say("user", "x"))) == [0]
    assert asyncio.run(sessions.length(made)) == 1
    assert asyncio.run(sessions.delete(made))
    asyncio.run(sessions.aclose())


async def test_a_handle_of_another_tenant_closes_nothing_that_is_in_use(lasting_url: str) -> None:
    """X01: the store closes with the last handle on it that was entered."""
    async with SessionRepository.connect(lasting_url) as sessions:
        async with sessions.for_tenant("other") as other:
            await other.create("s")
        assert await sessions.for_tenant("other").exists("s")
    with pytest.raises(StoreClosedError):
        await sessions.exists("s")


async def test_a_joined_handle_has_nothing_to_close(engine: AsyncEngine) -> None:
    """F14: leaving it ends neither the caller's transaction nor the store."""
    store = SessionRepository(engine)
    await store.create("before")
    async with engine.begin() as connection:
        async with store.within(connection) as sessions:
            await sessions.create("s")
        assert await sessions.exists("s")
    assert await store.exists("s")


async def test_a_joined_handle_ends_with_its_repository(engine: AsyncEngine) -> None:
    """F14: after closing, also in a transaction that was open before; the transaction itself is the caller's."""
    store, documents = SessionRepository(engine), DocumentRepository(engine)
    await store.create("s")
    async with engine.begin() as connection:
        within, documents_within = store.within(connection), documents.within(connection)
        assert await within.append("s", say("user", "before")) == [0]
        await store.aclose()
        await documents.aclose()
        for call in (within.exists, within.append, within.delete, within.for_tenant("other").exists):
            with pytest.raises(StoreClosedError):
                await call("s")
        with pytest.raises(StoreClosedError):
            within.within(connection)
        with pytest.raises(StoreClosedError):
            await documents_within.find_json("category", "name")
        assert (await connection.exec_driver_sql("SELECT count(*) FROM sessionstore_messages")).scalar() == 1
    assert await SessionRepository(engine).length("s") == 1
