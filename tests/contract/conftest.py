"""Repositories on all databases; after each test the stored rows must be sound.

- `sessions`: made by `connect()`, on each database.
- `every_way`: also on an engine of the caller's, and within transactions of the caller's; for the core behaviours.
- `joined`: only within transactions of the caller's.
- `engine`: an engine of the caller's on each database, for several handles on one of them.
- `lasting_url`: a database that outlives its connections.

Tests share one PostgreSQL database and find it empty. One that changes more than rows takes a database of its own:
`database_url` or `postgres_database`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import make_url

from sessionstore import SessionRepository
from tests.conftest import DATABASES, LASTING, url_of
from tests.support import templates
from tests.support.repositories import WAYS, Way, callers_engine, check_invariants, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from sqlalchemy.ext.asyncio import AsyncEngine

    from tests.support.postgres import Postgres

EMPTY = """
SET lock_timeout = '10s';
DELETE FROM sessionstore_sessions;
DELETE FROM sessionstore_events;
DELETE FROM sessionstore_tombstones;
DELETE FROM sessionstore_messages;
DELETE FROM sessionstore_metadata;
DELETE FROM sessionstore_documents;
DELETE FROM sessionstore_maintenance;
DELETE FROM sessionstore_backfills;
"""


@pytest.fixture(scope="session")
def shared_postgres(postgres_server: Postgres, postgres_template: str) -> Iterator[str]:
    """A PostgreSQL database for all tests here: emptying it takes a fifth of the time of another clone."""
    with templates.postgres_clone(postgres_server, postgres_template) as url:
        yield url


@pytest.fixture(scope="session")
def empty_postgres(shared_postgres: str) -> Iterator[Callable[[], str]]:
    """Empties the shared database and gives its URL, over one connection that is kept for all tests."""
    url = make_url(shared_postgres).set(drivername="postgresql").render_as_string(hide_password=False)
    loop = asyncio.new_event_loop()
    connection = loop.run_until_complete(asyncpg.connect(url))

    def emptied() -> str:
        loop.run_until_complete(connection.execute(EMPTY))
        return shared_postgres

    yield emptied
    loop.run_until_complete(connection.close())
    loop.close()


@pytest.fixture
def emptied_postgres(empty_postgres: Callable[[], str]) -> str:
    """The URL of the shared database, empty."""
    return empty_postgres()


def _url(request: pytest.FixtureRequest, kind: str) -> str:
    return url_of(request, kind, postgres="emptied_postgres")


@pytest.fixture(params=DATABASES)
def rows_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database in which a test may change rows, on each kind in turn."""
    return _url(request, request.param)


@pytest.fixture(params=LASTING)
def lasting_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database that outlives its connections."""
    return _url(request, request.param)


@pytest_asyncio.fixture
async def sessions(rows_url: str) -> AsyncIterator[SessionRepository]:
    """A repository of its own engine, on each database."""
    async with opened("connect", rows_url) as repository:
        yield repository
        await check_invariants(repository)


@pytest.fixture(params=WAYS, ids=str)
def way_and_url(request: pytest.FixtureRequest) -> tuple[Way, str]:
    """A way to use a repository, and a database for it."""
    way: Way = request.param
    return way, _url(request, way.database)


@pytest_asyncio.fixture
async def every_way(way_and_url: tuple[Way, str]) -> AsyncIterator[SessionRepository]:
    """A repository in each way to use one, on each database that the way makes sense for."""
    way, url = way_and_url
    async with opened(way.name, url) as repository:
        yield repository
        await check_invariants(repository)


@pytest_asyncio.fixture
async def engine(rows_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine of the caller's, on each database."""
    made = callers_engine(rows_url)
    yield made
    async with SessionRepository(made) as repository:
        await check_invariants(repository)
    await made.dispose()


@pytest_asyncio.fixture(params=["connection", "session"])
async def joined(request: pytest.FixtureRequest, lasting_url: str) -> AsyncIterator[SessionRepository]:
    """A repository within a transaction of the caller."""
    async with opened(request.param, lasting_url) as repository:
        yield repository
        await check_invariants(repository)
