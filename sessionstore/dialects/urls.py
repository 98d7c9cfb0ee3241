"""Database URLs as people write them, turned into the ones SQLAlchemy needs; no error ever repeats a URL."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import unquote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from sessionstore.errors import InvalidArgumentError

_DRIVERS: Final = {
    "postgres": "postgresql+asyncpg",
    "postgres+asyncpg": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
}

_POOLER: Final = "pooler"
TRANSACTION: Final = "transaction"
SESSION: Final = "session"
_POOLERS: Final = (TRANSACTION, SESSION)
"""What `?pooler=` may say: what a client of PgBouncer has a connection of the server for."""


def normalize_url(url: str | URL) -> URL:
    """Name the driver that a URL leaves out, and refuse every database and driver but ours.

    Hosting services hand out `postgres://...?sslmode=require`: what libpq calls `sslmode` is `ssl` in asyncpg.
    `?pooler=` stays, for `pooler_of`; no driver knows it.

    Raises:
        InvalidArgumentError: not a URL, or not one of SQLite or PostgreSQL with the drivers of this library, or a
            pooler that is none.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError, AttributeError):  # a bad port is a ValueError that would repeat it
        raise InvalidArgumentError("the database URL cannot be read as a URL") from None
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        known = "sqlite:///file.db, sqlite+aiosqlite:///file.db, postgresql:// or postgresql+asyncpg://"
        raise InvalidArgumentError(f"database URLs of {parsed.drivername!r} are not supported; use {known}")
    parsed = parsed.set(drivername=driver)
    if driver == "postgresql+asyncpg" and "sslmode" in parsed.query:
        sslmode = parsed.query["sslmode"]
        parsed = parsed.difference_update_query(["sslmode"]).update_query_dict({"ssl": sslmode})
    _check_pooler(parsed)
    return parsed


def _check_pooler(url: URL) -> None:
    pooler = url.query.get(_POOLER)
    if pooler is None:
        return
    if url.get_backend_name() == "sqlite":
        raise InvalidArgumentError("pooler= is for PostgreSQL; nothing stands before a SQLite file")
    if pooler not in _POOLERS:
        raise InvalidArgumentError("pooler= in the database URL must be 'transaction' or 'session'")


def pooler_of(url: URL) -> str | None:
    """What kind of pooler a URL says it leads through: `TRANSACTION`, `SESSION`, or None for none."""
    pooler = url.query.get(_POOLER)
    return None if pooler is None else str(pooler)


THROUGH_A_POOLER: Final = (
    "migrations cannot work through a pooler in transaction mode, which parts them from their locks: "
    "use the URL of the server itself"
)
"""Lock and unlock would land on different connections of the server, and so would settings for the session."""


def for_driver(url: URL) -> URL:
    """The URL without what is meant for us alone."""
    return url.difference_update_query([_POOLER])


def is_memory(url: URL) -> bool:
    """Whether a URL names a SQLite database that exists only while a connection to it is open."""
    if url.get_backend_name() != "sqlite":
        return False
    name = url.database or ":memory:"
    return name == ":memory:" or name.startswith("file::memory:") or url.query.get("mode") == "memory"


def sqlite_file(url: URL) -> Path | None:
    """The file of a SQLite URL; None for a database in memory or on a server."""
    if url.get_backend_name() != "sqlite" or is_memory(url):
        return None
    name = url.database or ""
    if name.startswith("file:"):
        name = unquote(name.removeprefix("file:").partition("?")[0])
        name = "/" + name.lstrip("/") if name.startswith("/") else name  # file:///path is /path
    return Path(name)


def blocking_sqlite(url: URL) -> URL:
    """The same SQLite database through the standard library's driver, for code that has a thread of its own."""
    return url.set(drivername="sqlite+pysqlite")
