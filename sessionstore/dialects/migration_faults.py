"""What goes wrong in a migration, named by code: no driver text, which may hold a value or a password, gets through."""

from __future__ import annotations

import sqlite3
from typing import Final

from alembic.util import CommandError
from asyncpg import InterfaceError, PostgresError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from sessionstore.errors import (
    CorruptStoreError,
    ReadOnlyStoreError,
    SessionStoreError,
    StorageFullError,
    StoreBusyError,
    StoreTimeoutError,
    StoreUnavailableError,
)

FAULTS: Final = (DBAPIError, CommandError, PoolTimeoutError, PostgresError, InterfaceError, sqlite3.Error, OSError)
"""What drivers, Alembic and the pool raise. Anything else is a bug, and its traceback is wanted."""

_SQLITE: Final = {
    sqlite3.SQLITE_BUSY: StoreBusyError("the database file stayed locked by others until the time was up"),
    sqlite3.SQLITE_LOCKED: StoreBusyError("the database file stayed locked by others until the time was up"),
    sqlite3.SQLITE_READONLY: ReadOnlyStoreError(),
    sqlite3.SQLITE_FULL: StorageFullError("there is no room left; the migration was rolled back"),
    sqlite3.SQLITE_CANTOPEN: SessionStoreError("the database file cannot be opened: check the path and the rights"),
    sqlite3.SQLITE_NOTADB: CorruptStoreError("the file is not a SQLite database"),
    sqlite3.SQLITE_CORRUPT: CorruptStoreError("the database file is damaged"),
    sqlite3.SQLITE_IOERR: CorruptStoreError("the database file cannot be read or written"),
}

# The longest prefix of a SQLSTATE decides.
_POSTGRESQL: Final = {
    "08": StoreUnavailableError("the connection to the database was lost"),
    "25006": ReadOnlyStoreError("the server is read-only: a replica takes no migrations"),
    "28": SessionStoreError("the database refused the user or the password"),
    "3D000": SessionStoreError("there is no database of that name on the server"),
    "40": StoreBusyError("others changed or locked the tables until the tries were used up"),
    "42501": ReadOnlyStoreError("the role may not do that: migrations need the owner of the tables"),
    "53": StoreUnavailableError("the server has no connection or memory left"),
    "53100": StorageFullError("there is no room left; the migration was rolled back"),
    "55P03": StoreBusyError("others kept a table locked until the tries were used up"),
    "57": StoreUnavailableError("the server is starting or shutting down"),
    "57014": StoreTimeoutError("a statement was cancelled, or took longer than its timeout"),
    "XX": CorruptStoreError("the database reports damage"),
}


def explain(error: BaseException) -> SessionStoreError:
    """The error to raise instead, to be raised `from None`."""
    if isinstance(error, CommandError):
        return SessionStoreError(f"the migrations do not fit the database: {error}")
    if isinstance(error, PoolTimeoutError):
        return StoreTimeoutError("the engine has no connection free; migrations of PostgreSQL need two")
    origin = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    state = getattr(origin, "sqlstate", None)
    if state:
        return _by_state(state)
    code = getattr(origin, "sqlite_errorcode", None)
    if code is not None:
        known = _SQLITE.get(code & 0xFF)  # the rest of the code is detail
        return _copy(known) if known else SessionStoreError(f"the migration failed: {origin.sqlite_errorname}")  # type: ignore[attr-defined]
    if isinstance(error, OSError) or getattr(error, "connection_invalidated", False):
        return StoreUnavailableError("the database cannot be reached")
    return SessionStoreError(f"the migration failed: {type(origin).__name__}")


def _by_state(state: str) -> SessionStoreError:
    for length in (5, 2):
        if known := _POSTGRESQL.get(state[:length]):
            return _copy(known)
    return SessionStoreError(f"the migration failed with SQLSTATE {state}")


def _copy(error: SessionStoreError) -> SessionStoreError:
    # A raised exception carries its traceback: one object must not be raised twice.
    return type(error)(error.message)
