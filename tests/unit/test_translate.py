"""Errors of drivers into errors of the store: by code or constraint name, and with nothing of the driver's text."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
import traceback
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from sessionstore import (
    CorruptStoreError,
    ReadOnlyStoreError,
    SessionRepository,
    SessionStoreError,
    StorageFullError,
    StoreBusyError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from sessionstore.executors.translate import CONNECT, MESSAGE_ID_INDEX, lost, never_sent, translated
from sessionstore.units.unit import MessageIdTakenError

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "a body that nobody may see"  # noqa: S105 - no password

BY_STATE: dict[str, type[SessionStoreError]] = {
    "08000": StoreUnavailableError,
    "08001": StoreUnavailableError,
    "08003": StoreUnavailableError,
    "08006": StoreUnavailableError,
    "57P01": StoreUnavailableError,
    "57P02": StoreUnavailableError,
    "57P03": StoreUnavailableError,
    "57P05": StoreUnavailableError,
    "53300": StoreUnavailableError,
    "25P03": StoreUnavailableError,
    "25P04": StoreUnavailableError,
    "40003": StoreUnavailableError,
    "57014": StoreTimeoutError,
    "40001": StoreBusyError,
    "40P01": StoreBusyError,
    "55P03": StoreBusyError,
    "53100": StorageFullError,
    "25006": ReadOnlyStoreError,
    "42501": ReadOnlyStoreError,
    "58030": CorruptStoreError,
    "58P01": CorruptStoreError,
    "XX001": CorruptStoreError,
    "XX002": CorruptStoreError,
    "22021": SessionStoreError,
    "23505": SessionStoreError,
    "40002": SessionStoreError,
    "42P01": SessionStoreError,
    "XX000": SessionStoreError,
}

BY_CODE: dict[int, type[SessionStoreError]] = {
    sqlite3.SQLITE_BUSY: StoreBusyError,
    sqlite3.SQLITE_BUSY_SNAPSHOT: StoreBusyError,
    sqlite3.SQLITE_BUSY_RECOVERY: StoreBusyError,
    sqlite3.SQLITE_LOCKED: StoreBusyError,
    sqlite3.SQLITE_LOCKED_SHAREDCACHE: StoreBusyError,
    sqlite3.SQLITE_PROTOCOL: StoreBusyError,
    sqlite3.SQLITE_FULL: StorageFullError,
    sqlite3.SQLITE_IOERR_SHMSIZE: StorageFullError,
    sqlite3.SQLITE_READONLY: ReadOnlyStoreError,
    sqlite3.SQLITE_READONLY_DBMOVED: ReadOnlyStoreError,
    sqlite3.SQLITE_PERM: ReadOnlyStoreError,
    sqlite3.SQLITE_CANTOPEN: ReadOnlyStoreError,
    sqlite3.SQLITE_CORRUPT: CorruptStoreError,
    sqlite3.SQLITE_CORRUPT_INDEX: CorruptStoreError,
    sqlite3.SQLITE_NOTADB: CorruptStoreError,
    sqlite3.SQLITE_IOERR: CorruptStoreError,
    sqlite3.SQLITE_IOERR_WRITE: CorruptStoreError,
    sqlite3.SQLITE_ERROR: SessionStoreError,
    sqlite3.SQLITE_INTERRUPT: SessionStoreError,
    sqlite3.SQLITE_NOMEM: SessionStoreError,
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY: SessionStoreError,
    sqlite3.SQLITE_CONSTRAINT_CHECK: SessionStoreError,
}


def postgres_error(state: str, **fields: str) -> asyncpg.PostgresError:
    """An error as the server sends it, with row values in every text."""
    details = {"C": state, "M": f"{SECRET} message", "D": f"({SECRET}) exists", "S": "ERROR"}
    return asyncpg.PostgresError.new(details | fields)


def sqlite_error(code: int | None) -> sqlite3.Error:
    """An error of SQLite's driver."""
    error = sqlite3.OperationalError(SECRET)
    if code is not None:
        error.sqlite_errorcode = code
    return error


def of_sqlalchemy(error: BaseException) -> DBAPIError:
    """The error as SQLAlchemy passes it on: inside its own, inside one of its adapter."""
    adapted: BaseException = error
    if not isinstance(error, sqlite3.Error):
        adapted = AsyncAdapt_asyncpg_dbapi.Error(SECRET, error)  # type: ignore[no-untyped-call]
        adapted.__cause__ = error
    return DBAPIError(f"INSERT {SECRET}", {"body": SECRET}, adapted)


WRAPPINGS = {"bare": lambda error: error, "of-sqlalchemy": of_sqlalchemy}


@pytest.fixture(params=WRAPPINGS)
def wrapped(request: pytest.FixtureRequest) -> Any:
    """An error of a driver as it is, and as it comes through SQLAlchemy."""
    return WRAPPINGS[request.param]


def _check(error: Exception, kind: type[Exception]) -> None:
    assert type(error) is kind
    assert SECRET not in f"{error} {error!r} {vars(error)}"
    assert error.__cause__ is None
    assert error.__context__ is None
    if isinstance(error, StoreBusyError | StoreUnavailableError | StoreTimeoutError):
        assert error.retryable
        assert not error.maybe_committed


@pytest.mark.parametrize("state", BY_STATE)
def test_sqlstate(state: str, wrapped: Any) -> None:
    """F14, P11: the class follows from the SQLSTATE, whatever the text and the wrapping."""
    error = translated(wrapped(postgres_error(state)), "append")
    _check(error, BY_STATE[state])


@pytest.mark.parametrize("code", BY_CODE)
def test_sqlite_code(code: int, wrapped: Any) -> None:
    """F14, P11: the class follows from SQLite's error code, the extended ones included."""
    error = translated(wrapped(sqlite_error(code)), "append")
    _check(error, BY_CODE[code])


@pytest.mark.parametrize("error", [postgres_error("22021"), sqlite_error(sqlite3.SQLITE_ERROR), sqlite_error(None)])
def test_others_name_the_statement(error: Exception, wrapped: Any) -> None:
    """F14, P11: anything else tells the code and the name of the statement, and no more."""
    found = translated(wrapped(error), "append")
    _check(found, SessionStoreError)
    assert "'append'" in str(found)


@pytest.mark.parametrize(
    "error",
    [
        OSError(SECRET),
        ConnectionRefusedError(SECRET),
        ConnectionResetError(SECRET),
        asyncpg.InterfaceError(SECRET),
        asyncpg.InternalClientError(SECRET),
        postgres_error("08003"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_lost_connection(error: Exception, wrapped: Any) -> None:
    """F14, P11: what has no SQLSTATE came from a connection that is gone."""
    _check(translated(wrapped(error), "append"), StoreUnavailableError)


def test_drivers_own_timeout(wrapped: Any) -> None:
    """F14, P4: a driver that gave up waiting is a timeout; a network that gave up is a lost connection."""
    _check(translated(wrapped(TimeoutError()), "append"), StoreTimeoutError)
    _check(translated(wrapped(TimeoutError(errno.ETIMEDOUT, SECRET)), "append"), StoreUnavailableError)
    _check(translated(wrapped(TimeoutError()), CONNECT), StoreUnavailableError)


UNKNOWN: dict[str, Exception] = {
    **{state: postgres_error(state) for state in ("08000", "08003", "08006", "08007", "08P01", "40003")},
    **{state: postgres_error(state) for state in ("57P01", "57P02", "57P05", "25P03", "25P04")},
    "reset": ConnectionResetError(SECRET),
    "driver's timeout": TimeoutError(),
    "network's timeout": TimeoutError(errno.ETIMEDOUT, SECRET),
    "end of file": EOFError(),
    "protocol": asyncpg.ProtocolError(SECRET),
}
"""After these nobody knows what became of the statement, unless it had no chance to commit."""

DEFINITE = ("40001", "40P01", "55P03", "53100", "53200", "53300", "25006", "42501", "57014", "23505", "0A000", "XX000")
"""With these the server has answered: the statement did not happen."""


@pytest.mark.parametrize("case", UNKNOWN)
def test_unknown_outcomes(case: str) -> None:
    """P3, P4: what the server did not answer may have happened."""
    assert lost(UNKNOWN[case])
    assert not never_sent(UNKNOWN[case])


def test_definite_outcomes() -> None:
    """P3, P4: what the server refused, and what was never sent, has not happened."""
    assert not any(lost(postgres_error(state)) for state in DEFINITE)
    assert never_sent(asyncpg.InterfaceError(SECRET))


def test_cached_statement(wrapped: Any) -> None:
    """P9: a statement whose plan a migration has made invalid may be tried again at once."""
    error = asyncpg.InvalidCachedStatementError(SECRET)
    _check(translated(wrapped(error), "append"), StoreBusyError)


@pytest.mark.parametrize("name", [MESSAGE_ID_INDEX, "pk_sessionstore_messages", None])
def test_taken_message_id(name: str | None, wrapped: Any) -> None:
    """P3: only the constraint's own name tells that a message id is taken."""
    error = postgres_error("23505", **({"n": name} if name else {}))
    kind = MessageIdTakenError if name == MESSAGE_ID_INDEX else SessionStoreError
    assert type(translated(wrapped(error), "append")) is kind


def test_taken_message_id_on_sqlite(wrapped: Any) -> None:
    """P3: the only unique index beside the primary keys is that of the message ids."""
    error = translated(wrapped(sqlite_error(sqlite3.SQLITE_CONSTRAINT_UNIQUE)), "append")
    assert type(error) is MessageIdTakenError


def test_text_decides_nothing() -> None:
    """F14: an error that talks of locks and full disks, with another code, is none of these."""
    for message in ("database is locked", "database or disk is full", "file is not a database"):
        error = sqlite3.OperationalError(message)
        error.sqlite_errorcode = sqlite3.SQLITE_ERROR
        assert type(translated(error, "append")) is SessionStoreError
    assert type(translated(postgres_error("22000", M="deadlock detected"), "append")) is SessionStoreError


async def _corrupted(file: Path) -> SessionStoreError:
    """Fail an append on a table that somebody has damaged."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute(
            "CREATE TRIGGER refusing BEFORE INSERT ON sessionstore_messages "
            f"BEGIN SELECT RAISE(ABORT, '{SECRET} by trigger'); END"
        )
        connection.commit()
    async with SessionRepository.connect(f"sqlite:///{file}") as repository:
        await repository.create("session")
        with pytest.raises(SessionStoreError) as caught:
            await repository.append("session", {"role": "user", "content": SECRET})
        assert await repository.length("session") == 0
    return caught.value


async def test_nothing_of_the_driver_is_chained(sqlite_file: Path) -> None:
    """P11: an error raised to a caller has no cause, and its traceback shows neither body nor driver's text."""
    error = await _corrupted(sqlite_file)
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    assert SECRET not in "".join(traceback.format_exception(error))


async def test_nothing_is_chained_when_joined(sqlite_file: Path) -> None:
    """P11: nor where the caller's own connection is used."""
    await _corrupted(sqlite_file)
    engine = create_async_engine(f"sqlite+aiosqlite:///{sqlite_file}")
    try:
        async with engine.connect() as connection:
            with pytest.raises(SessionStoreError) as caught:
                await SessionRepository(engine).within(connection).append("session", {"role": "user", "c": SECRET})
            await connection.rollback()
    finally:
        await engine.dispose()
    assert SECRET not in "".join(traceback.format_exception(caught.value))


async def test_nothing_is_chained_on_postgresql(postgres_database: str) -> None:
    """P11: nor on PostgreSQL, which quotes whole rows in the details of its errors."""
    engine = create_async_engine(postgres_database)
    try:
        async with engine.begin() as connection:
            await connection.execute(
                text("ALTER TABLE sessionstore_messages ADD CONSTRAINT ck_none CHECK (role <> 'forbidden')")
            )
        message = {"role": "forbidden", "content": SECRET}
        async with SessionRepository.connect(postgres_database) as repository:
            await repository.create("session")
            with pytest.raises(SessionStoreError) as bare:
                await repository.append("session", message)
            async with engine.connect() as connection:
                with pytest.raises(SessionStoreError) as within:
                    await repository.within(connection).append("session", message)
                await connection.rollback()
            assert await repository.length("session") == 0
    finally:
        await engine.dispose()
    for caught in (bare, within):
        assert "23514" in str(caught.value)
        assert SECRET not in "".join(traceback.format_exception(caught.value))
