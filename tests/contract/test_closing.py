"""How a repository is closed, and in which event loop it may be used."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import create_async_engine

from sessionstore import DocumentRepository, InvalidArgumentError, SessionRepository, StoreClosedError
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


async def test_nothing_of_ours_stays_connected(postgres_database: str) -> None:
    """F14: connections of our own engine are closed with it."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sessionstore'"
    async with SessionRepository.connect(postgres_database) as sessions:
        await asyncio.gather(*(sessions.create(f"s{at}") for at in range(5)))
        [(held,)] = await fetch(postgres_database, query)
        assert held > 0
    for _ in range(100):
        [(held,)] = await fetch(postgres_database, query)
        if not held:
            break
    assert held == 0


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
