"""`backup`: a copy of a SQLite file in use is complete, of one moment, and appears whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import InvalidArgumentError, ReadOnlyStoreError, SessionRepository, upkeep
from sessionstore.upkeep import backup
from sessionstore.verification import verify
from tests.contract._own import dump
from tests.migrations.processes import ended, start
from tests.support.invariants import assert_sound, batch_faults, read_tables
from tests.support.planting import build
from tests.support.templates import sqlite_url
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator


def batch(number: int, size: int = 3) -> list[dict[str, Any]]:
    """Messages that say which batch they are of."""
    return [{"role": "user", "batch": number, "at": at, "of": size, "content": "x" * 500} for at in range(size)]


async def assert_healthy(copy: Path) -> None:
    """The checks of the package and the tests' own find nothing."""
    async with SessionRepository.connect(sqlite_url(copy)) as sessions:
        assert [finding async for finding in verify(sessions, all_tenants=True)] == []
    await assert_sound(sqlite_url(copy))


async def test_a_copy_is_equal(sqlite_file: Path, tmp_path: Path) -> None:
    """F08, P8: every row of every table, and it is a store that can be used."""
    await build(sqlite_url(sqlite_file))
    copy = tmp_path / "copy.db"
    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        size = await backup(sessions, copy)
        original = await dump(sessions)
    assert size == sizes(tmp_path)["copy.db"]
    await assert_healthy(copy)
    async with SessionRepository.connect(sqlite_url(copy)) as copied:
        assert await dump(copied) == original
        assert await copied.append("talk", *batch(1)) == [6, 7, 8]


def sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir()}


async def test_under_the_load_of_writers(sqlite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P1, P2, F08: the copy has all that was acknowledged before, batches whole, and passes every check."""
    monkeypatch.setattr(upkeep, "_PAGES", 4)
    acknowledged: dict[str, int] = {}
    ended_ = asyncio.Event()

    async def write(sessions: SessionRepository, name: str) -> None:
        number = 0
        while not ended_.is_set():
            await sessions.append(name, *batch(number), create=True)
            number += 1
            acknowledged[name] = number

    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        writers = [asyncio.create_task(write(sessions, f"s{at}")) for at in range(4)]
        await until(lambda: len(acknowledged) == len(writers))
        grew = 0
        try:
            for number in range(5):
                copy = tmp_path / f"copy-{number}.db"
                before = dict(acknowledged)
                await backup(sessions, copy)
                grew += sum(acknowledged.values()) - sum(before.values())
                await assert_healthy(copy)
                stored = await read_tables(sqlite_url(copy))
                for name, count in before.items():
                    bodies = stored.bodies(name)
                    assert batch_faults(bodies) == []
                    assert len(bodies) >= 3 * count, "something that was acknowledged is not in the copy"
        finally:
            ended_.set()
            await asyncio.gather(*writers)
        assert grew > 0, "nobody wrote meanwhile: this test shows nothing"


async def test_a_write_between_two_steps_does_not_begin_the_copy_anew(
    sqlite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P4: under steady writes it would otherwise never end; and it is of the moment at which it began."""
    monkeypatch.setattr(upkeep, "_PAGES", 1)
    real = upkeep._backup
    done: list[int] = []

    def meddled(source: Path, target: Path, *, force: bool, tell: Any) -> int:
        with contextlib.closing(sqlite3.connect(source, isolation_level=None)) as writer:

            def write(left: int, total: int, page: int) -> None:
                assert not done or total - left > done[-1], "it begins anew"
                done.append(total - left)
                writer.execute("UPDATE sessionstore_sessions SET title = 'later', version = version + 1")
                tell(left, total, page)

            return real(source, target, force=force, tell=write)

    monkeypatch.setattr(upkeep, "_backup", meddled)
    copy = tmp_path / "copy.db"
    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        await sessions.append("s", *batch(0, 100), create=True)
        await backup(sessions, copy)
        assert len(done) > 20
        assert (await sessions.get("s")).title == "later"
    async with SessionRepository.connect(sqlite_url(copy)) as copied:
        assert (await copied.get("s")).title is None


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
async def test_only_its_owner_can_read_it(sqlite_file: Path, tmp_path: Path) -> None:
    """P11: from the first byte on, whatever the account's mask; also where it replaces a file that others can read."""
    copy = tmp_path / "copy.db"
    modes: set[int] = set()

    def look(done: int, total: int) -> None:
        del done, total
        modes.update(path.stat().st_mode & 0o777 for path in tmp_path.glob("copy.db*"))

    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        await backup(sessions, copy, on_progress=look)
        look(0, 0)
        open_to_all(copy)
        await backup(sessions, copy, force=True)
    look(0, 0)
    assert modes == {0o600}


def open_to_all(path: Path) -> None:
    path.chmod(0o666)


async def test_a_file_that_is_there_is_left_alone(sqlite_file: Path, tmp_path: Path) -> None:
    """P12: unless it is to be replaced; and a database in use, or the original itself, never is."""
    copy, other = tmp_path / "copy.db", tmp_path / "other.db"
    write(copy, b"mine")
    write(tmp_path / "other.db-wal", b"a log")
    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        await sessions.append("s", *batch(0), create=True)
        with pytest.raises(InvalidArgumentError, match="exists already"):
            await backup(sessions, copy)
        assert content(copy) == b"mine"
        for force in (False, True):
            for target, reason in ((other, "in use"), (sqlite_file, "in use")):
                with pytest.raises(InvalidArgumentError, match=reason):
                    await backup(sessions, target, force=force)
        with pytest.raises(InvalidArgumentError, match="cannot be replaced"):
            await backup(sessions, tmp_path, force=True)
        await backup(sessions, copy, force=True)
    link_to(tmp_path / "link.db", sqlite_file)
    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        with pytest.raises(InvalidArgumentError, match="cannot be replaced"):
            await backup(sessions, tmp_path / "link.db", force=True)
    await assert_healthy(copy)


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def content(path: Path) -> bytes:
    return path.read_bytes()


def link_to(path: Path, target: Path) -> None:
    path.hardlink_to(target)


async def test_whoever_takes_the_name_meanwhile_keeps_it(
    sqlite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P12: looking first is not enough."""
    copy = tmp_path / "copy.db"
    real = upkeep._copy

    def taken(*arguments: Any) -> None:
        real(*arguments)
        write(copy, b"mine")

    monkeypatch.setattr(upkeep, "_copy", taken)
    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        with pytest.raises(InvalidArgumentError, match="exists already"):
            await backup(sessions, copy)
    assert content(copy) == b"mine"
    assert not any("partial" in name for name in sizes(tmp_path))


async def test_it_is_on_the_disk_before_it_has_its_name(
    sqlite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1: what a power cut leaves under the name is the whole copy or none."""
    copy = tmp_path / "copy.db"
    synced: list[tuple[str, bool]] = []
    monkeypatch.setattr(upkeep, "_sync", lambda path: synced.append((path.suffix, copy.exists())))
    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        await backup(sessions, copy)
    assert synced == [(".partial", False), ("", True)], "the copy without its name, then the folder with it"


async def test_a_copy_that_fails_leaves_nothing(
    sqlite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P12: neither a half copy under the name nor another one beside it; and the next try works."""
    copy = tmp_path / "copy.db"

    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        with monkeypatch.context() as broken:
            broken.setattr(upkeep, "_sync", full)
            with pytest.raises(OSError, match="No space left"):
                await backup(sessions, copy)
        assert not [name for name in sizes(tmp_path) if name.startswith("copy")]
        with pytest.raises(FileNotFoundError):
            await backup(sessions, tmp_path / "nowhere" / "copy.db")
        await backup(sessions, copy)
    await assert_healthy(copy)


async def test_a_cancelled_copy_leaves_nothing(
    sqlite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P4: it ends with the step that runs."""
    monkeypatch.setattr(upkeep, "_PAGES", 1)
    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        await sessions.append("s", *batch(0, 2000), create=True)
        begun = asyncio.Event()
        work = asyncio.create_task(backup(sessions, tmp_path / "copy.db", on_progress=lambda *_: begun.set()))
        await begun.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        await until(lambda: not list(tmp_path.glob("*.partial")))
        assert "copy.db" not in sizes(tmp_path)
        await sessions.append("s", *batch(1))


_KILLED = """
import asyncio, os, signal, sys
from sessionstore import SessionRepository, upkeep
upkeep._PAGES = 1
steps = 0
def tell(done, total):
    global steps
    steps += 1
    if steps == 10:
        os.kill(os.getpid(), signal.SIGKILL)
async def main():
    async with SessionRepository.connect(sys.argv[1]) as sessions:
        await upkeep.backup(sessions, sys.argv[2], on_progress=tell)
asyncio.run(main())
"""


@pytest.mark.processes
async def test_a_killed_copy(sqlite_file: Path, tmp_path: Path) -> None:
    """P1: `kill -9` leaves no file of the name, and the original as it was."""
    copy = tmp_path / "copy.db"
    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        await sessions.append("s", *batch(0, 2000), create=True)
        process = await ended(await start("-c", _KILLED, sqlite_url(sqlite_file), str(copy)))
        assert process.status == -signal.SIGKILL, process.errors
        assert [name.endswith(".partial") for name in sizes(tmp_path) if name.startswith("copy")] == [True]
        assert await sessions.append("s", *batch(1)) == [2000, 2001, 2002]
        await backup(sessions, copy)
    await assert_healthy(copy)


async def test_other_databases_say_what_to_do(postgres_database: str, tmp_path: Path) -> None:
    """P12: PostgreSQL has a tool of its own, and a database in memory no file."""
    async with SessionRepository.connect(postgres_database) as sessions:
        with pytest.raises(InvalidArgumentError, match=r"pg_dump.*docs/operations.md"):
            await backup(sessions, tmp_path / "copy.db")
    async with SessionRepository.connect("sqlite://") as sessions:
        with pytest.raises(InvalidArgumentError, match="memory"):
            await backup(sessions, tmp_path / "copy.db")
    assert sizes(tmp_path) == {}


async def test_an_original_that_is_gone(sqlite_file: Path, tmp_path: Path) -> None:
    """P12: it is not made anew, and there is no copy of nothing."""
    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        await sessions.exists("s")
        for name in sizes(tmp_path):
            remove(tmp_path / name)
        with pytest.raises(ReadOnlyStoreError):
            await backup(sessions, tmp_path / "copy.db")
    assert "copy.db" not in sizes(tmp_path)
    assert "sessions.db" not in sizes(tmp_path)


def remove(path: Path) -> None:
    path.unlink()
