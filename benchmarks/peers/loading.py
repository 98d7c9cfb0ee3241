"""Rows into the tables of a peer, in bulk."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine


def moment(micros: int) -> datetime:
    """A naive moment in UTC, as all of the peers store times."""
    return datetime.fromtimestamp(micros / 1_000_000, UTC).replace(tzinfo=None)


async def load(url: str, table: str, columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    """Insert rows in one transaction, past the peer."""
    address = make_url(url)
    if address.get_backend_name() == "sqlite":
        places = ", ".join("?" * len(columns))
        with contextlib.closing(sqlite3.connect(str(address.database))) as file:
            sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})"  # noqa: S608  # of constants
            file.executemany(sql, _as_text(rows))
            file.commit()
        return
    connection = await asyncpg.connect(address.set(drivername="postgresql").render_as_string(hide_password=False))
    try:
        await connection.copy_records_to_table(table, records=rows, columns=columns)
        await connection.execute("VACUUM (ANALYZE)")
    finally:
        await connection.close()


def _as_text(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Times as SQLAlchemy writes them into SQLite."""
    for row in rows:
        yield tuple(str(entry) if isinstance(entry, datetime) else entry for entry in row)


def engine_of(url: str) -> AsyncEngine:
    """An engine as a service would make it."""
    return create_async_engine(url, **({} if make_url(url).get_backend_name() == "sqlite" else {"pool_size": 16}))
