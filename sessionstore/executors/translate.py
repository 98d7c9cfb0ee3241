"""Errors of drivers into errors of the store, and into what a unit wants to know."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

import asyncpg

from sessionstore.dialects.faults import explained
from sessionstore.errors import StoreBusyError, StoreUnavailableError
from sessionstore.units.unit import MessageIdTakenError

BAD_OPTION: Final = "the database URL has an option, or a value of one, that the driver does not know"

MESSAGE_ID_INDEX: Final = "uq_sessionstore_messages_message_id"

_DRIVERS: Final = (sqlite3.Error, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


def translated(error: BaseException, statement: str) -> Exception:
    """Return what to raise in the place of a driver's error; `from None` is the caller's part.

    Args:
        error: of sqlite3 or asyncpg, or one of SQLAlchemy around it.
        statement: name of the statement that failed.
    """
    cause = cause_of(error)
    if _message_id_taken(cause):
        return MessageIdTakenError()
    if isinstance(cause, asyncpg.InvalidCachedStatementError):
        return StoreBusyError("a migration changed a table in the middle of a statement")
    if lost(cause):
        return StoreUnavailableError("the PostgreSQL server could not be reached, or went away")
    return explained(cause, f"statement {statement!r}")


def cause_of(error: BaseException) -> Any:
    """Return the driver's error in SQLAlchemy's: its adapter of asyncpg raises one of its own in between."""
    origin = getattr(error, "orig", None) or error
    return origin if isinstance(origin, _DRIVERS) else origin.__cause__ or origin


def _message_id_taken(cause: Any) -> bool:
    if isinstance(cause, sqlite3.Error):
        # The only unique index of ours that a statement can meet a stored row in.
        return getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_CONSTRAINT_UNIQUE
    return getattr(cause, "sqlstate", None) == "23505" and cause.constraint_name == MESSAGE_ID_INDEX


def lost(error: BaseException) -> bool:
    """Whether an error means that the connection is gone, whatever became of the statement."""
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate or "")[:2] == "08" or error.sqlstate in {"57P01", "57P02"}
    return isinstance(error, (OSError, EOFError, asyncpg.InterfaceError, asyncpg.InternalClientError))


def never_sent(error: BaseException) -> bool:
    """Whether the driver refused before it sent anything: its connection was closed already."""
    return isinstance(error, asyncpg.InterfaceError)
