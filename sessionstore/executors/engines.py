"""Which executor an engine has: one for all handles, and it hangs on the engine."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import URL, Engine, StaticPool, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from sessionstore import limits
from sessionstore.dialects import Dialect, dialect_of
from sessionstore.dialects.urls import TRANSACTION, is_memory, sqlite_file
from sessionstore.errors import InvalidArgumentError, ReadOnlyStoreError, SchemaOutOfDateError
from sessionstore.executors.base import Executor
from sessionstore.executors.memory import MemoryExecutor
from sessionstore.executors.postgresql import PostgresExecutor
from sessionstore.executors.servers import server_engine, settings_for
from sessionstore.executors.sqlite import SqliteExecutor, configure
from sessionstore.schema import REVISION
from sessionstore.settings import StoreSettings
from sessionstore.units.store import upgrade_command

Migrate = Callable[[sqlite3.Connection], Any]

_executors: Final[weakref.WeakKeyDictionary[Engine, dict[Any, Executor]]] = weakref.WeakKeyDictionary()


def own_engine(url: URL, *, row_level_security: bool = False) -> AsyncEngine:
    """Make an engine whose connections the store holds itself."""
    if url.get_backend_name() == "sqlite":
        return create_async_engine(url, poolclass=StaticPool if is_memory(url) else NullPool)
    return server_engine(url, "sessionstore", settings_for(row_level_security=row_level_security))


def dialect_for(engine: AsyncEngine, settings: StoreSettings) -> Dialect:
    """Return the dialect of an engine, with what the settings say of it.

    Raises:
        InvalidArgumentError: another database or driver, or settings for another one.
    """
    dialect = dialect_of(engine.dialect.name, engine.dialect.driver, settings.schema)
    if not settings.row_level_security:
        return dialect
    if dialect.one_writer:
        raise InvalidArgumentError("row_level_security is for PostgreSQL; SQLite has none")
    return replace(dialect, row_level_security=True)


def executor_for(
    engine: AsyncEngine, settings: StoreSettings, *, owned: bool, pooler: str | None, migrate: Migrate
) -> Executor:
    """Return the executor of an engine, made on first use.

    Args:
        owned: the engine is the store's own, and its connections may be held.
        pooler: what the URL of an engine of the store's own says of one.
        migrate: brings a database in memory to the newest revision, in the thread that calls it.
    """
    of_engine = _executors.setdefault(engine.sync_engine, {})
    key = (settings.schema, settings.durability, settings.row_level_security)
    executor = of_engine.get(key)
    if executor is None:
        executor = of_engine[key] = _made(engine, settings, owned=owned, pooler=pooler, migrate=migrate)
        # Whoever ends the engine ends what hangs on it.
        event.listen(engine.sync_engine, "engine_disposed", _forget)
        weakref.finalize(engine.sync_engine, executor.stop)
    return executor


def _forget(engine: Engine) -> None:
    for executor in _executors.pop(engine, {}).values():
        executor.stop()


def _made(
    engine: AsyncEngine, settings: StoreSettings, *, owned: bool, pooler: str | None, migrate: Migrate
) -> Executor:
    dialect = dialect_for(engine, settings)
    if not dialect.one_writer:
        rows = settings_for(row_level_security=settings.row_level_security)
        local = rows if pooler == TRANSACTION else {}
        return PostgresExecutor(dialect, engine.sync_engine, hold=owned, local=local)
    if is_memory(engine.url):
        if not isinstance(engine.pool, StaticPool):
            raise InvalidArgumentError("a SQLite database in memory needs one connection: poolclass=StaticPool")
        return MemoryExecutor(dialect, engine.sync_engine, migrate=migrate)
    return _on_file(dialect, engine, settings)


def _on_file(dialect: Dialect, engine: AsyncEngine, settings: StoreSettings) -> SqliteExecutor:
    """Open connections of our own to the file, so that a caller's pool never makes two of us wait for each other."""
    arguments, options = engine.dialect.create_connect_args(engine.url)
    file = sqlite_file(engine.url)
    target = str(arguments[0])
    if not options.get("uri"):
        target = f"file:{quote(target)}?mode=rw"  # never create a file: that is for migrations

    def opened(*, writes: bool) -> sqlite3.Connection:
        _require(file)
        connection = sqlite3.connect(
            target,
            uri=True,
            isolation_level=None,
            timeout=limits.SQLITE_BUSY_SLICE_SECONDS,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            return configure(connection, durability=settings.durability, writes=writes)
        except BaseException:
            connection.close()
            raise

    return SqliteExecutor(dialect, open_writer=lambda: opened(writes=True), open_reader=lambda: opened(writes=False))


def _require(file: Path | None) -> None:
    try:
        missing = file is not None and not file.exists()
    except OSError:
        raise ReadOnlyStoreError("the database file cannot be reached: this account lacks the rights") from None
    if missing:
        raise SchemaOutOfDateError(found=None, expected=REVISION, command=upgrade_command())
