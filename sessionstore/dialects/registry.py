"""The two databases."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

import orjson
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite

from sessionstore.checks import to_datetime
from sessionstore.dialects.base import Dialect
from sessionstore.errors import InvalidArgumentError


def _optional_instants(values: list[int | None]) -> list[Any]:
    return [None if value is None else to_datetime(value) for value in values]


_SQLITE_FLOOR: Final = (3, 38)
"""RETURNING came with 3.35, the JSON functions are always there since 3.38."""


def _sqlite() -> Dialect:
    if sqlite3.sqlite_version_info < _SQLITE_FLOOR:
        raise InvalidArgumentError(f"this Python brings SQLite {sqlite3.sqlite_version}; sessionstore needs 3.38")
    return Dialect(
        name="sqlite",
        engine_dialect=SQLiteDialect_aiosqlite(),
        one_writer=True,
        adapters={"TextList": lambda texts: orjson.dumps(texts).decode()},
    )


def _postgresql(schema: str | None) -> Dialect:
    return Dialect(
        name="postgresql",
        engine_dialect=PGDialect_asyncpg(),  # type: ignore[no-untyped-call]
        schema=schema,
        modifying_ctes=True,
        array_rows=True,
        optimistic_ids=True,
        adapters={
            "Instant": lambda micros: None if micros is None else to_datetime(micros),
            "InstantList": _optional_instants,
        },
    )


def dialect_of(name: str, driver: str, schema: str | None = None) -> Dialect:
    """Return the dialect of an engine.

    Raises:
        InvalidArgumentError: another database or driver, or a schema where there is none.
    """
    if (name, driver) == ("sqlite", "aiosqlite"):
        if schema is not None:
            raise InvalidArgumentError("schema= is for PostgreSQL; SQLite has no schemas")
        return _sqlite()
    if (name, driver) == ("postgresql", "asyncpg"):
        return _postgresql(schema)
    raise InvalidArgumentError(
        f"the engine uses {name}+{driver}; sessionstore needs sqlite+aiosqlite or postgresql+asyncpg"
    )
