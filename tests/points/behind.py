"""The tables behind the store's back: put as they were, and read, in a moment."""

from __future__ import annotations

import asyncio
import sqlite3
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import make_url

from tests.support import invariants
from tests.support.invariants import Stored, connect_postgres

if TYPE_CHECKING:
    from sessionstore import SessionRepository

TABLES: Final = {
    "sessionstore_sessions": "tenant_id, id, first_position, next_position, generation, version, created_at, "
    "updated_at, last_accessed_at, activity_bucket, parent_id, fork_position, next_event, user_id, model, max_turns, "
    "system_message, title, summary, active_seed_id, active_persona_id",
    "sessionstore_messages": "tenant_id, session_id, position, role, CAST(body AS TEXT), message_id, created_at",
    "sessionstore_metadata": "tenant_id, session_id, key, CAST(value AS TEXT)",
    "sessionstore_events": "tenant_id, session_id, number, kind, generation, first_position, next_position, "
    "CAST(payload AS TEXT), created_at",
    "sessionstore_tombstones": "tenant_id, session_id, generation, number, kind, deleted_at",
    "sessionstore_documents": "tenant_id, category, name, format, CAST(body AS TEXT), updated_at",
    "sessionstore_maintenance": "tenant_id, job, last_run_at",
}
"""And the columns that tell whether a call has happened; the first ones are those of the invariants."""

READ: Final = tuple(f"SELECT {columns} FROM {table}" for table, columns in TABLES.items())  # noqa: S608
SAVE: Final = tuple(f"CREATE TABLE saved.{table} AS SELECT * FROM {table}" for table in TABLES)  # noqa: S608
RESTORE: Final = (
    *(f"DELETE FROM {table}" for table in reversed(TABLES)),  # noqa: S608
    *(f"INSERT INTO {table} SELECT * FROM saved.{table}" for table in TABLES),  # noqa: S608
)

MOMENTS: Final = ((4, 6, 7, 8, 9), (6,), (), (4, 8), (2, 5), (5,), (2,))
"""Which of these columns are moments, or made from one."""

State = tuple[tuple[tuple[Any, ...], ...], ...]
"""What the tables hold; moments only as the ones there were in the beginning, or new ones."""


class Behind(ABC):
    """The database of a test."""

    def __init__(self) -> None:
        self._known: set[Any] = set()

    async def saved(self) -> bool:
        """Whether there is something to begin with."""
        return False

    async def save(self) -> None:
        """Keep what there is as the beginning."""
        await self._run(SAVE)

    async def begin(self) -> None:
        """Begin with what was saved."""
        await self.restore()
        tables = await self._read()
        pairs = zip(tables, MOMENTS, strict=True)
        self._known = {row[at] for table, places in pairs for row in table for at in places}

    async def restore(self) -> None:
        """Begin again. It fails where somebody holds a lock on SQLite, and waits on PostgreSQL."""
        await self._run(RESTORE)

    async def state(self) -> State:
        """Check that what there is is sound, and return it."""
        tables = [sorted(rows, key=repr) for rows in await self._read()]
        messages = sorted(tables[1], key=lambda row: row[:3])
        stored: Stored = invariants._stored(
            [row[:13] for row in tables[0]],
            [row[:6] for row in messages],
            [row[:4] for row in tables[2]],
            [row[:4] for row in tables[3]],
        )
        assert invariants.faults(stored) == []
        return tuple(
            tuple(
                tuple("new" if self._new(at, value, places) else value for at, value in enumerate(row)) for row in table
            )
            for table, places in zip(tables, MOMENTS, strict=True)
        )

    def _new(self, at: int, value: Any, places: tuple[int, ...]) -> bool:
        return at in places and value not in self._known

    @abstractmethod
    async def _run(self, statements: tuple[str, ...]) -> None: ...

    @abstractmethod
    async def _read(self) -> list[list[tuple[Any, ...]]]: ...

    @abstractmethod
    async def idle(self) -> None:
        """Return once nobody has a transaction open."""

    async def close(self) -> None:  # noqa: B027  # not every database needs it
        """Let go of it."""


class BehindPostgres(Behind):
    """A plain connection to it."""

    def __init__(self, connection: Any) -> None:
        super().__init__()
        self.connection = connection

    async def saved(self) -> bool:
        return bool(await self.connection.fetchval("SELECT to_regnamespace('saved') IS NOT NULL"))

    async def save(self) -> None:
        await self.connection.execute("CREATE SCHEMA saved")
        await super().save()

    async def _run(self, statements: tuple[str, ...]) -> None:
        await self.connection.execute(";".join(statements))

    async def _read(self) -> list[list[tuple[Any, ...]]]:
        return [[tuple(row) for row in await self.connection.fetch(query)] for query in READ]

    async def idle(self) -> None:
        # A backend whose client has gone takes a moment to notice.
        open_ones = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND (xact_start IS NOT NULL OR state <> 'idle') AND backend_type = 'client backend'"
        )
        while await self.connection.fetchval(open_ones):  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.001)

    async def close(self) -> None:
        await self.connection.close()


class BehindFile(Behind):
    """A connection to it, that does not wait for locks."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__()
        self.connection = connection
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("ATTACH ':memory:' AS saved")

    async def _run(self, statements: tuple[str, ...]) -> None:
        _execute(self.connection, statements)

    async def _read(self) -> list[list[tuple[Any, ...]]]:
        return [self.connection.execute(query).fetchall() for query in READ]

    async def idle(self) -> None:
        """Who still held the lock would make `restore` fail."""

    async def close(self) -> None:
        self.connection.close()


class BehindMemory(Behind):
    """The store's own connection, in its thread."""

    def __init__(self, driver: Any) -> None:
        super().__init__()
        self._driver = driver

    async def save(self) -> None:
        await self._driver._execute(partial(_execute, self._driver._conn, ("ATTACH ':memory:' AS saved",), begin=False))
        await super().save()

    async def _run(self, statements: tuple[str, ...]) -> None:
        await self._driver._execute(partial(_execute, self._driver._conn, statements))

    async def _read(self) -> list[list[tuple[Any, ...]]]:
        def read() -> list[list[tuple[Any, ...]]]:
            return [self._driver._conn.execute(query).fetchall() for query in READ]

        return list(await self._driver._execute(read))

    async def idle(self) -> None:
        assert not self._driver._conn.in_transaction


def _execute(connection: sqlite3.Connection, statements: tuple[str, ...], *, begin: bool = True) -> None:
    if begin:
        connection.execute("BEGIN IMMEDIATE")
    for statement in statements:
        connection.execute(statement)
    if begin:
        connection.execute("COMMIT")


async def behind(url: str, repository: SessionRepository) -> Behind:
    """The database of a repository."""
    address = make_url(url)
    if address.get_backend_name() == "postgresql":
        return BehindPostgres(await connect_postgres(url))
    if address.database is None:
        async with repository._shared.engine.connect() as connection:
            return BehindMemory((await connection.get_raw_connection()).driver_connection)
    return BehindFile(sqlite3.connect(str(address.database), isolation_level=None, timeout=0))
