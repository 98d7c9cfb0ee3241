"""Migrated databases to copy: building one takes a second, copying it a twentieth.

Migrations are the only way a database is ever built, so the templates are made by them too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgres import Postgres

__all__ = ["copy_sqlite", "new_database_name", "postgres_clone", "postgres_template", "sqlite_template", "sqlite_url"]


def new_database_name(purpose: str) -> str:
    """A name that no other run, worker or test on the same server uses, and that tells whose it is."""
    return f"sessionstore_test_{purpose}_{os.getpid()}_{uuid.uuid4().hex[:8]}"


@contextlib.contextmanager
def postgres_template(server: Postgres) -> Iterator[str]:
    """The name of a migrated database that nobody can connect to, so that no test can change it."""
    name = new_database_name("template")
    asyncio.run(_make_template(server, name))
    try:
        yield name
    finally:
        asyncio.run(server.drop_database(name))


async def _make_template(server: Postgres, name: str) -> None:
    # Imported late: what this checks out of the package must not be needed by tests that use no database.
    from sessionstore.migrate import upgrade  # noqa: PLC0415

    await upgrade(await server.create_database(name))
    await server.execute(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS false')


@contextlib.contextmanager
def postgres_clone(server: Postgres, template: str | None) -> Iterator[str]:
    """The URL of a fresh database for one test: a copy of the template, or empty."""
    name = new_database_name("clone")
    url = asyncio.run(server.create_database(name, template))
    try:
        yield url
    finally:
        asyncio.run(server.drop_database(name))


def sqlite_url(path: Path) -> str:
    """The SQLAlchemy URL of a database file."""
    return f"sqlite+aiosqlite:///{path}"


def sqlite_template(path: Path) -> Path:
    """Migrate a new database file, and leave it complete in itself."""
    from sessionstore.migrate import upgrade  # noqa: PLC0415 - as above

    asyncio.run(upgrade(sqlite_url(path)))
    # Only the main file is copied: whatever the write-ahead log still holds must be in it.
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def copy_sqlite(template: Path, path: Path) -> Path:
    """A copy of a closed database file."""
    shutil.copyfile(template, path)
    return path
