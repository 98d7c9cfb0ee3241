"""Erasing a user: in batches that may be killed, and after the maintenance down to the bytes of the live files."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import (
    DocumentRepository,
    InvalidArgumentError,
    NewMessage,
    ReadOnlyStoreError,
    SessionRepository,
    StoreBusyError,
    StoreTimeoutError,
    retention,
)
from sessionstore.executors.sqlite import configure
from sessionstore.upkeep import _Cleaning, maintain
from sessionstore.verification import verify
from tests.contract._eraser import BATCH
from tests.contract._own import dump, ids_of, meddle
from tests.docs.test_operations import role
from tests.migrations.processes import start
from tests.support.invariants import connect_postgres
from tests.support.repositories import row_counts, rows
from tests.support.templates import sqlite_url
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "canary-of-ann-5e1b"


def said(at: int, whose: str = CANARY) -> NewMessage:
    return NewMessage({"role": "user", "content": f"{whose} {at} " + "x" * 200}, message_id=f"{whose}-{at}")


async def fill(sessions: SessionRepository, count: int = 20) -> None:
    """Sessions of two users in turn, with messages, metadata and texts."""
    for at in range(count):
        user = ("ann", "bob")[at % 2]
        canary = CANARY if user == "ann" else "kept-of-bob"
        text = {"title": canary, "system_message": canary}
        await sessions.create(f"{user}-{at:03}", user_id=user, metadata={"note": canary}, **text)  # type: ignore[arg-type]
        await sessions.append(f"{user}-{at:03}", *[said(number, canary) for number in range(5)])
    await sessions.fork("ann-000", new_id="ann-fork")


async def assert_whole(sessions: SessionRepository) -> None:
    assert [finding async for finding in verify(sessions, all_tenants=True)] == []


async def assert_erased(sessions: SessionRepository, bobs: dict[str, Any]) -> None:
    """Nothing of her is left in any table, and everything of his is."""
    assert CANARY not in repr(await dump(sessions))
    assert await dump(sessions) == bobs


async def test_every_row_of_a_user_goes(sessions: SessionRepository) -> None:
    """P5, O16: sessions, messages, metadata and forks; nobody else's, and no other tenant's."""
    await fill(sessions.for_tenant("other"), count=2)
    others = await dump(sessions)
    await fill(sessions)
    assert await sessions.delete_user("ann") == 11
    assert await sessions.delete_user("ann") == 0
    assert await sessions.delete_user("bob") == 10
    assert await dump(sessions) == others
    await assert_whole(sessions)


async def test_an_id_of_an_erased_user_starts_empty(sessions: SessionRepository) -> None:
    """P5: a message id that was used before is new again."""
    await fill(sessions, count=2)
    await sessions.delete_user("ann")
    assert await sessions.append("ann-000", said(0), create=True) == [0]
    session = await sessions.get("ann-000")
    assert (session.user_id, session.title, session.metadata) == ("", None, {})


async def test_what_it_leaves(sessions: SessionRepository) -> None:
    """P5: a fork that became somebody else's, the names of parents, and documents: the pages say so."""
    documents = DocumentRepository(sessions._shared.engine)
    await fill(sessions, count=1)
    await sessions.update("ann-fork", user_id="bob")
    await documents.save_markdown("notes", "ann", text=CANARY)
    assert await sessions.delete_user("ann") == 1
    assert (await sessions.get("ann-fork")).parent_id == "ann-000"
    assert await sessions.length("ann-fork") == 5
    assert await documents.find_markdown("notes", "ann") == CANARY


@pytest.mark.parametrize("cut", [0, 1, 2])
async def test_cut_off_between_batches(sessions: SessionRepository, monkeypatch: pytest.MonkeyPatch, cut: int) -> None:
    """P5, P6: every session that is left is whole, and calling again erases the rest."""
    monkeypatch.setattr(retention, "PRUNE_BATCH", BATCH)
    await fill(sessions)

    async def fail(batch: int) -> None:
        if batch == cut:
            raise asyncio.CancelledError

    meddle(sessions, fail)
    with pytest.raises(asyncio.CancelledError):
        await sessions.delete_user("ann")
    await assert_whole(sessions)
    left = [name for name in await ids_of(sessions) if name.startswith("ann")]
    assert len(left) == 11 - cut * BATCH
    assert await sessions.delete_user("ann") == len(left)
    await assert_whole(sessions)
    assert CANARY not in repr(await dump(sessions))
    assert len(await ids_of(sessions)) == 10


@pytest.mark.processes
@pytest.mark.parametrize("batches", [1, 2, 3])
async def test_killed_between_batches(lasting_url: str, batches: int) -> None:
    """P1, P5, P6: `kill -9` leaves whole sessions, all of the other user's rows, and less to do for the next call."""
    async with SessionRepository.connect(lasting_url) as sessions:
        await fill(sessions)
        before = {name: (await sessions.snapshot(name)).messages for name in await ids_of(sessions)}
        process = await start("-m", "tests.contract._eraser", lasting_url)
        assert process.stdout is not None
        assert process.stdin is not None
        for batch in range(batches):
            assert await process.stdout.readline() == b"erased\n"
            if batch < batches - 1:
                process.stdin.write(b"go on\n")
        process.kill()
        await process.wait()
        await assert_whole(sessions)
        left = await ids_of(sessions)
        assert len([name for name in left if name.startswith("ann")]) == max(11 - batches * BATCH, 0)
        for name in left:
            assert (await sessions.snapshot(name)).messages == before[name]
        assert await sessions.delete_user("ann") == max(11 - batches * BATCH, 0)
        assert await ids_of(sessions) == [name for name in before if name.startswith("bob")]
        assert CANARY not in repr(await dump(sessions))
        await assert_whole(sessions)


# --- down to the bytes --------------------------------------------------------------------------


def live_bytes(file: Path) -> bytes:
    """The database file, its log and its index."""
    parts = [file.with_name(file.name + end) for end in ("", "-wal", "-shm")]
    return b"".join(part.read_bytes() for part in parts if part.exists())


def sizes(file: Path) -> tuple[int, int]:
    """Bytes of the file and its log."""
    return file.stat().st_size, file.with_name(file.name + "-wal").stat().st_size


def test_what_is_deleted_is_overwritten(sqlite_file: Path) -> None:
    """P5: each connection that writes has `secure_delete`, in the form that costs next to nothing."""
    with contextlib.closing(sqlite3.connect(sqlite_file)) as connection:
        connection.execute("PRAGMA secure_delete = OFF").fetchone()
        configure(connection, durability="full", writes=True)
        assert connection.execute("PRAGMA secure_delete").fetchone() == (2,)


async def test_no_byte_is_left_after_the_maintenance(sqlite_file: Path) -> None:
    """P5: not in the file, the log or the index, while the store stays open; what is kept is kept."""
    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        await fill(sessions, count=60)
        await sessions.append("ann-000", {"role": "user", "content": CANARY + "y" * 300_000})
        await sessions.delete_user("ann")
        assert CANARY.encode() in live_bytes(sqlite_file), "the log still holds it: or this test proves nothing"
        kept = await dump(sessions)
        found = await maintain(sessions)
        assert CANARY.encode() not in live_bytes(sqlite_file)
        assert b"ann-000" not in live_bytes(sqlite_file)
        assert b"kept-of-bob" in live_bytes(sqlite_file)
        assert found.after < found.before
        assert sizes(sqlite_file) == (found.after, 0)
        await assert_erased(sessions, kept)
        await assert_whole(sessions)
        await sessions.append("bob-001", said(99, "after"))
    assert CANARY.encode() not in live_bytes(sqlite_file)


async def test_each_step_of_the_maintenance_is_needed(sqlite_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P5: without the overwriting and the new file, or without emptying the log, bytes would be left."""
    real = configure

    def careless(connection: sqlite3.Connection, *, durability: str, writes: bool) -> sqlite3.Connection:
        configured = real(connection, durability=durability, writes=writes)
        configured.execute("PRAGMA secure_delete = OFF").fetchone()
        return configured

    monkeypatch.setattr("sessionstore.executors.engines.configure", careless)
    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        await fill(sessions, count=60)
        await sessions.delete_user("ann")
        with contextlib.closing(sqlite3.connect(sqlite_file)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert CANARY.encode() in live_bytes(sqlite_file), "emptying the log is not enough"
        with monkeypatch.context() as without:
            without.setattr(_Cleaning, "_empty_log", lambda *_: None)
            await maintain(sessions)
        assert CANARY.encode() in live_bytes(sqlite_file), "nor is a new file, as long as it is in the log"
        await maintain(sessions)
        assert CANARY.encode() not in live_bytes(sqlite_file)


STATISTICS = "SELECT tbl FROM sqlite_stat1 ORDER BY 1"


def analyzed(file: Path, *then: str) -> None:
    """Statistics that somebody else has made."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.executescript(";".join(("ANALYZE", *then)))


async def test_statistics_are_made_anew(sqlite_file: Path) -> None:
    """P5: before the file is, so that they do not remember; but only where somebody has made some."""
    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        await fill(sessions)
        await maintain(sessions)
        assert await rows(sessions, "SELECT name FROM sqlite_master WHERE name LIKE 'sqlite_stat%'") == []
        analyzed(sqlite_file, f"UPDATE sqlite_stat1 SET stat = stat || ' {CANARY}'")  # noqa: S608  # a constant
        assert CANARY in repr(await rows(sessions, "SELECT stat FROM sqlite_stat1"))
        await sessions.delete_user("ann")
        await maintain(sessions)
        assert await rows(sessions, STATISTICS) != []
        assert CANARY.encode() not in live_bytes(sqlite_file)


async def test_the_store_works_on_beside_the_maintenance(lasting_url: str) -> None:
    """P4: whoever writes meanwhile waits at most; nothing is lost, and nothing fails."""
    async with SessionRepository.connect(lasting_url) as sessions:
        await fill(sessions, count=40)
        ended = asyncio.Event()
        acknowledged: list[int] = []

        async def write() -> None:
            while not ended.is_set() or not acknowledged:
                acknowledged.extend(await sessions.append("mine", said(len(acknowledged), "mine"), create=True))

        writer = asyncio.create_task(write())
        told: list[str] = []
        for _ in range(3):
            await maintain(sessions, on_progress=told.append)
        ended.set()
        await writer
        assert acknowledged == list(range(len(acknowledged)))
        assert await sessions.length("mine") == len(acknowledged)
        assert told
        await assert_whole(sessions)


async def test_who_reads_an_old_moment_is_in_the_way(sqlite_file: Path) -> None:
    """P4: it says so when its time is up, holds nobody up for longer, and works once they are gone."""
    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        await fill(sessions, count=4)
        with contextlib.closing(sqlite3.connect(sqlite_file, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM sessionstore_sessions").fetchone()
            await sessions.delete_user("ann")
            with pytest.raises((StoreBusyError, StoreTimeoutError)):
                await maintain(sessions, timeout_seconds=0.5)
            await sessions.append("bob-001", said(99, "after"))
            reader.execute("ROLLBACK")
        await maintain(sessions)
        assert CANARY.encode() not in live_bytes(sqlite_file)


async def test_a_cancelled_maintenance(sqlite_file: Path) -> None:
    """P4: it ends with the statement that runs, and what that has not finished is undone."""
    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        await fill(sessions, count=40)
        for _ in range(10):
            reached = asyncio.Event()
            work = asyncio.create_task(maintain(sessions, on_progress=lambda _, reached=reached: reached.set()))  # type: ignore[misc]
            await reached.wait()
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
            await sessions.append("bob-001", said(99, "after"))
            await sessions.truncate("bob-001", 5)
        await assert_whole(sessions)
        assert await row_counts(sessions, ["sessionstore_sessions"]) == {"sessionstore_sessions": 41}


async def test_nothing_is_begun_for_nobody(sqlite_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P4: whoever cancels it has stopped it, not only stopped waiting."""
    begun, ended = threading.Event(), threading.Event()

    def wait(cleaning: _Cleaning, _connection: sqlite3.Connection) -> None:
        begun.set()
        for _ in range(100):
            if not cleaning._stopped:
                time.sleep(0.02)

    real = _Cleaning.run

    def run(cleaning: _Cleaning, file: Path, step: Any) -> Any:
        try:
            return real(cleaning, file, step)
        finally:
            ended.set()

    monkeypatch.setattr(_Cleaning, "_empty_log", wait)
    monkeypatch.setattr(_Cleaning, "run", run)
    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        await fill(sessions, count=2)
        analyzed(sqlite_file, "DELETE FROM sqlite_stat1")
        work = asyncio.create_task(maintain(sessions))
        await until(begun.is_set)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        await until(ended.is_set)
        assert await rows(sessions, STATISTICS) == []


_VACUUMED = """
    SELECT sum(n_dead_tup), bool_and(vacuum_count > 0 AND analyze_count > 0), pg_sleep(0.05) IS NULL
    FROM pg_stat_user_tables WHERE relname LIKE 'sessionstore%' AND relname <> 'sessionstore_alembic_version'
"""


async def test_postgresql_is_vacuumed(postgres_database: str) -> None:
    """P5: dead rows are gone from the tables, and the planner knows what is left."""
    async with SessionRepository.connect(postgres_database) as sessions:
        await fill(sessions, count=60)
        await sessions.delete_user("ann")
        found = await maintain(sessions)
        assert found.before > 0
        connection = await connect_postgres(postgres_database)
        dead, vacuumed = 0, False
        while not vacuumed:  # the statistics are written a moment later
            [(dead, vacuumed, _)] = [tuple(row) for row in await connection.fetch(_VACUUMED)]
        assert dead == 0
        await connection.close()
        await assert_whole(sessions)


async def test_who_does_not_own_the_tables_is_told(postgres_database: str) -> None:
    """P12: PostgreSQL would skip them with no more than a warning."""
    async with (
        role(postgres_database, "GRANT ALL ON ALL TABLES IN SCHEMA public TO ROLE") as url,
        SessionRepository.connect(url) as sessions,
    ):
        with pytest.raises(ReadOnlyStoreError, match="owner"):
            await maintain(sessions)


async def test_a_database_in_memory_has_no_file() -> None:
    """P12: there is nothing to maintain."""
    async with SessionRepository.connect("sqlite://") as sessions:
        with pytest.raises(InvalidArgumentError, match="memory"):
            await maintain(sessions)
