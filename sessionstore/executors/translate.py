"""Errors of drivers into errors of the store, and into what a unit wants to know."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

import asyncpg

from sessionstore.dialects.faults import explained
from sessionstore.errors import StoreBusyError, StoreTimeoutError, StoreUnavailableError
from sessionstore.units.unit import MessageIdTakenError

BAD_OPTION: Final = "the database URL has an option, or a value of one, that the driver does not know"

CONNECT: Final = "connect"
"""What failed, where it is no statement: nothing was sent, and another try may reach the server."""

MESSAGE_ID_INDEX: Final = "uq_sessionstore_messages_message_id"

_DRIVERS: Final = (sqlite3.Error, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)

_ENDING: Final = frozenset({"25P03", "25P04", "40003", "57P01", "57P02", "57P05"})
"""SQLSTATEs, beside class 08, with which the server ends a connection, or leaves open what became of a statement."""


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
    if statement == CONNECT and getattr(cause, "sqlstate", None) == "08P01":
        return StoreUnavailableError("a pooler refused the connection; does the URL lack ?pooler=transaction?")
    if _timed_out(cause) and statement != CONNECT:
        return StoreTimeoutError("a statement took longer than the driver's own timeout")
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


def _timed_out(cause: Any) -> bool:
    """Whether the driver's clock ran out; the operating system's error of that class has a number."""
    return isinstance(cause, TimeoutError) and cause.errno is None


def lost(error: BaseException) -> bool:
    """Whether an error leaves open what became of the statement: the connection is gone, or was given up."""
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate or "")[:2] == "08" or error.sqlstate in _ENDING
    return isinstance(error, (OSError, EOFError, asyncpg.InterfaceError, asyncpg.InternalClientError))


def never_sent(error: BaseException) -> bool:
    """Whether the driver refused before it sent anything: its connection was closed already."""
    return isinstance(error, asyncpg.InterfaceError)
