"""Databases for every test. A database that cannot be started fails the test; it never skips it.

- `database_url`: one test body on a SQLite file, SQLite in memory and PostgreSQL, freshly migrated.
- `shared_url`: the two of them that several connections and processes can reach.
- `postgres_database`, `sqlite_file`: only the one.
- `postgres_server`, `postgres_empty`: the server, and a database that no migration has touched yet.
- `pooler`: PgBouncer before that server. It alone may be missing, and skips the test then.
"""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING

import hypothesis
import pytest
from sqlalchemy import make_url

from tests.support import pgbouncer, templates
from tests.support.postgres import URL_VARIABLE, GivenPostgres, Postgres, PostgresServer, given_url
from tests.support.postgres_binaries import find_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATABASES = ("sqlite-file", "sqlite-memory", "postgresql")
LASTING = ("sqlite-file", "postgresql")

# Timing decides no test, hence no deadline.
hypothesis.settings.register_profile("short", deadline=None, max_examples=50)
hypothesis.settings.register_profile("long", deadline=None, max_examples=1000)
hypothesis.settings.load_profile("short")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """A server that somebody gave us may be reached, wherever it is; nothing else outside loopback."""
    url = given_url()
    host = make_url(url).host if url else None
    if host:
        config.option.allow_hosts += f",{host}"


def pytest_report_header() -> list[str]:
    """Which databases the run is about."""
    return [f"sqlite: {sqlite3.sqlite_version}", f"postgresql: {_describe_postgres()}"]


def _describe_postgres() -> str:
    url = given_url()
    try:
        if url is None:
            binaries = find_binaries()
            return f"{binaries.version} ({binaries.source}: {binaries.folder})"
        return f"{asyncio.run(GivenPostgres.connected(url)).version} ({URL_VARIABLE})"
    except (OSError, RuntimeError) as error:
        return f"NOT AVAILABLE, tests on it will fail: {error}"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """One server a test process: booting takes less than agreeing with the other workers on a shared one."""
    url = given_url()
    if url is not None:
        yield asyncio.run(GivenPostgres.connected(url))
        return
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres_server: Postgres) -> Iterator[str]:
    """The name of the migrated database that the clones are copied from."""
    with templates.postgres_template(postgres_server) as name:
        yield name


@pytest.fixture
def postgres_database(postgres_server: Postgres, postgres_template: str) -> Iterator[str]:
    """The URL of a migrated PostgreSQL database of the test's own."""
    with templates.postgres_clone(postgres_server, postgres_template) as url:
        yield url


@pytest.fixture
def postgres_empty(postgres_server: Postgres) -> Iterator[str]:
    """The URL of an empty PostgreSQL database of the test's own."""
    with templates.postgres_clone(postgres_server, None) as url:
        yield url


@pytest.fixture(scope="session")
def pooler(postgres_server: Postgres) -> Iterator[pgbouncer.PgBouncer]:
    """PgBouncer in transaction mode before the server, with two connections of it for each database."""
    if pgbouncer.program() is None:
        pytest.skip(pgbouncer.MISSING)
    with pgbouncer.PgBouncer(postgres_server) as running:
        yield running


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The migrated SQLite file that the copies are made from."""
    return templates.sqlite_template(tmp_path_factory.mktemp("template") / "template.db")


@pytest.fixture
def sqlite_file(sqlite_template: Path, tmp_path: Path) -> Path:
    """A migrated SQLite file of the test's own."""
    return templates.copy_sqlite(sqlite_template, tmp_path / "sessions.db")


def url_of(request: pytest.FixtureRequest, kind: str, *, postgres: str = "postgres_database") -> str:
    """The URL of a database of one of the kinds; on PostgreSQL the one that a fixture of that name gives."""
    match kind:
        case "sqlite-file":
            return templates.sqlite_url(request.getfixturevalue("sqlite_file"))
        case "sqlite-memory":
            return "sqlite+aiosqlite://"
        case _:
            return str(request.getfixturevalue(postgres))


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a migrated database of the test's own, on each kind in turn; in memory it migrates itself."""
    return url_of(request, request.param)


@pytest.fixture(params=LASTING)
def shared_url(request: pytest.FixtureRequest) -> str:
    """The same, but only where several connections and processes can reach it, and it outlives them."""
    return url_of(request, request.param)
