"""How migrations run: alone, in bounded lock waits, and so that being killed at any moment loses nothing.

Two ways lead here. `sessionstore.migrate` passes an open connection in `config.attributes` ("connection", "schema",
"deadline", "lifeline", "is_done"); `alembic -c alembic.ini upgrade head` passes nothing, and the database is named by
`-x url=...` or SESSIONSTORE_DATABASE_URL, the schema by `-x schema=...`, and the patience by `-x timeout=...` in
seconds. How long what is waited for stands in `sessionstore/executors/lifeline.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from logging.config import fileConfig
from typing import TYPE_CHECKING, Any, Final

from alembic import context
from alembic.util import CommandError
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from sessionstore.dialects.urls import (
    THROUGH_A_POOLER,
    TRANSACTION,
    blocking_sqlite,
    normalize_url,
    pooler_of,
)
from sessionstore.errors import CorruptStoreError, InvalidArgumentError, StoreBusyError
from sessionstore.executors.files import make_private
from sessionstore.executors.lifeline import Lifeline
from sessionstore.executors.servers import server_engine
from sessionstore.schema import VERSION_TABLE, Base
from sessionstore.settings import StoreSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

PREFIX: Final = "sessionstore_"
"""What is ours in a database starts so; Alembic is shown nothing else."""

ADVISORY_LOCK: Final = int.from_bytes(b"sessions")
"""One key a database, whatever the schema: without `schema=` nobody knows which one the search path leads to."""

POLL_SECONDS: Final = 0.1
"""Between two tries for the advisory lock: short against a migration, long against a round trip."""

LOCK_TIMEOUT_SECONDS: Final = 4.0
"""A statement that waits for a table's lock makes everybody behind it wait too: give up early, try again."""

STATEMENT_TIMEOUT: Final = "30s"
"""Nothing here may hold a table longer. Revisions that build indexes concurrently set their own."""

AWAKE: Final = {"idle_session_timeout": "0", "statement_timeout": STATEMENT_TIMEOUT}
"""For both connections while one of them waits: what a role sets for a service must not end a migration's patience."""

SLEEP: Final = "SELECT pg_sleep($1)"
"""The server does the sleeping: the same line then holds up neither an event loop nor anybody's snapshot for long."""

LOCK_TRIES: Final = 10
BACKOFF_FIRST_SECONDS: Final = 0.1
BACKOFF_MAX_SECONDS: Final = 2.0
"""Between two tries the service's own statements go through; ten tries outlast any sane transaction."""

COMMAND_LINE_SECONDS: Final = 60.0
"""How long the command line waits for locks if it is not told."""

LOCK_STATES: Final = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, lock timeout: the transaction is gone, and doing it again is right."""


def _never(_connection: Connection) -> bool:
    return False


def run() -> None:
    """Choose the way by what `config.attributes` and the command line say."""
    attributes = context.config.attributes
    if context.is_offline_mode():
        write_script(attributes["schema"] if "schema" in attributes else _script_schema())
    elif "connection" in attributes:
        migrate(
            attributes["connection"],
            attributes.get("schema"),
            attributes["deadline"],
            lifeline=attributes.get("lifeline"),
            is_done=attributes.get("is_done", _never),
        )
    else:
        run_from_command_line()


def run_from_command_line() -> None:
    """Connect to the database that the command line or the environment names."""
    if context.config.config_file_name is not None:
        fileConfig(context.config.config_file_name, disable_existing_loggers=False)
    named = _argument("url") or os.environ.get("SESSIONSTORE_DATABASE_URL")
    if not named:
        raise CommandError("name the database: -x url=... or SESSIONSTORE_DATABASE_URL")
    url = normalize_url(named)
    if pooler_of(url) == TRANSACTION:
        raise InvalidArgumentError(THROUGH_A_POOLER)
    schema = StoreSettings(schema=_argument("schema")).schema
    deadline = time.monotonic() + float(_argument("timeout") or COMMAND_LINE_SECONDS)
    if url.get_backend_name() == "sqlite":
        make_private(url)
        blocking = create_engine(blocking_sqlite(url), poolclass=NullPool, hide_parameters=True)
        with blocking.connect() as connection:
            migrate(connection, schema, deadline)
        return

    async def connect_and_migrate() -> None:
        engine, lifeline = server_engine(url, "sessionstore-migrate"), Lifeline(deadline)
        await lifeline.connect(engine, lambda connection: migrate(connection, schema, deadline, lifeline=lifeline))
        await engine.dispose()

    asyncio.run(connect_and_migrate())


def _argument(name: str) -> str | None:
    return context.get_x_argument(as_dictionary=True).get(name)


def migrate(
    connection: Connection,
    schema: str | None,
    deadline: float,
    *,
    lifeline: Lifeline | None = None,
    is_done: Callable[[Connection], bool] = _never,
) -> None:
    """Run the migrations on an open connection that has no transaction.

    Args:
        connection: of SQLite or PostgreSQL.
        schema: the PostgreSQL schema of the tables.
        deadline: until when others are waited for, by `time.monotonic()`.
        lifeline: that the connection runs on; PostgreSQL needs one.
        is_done: whether nothing is left to do, asked again under the lock: others may have done it, or more.
    """
    if connection.in_transaction():
        raise InvalidArgumentError("migrations need a connection without a transaction under way")
    if connection.dialect.name == "sqlite":
        migrate_sqlite(connection, deadline, is_done)
        return
    if lifeline is None:
        raise InvalidArgumentError("a connection of PostgreSQL is migrated by sessionstore.migrate.upgrade_connection")
    migrate_postgresql(connection, schema, deadline, lifeline, is_done)


def configure(**options: Any) -> None:
    """Give Alembic what is the same on every way."""
    context.configure(
        target_metadata=Base.metadata,
        version_table=VERSION_TABLE,
        include_name=is_ours,
        include_object=lambda _item, name, kind, _reflected, _other: is_ours(name, kind),
        **options,
    )


def is_ours(name: str | None, kind: str, _parents: object = None) -> bool:
    """Hide everything from Alembic that does not belong to the store."""
    return kind != "table" or (name or "").startswith(PREFIX)


# --- SQLite -------------------------------------------------------------------------------------


def migrate_sqlite(connection: Connection, deadline: float, is_done: Callable[[Connection], bool]) -> None:
    """All revisions in one transaction, which has the write lock before the version is read.

    A transaction for each would read the version outside of it: one of eight processes at once then failed.
    """
    with _sqlite_settings(connection, deadline):
        configure(connection=connection, transactional_ddl=True, transaction_per_migration=False)
        with context.begin_transaction():
            _begin_immediate(connection)
            if is_done(connection):
                return
            filled = bool(context.get_context().get_current_heads())
            # What was wrong before (rows orphaned by hand) is not a reason to refuse a migration for ever.
            before = _count_violations(connection) if filled else 0
            context.run_migrations()
            if _count_violations(connection) > before:
                raise CorruptStoreError("the migration would leave rows without their session; it was rolled back")


@contextlib.contextmanager
def _sqlite_settings(connection: Connection, deadline: float) -> Iterator[None]:
    """Foreign keys off and transactions in our hands, for this connection and this time only.

    With foreign keys on, the table copies of `batch_alter_table` delete every child row in silence, and the pragma
    does nothing inside a transaction.
    """
    driver: Any = connection.connection.dbapi_connection
    isolation_level = driver.isolation_level
    foreign_keys = _pragma(connection, "foreign_keys")
    busy_timeout = _pragma(connection, "busy_timeout")
    driver.isolation_level = None
    _pragma(connection, "foreign_keys", "OFF")
    _pragma(connection, "busy_timeout", max(1, int((deadline - time.monotonic()) * 1000)))
    try:
        yield
    finally:
        connection.rollback()
        _pragma(connection, "foreign_keys", foreign_keys)
        _pragma(connection, "busy_timeout", busy_timeout)
        driver.isolation_level = isolation_level


def _pragma(connection: Connection, name: str, value: object = None) -> Any:
    # A bare cursor: SQLAlchemy would begin a transaction of its own around it.
    cursor = connection.connection.cursor()
    try:
        cursor.execute(f"PRAGMA {name}" if value is None else f"PRAGMA {name} = {value}")
        row = cursor.fetchone()
        return row and row[0]
    finally:
        cursor.close()


def _begin_immediate(connection: Connection) -> None:
    driver: Any = connection.connection.driver_connection
    if driver.in_transaction:  # an engine's "begin" listener was faster, and its lock may be too weak
        connection.exec_driver_sql("COMMIT")
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _count_violations(connection: Connection) -> int:
    """Rows of our tables whose parent is missing; other tables of the file are not our business."""
    tables = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars().all()
    ours = [name for name in tables if name.startswith(PREFIX)]
    return sum(len(connection.exec_driver_sql(f"PRAGMA foreign_key_check({name})").all()) for name in ours)


# --- PostgreSQL ---------------------------------------------------------------------------------


def migrate_postgresql(
    connection: Connection,
    schema: str | None,
    deadline: float,
    lifeline: Lifeline,
    is_done: Callable[[Connection], bool],
) -> None:
    """One transaction a revision, under the advisory lock; given up and tried again where a table is locked."""
    with (
        _postgresql_settings(connection, AWAKE),
        _advisory_lock(connection, deadline, lifeline) as lock,
        lifeline.working(connection, lock),
    ):
        if is_done(connection):
            return
        connection.rollback()
        if schema is not None:
            _create_schema(connection, schema)
        wait = min(LOCK_TIMEOUT_SECONDS, max(0.001, deadline - time.monotonic()))
        settings = {"lock_timeout": f"{wait * 1000:.0f}ms"}
        settings["row_security"] = "off"  # a statement that policies would hide rows from fails, and skips none
        if schema is not None:
            settings["search_path"] = f'"{schema}"'
        with _postgresql_settings(connection, settings):
            _run_with_retries(connection, schema, deadline, lifeline, lock)


def _run_with_retries(
    connection: Connection, schema: str | None, deadline: float, lifeline: Lifeline, lock: Connection
) -> None:
    for attempt in range(1, LOCK_TRIES + 1):
        try:
            _run_postgresql(connection, schema, lambda: lifeline.ask(lock, "SELECT 1"))
        except DBAPIError as error:
            connection.rollback()
            pause = min(BACKOFF_FIRST_SECONDS * 2**attempt, BACKOFF_MAX_SECONDS)
            in_time = attempt < LOCK_TRIES and time.monotonic() + pause < deadline
            if not in_time or getattr(error.orig, "sqlstate", None) not in LOCK_STATES:
                raise
            lifeline.ask(lock, SLEEP, pause)
        else:
            return


def _run_postgresql(connection: Connection, schema: str | None, still_locked: Callable[[], Any]) -> None:
    configure(
        connection=connection,
        transaction_per_migration=True,
        version_table_schema=schema,
        # Before each commit: if the server ended the lock's connection, somebody else may be migrating already.
        on_version_apply=lambda **_: still_locked(),
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()


@contextlib.contextmanager
def _advisory_lock(connection: Connection, deadline: float, lifeline: Lifeline) -> Iterator[Connection]:
    """Hold the lock of this database on a connection of its own; never go on without it.

    Polled in autocommit, because a blocking `pg_advisory_lock` waits inside a snapshot: CREATE INDEX CONCURRENTLY of
    the holder waits for that snapshot, and neither ever ends.
    """
    with connection.engine.connect() as lock, lifeline.holding(lock):
        lock = lock.execution_options(isolation_level="AUTOCOMMIT")  # noqa: PLW2901 - the same connection
        with _postgresql_settings(lock, AWAKE):
            while not lock.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": ADVISORY_LOCK}):
                if time.monotonic() + POLL_SECONDS > deadline:
                    raise StoreBusyError("another migration of this database did not end in time; nothing was done")
                lifeline.ask(lock, SLEEP, POLL_SECONDS)
            try:
                yield lock
            finally:
                _unlock(lock)


def _unlock(lock: Connection) -> None:
    try:
        lock.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": ADVISORY_LOCK})
    except SQLAlchemyError:
        lock.invalidate()  # ending the connection ends the lock, and hides no error that is on its way up


@contextlib.contextmanager
def _postgresql_settings(connection: Connection, settings: dict[str, str]) -> Iterator[None]:
    """Set what the session needs and put back what was there: the connection may be a pool's."""
    read = text("SELECT current_setting(:name)")
    write = text("SELECT set_config(:name, :value, false)")
    before = {name: connection.scalar(read, {"name": name}) for name in settings}
    for name, value in settings.items():
        connection.execute(write, {"name": name, "value": value})
    connection.commit()
    try:
        yield
    finally:
        if not (connection.invalidated or connection.closed):
            with contextlib.suppress(DBAPIError):  # a dead connection has no settings to put back
                connection.rollback()
                for name, value in before.items():
                    connection.execute(write, {"name": name, "value": value})
                connection.commit()


def _create_schema(connection: Connection, schema: str) -> None:
    # IF NOT EXISTS would ask for the right to create schemas also where nothing is left to create.
    exists = connection.scalar(text("SELECT 1 FROM pg_namespace WHERE nspname = :schema"), {"schema": schema})
    if not exists:
        connection.exec_driver_sql(f'CREATE SCHEMA "{schema}"')
    connection.commit()


# --- scripts ------------------------------------------------------------------------------------


ADVICE: Final = """\
-- For PostgreSQL. Stop at the first error: psql -v ON_ERROR_STOP=1 -f this-file.sql
-- Each transaction first makes sure that the database is where this script expects it, and does nothing elsewhere."""

# No line within these ends a statement: there are tools that cut scripts at a semicolon before a line's end.
EMPTY: Final = """\
DO $$ BEGIN
  IF to_regclass('sessionstore_schema') IS NOT NULL THEN RAISE EXCEPTION
    'this script is for a database without sessionstore tables; nothing was done'; END IF; END $$;"""

AT: Final = f"""\
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM sessionstore_schema s, {VERSION_TABLE} v
    WHERE s.revision = '{{revision}}' AND v.version_num = '{{revision}}') THEN RAISE EXCEPTION
    'this step is for a database at revision {{revision}}, and this one is at %; nothing was done',
    (SELECT revision FROM sessionstore_schema); END IF; END $$;"""  # noqa: S608 - a constant, and an id of ours


def write_script(schema: str | None) -> None:
    """Write SQL for a PostgreSQL database whose changes go through somebody else's hands."""
    expected: set[str] = set()

    def reached(heads: set[str], **_: object) -> None:
        expected.clear()
        expected.update(heads)
        if not heads:  # the next script for an empty database makes it anew
            context.execute(f"DROP TABLE {VERSION_TABLE}")

    configure(
        dialect_name="postgresql",
        literal_binds=True,
        transaction_per_migration=True,
        version_table_schema=schema,
        on_version_apply=reached,
    )
    written = context.get_context()
    expected.update(written.get_current_heads())
    _guard_transactions(written.impl, expected)
    written.impl.static_output(ADVICE)
    if schema is not None:
        if not expected:
            context.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        context.execute(f'SET search_path TO "{schema}"')
    with context.begin_transaction():
        context.run_migrations()


def _guard_transactions(written: Any, expected: set[str]) -> None:
    """Let every transaction of a script begin with a look at where the database is.

    `psql` goes on after an error if it is not told otherwise: what comes after a revision that failed has to fail too.
    """
    begin = written.emit_begin

    def begin_guarded() -> None:
        begin()
        # Not executed: a statement with bound parameters would take a colon or a % for its own.
        written.static_output(AT.format(revision=min(expected)) if expected else EMPTY)

    written.emit_begin = begin_guarded


def _script_schema() -> str | None:
    named = _argument("url") or os.environ.get("SESSIONSTORE_DATABASE_URL")
    if named and normalize_url(named).get_backend_name() != "postgresql":
        raise CommandError("scripts are for PostgreSQL; migrate a SQLite file directly")
    return StoreSettings(schema=_argument("schema")).schema


run()
