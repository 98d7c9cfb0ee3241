"""Migrations in a network gone dark: every call ends, and neither a lock nor a connection is left behind."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from asyncpg import connect
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from sessionstore import StoreTimeoutError, StoreUnavailableError, limits, migrate
from sessionstore.schema import REVISION
from tests.migrations.databases import bare, fetch
from tests.migrations.processes import ROOT, ended, start
from tests.migrations.revisions import NEXT
from tests.support.faults_proxy import Break, Proxy
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.migrations.revisions import Revisions

SHORT_SECONDS = 0.5
PATIENCE_SECONDS = 20.0
"""What a busy machine may add. Without an end in the dark, each of these calls would wait for ever."""

ADVISORY_LOCK = int.from_bytes(b"sessions")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask often, and wait shortly for answers."""
    monkeypatch.setattr(limits, "MIGRATION_PULSE_SECONDS", 0.05)
    monkeypatch.setattr(limits, "MIGRATION_ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(limits, "OPERATION_TIMEOUT_SECONDS", SHORT_SECONDS)
    monkeypatch.setattr(migrate, "OPERATION_TIMEOUT_SECONDS", SHORT_SECONDS)


async def refused(call: Any, *, maybe_committed: bool = False) -> str:
    """Wait for the error of a call in the dark."""
    started = time.monotonic()
    with pytest.raises((StoreTimeoutError, StoreUnavailableError)) as caught:
        await call
    assert time.monotonic() - started < PATIENCE_SECONDS
    assert caught.value.maybe_committed is maybe_committed
    assert not migrate._guard.locked()
    return str(caught.value)


@pytest.mark.parametrize("call", [migrate.upgrade, migrate.current, migrate.check])
async def test_dark_before_the_connection(call: Callable[..., Any], postgres_empty: str) -> None:
    """P4, P9: whoever migrates and whoever only looks."""
    options = {"timeout_seconds": SHORT_SECONDS} if call is migrate.upgrade else {}
    async with Proxy(postgres_empty) as proxy:
        proxy.darken()
        assert "no answer of the server" in await refused(call(proxy.url, **options))
        proxy.lighten()
        assert await migrate.upgrade(proxy.url) == REVISION


@pytest.mark.parametrize("call", [migrate.upgrade, migrate.current, migrate.check])
async def test_dark_while_it_is_read_where_the_database_is(call: Callable[..., Any], postgres_database: str) -> None:
    """P4, P9: with a pool of the caller, which gets nothing back that is of no use."""
    options = {"timeout_seconds": SHORT_SECONDS} if call is migrate.upgrade else {}
    async with Proxy(postgres_database) as proxy:
        engine = create_async_engine(proxy.url, pool_size=2, max_overflow=0)
        proxy.once_requested(lambda request: "FROM sessionstore_schema" in request.query, Break.DARK)
        assert "nothing was changed" in await refused(call(engine, **options))
        assert isinstance(engine.pool, AsyncAdaptedQueuePool)
        assert engine.pool.checkedout() == 0
        proxy.lighten()
        await migrate.check(engine)
        await engine.dispose()


async def test_dark_while_another_migrates(postgres_empty: str) -> None:
    """P4, P9: waiting for the lock."""
    other = await bare(postgres_empty)
    await other.execute(f"SELECT pg_advisory_lock({ADVISORY_LOCK})")
    async with Proxy(postgres_empty) as proxy:
        proxy.once_requested(lambda request: "pg_sleep" in request.query, Break.DARK)
        assert "nothing was changed" in await refused(migrate.upgrade(proxy.url, timeout_seconds=SHORT_SECONDS))
    await other.close()
    assert await migrate.upgrade(postgres_empty) == REVISION


AT_WORK: dict[str, Callable[[Proxy], None]] = {
    "statement": lambda proxy: proxy.once_requested(
        lambda request: "CREATE TABLE sessionstore_messages" in request.query, Break.DARK
    ),
    "reply": lambda proxy: proxy.once_replied(
        lambda reply: "CREATE TABLE sessionstore_messages" in reply.query, Break.DARK
    ),
    "commit": lambda proxy: proxy.once_replied(lambda reply: "sessionstore_backfills" in reply.query, Break.DARK),
}


@pytest.mark.parametrize("moment", AT_WORK)
async def test_dark_while_a_revision_runs(moment: str, postgres_empty: str) -> None:
    """P4, P9: its patience with others is long, and yet it ends; running it again finishes."""
    async with Proxy(postgres_empty) as proxy:
        AT_WORK[moment](proxy)
        said = await refused(migrate.upgrade(proxy.url, timeout_seconds=600), maybe_committed=True)
        assert proxy.is_dark
        assert "in the middle of a migration" in said
    assert await migrate.upgrade(postgres_empty) == REVISION


async def test_only_the_answer_to_a_revision_is_lost(postgres_empty: str) -> None:
    """P4, P9: the way of one connection is forgotten, as firewalls do it, while that of the lock is well."""
    async with Proxy(postgres_empty) as proxy:
        ways = [proxy.url, postgres_empty]

        async def made() -> Any:
            url = make_url(ways.pop(0)).set(drivername="postgresql")
            return await connect(url.difference_update_query(["ssl"]).render_as_string(hide_password=False), ssl=False)

        engine = create_async_engine(postgres_empty, async_creator=made)
        proxy.once_replied(lambda reply: "CREATE TABLE sessionstore_messages" in reply.query, Break.DARK)
        said = await refused(migrate.upgrade(engine, timeout_seconds=600), maybe_committed=True)
        assert "in the middle of a migration" in said
        assert ways == []
        await engine.dispose()
    assert await migrate.upgrade(postgres_empty) == REVISION


async def test_a_call_in_the_dark_can_be_cancelled(postgres_empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P4, P9: at once, whatever it waits for; another migration of this process goes on."""
    async with Proxy(postgres_empty) as proxy:
        AT_WORK["statement"](proxy)
        monkeypatch.setattr(limits, "MIGRATION_ANSWER_SECONDS", 600.0)
        task = asyncio.create_task(migrate.upgrade(proxy.url, timeout_seconds=600))
        await until(lambda: proxy.is_dark)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, PATIENCE_SECONDS)
        assert not migrate._guard.locked()
    assert await migrate.upgrade(postgres_empty) == REVISION


@pytest.mark.processes
async def test_alembic_itself_in_the_dark(postgres_empty: str, tmp_path: Path) -> None:
    """P4, P9: the same by Alembic's own command."""
    async with Proxy(postgres_empty) as proxy:
        proxy.once_requested(lambda request: "pg_try_advisory_lock" in request.query, Break.DARK)
        arguments = ("-c", str(ROOT / "alembic.ini"), "-x", f"url={proxy.url}", "-x", "timeout=0.5", "upgrade", "head")
        done = await ended(await start("-m", "alembic", *arguments, cwd=tmp_path))
        assert proxy.is_dark
    assert done.status != 0
    assert "nothing was changed" in done.errors


async def test_an_open_connection_in_the_dark(postgres_empty: str) -> None:
    """P4, P9: of a caller who has one."""
    async with Proxy(postgres_empty) as proxy:
        engine = create_async_engine(proxy.url)
        async with engine.connect() as connection:
            AT_WORK["statement"](proxy)
            call = migrate.upgrade_connection(connection, timeout_seconds=600)
            assert "in the middle of a migration" in await refused(call, maybe_committed=True)
            await connection.invalidate()
        proxy.lighten()
        async with engine.connect() as connection:
            assert await migrate.upgrade_connection(connection) == REVISION
        await engine.dispose()


async def test_a_revision_at_work_is_not_cut(postgres_empty: str, revisions: Revisions) -> None:
    """P9: `timeout_seconds` is patience with others, and the server is asked all the time beside it."""
    await migrate.upgrade(postgres_empty)
    revisions.add(NEXT, REVISION, "op.execute('SELECT pg_sleep(3)')")
    assert await migrate.upgrade(postgres_empty, timeout_seconds=SHORT_SECONDS) == NEXT
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    assert await fetch(postgres_empty, f"{locks} AND pid <> pg_backend_pid()") == [(0,)]
