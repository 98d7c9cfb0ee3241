"""Errors of drivers into errors of the store: by SQLSTATE, SQLite error code or constraint name, never by text.

Nothing of a driver's text goes on: PostgreSQL quotes row values in it, asyncpg the arguments.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final

import asyncpg

from sessionstore.errors import (
    CorruptStoreError,
    ReadOnlyStoreError,
    SessionStoreError,
    StorageFullError,
    StoreBusyError,
    StoreUnavailableError,
)
from sessionstore.units.unit import MessageIdTakenError

MESSAGE_ID_INDEX: Final = "uq_sessionstore_messages_message_id"

_LOCKED: Final[tuple[type[SessionStoreError], str]] = (
    StoreBusyError,
    "the session or the database was locked by somebody else",
)
_AWAY: Final = (StoreUnavailableError, "the PostgreSQL server takes no connections, or ended this one")
_NO_RIGHTS: Final = (ReadOnlyStoreError, "the PostgreSQL database or role cannot write")
_DAMAGED: Final = (CorruptStoreError, "the PostgreSQL database is damaged")

_POSTGRESQL: Final[dict[str, tuple[type[SessionStoreError], str]]] = {
    **dict.fromkeys(("40001", "40P01", "55P03"), _LOCKED),
    **dict.fromkeys(("57P01", "57P02", "57P03", "53300"), _AWAY),
    **dict.fromkeys(("25006", "42501"), _NO_RIGHTS),
    **dict.fromkeys(("XX001", "XX002"), _DAMAGED),
    "53100": (StorageFullError, "the disk of the PostgreSQL server is full; nothing was stored"),
}

_SQLITE: Final[dict[int, tuple[type[SessionStoreError], str]]] = {
    sqlite3.SQLITE_BUSY: (StoreBusyError, "the SQLite database is locked by somebody else"),
    sqlite3.SQLITE_LOCKED: (StoreBusyError, "a table of the SQLite database is locked by somebody else"),
    sqlite3.SQLITE_FULL: (StorageFullError, "the disk of the SQLite database is full; nothing was stored"),
    sqlite3.SQLITE_READONLY: (ReadOnlyStoreError, "the SQLite database cannot be written"),
    sqlite3.SQLITE_PERM: (ReadOnlyStoreError, "the SQLite database may not be accessed"),
    sqlite3.SQLITE_CORRUPT: (CorruptStoreError, "the SQLite database is damaged"),
    sqlite3.SQLITE_NOTADB: (CorruptStoreError, "the file is not a SQLite database"),
    sqlite3.SQLITE_IOERR: (CorruptStoreError, "the disk of the SQLite database cannot be read or written"),
    sqlite3.SQLITE_CANTOPEN: (
        ReadOnlyStoreError,
        "the SQLite database cannot be opened: its folder is missing, or this account lacks the rights",
    ),
}


def translated(error: BaseException, statement: str) -> Exception:
    """Return what to raise in the place of a driver's error; `from None` is the caller's part.

    Args:
        error: of sqlite3 or asyncpg, or one of SQLAlchemy around it.
        statement: name of the statement that failed.
    """
    error = getattr(error, "orig", None) or error
    if isinstance(error, sqlite3.Error):
        return _of_sqlite(error, statement)
    return _of_postgresql(error, statement)


def _of_sqlite(error: sqlite3.Error, statement: str) -> Exception:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return SessionStoreError(f"statement {statement!r} failed in the SQLite driver ({type(error).__name__})")
    if code == sqlite3.SQLITE_CONSTRAINT_UNIQUE:
        return MessageIdTakenError()
    kind, text = _SQLITE.get(
        code & 0xFF, (SessionStoreError, f"statement {statement!r} failed with SQLite code {code}")
    )
    return kind(text)


def _of_postgresql(error: BaseException, statement: str) -> Exception:
    cause: Any = error if isinstance(error, asyncpg.PostgresError) else error.__cause__ or error
    state = getattr(cause, "sqlstate", None) or getattr(error, "sqlstate", None)
    if state is None or lost(error):
        return StoreUnavailableError("the PostgreSQL server could not be reached, or went away")
    if state == "23505" and getattr(cause, "constraint_name", None) == MESSAGE_ID_INDEX:
        return MessageIdTakenError()
    if isinstance(cause, asyncpg.InvalidCachedStatementError):
        kind, text = _LOCKED  # by a migration, which is over now
    else:
        kind, text = _POSTGRESQL.get(
            state, (SessionStoreError, f"statement {statement!r} failed with SQLSTATE {state}")
        )
    return kind(text)


def lost(error: BaseException) -> bool:
    """Whether an error means that the connection is gone, whatever became of the statement."""
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate or "")[:2] == "08" or error.sqlstate in {"57P01", "57P02"}
    return isinstance(error, (OSError, EOFError, asyncpg.InterfaceError, asyncpg.InternalClientError))


def never_sent(error: BaseException) -> bool:
    """Whether the driver refused before it sent anything: its connection was closed already."""
    return isinstance(error, asyncpg.InterfaceError)
