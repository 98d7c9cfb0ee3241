"""Databases that may only be read: one clear error, nothing lost, and it goes on as soon as they may be written."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url

from sessionstore import ReadOnlyStoreError, SessionRepository
from tests.support.accounts import server_account
from tests.support.faults_disks import other_account, own_folder
from tests.support.faults_history import SHARED, History, messages_of
from tests.support.faults_leases import assert_nothing_held
from tests.support.repositories import callers_engine
from tests.support.templates import sqlite_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.postgres import PostgresServer


async def _refused(repository: SessionRepository) -> None:
    """Every kind of change is refused."""
    for call in (
        repository.append(SHARED, *messages_of("refused", 2)),
        repository.append(SHARED, *messages_of("refused", 2, with_ids=True)),
        repository.trim(SHARED, 1),
        repository.create("refused"),
        repository.fork(SHARED, new_id="refused"),
        repository.delete(SHARED),
    ):
        with pytest.raises(ReadOnlyStoreError) as caught:
            await call
        assert caught.value.__cause__ is None


async def _goes_on(url: str, repository: SessionRepository, history: History) -> None:
    history.acknowledged["mended"] = await repository.append(SHARED, *messages_of("mended", 3))
    await history.check(url, repository)
    await assert_nothing_held(url, repository)


async def _begin(repository: SessionRepository) -> History:
    await repository.create(SHARED)
    return History({"before": await repository.append(SHARED, *messages_of("before", 3))})


@contextlib.asynccontextmanager
async def _callers(url: str) -> AsyncIterator[SessionRepository]:
    """A repository that is used without having been opened before."""
    engine = callers_engine(url)
    yield SessionRepository(engine)
    await engine.dispose()


@pytest.mark.parametrize("what", ["file", "folder", "both"])
async def test_no_right_to_write(what: str, sqlite_template: Path) -> None:
    """P12: the file, its folder or both may only be read when they are first used."""
    with own_folder() as folder:
        file = shutil.copyfile(sqlite_template, folder / "sessions.db")
        server_account().own(folder)
        url = sqlite_url(file)
        with other_account():
            async with SessionRepository.connect(url) as repository:
                history = await _begin(repository)
            _allow(file, "r" if what in {"file", "both"} else "rw")
            _allow(folder, "r" if what in {"folder", "both"} else "rw")
            async with _callers(url) as repository:
                await _refused(repository)
                _allow(folder, "rw")
                for path in folder.iterdir():  # SQLite gives the files beside it the rights of the file
                    _allow(path, "rw")
                await _goes_on(url, repository, history)


def _allow(path: Path, rights: str) -> None:
    bits = 0o500 if path.is_dir() else 0o400
    path.chmod(bits | 0o200 if "w" in rights else bits)


async def test_server_only_reads(mortal: PostgresServer, mortal_database: str) -> None:
    """P12: the server's transactions are read-only, as on a standby; connections that were open before go on after."""
    async with SessionRepository.connect(mortal_database) as repository:
        history = await _begin(repository)
        await _set(mortal, mortal_database, "on")
        await _refused(repository)
        assert await repository.length(SHARED) == 3
        await _set(mortal, mortal_database, "off")
        await _goes_on(mortal_database, repository, history)


async def _set(server: PostgresServer, url: str, value: str) -> None:
    """Change what transactions may do, and wait until every session has heard of it."""
    await server.execute(f"ALTER SYSTEM SET default_transaction_read_only = '{value}'")
    watching = [await server.connect(make_url(url).database) for _ in range(3)]
    await server.execute("SELECT pg_reload_conf()")
    for connection in watching:
        while await connection.fetchval("SHOW default_transaction_read_only") != value:  # noqa: ASYNC110  # a server
            await asyncio.sleep(0.01)
        await connection.close()


async def test_role_without_rights(mortal: PostgresServer, mortal_database: str) -> None:
    """P12: the role in use may read, but not write; it goes on once it may."""
    async with SessionRepository.connect(mortal_database) as owner:
        history = await _begin(owner)
    database = make_url(mortal_database).database
    connection = await mortal.connect(database)
    await connection.execute("CREATE ROLE reader LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    url = make_url(mortal_database).set(username="reader").render_as_string(hide_password=False)
    async with SessionRepository.connect(url) as repository:
        assert await repository.length(SHARED) == 3
        await _refused(repository)
        await connection.execute("GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO reader")
        await _goes_on(mortal_database, repository, history)
    await connection.close()
