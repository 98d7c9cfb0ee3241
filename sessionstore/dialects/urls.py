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


def normalize_url(url: str | URL) -> URL:
    """Name the driver that a URL leaves out, and refuse every database and driver but ours.

    Hosting services hand out `postgres://...?sslmode=require`: what libpq calls `sslmode` is `ssl` in asyncpg.

    Raises:
        InvalidArgumentError: not a URL, or not one of SQLite or PostgreSQL with the drivers of this library.
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
    return parsed


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
