"""A repository on each database, with points on its connections."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sessionstore import SessionRepository
from sessionstore.executors import guarantees, sqlite
from sessionstore.executors.postgresql import PostgresExecutor
from sessionstore.limits import POSTGRES_CONNECTIONS
from tests.conftest import DATABASES, url_of
from tests.points.behind import Behind, BehindPostgres, behind
from tests.points.verbs import prepare
from tests.support import points as faults
from tests.support import templates
from tests.support.faults_counts import FULL
from tests.support.points import Fault, Points

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.support.postgres import Postgres


class Bench:
    """A repository, its database, and the points in between."""

    def __init__(self, repository: SessionRepository, points: Points, tables: Behind) -> None:
        self.repository = repository
        self.points = points
        self.tables = tables
        points.watcher = tables.connection if isinstance(tables, BehindPostgres) else None

    @property
    def on_postgres(self) -> bool:
        """Which kind of database it is."""
        return isinstance(self.tables, BehindPostgres)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What may happen at a statement of this database."""
        return _of_this_run(faults.ON_POSTGRES if self.on_postgres else faults.ON_SQLITE)

    @property
    def faults_of_connecting(self) -> tuple[Fault, ...]:
        """What may happen when a connection to PostgreSQL is opened."""
        return _of_this_run(faults.CONNECTING)

    def disconnect(self) -> None:
        """Let the next call need a new connection to PostgreSQL."""
        executor = self.repository._executor
        assert isinstance(executor, PostgresExecutor)
        for held in executor._idle:
            held.driver.terminate()

    async def settled(self) -> None:
        """Wait until nothing is under way, and see that nothing is in use."""
        executor = self.repository._executor
        while background := set(self.repository._shared.tasks):
            await asyncio.wait(background)
        if isinstance(executor, PostgresExecutor):
            while executor._tasks:
                await asyncio.wait(executor._tasks)
            assert executor._free._value == POSTGRES_CONNECTIONS, "a connection is in use"
            assert not any(held.driver.is_in_transaction() for held in executor._idle)
        else:
            await self.repository.delete("nobody: whoever comes last in the writer's queue")
            await self.repository.exists("nobody: the reader has a connection again")
        await self.tables.idle()


def _of_this_run(those: tuple[Fault, ...]) -> tuple[Fault, ...]:
    return tuple(fault for fault in those if FULL or not fault.rare)


@pytest.fixture(scope="module")
def postgres_of_all(postgres_server: Postgres, postgres_template: str) -> Iterator[str]:
    """A PostgreSQL database for all tests here: each begins with putting back what was saved."""
    with templates.postgres_clone(postgres_server, postgres_template) as url:
        yield url


@pytest.fixture(params=DATABASES)
def points_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database, on each kind in turn."""
    return url_of(request, request.param, postgres="postgres_of_all")


@pytest.fixture
async def bench(points_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """Two sessions and two documents to work on."""
    points = Points()
    (faults.on_postgres if points_url.startswith("postgresql") else faults.on_sqlite)(points, monkeypatch)
    # One, so that it has its connection when the counting begins.
    monkeypatch.setattr(sqlite, "SQLITE_READERS", 1)
    # No machine crashes here, and thousands of commits need no disk.
    monkeypatch.setitem(sqlite._DURABILITY, "full", "OFF")
    monkeypatch.setitem(guarantees._SYNCHRONOUS, "full", 0)
    async with SessionRepository.connect(points_url) as repository:
        tables = await behind(points_url, repository)
        if not await tables.saved():
            await prepare(repository)
            await tables.save()
        await tables.begin()
        made = Bench(repository, points, tables)
        await made.settled()
        yield made
        await tables.close()
