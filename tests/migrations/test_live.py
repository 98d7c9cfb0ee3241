"""Upgrades beside a service that reads and writes: nobody is blocked for long, nothing is lost, replicas may start."""

# ruff: noqa: S608 - the names of tables are constants
from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING

import pytest

from sessionstore import SessionRepository, SessionStoreError, StoreSettings, migrate
from sessionstore.schema import REVISION
from sessionstore.units import store as store_units
from sessionstore.verification import verify
from tests.migrations.databases import bare, execute, fetch, given_up
from tests.migrations.processes import ended, start
from tests.migrations.revisions import NEXT
from tests.support.faults_counts import FULL, figure, rounds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.migrations.revisions import Revisions

WRITERS = 8
ALTER = "op.add_column('sessionstore_messages', sa.Column('extra', sa.Text()))"
"""Needs the table for itself for a moment, and every statement behind it in the queue waits with it."""

LOCK_SECONDS = 4.0 if FULL else 1.0
SLACK_SECONDS = 10.0
"""A server that is told to give up after a time looks at its clock when it gets a processor. Who waits for the end of
the report waits longer than any slack, for it ends only when somebody has given up."""


class Writers:
    """Services that append, each to a session of its own and all to one, and note what was acknowledged."""

    def __init__(self, sessions: SessionRepository) -> None:
        self._sessions = sessions
        self._stop = asyncio.Event()
        self.acknowledged: dict[str, list[int]] = {}

    async def _write(self, number: int) -> None:
        names = [f"own-{number}", "shared"]
        while not self._stop.is_set():
            for name in names:
                positions = await self._sessions.append(name, {"role": "user", "by": number}, create=True)
                self.acknowledged.setdefault(name, []).extend(positions)

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Write while the block runs, and a little before and after it."""
        tasks = [asyncio.create_task(self._write(number)) for number in range(WRITERS)]
        await self._more(tasks)
        try:
            yield
            await self._more(tasks)
        finally:
            self._stop.set()
            await asyncio.gather(*tasks)

    async def _more(self, tasks: list[asyncio.Task[None]]) -> None:
        """Wait until each has written again."""
        before = self._count()
        while self._count() < before + 4 * WRITERS:
            assert not any(task.done() for task in tasks), "a writer has failed"
            await asyncio.sleep(0.01)

    def _count(self) -> int:
        return sum(len(positions) for positions in self.acknowledged.values())

    async def check(self) -> None:
        """Everything that was acknowledged is there, once and in its place."""
        for name, positions in self.acknowledged.items():
            assert sorted(positions) == list(range(len(positions)))
            assert await self._sessions.length(name) == len(positions)
        assert [finding async for finding in verify(self._sessions)] == []


class Waits:
    """The longest waits for locks, as the server itself measures them: of the migration, and of everybody else."""

    MIGRATION = "sessionstore-migrate"
    QUERY = """
        SELECT a.application_name, extract(epoch FROM clock_timestamp() - l.waitstart)::float
        FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE NOT l.granted AND l.waitstart IS NOT NULL AND l.locktype = 'relation' AND a.datname = current_database()
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.longest = {"migration": 0.0, "service": 0.0}

    @property
    def all_seen(self) -> bool:
        """Whether the migration has waited, and somebody behind it."""
        return all(self.longest.values())

    def check(self) -> None:
        """Nobody waits longer than a try of the migration."""
        for who, seconds in self.longest.items():
            assert seconds < LOCK_SECONDS + SLACK_SECONDS, f"the {who} has waited {seconds} s for a lock"

    @contextlib.asynccontextmanager
    async def measured(self) -> AsyncIterator[None]:
        """Look every few milliseconds."""
        connection = await bare(self._url)

        async def look() -> None:
            while True:
                for name, seconds in await connection.fetch(self.QUERY):
                    who = "migration" if name == self.MIGRATION else "service"
                    self.longest[who] = max(self.longest[who], seconds)
                await asyncio.sleep(0.005)

        task = asyncio.create_task(look())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await connection.close()


@contextlib.asynccontextmanager
async def report(url: str) -> AsyncIterator[None]:
    """One that has read all tables in a transaction, and is not done yet."""
    connection = await bare(url)
    await connection.execute("BEGIN")
    for table in ("sessions", "messages", "metadata"):
        await connection.fetch(f"SELECT count(*) FROM sessionstore_{table}")
    try:
        yield
    finally:
        await connection.close()


async def test_an_upgrade_beside_writers_and_a_long_report(
    postgres_empty: str, revisions: Revisions, request: pytest.FixtureRequest
) -> None:
    """P9: a change that needs a table for itself gives up in time, lets the others through, and tries again."""
    environment = revisions.folder / "env.py"
    text, count = re.subn(r"(LOCK_TIMEOUT_SECONDS: Final =) 4.0", rf"\1 {LOCK_SECONDS}", environment.read_text())
    assert count == 1
    environment.write_text(text)
    await migrate.upgrade(postgres_empty)
    revisions.add(NEXT, REVISION, ALTER)
    waits = Waits(postgres_empty)
    # More patience than a lock may take: whoever waits too long is measured, not cut off.
    settings = StoreSettings(operation_timeout_seconds=60)
    async with SessionRepository.connect(postgres_empty, settings=settings) as sessions:
        writers = Writers(sessions)
        async with waits.measured(), writers.at_work():
            async with report(postgres_empty):
                upgrade = asyncio.create_task(migrate.upgrade(postgres_empty))
                # Until it has given up, and was seen to have waited, and others behind it: only then it gets through.
                while not (await given_up(postgres_empty) and waits.all_seen):
                    assert not upgrade.done(), "it did not wait for a table that somebody was reading"
                    waits.check()
            assert await upgrade == NEXT
        await writers.check()
    figure(request, **{who: round(seconds, 3) for who, seconds in waits.longest.items()})
    waits.check()


async def test_every_revision_beside_writers(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P9: code of each release goes on while the next revision runs, up and down, and loses nothing.

    This code appends to tables of every revision; it makes sessions on those of its own only.
    """
    known = migrate.history()
    await migrate.upgrade(empty_url)
    async with SessionRepository.connect(empty_url) as sessions:
        for name in ("shared", *(f"own-{number}" for number in range(WRITERS))):
            await sessions.create(name)
    await migrate.downgrade(empty_url, "0001")
    monkeypatch.setattr(store_units, "REVISION", "0001")
    async with SessionRepository.connect(empty_url) as sessions:
        writers = Writers(sessions)
        async with writers.at_work():
            for _ in range(rounds(1, 5)):
                for migration in known[1:]:
                    assert await migrate.upgrade(empty_url, to=migration.revision) == migration.revision
                await migrate.downgrade(empty_url, "0001")
        await migrate.upgrade(empty_url)
        await writers.check()


async def test_an_index_that_was_left_half_built_is_built_anew(postgres_empty: str, revisions: Revisions) -> None:
    """P9: a build that failed leaves an INVALID index, which serves nobody; the next run replaces it."""
    await migrate.upgrade(postgres_empty)
    async with SessionRepository.connect(postgres_empty) as sessions:
        await sessions.append("s", *[{"role": "user", "seed_id": "twice"}] * 2, create=True)
    revisions.add(
        NEXT,
        REVISION,
        """
        with op.get_context().autocommit_block():
            op.execute("DROP INDEX CONCURRENTLY IF EXISTS uq_extra")
            op.execute("CREATE UNIQUE INDEX CONCURRENTLY uq_extra ON sessionstore_messages (tenant_id, seed_id)")
        """,
    )
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('uq_extra')"
    for _ in range(2):
        with pytest.raises(SessionStoreError, match="23505"):
            await migrate.upgrade(postgres_empty)
        assert await fetch(postgres_empty, valid) == [(False,)]
        assert await migrate.current(postgres_empty) == REVISION
    await execute(postgres_empty, "UPDATE sessionstore_messages SET seed_id = NULL WHERE position = 1")
    assert await migrate.upgrade(postgres_empty) == NEXT
    assert await fetch(postgres_empty, valid) == [(True,)]


@pytest.mark.processes
async def test_ten_replicas_start_at_once(empty_url: str) -> None:
    """P9, P13: each opens with `migrate=True`, and all of them serve."""
    replicas = [await start("-m", "tests.migrations.replica", empty_url, str(number)) for number in range(10)]
    for replica in replicas:
        assert replica.stdout is not None
        assert await replica.stdout.readline() == b"ready\n"
    found = await asyncio.gather(*(ended(replica, b"go\n") for replica in replicas))
    assert [(each.status, each.output) for each in found] == [(0, "served\n")] * 10, [each.errors for each in found]
    async with SessionRepository.connect(empty_url) as sessions:
        assert await sessions.length("shared") == 50
        assert len((await sessions.list_sessions()).rows) == 11
        assert [finding async for finding in verify(sessions)] == []


async def test_stores_in_schemas_of_their_own(postgres_empty: str) -> None:
    """P7, P9: migrated, used, upgraded and dropped one by one; none sees another's rows."""
    settings = {name: StoreSettings(schema=name) for name in ("one", "two")}
    await migrate.upgrade(postgres_empty, schema="one", to="0001")
    await migrate.upgrade(postgres_empty, schema="two")
    async with SessionRepository.connect(postgres_empty, settings=settings["two"]) as two:
        await two.append("s", {"role": "user", "content": "of two"}, create=True)
        async with SessionRepository.connect(postgres_empty, settings=settings["one"], migrate=True) as one:
            assert await one.find("s") is None
            await one.append("s", *[{"role": "user", "content": "of one"}] * 3, create=True)
            assert await two.length("s") == 1
            assert await one.delete_all() == 1
            assert await two.length("s") == 1
        await migrate.downgrade(postgres_empty, "base", schema="one")
        await execute(postgres_empty, "DROP SCHEMA one CASCADE")
        assert (await two.messages("s"))[0].body["content"] == "of two"
        assert [finding async for finding in verify(two, all_tenants=True)] == []
    assert await migrate.current(postgres_empty) is None
