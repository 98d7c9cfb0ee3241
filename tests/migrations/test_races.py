"""Many that migrate at once, in one process and in several: all of them succeed, the work is done once."""

# ruff: noqa: S608 - the names of tables are constants
from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import make_url

from sessionstore import migrate
from sessionstore.dialects.urls import normalize_url
from sessionstore.errors import StoreBusyError
from sessionstore.schema import REVISION
from tests.migrations.databases import VERSION_TABLE, bare, catalog, execute, fetch, given_up, rows_of, tables_of
from tests.migrations.freeze import load
from tests.migrations.processes import Ended, migrate_at_once
from tests.migrations.worker import before_each
from tests.support.faults_counts import rounds
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SUCCEEDED = Ended(0, f"{REVISION}\n", "")
ADVISORY_LOCK = int.from_bytes(b"sessions")


async def test_upgrades_of_one_database_in_one_process(empty_url: str) -> None:
    reached = await asyncio.gather(*(migrate.upgrade(empty_url) for _ in range(4)))
    assert set(reached) == {REVISION}
    await migrate.check(empty_url)


async def test_upgrades_of_several_databases_in_one_process(tmp_path: Path, postgres_empty: str) -> None:
    # Interleaved, they find each other's context: KeyError('script').
    urls = [postgres_empty, *(f"sqlite:///{tmp_path / str(number)}.db" for number in range(3))]
    scripts = [asyncio.to_thread(migrate.sql) for _ in range(3)]
    reached = await asyncio.gather(*(migrate.upgrade(url) for url in urls), *scripts)
    assert set(reached[:4]) == {REVISION}
    assert reached[4] == reached[5] == reached[6]
    for url in urls:
        await migrate.check(url)


async def test_upgrades_in_event_loops_of_their_own(tmp_path: Path) -> None:
    def in_a_loop(number: int) -> str:
        return asyncio.run(migrate.upgrade(f"sqlite:///{tmp_path / str(number % 2)}.db"))

    reached = await asyncio.gather(*(asyncio.to_thread(in_a_loop, number) for number in range(6)))
    assert set(reached) == {REVISION}


@pytest.mark.processes
async def test_eight_processes_at_once(empty_url: str) -> None:
    assert await migrate_at_once(empty_url, 8) == [SUCCEEDED] * 8
    await migrate.check(empty_url)
    assert await fetch(empty_url, f"SELECT * FROM {VERSION_TABLE}") == [(REVISION,)]
    assert await fetch(empty_url, "SELECT id FROM sessionstore_schema") == [(1,)]


@pytest.mark.processes
@pytest.mark.timeout(1800)
async def test_eight_processes_again_and_again(empty_url: str) -> None:
    """P9: from the oldest release on, with rows in every table; 40 times in full."""
    for _ in range(rounds(1, 40)):
        await load("0001", empty_url)
        before = await rows_of(empty_url, await tables_of(empty_url))
        assert await migrate_at_once(empty_url, 8) == [SUCCEEDED] * 8
        await check_migrated(empty_url, before)
        await clear(empty_url)


@pytest.mark.processes
@pytest.mark.timeout(1800)
async def test_killed_at_any_statement(empty_url: str) -> None:
    """P9: one process, or each of several in turn; 24 times in full."""
    chance, killed = random.Random(24), Ended(-9, "", "")
    last, _ = await measured(empty_url)
    for _ in range(rounds(3, 24)):
        before = await filled(empty_url)
        count, statement = chance.choice([1, 1, 3]), chance.randint(1, last)
        ended = await migrate_at_once(empty_url, count, kill_at=statement)
        # Whoever takes over dies at the same statement, if not before it while it waits; or finds all of it done, where
        # that was one of the last.
        assert killed in ended, statement
        assert all(each in {killed, SUCCEEDED} for each in ended), (statement, ended)
        assert await migrate.upgrade(empty_url) == REVISION
        await check_migrated(empty_url, before)
        await clear(empty_url)


@pytest.mark.processes
@pytest.mark.timeout(1800)
async def test_killed_at_any_moment(empty_url: str) -> None:
    """P9: from outside, in the middle of a statement or a COMMIT, beside others that finish; 24 times in full."""
    chance = random.Random(25)
    _, seconds = await measured(empty_url)
    for _ in range(rounds(3, 24)):
        before = await filled(empty_url)
        count, moment = chance.choice([1, 1, 3]), chance.uniform(0, seconds)
        killed, *others = await migrate_at_once(empty_url, count, first_for=moment)
        assert killed in {SUCCEEDED, Ended(-9, "", ""), SUCCEEDED._replace(status=-9)}  # after it was done, perhaps
        assert others == [SUCCEEDED] * len(others)
        assert await migrate.upgrade(empty_url) == REVISION
        await check_migrated(empty_url, before)
        await clear(empty_url)


async def filled(url: str) -> dict[str, list[Any]]:
    """Make the tables of the oldest release; their rows."""
    await load("0001", url)
    return await rows_of(url, await tables_of(url))


async def measured(url: str) -> tuple[int, float]:
    """How many statements an upgrade from the oldest release takes in a process of its own, and how long it is."""
    await filled(url)
    [done] = await migrate_at_once(url, 1, kill_at=0)
    await clear(url)
    count, seconds = done.output.split()
    return int(count), float(seconds)


async def clear(url: str) -> None:
    """Leave nothing."""
    await migrate.downgrade(url, "base")
    await execute(url, f"DROP TABLE {VERSION_TABLE}")


async def check_migrated(url: str, before: dict[str, list[Any]]) -> None:
    """At the newest revision, with every row that was there before."""
    await migrate.check(url)
    after = await rows_of(url, await tables_of(url))
    assert {table: after[table] for table in before} == before
    assert await fetch(url, f"SELECT * FROM {VERSION_TABLE}") == [(REVISION,)]


@pytest.mark.processes
@pytest.mark.parametrize("statement", [1, 4, 9, 17, 25])
async def test_killed_and_run_again(empty_url: str, tmp_path: Path, statement: int) -> None:
    killed = await migrate_at_once(empty_url, 1, kill_at=statement)
    assert killed[0].status == -9, killed
    assert await migrate.current(empty_url) is None
    left = await catalog(empty_url)
    assert not any(left.values())
    assert await migrate.upgrade(empty_url) == REVISION
    untouched = f"sqlite:///{tmp_path / 'untouched.db'}"
    if empty_url.startswith("sqlite"):
        await migrate.upgrade(untouched)
        assert await catalog(empty_url) == await catalog(normalize_url(untouched).render_as_string())


async def test_postgresql_gives_up_at_the_deadline_while_another_migrates(postgres_empty: str) -> None:
    other = await bare(postgres_empty)
    await other.execute(f"SELECT pg_advisory_lock({ADVISORY_LOCK})")
    with pytest.raises(StoreBusyError, match="another migration of this database"):
        await migrate.upgrade(postgres_empty, timeout_seconds=0.3)
    assert await migrate.current(postgres_empty) is None
    await other.close()
    assert await migrate.upgrade(postgres_empty) == REVISION
    # Where nothing is left to do, nobody waits for anybody.
    other = await bare(postgres_empty)
    await other.execute(f"SELECT pg_advisory_lock({ADVISORY_LOCK})")
    assert await migrate.upgrade(postgres_empty, timeout_seconds=0.3) == REVISION
    await other.close()


async def test_postgresql_gives_up_at_the_deadline_while_a_table_is_locked(postgres_empty: str) -> None:
    await migrate.upgrade(postgres_empty)
    await migrate.downgrade(postgres_empty, "base")
    other = await bare(postgres_empty)
    async with other.transaction():
        await other.execute(f"LOCK TABLE {VERSION_TABLE}")
        with pytest.raises(StoreBusyError, match="kept a row or a table locked"):
            await migrate.upgrade(postgres_empty, timeout_seconds=0.3)
    assert await migrate.upgrade(postgres_empty) == REVISION
    await other.close()


async def test_postgresql_tries_again_where_a_table_was_locked(postgres_empty: str) -> None:
    await migrate.upgrade(postgres_empty)
    await migrate.downgrade(postgres_empty, "base")
    other = await bare(postgres_empty)
    await other.execute("BEGIN")
    await other.execute(f"LOCK TABLE {VERSION_TABLE}")
    upgrade = asyncio.create_task(migrate.upgrade(postgres_empty))
    while not await given_up(postgres_empty):
        assert not upgrade.done()
    await other.execute("ROLLBACK")
    assert await upgrade == REVISION
    await other.close()


async def test_sqlite_gives_up_at_the_deadline_while_another_migrates(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    url = f"sqlite:///{tmp_path / 'sessions.db'}"
    with pytest.raises(StoreBusyError, match="stayed locked"):
        await migrate.upgrade(url, timeout_seconds=0.1)
    other.execute("ROLLBACK")
    other.close()
    assert await migrate.upgrade(url) == REVISION


async def test_a_migration_of_this_process_that_does_not_end(empty_url: str) -> None:
    with migrate._guard, pytest.raises(StoreBusyError, match="of this process"):
        await migrate.upgrade(empty_url, timeout_seconds=0.1)
    assert await migrate.upgrade(empty_url) == REVISION


async def test_a_cancelled_upgrade_leaves_no_lock(empty_url: str) -> None:
    """P9: at moments from its first statement to its last; ten of them in full."""
    seen: list[int] = []
    await upgraded(empty_url, seen.append)
    last = rounds(4, 9)
    for at in range(last + 1):
        await clear(empty_url)
        statement = 1 + at * (len(seen) - 1) // last
        with pytest.raises(asyncio.CancelledError):
            await upgraded(empty_url, cancelling(asyncio.get_running_loop(), statement))
        await unlocked(empty_url)
        assert await migrate.upgrade(empty_url) == REVISION
        await check_migrated(empty_url, {})


async def upgraded(url: str, act: Callable[[int], object]) -> str:
    """Upgrade in a task of its own, and do something before each of its statements."""
    end = before_each(act)
    try:
        return await asyncio.create_task(migrate.upgrade(url), name="upgrade")
    finally:
        end()


def cancelling(loop: asyncio.AbstractEventLoop, last: int) -> Callable[[int], None]:
    """Cancel that task before its so-many-th statement, which on SQLite is in a thread."""

    def cancel() -> None:
        for task in asyncio.all_tasks(loop):
            if task.get_name() == "upgrade":
                task.cancel()

    def act(number: int) -> None:
        if number == last:
            loop.call_soon_threadsafe(cancel)

    return act


async def unlocked(url: str) -> None:
    """Wait until the migration holds no lock: for a thread that ends its work, or a server that was told to go."""
    await until(lambda: not migrate._guard.locked())
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(make_url(url).database or "", timeout=0, isolation_level=None)) as file:
            file.execute("BEGIN EXCLUSIVE")
        return
    query = """
        SELECT l.locktype, l.mode FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE a.datname = current_database() AND a.application_name = 'sessionstore-migrate'
    """
    while await fetch(url, query):  # noqa: ASYNC110  # the server has no event
        await asyncio.sleep(0.01)
