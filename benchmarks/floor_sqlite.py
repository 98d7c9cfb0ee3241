"""The floor on SQLite: `sqlite3` on the calling thread, with SQL written by hand for each verb.

It does the database work that the store does, on the same tables with the same foreign keys and durability, and nothing
else: no thread, no checks of arguments, no walk through a body, no objects for rows. Only right forms: whatever reads
before it writes does both under BEGIN IMMEDIATE.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Coroutine
from datetime import timedelta
from queue import SimpleQueue
from typing import Any, Final, Self

import orjson
from sqlalchemy import make_url

from benchmarks.data import PRUNE_TENANT, bucket_of, now_micros

PRUNE_BATCH: Final = 500
PRUNE_BATCH_MESSAGES: Final = 50_000
"""The bounds of the store's own batches."""

_TOUCHED: Final = """
    version = version + 1, updated_at = max(updated_at, ?2), last_accessed_at = max(last_accessed_at, ?2),
    activity_bucket = max(activity_bucket, ?3)
"""

_ADVANCE: Final = f"""
UPDATE sessionstore_sessions SET next_position = next_position + ?4, {_TOUCHED}
WHERE tenant_id = '' AND id = ?1 RETURNING next_position - ?4
"""  # noqa: S608  # of constants, as below

_INSERT: Final = """
INSERT INTO sessionstore_messages (tenant_id, session_id, position, role, body, plain, created_at)
VALUES ('', ?, ?, ?, ?, 1, ?)
"""

_MESSAGES: Final = """
SELECT position, role, body, plain, message_id, created_at FROM sessionstore_messages
WHERE tenant_id = '' AND session_id = ? ORDER BY position
"""
_MESSAGES_AS_BYTES: Final = _MESSAGES.replace("body", "CAST(body AS BLOB)")
_NEWEST: Final = " DESC LIMIT ?"

_LIST: Final = """
SELECT s.id, s.user_id, s.title, s.parent_id, s.length, s.active_seed_id, s.created_at, s.updated_at,
    CAST(p.value AS BLOB), p.plain
FROM (
    SELECT id, user_id, title, parent_id, next_position - first_position AS length, active_seed_id, created_at,
        updated_at, activity_bucket
    FROM sessionstore_sessions WHERE tenant_id = '' AND user_id = ?
    ORDER BY activity_bucket DESC, updated_at DESC, id LIMIT ?
) AS s
LEFT JOIN sessionstore_metadata AS p ON p.tenant_id = '' AND p.session_id = s.id AND p.key = 'project_ids'
ORDER BY s.activity_bucket DESC, s.updated_at DESC, s.id
"""

_SESSION: Final = """
    s.id, s.user_id, s.model, s.max_turns, s.system_message, s.title, s.summary, s.active_seed_id, s.active_persona_id,
    s.parent_id, s.fork_position, s.first_position, s.next_position, s.generation, s.version, s.next_event,
    s.created_at, s.updated_at, s.last_accessed_at
"""
_GET: Final = f"""
SELECT {_SESSION}, m.key, CAST(m.value AS BLOB), m.plain FROM sessionstore_sessions AS s
LEFT JOIN sessionstore_metadata AS m ON m.tenant_id = s.tenant_id AND m.session_id = s.id
WHERE s.tenant_id = '' AND s.id = ? ORDER BY m.key
"""  # noqa: S608

_CREATE: Final = """
INSERT INTO sessionstore_sessions (tenant_id, id, user_id, model, max_turns, first_position, next_position, generation,
    version, next_event, created_at, updated_at, last_accessed_at, activity_bucket)
VALUES ('', ?1, '', '', 0, 0, 0, ?2, 0, 0, ?2, ?2, ?2, ?3) ON CONFLICT DO NOTHING RETURNING id
"""

_ACCESS: Final = """
UPDATE sessionstore_sessions SET last_accessed_at = max(last_accessed_at, ?2)
WHERE tenant_id = '' AND id = ?1 RETURNING next_position
"""
_FORK_HEADER: Final = f"""
INSERT INTO sessionstore_sessions AS child
SELECT tenant_id, ?2, user_id, model, max_turns, system_message, title, summary, active_seed_id, active_persona_id,
    id, ?5, first_position, ?5, ?3, 0, 0, ?3, ?3, ?3, ?4
FROM sessionstore_sessions WHERE tenant_id = '' AND id = ?1
ON CONFLICT DO NOTHING RETURNING {_SESSION.replace("s.", "")}
"""  # noqa: S608
_FORK_MESSAGES: Final = """
INSERT INTO sessionstore_messages
SELECT tenant_id, ?2, position, role, body, plain, message_id, created_at, seed_id, phase_reached, evaluation_passed
FROM sessionstore_messages WHERE tenant_id = '' AND session_id = ?1 AND position < ?3
"""
_FORK_METADATA: Final = """
INSERT INTO sessionstore_metadata SELECT tenant_id, ?2, key, value, plain, value_key
FROM sessionstore_metadata WHERE tenant_id = '' AND session_id = ?1 RETURNING key, CAST(value AS BLOB), plain
"""

_TRIM: Final = f"""
UPDATE sessionstore_sessions SET first_position = next_position - ?4, {_TOUCHED}
WHERE tenant_id = '' AND id = ?1 AND next_position - first_position > ?4 RETURNING first_position
"""  # noqa: S608
_TRIM_MESSAGES: Final = "DELETE FROM sessionstore_messages WHERE tenant_id = '' AND session_id = ? AND position < ?"

_VICTIMS: Final = """
SELECT id, next_position - first_position FROM sessionstore_sessions
WHERE tenant_id = ? AND activity_bucket <= ? AND updated_at < ? AND last_accessed_at <= ?
ORDER BY activity_bucket LIMIT ?
"""
_PRUNE: Final = tuple(
    f"DELETE FROM {table} WHERE tenant_id = ? AND {key} IN (SELECT value FROM json_each(?))"  # noqa: S608
    for table, key in (
        ("sessionstore_messages", "session_id"),
        ("sessionstore_metadata", "session_id"),
        ("sessionstore_sessions", "id"),
    )
)
"""Children first: that is right where one transaction writes at a time, and spares the foreign keys their work."""


class _OnConnection:
    """What both floors have: one connection, opened and closed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._execute = connection.execute

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect with the settings that the store works with."""
        return cls(_connected(url))

    async def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class SqliteFloor(_OnConnection):
    """One connection in the thread of the event loop; its methods never wait for anything but the disk."""

    name = "floor"
    needs = "sessionstore"

    async def append(self, session_id: str, body: dict[str, Any]) -> int:
        """Append one message; its position."""
        execute, now = self._execute, now_micros()
        text = orjson.dumps(body).decode()
        execute("BEGIN IMMEDIATE")
        ((position,),) = execute(_ADVANCE, (session_id, now, bucket_of(now), 1)).fetchall()
        execute(_INSERT, (session_id, position, body["role"], text, now))
        execute("COMMIT")
        return int(position)

    async def append_many(self, session_id: str, bodies: list[dict[str, Any]]) -> int:
        """Append messages; the position of the first."""
        execute, now = self._execute, now_micros()
        texts = [(body["role"], orjson.dumps(body).decode()) for body in bodies]
        execute("BEGIN IMMEDIATE")
        ((first,),) = execute(_ADVANCE, (session_id, now, bucket_of(now), len(bodies))).fetchall()
        rows = [(session_id, position, role, text, now) for position, (role, text) in enumerate(texts, first)]
        self._connection.executemany(_INSERT, rows)
        execute("COMMIT")
        return int(first)

    async def read(self, session_id: str) -> list[Any]:
        """Read the bodies of a session."""
        return [orjson.loads(row[2]) for row in self._execute(_MESSAGES, (session_id,)).fetchall()]

    async def read_last(self, session_id: str, count: int) -> list[Any]:
        """Read the bodies of the last messages."""
        rows = self._execute(_MESSAGES + _NEWEST, (session_id, count)).fetchall()
        return [orjson.loads(row[2]) for row in reversed(rows)]

    async def list_newest(self, user_id: str, count: int) -> list[Any]:
        """List a user's sessions; one more row tells whether another page follows."""
        return self._execute(_LIST, (user_id, count + 1)).fetchall()[:count]

    async def get(self, session_id: str) -> list[Any]:
        """Read a session with its metadata."""
        return self._execute(_GET, (session_id,)).fetchall()

    async def create(self, session_id: str) -> bool:
        """Create a session; autocommit makes one statement a transaction."""
        now = now_micros()
        return bool(self._execute(_CREATE, (session_id, now, bucket_of(now))).fetchall())

    async def fork(self, session_id: str, new_id: str) -> Any:
        """Copy a session; the source's row is touched first."""
        execute, now = self._execute, now_micros()
        execute("BEGIN IMMEDIATE")
        ((head,),) = execute(_ACCESS, (session_id, now)).fetchall()
        header = execute(_FORK_HEADER, (session_id, new_id, now, bucket_of(now), head)).fetchall()
        execute(_FORK_MESSAGES, (session_id, new_id, head))
        metadata = execute(_FORK_METADATA, (session_id, new_id)).fetchall()
        execute("COMMIT")
        return header, metadata

    async def trim(self, session_id: str, keep: int) -> int:
        """Drop the oldest messages."""
        execute, now = self._execute, now_micros()
        execute("BEGIN IMMEDIATE")
        ((first,),) = execute(_TRIM, (session_id, now, bucket_of(now), keep)).fetchall()
        execute(_TRIM_MESSAGES, (session_id, first))
        execute("COMMIT")
        return keep

    async def prune(self, age: timedelta) -> int:
        """Delete old sessions in bounded transactions; how many."""
        started = now_micros()
        cutoff = started - age // timedelta(microseconds=1)
        gone = 0
        while batch := self._prune_batch((PRUNE_TENANT, bucket_of(cutoff), cutoff, started, PRUNE_BATCH)):
            gone += batch
        return gone

    def _prune_batch(self, victims: tuple[Any, ...]) -> int:
        execute = self._execute
        execute("BEGIN IMMEDIATE")
        ids: list[str] = []
        messages = 0
        for session_id, length in execute(_VICTIMS, victims).fetchall():
            messages += length
            if ids and messages > PRUNE_BATCH_MESSAGES:
                break
            ids.append(session_id)
        if ids:
            encoded = orjson.dumps(ids).decode()
            for statement in _PRUNE:
                execute(statement, (PRUNE_TENANT, encoded))
        execute("COMMIT")
        return len(ids)


class SqliteBytesFloor(_OnConnection):
    """The same reads with bodies asked for as bytes, as the store does, instead of `str`, as the driver gives TEXT."""

    name = "floor, bytes"
    needs = "sessionstore"

    async def read(self, session_id: str) -> list[Any]:
        """Read the bodies of a session."""
        return [orjson.loads(row[2]) for row in self._execute(_MESSAGES_AS_BYTES, (session_id,)).fetchall()]

    async def read_last(self, session_id: str, count: int) -> list[Any]:
        """Read the bodies of the last messages."""
        rows = self._execute(_MESSAGES_AS_BYTES + _NEWEST, (session_id, count)).fetchall()
        return [orjson.loads(row[2]) for row in reversed(rows)]


class SqliteHopFloor:
    """The floor in a thread of its own: what the cheapest hop from the event loop to a thread and back costs besides.

    A library cannot do without it, or a slow disk would stop every request of the process.
    """

    name = "floor, one hop"
    needs = "sessionstore"

    def __init__(self, floor: SqliteFloor) -> None:
        self._floor = floor
        self._waiting: SimpleQueue[Any] = SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect as the floor does."""
        return cls(await SqliteFloor.open(url))

    async def close(self) -> None:
        """End the thread, and close the connection."""
        self._waiting.put(None)
        await self._floor.close()

    def _work(self) -> None:
        while (work := self._waiting.get()) is not None:
            call, future = work
            try:
                call.send(None)  # it never waits, so it ends at once
            except StopIteration as done:
                future.get_loop().call_soon_threadsafe(future.set_result, done.value)
            except Exception as error:  # noqa: BLE001  # raised where it is awaited
                future.get_loop().call_soon_threadsafe(future.set_exception, error)

    def _hop(self, call: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        self._waiting.put((call, future))
        return future

    async def append(self, session_id: str, body: dict[str, Any]) -> int:
        """Append one message; its position."""
        return int(await self._hop(self._floor.append(session_id, body)))

    async def append_many(self, session_id: str, bodies: list[dict[str, Any]]) -> int:
        """Append messages; the position of the first."""
        return int(await self._hop(self._floor.append_many(session_id, bodies)))

    async def read(self, session_id: str) -> Any:
        """Read the bodies of a session."""
        return await self._hop(self._floor.read(session_id))

    async def read_last(self, session_id: str, count: int) -> Any:
        """Read the bodies of the last messages."""
        return await self._hop(self._floor.read_last(session_id, count))

    async def list_newest(self, user_id: str, count: int) -> Any:
        """List a user's sessions."""
        return await self._hop(self._floor.list_newest(user_id, count))

    async def get(self, session_id: str) -> Any:
        """Read a session with its metadata."""
        return await self._hop(self._floor.get(session_id))

    async def create(self, session_id: str) -> bool:
        """Create a session."""
        return bool(await self._hop(self._floor.create(session_id)))

    async def fork(self, session_id: str, new_id: str) -> Any:
        """Copy a session."""
        return await self._hop(self._floor.fork(session_id, new_id))

    async def trim(self, session_id: str, keep: int) -> int:
        """Drop the oldest messages."""
        return int(await self._hop(self._floor.trim(session_id, keep)))

    async def prune(self, age: timedelta) -> int:
        """Delete old sessions in bounded transactions; how many."""
        return int(await self._hop(self._floor.prune(age)))


def _connected(url: str) -> sqlite3.Connection:
    connection = sqlite3.connect(str(make_url(url).database), isolation_level=None, check_same_thread=False)
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = FAST"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection
