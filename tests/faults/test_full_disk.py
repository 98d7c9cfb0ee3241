"""Disks without room: one clear error, nothing lost, and it goes on as soon as there is room."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import sqlite3
from typing import TYPE_CHECKING

import pytest

from sessionstore import PrunePolicy, SessionRepository, StorageFullError
from sessionstore.executors import engines
from sessionstore.executors.sqlite import configure
from tests.support import templates
from tests.support.accounts import server_account
from tests.support.faults_counts import figure, rounds
from tests.support.faults_disks import SmallDisk, small_disk
from tests.support.faults_history import SHARED, History, messages_of
from tests.support.faults_leases import assert_nothing_held
from tests.support.templates import sqlite_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.postgres import PostgresServer

TOGETHER = 8
FILLER = random.Random(0).randbytes(1500).hex()
"""Nothing that a database could store in less room."""


async def _fill(repository: SessionRepository, history: History, name: str) -> int:
    """Append from several tasks until there is no room; how many appends were refused, none of which is stored."""
    refused = 0
    for number in range(100_000):
        batches = [f"{name}-{number}-{task}" for task in range(TOGETHER)]
        appends = (repository.append(SHARED, *messages_of(batch, 3, filler=FILLER)) for batch in batches)
        ended = await asyncio.gather(*appends, return_exceptions=True)
        for batch, result in zip(batches, ended, strict=True):
            if isinstance(result, StorageFullError):
                refused += 1
            else:
                assert isinstance(result, list), result
                history.acknowledged[batch] = result
        if refused:
            break
    return refused


async def _fill_and_mend(url: str, repository: SessionRepository, mend: Callable[[], object]) -> dict[str, int]:
    """Fill the disk, look whether all is well, make room, and go on with the same repository."""
    history = History()
    await repository.append("spare", *messages_of("spare", 3), create=True)
    refused = await _fill(repository, history, "first")
    # Deleting needs room too: for the log, before anything is given back.
    with contextlib.suppress(StorageFullError):
        await repository.delete("spare")
    times = rounds(3, 20)
    for number in range(times):
        refused += await _fill(repository, history, f"again-{number}")
        # What is there can be read while there is no room.
        assert await repository.length(SHARED) == sum(map(len, history.acknowledged.values()))
        await history.check(url, repository)
    await assert_nothing_held(url, repository)
    mend()
    before = len(history.acknowledged)
    history.acknowledged["mended"] = await repository.append(SHARED, *messages_of("mended", 3, filler=FILLER))
    await repository.fork(SHARED, new_id="fork")
    await repository.prune(PrunePolicy(max_age=None, max_sessions=2))
    await repository.delete("fork")
    await history.check(url, repository)
    await assert_nothing_held(url, repository)
    return {"refused": refused, "acknowledged": before, "lost": 0, "half": 0}


async def test_no_more_pages(
    sqlite_file: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """P12: SQLite is told that the file may not grow."""
    connections: list[sqlite3.Connection] = []

    def noting(connection: sqlite3.Connection, **options: object) -> sqlite3.Connection:
        connections.append(connection)
        return configure(connection, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(engines, "configure", noting)

    def allow(pages: int) -> None:
        for connection in connections:
            connection.execute(f"PRAGMA max_page_count = {pages}")

    url = sqlite_url(sqlite_file)
    async with SessionRepository.connect(url) as repository:
        await repository.create(SHARED)
        allow(connections[0].execute("PRAGMA page_count").fetchone()[0] + 100)
        counts = await _fill_and_mend(url, repository, lambda: allow(1_000_000))
    figure(request, **counts)


async def test_full_file_system(sqlite_template: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """P12: the disk of a SQLite file is full."""
    with small_disk(tmp_path / "disk", "2m") as disk:
        url = sqlite_url(shutil.copyfile(sqlite_template, disk.path / "sessions.db"))
        async with SessionRepository.connect(url) as repository:
            await repository.create(SHARED)
            counts = await _fill_and_mend(url, repository, lambda: disk.resize("64m"))
    figure(request, **counts)


@pytest.fixture
def small_server(mortal: PostgresServer) -> Iterator[tuple[str, SmallDisk]]:
    """The URL of a database whose tables are on a small disk, and that disk."""
    with small_disk(mortal.folder / "disk", "16m") as disk, templates.postgres_template(mortal) as template:
        server_account().own(disk.path)
        asyncio.run(mortal.execute(f"CREATE TABLESPACE small LOCATION '{disk.path}'"))
        asyncio.run(mortal.execute(f"CREATE DATABASE full_disk TEMPLATE {template} TABLESPACE small"))
        # Sorting goes on without the disk, so that what is stored can be looked at while there is no room.
        asyncio.run(mortal.execute("ALTER DATABASE full_disk SET work_mem = '256MB'"))
        yield mortal.url("full_disk"), disk
        asyncio.run(mortal.drop_database("full_disk"))
        asyncio.run(mortal.execute("DROP TABLESPACE small"))


async def test_full_server(small_server: tuple[str, SmallDisk], request: pytest.FixtureRequest) -> None:
    """P12: the disk of the tables on a PostgreSQL server is full."""
    url, disk = small_server
    async with SessionRepository.connect(url) as repository:
        await repository.create(SHARED)
        counts = await _fill_and_mend(url, repository, lambda: disk.resize("64m"))
    figure(request, **counts)
