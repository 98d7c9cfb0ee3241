"""What the codes of the databases mean, as errors of the store.

By SQLSTATE or SQLite error code, never by text: PostgreSQL quotes row values in its texts, asyncpg the arguments, and
a URL may hold a password.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from sessionstore.errors import (
    CorruptStoreError,
    ReadOnlyStoreError,
    SessionStoreError,
    StorageFullError,
    StoreBusyError,
    StoreTimeoutError,
    StoreUnavailableError,
)

_Fault = tuple[type[SessionStoreError], str]

_LOCKED: Final = (StoreBusyError, "the database file stayed locked by others until the time was up")
_FULL: Final = (StorageFullError, "the disk of the database file is full; nothing was stored")

_SQLITE: Final[dict[int, _Fault]] = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_PROTOCOL: _LOCKED,  # lost the race for the write-ahead log's locks too often
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_IOERR_SHMSIZE: _FULL,  # the index of the write-ahead log could not grow
    sqlite3.SQLITE_READONLY: (ReadOnlyStoreError, "the database file cannot be written"),
    sqlite3.SQLITE_PERM: (ReadOnlyStoreError, "the database file may not be accessed"),
    sqlite3.SQLITE_CANTOPEN: (
        ReadOnlyStoreError,
        "the database file cannot be opened: its folder is missing, or this account lacks the rights",
    ),
    sqlite3.SQLITE_NOTADB: (CorruptStoreError, "the file is not a SQLite database"),
    sqlite3.SQLITE_CORRUPT: (CorruptStoreError, "the database file is damaged"),
    sqlite3.SQLITE_IOERR: (CorruptStoreError, "the disk of the database file cannot be read or written"),
}
"""By extended code where that is here, else by primary code: its lower eight bits."""

_AWAY: Final = (StoreUnavailableError, "the server is starting or shutting down, or ended the connection")
_CONTENDED: Final = (StoreBusyError, "others changed or locked the same rows until the time was up")
_DAMAGED: Final = (CorruptStoreError, "the database is damaged")
_UNREADABLE: Final = (CorruptStoreError, "the disk of the server cannot be read or written")

_POOLER: Final = (
    SessionStoreError,
    "the server lost what this connection prepared: behind a pooler in transaction mode, say ?pooler=transaction",
)

_POSTGRESQL: Final[dict[str, _Fault]] = {
    "08": (StoreUnavailableError, "the connection to the server was lost"),
    "25006": (ReadOnlyStoreError, "the server is read-only"),
    "25P03": _AWAY,  # a transaction was idle for too long
    "25P04": _AWAY,  # a transaction took too long
    "08P01": _POOLER,
    "26000": _POOLER,
    "28": (SessionStoreError, "the server refused the user or the password"),
    "3D000": (SessionStoreError, "there is no database of that name on the server"),
    "42P05": _POOLER,
    "40001": _CONTENDED,
    "40003": _AWAY,  # the one of its class that leaves open what became of the statement
    "40P01": _CONTENDED,
    "42501": (ReadOnlyStoreError, "the role may not do that: it lacks a right on a table or schema"),
    "53": (StoreUnavailableError, "the server has no connection or memory left"),
    "53100": (StorageFullError, "the disk of the server is full; nothing was stored"),
    "55P03": (StoreBusyError, "others kept a row or a table locked until the time was up"),
    "57": _AWAY,
    "57014": (StoreTimeoutError, "a statement was cancelled, or took longer than its timeout"),
    "58030": _UNREADABLE,
    "58P01": _UNREADABLE,
    "XX001": _DAMAGED,
    "XX002": _DAMAGED,
}
"""By SQLSTATE; the longest prefix decides."""


def explained(error: BaseException, what: str) -> SessionStoreError:
    """Return the error to raise in the place of a driver's, `from None`.

    Args:
        error: of sqlite3 or asyncpg, or SQLAlchemy's around one.
        what: what failed, for the text where the code says nothing more.
    """
    cause: Any = getattr(error, "orig", None) or error
    code = getattr(cause, "sqlite_errorcode", None)
    if code is not None:
        unknown = (SessionStoreError, f"{what} failed with {getattr(cause, 'sqlite_errorname', code)}")
        kind, text = _SQLITE.get(code) or _SQLITE.get(code & 0xFF, unknown)
        return kind(text)
    state = getattr(cause, "sqlstate", None)
    if state:
        unknown = (SessionStoreError, f"{what} failed with SQLSTATE {state}")
        kind, text = _POSTGRESQL.get(state) or _POSTGRESQL.get(state[:2]) or unknown
        return kind(text)
    if isinstance(cause, OSError) or getattr(error, "connection_invalidated", False):
        return StoreUnavailableError("the database cannot be reached")
    return SessionStoreError(f"{what} failed: {type(cause).__name__}")
