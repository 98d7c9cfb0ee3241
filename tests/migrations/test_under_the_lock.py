"""What is left to do is decided under the lock: whoever waited finds what the others did, which may be all, or more."""

# ruff: noqa: S608 - the names of tables are constants
from __future__ import annotations

import asyncio
import os
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from sessionstore import SchemaOutOfDateError, migrate
from sessionstore.errors import CorruptStoreError
from sessionstore.revisions import compatible_from
from sessionstore.schema import REVISION
from tests.migrations.databases import VERSION_TABLE, bare, execute, fetch, mode_of
from tests.migrations.processes import ROOT, ended, start
from tests.migrations.revisions import NEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from tests.migrations.revisions import Revisions

ADVISORY_LOCK = int.from_bytes(b"sessions")
POLLING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND pid <> pg_backend_pid()"


async def overtaken(url: str, call: Coroutine[Any, Any, Any], *statements: str) -> asyncio.Task[Any]:
    """Let a migration wait for another, which does its work, and commits, while it waits."""
    if url.startswith("sqlite"):
        return await _overtaken_on_sqlite(url, call, statements)
    other = await bare(url)
    await other.execute(f"SELECT pg_advisory_lock({ADVISORY_LOCK})")
    task = asyncio.create_task(call)
    while not await other.fetchval(POLLING):
        assert not task.done()
        await asyncio.sleep(0.01)
    for statement in statements:
        await other.execute(statement)
    await other.close()
    await asyncio.wait({task})
    return task


async def _overtaken_on_sqlite(
    url: str, call: Coroutine[Any, Any, Any], statements: tuple[str, ...]
) -> asyncio.Task[Any]:
    other = sqlite3.connect(str(make_url(url).database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    task = asyncio.create_task(call)
    # Readers see what was there before, so that it looks and then waits; nobody can be asked how far it is.
    await asyncio.sleep(1)
    assert not task.done()
    for statement in statements:
        other.execute(statement)
    other.execute("COMMIT")
    other.close()
    await asyncio.wait({task})
    return task


def newer(oldest: str) -> tuple[str, str]:
    """What newer code writes when it has migrated."""
    return (
        f"UPDATE sessionstore_schema SET revision = '9999', compatible_from = '{oldest}'",
        f"UPDATE {VERSION_TABLE} SET version_num = '9999'",
    )


async def test_newer_code_was_faster(empty_url: str) -> None:
    """P9: to a revision that this code does not know, and can work with."""
    await migrate.upgrade(empty_url, to="0001")
    task = await overtaken(empty_url, migrate.upgrade(empty_url), *newer("0001"))
    assert await task == "9999"
    assert await migrate.current(empty_url) == "9999"


async def test_newer_code_was_faster_and_this_code_has_to_go(empty_url: str) -> None:
    """P9: the error that it would have got a moment later."""
    await migrate.upgrade(empty_url, to="0001")
    task = await overtaken(empty_url, migrate.upgrade(empty_url), *newer("9998"))
    with pytest.raises(SchemaOutOfDateError, match=r"pip install --upgrade sessionstore .*9998 or later"):
        await task


async def test_another_went_back_further(empty_url: str) -> None:
    """P9: nothing is left to take back."""
    await migrate.upgrade(empty_url)
    further = (
        *("DROP TABLE sessionstore_events", "DROP TABLE sessionstore_tombstones"),
        *("DROP TABLE sessionstore_backfills", "DROP VIEW sessionstore_message_facts"),
        *("DROP VIEW sessionstore_session_facts", "UPDATE sessionstore_schema SET revision = '0001'"),
        f"UPDATE {VERSION_TABLE} SET version_num = '0001'",
    )
    task = await overtaken(empty_url, migrate.downgrade(empty_url, "0002"), *further)
    assert await task == "0001"
    assert await migrate.upgrade(empty_url) == REVISION


@pytest.mark.parametrize("setting", ["idle_session_timeout = '500ms'", "statement_timeout = '50ms'"])
async def test_what_a_role_sets_does_not_end_a_wait(postgres_empty: str, setting: str) -> None:
    """P9: while another migrates, neither of the two connections is ended; what was set is there again afterwards."""
    name, _, value = setting.partition(" = ")
    await execute(postgres_empty, f"ALTER DATABASE {make_url(postgres_empty).database} SET {setting}")
    engine = create_async_engine(postgres_empty, pool_size=2, max_overflow=0)
    other = await bare(postgres_empty)
    await other.execute(f"SET {name} = 0; SELECT pg_advisory_lock({ADVISORY_LOCK})")
    task = asyncio.create_task(migrate.upgrade(engine))
    while not await other.fetchval(POLLING):
        assert not task.done()
    await other.execute("SELECT pg_sleep(1.5)")
    await other.close()
    assert await task == REVISION
    async with engine.connect() as one, engine.connect() as two:
        for connection in (one, two):
            assert (await connection.exec_driver_sql(f"SHOW {name}")).scalar() == value.strip("'")
    await engine.dispose()


async def test_what_a_role_sets_does_not_end_a_pause(postgres_empty: str, revisions: Revisions) -> None:
    """P9: a table was locked, and it pauses before it tries again."""
    await migrate.upgrade(postgres_empty)
    await execute(postgres_empty, f"ALTER DATABASE {make_url(postgres_empty).database} SET statement_timeout = '50ms'")
    await execute(postgres_empty, "CREATE SEQUENCE tries")
    raised = "DO $$ BEGIN IF nextval('tries') < 3 THEN RAISE SQLSTATE '55P03'; END IF; END $$"
    revisions.add(NEXT, REVISION, f'op.execute("{raised}")')
    assert await migrate.upgrade(postgres_empty) == NEXT
    assert await fetch(postgres_empty, "SELECT last_value FROM tries") == [(3,)]


@pytest.mark.parametrize("deleted", ["the row", "the row and Alembic's"])
@pytest.mark.parametrize("revision", ["0001", REVISION])
async def test_the_row_of_the_schema_was_deleted(empty_url: str, revision: str, deleted: str) -> None:
    """P9: nobody takes the tables for an empty database; what puts the row back is in the error."""
    await migrate.upgrade(empty_url, to=revision)
    await execute(empty_url, "DELETE FROM sessionstore_schema")
    if deleted != "the row":
        await execute(empty_url, f"DELETE FROM {VERSION_TABLE}")
    calls: list[Callable[[], Any]] = [
        lambda: migrate.upgrade(empty_url),
        lambda: migrate.downgrade(empty_url, "base"),
        lambda: migrate.current(empty_url),
        lambda: migrate.check(empty_url),
    ]
    for call in calls:
        with pytest.raises(CorruptStoreError, match=r"row of sessionstore_schema .* is missing") as caught:
            await call()
    mend = str(caught.value).partition("put it back: ")[2]
    if deleted != "the row":
        assert mend.endswith(
            "VALUES (1, '<newest revision that ran>', '<oldest revision whose code may use the tables>')"
        )
        return
    assert mend == (
        "INSERT INTO sessionstore_schema (id, revision, compatible_from) "
        f"VALUES (1, '{revision}', '{compatible_from(revision)}')"
    )
    await execute(empty_url, mend)
    assert await migrate.upgrade(empty_url) == REVISION


async def test_the_missing_row_is_what_the_revisions_wrote(empty_url: str, revisions: Revisions) -> None:
    """P9: after each revision, a contract too."""
    revisions.add(NEXT, REVISION, "op.execute(\"UPDATE sessionstore_schema SET compatible_from = '0002'\")")
    for migration in ("0001", "0002", REVISION, NEXT):
        await migrate.upgrade(empty_url, to=migration)
        written = await fetch(empty_url, "SELECT compatible_from FROM sessionstore_schema")
        assert written == [(compatible_from(migration),)]


@pytest.mark.processes
async def test_alembic_itself_makes_a_private_file(tmp_path: Path) -> None:
    """P9: whatever the umask allows."""
    file = tmp_path / "private.db"
    before = os.umask(0o022)
    try:
        arguments = ("-c", str(ROOT / "alembic.ini"), "-x", f"url=sqlite:///{file}", "upgrade", "head")
        done = await ended(await start("-m", "alembic", *arguments, cwd=tmp_path))
    finally:
        os.umask(before)
    assert done.status == 0, done.errors
    assert mode_of(file) == 0o600
