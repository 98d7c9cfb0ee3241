"""The floor on PostgreSQL: one asyncpg connection, with SQL written by hand for each verb and prepared once.

It does the database work that the store does, on the same tables with the same foreign keys, and nothing else: no pool,
no deadline, no checks of arguments, no walk through a body, no objects for rows. Only forms that are right while others
write: an append is one statement, because its rows do not depend on what it reads; a trim and a fork take the lock of
the session's row in a statement of their own; a prune repeats in its DELETE what it saw.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import asyncpg
import orjson
from sqlalchemy import make_url

from benchmarks.data import PRUNE_TENANT, bucket_of, now_micros

POOL: Final = 16
PRUNE_BATCH: Final = 500
PRUNE_BATCH_MESSAGES: Final = 50_000
"""The bounds of the store's own batches."""

_TOUCHED: Final = """
    version = version + 1, updated_at = greatest(updated_at, $3), last_accessed_at = greatest(last_accessed_at, $3),
    activity_bucket = greatest(activity_bucket, $4)
"""

_APPEND: Final = f"""
WITH head AS (
    UPDATE sessionstore_sessions SET next_position = next_position + 1, {_TOUCHED}
    WHERE tenant_id = $1 AND id = $2 RETURNING next_position - 1 AS position
)
INSERT INTO sessionstore_messages (tenant_id, session_id, position, role, body, plain, created_at)
SELECT $1, $2, position, $5, $6::text::json, true, $3 FROM head RETURNING position
"""  # noqa: S608  # of constants, as below

_APPEND_MANY: Final = f"""
WITH head AS (
    UPDATE sessionstore_sessions SET next_position = next_position + cardinality($5::text[]), {_TOUCHED}
    WHERE tenant_id = $1 AND id = $2 RETURNING next_position - cardinality($5::text[]) AS first
), inserted AS (
    INSERT INTO sessionstore_messages (tenant_id, session_id, position, role, body, plain, created_at)
    SELECT $1, $2, first + place - 1, role, body::json, true, $3
    FROM head, unnest($5::text[], $6::text[]) WITH ORDINALITY AS new (role, body, place)
)
SELECT first FROM head
"""  # noqa: S608

_MESSAGES: Final = """
SELECT position, role, body, plain, message_id, created_at FROM sessionstore_messages
WHERE tenant_id = $1 AND session_id = $2 ORDER BY position
"""
_MESSAGES_AS_BYTES: Final = _MESSAGES.replace("body", "json_send(body)")
_NEWEST: Final = " DESC LIMIT $3"

_LIST: Final = """
SELECT s.id, s.user_id, s.title, s.parent_id, s.length, s.active_seed_id, s.created_at, s.updated_at,
    json_send(p.value), p.plain
FROM (
    SELECT id, user_id, title, parent_id, next_position - first_position AS length, active_seed_id, created_at,
        updated_at, activity_bucket
    FROM sessionstore_sessions WHERE tenant_id = $1 AND user_id = $2
    ORDER BY activity_bucket DESC, updated_at DESC, id LIMIT $3
) AS s
LEFT JOIN sessionstore_metadata AS p ON p.tenant_id = $1 AND p.session_id = s.id AND p.key = 'project_ids'
ORDER BY s.activity_bucket DESC, s.updated_at DESC, s.id
"""

_SESSION: Final = """
    id, user_id, model, max_turns, system_message, title, summary, active_seed_id, active_persona_id, parent_id,
    fork_position, first_position, next_position, generation, version, next_event, created_at, updated_at,
    last_accessed_at
"""
_GET: Final = f"""
SELECT {_SESSION}, m.key, json_send(m.value), m.plain FROM sessionstore_sessions AS s
LEFT JOIN sessionstore_metadata AS m ON m.tenant_id = s.tenant_id AND m.session_id = s.id
WHERE s.tenant_id = $1 AND s.id = $2 ORDER BY m.key
"""  # noqa: S608

_CREATE: Final = """
INSERT INTO sessionstore_sessions (tenant_id, id, user_id, model, max_turns, first_position, next_position, generation,
    version, next_event, created_at, updated_at, last_accessed_at, activity_bucket)
VALUES ($1, $2, '', '', 0, 0, 0, $3, 0, 0, $4, $4, $4, $5) ON CONFLICT DO NOTHING RETURNING id
"""

_ACCESS: Final = """
UPDATE sessionstore_sessions SET last_accessed_at = greatest(last_accessed_at, $3)
WHERE tenant_id = $1 AND id = $2 RETURNING next_position
"""
_FORK: Final = f"""
WITH header AS (
    INSERT INTO sessionstore_sessions
    SELECT tenant_id, $3, user_id, model, max_turns, system_message, title, summary, active_seed_id, active_persona_id,
        id, $7::bigint, first_position, $7, $4::bigint, 0, 0, $5::timestamptz, $5, $5, $6::bigint
    FROM sessionstore_sessions WHERE tenant_id = $1 AND id = $2
    ON CONFLICT DO NOTHING RETURNING {_SESSION}
), messages AS (
    INSERT INTO sessionstore_messages
    SELECT tenant_id, $3, position, role, body, plain, message_id, created_at, seed_id, phase_reached, evaluation_passed
    FROM sessionstore_messages WHERE tenant_id = $1 AND session_id = $2 AND position < $7
), metadata AS (
    INSERT INTO sessionstore_metadata SELECT tenant_id, $3, key, value, plain, value_key
    FROM sessionstore_metadata WHERE tenant_id = $1 AND session_id = $2 RETURNING key, value, plain
)
SELECT header.*, metadata.key, json_send(metadata.value), metadata.plain FROM header LEFT JOIN metadata ON true
"""  # noqa: S608
"""Header and rows together, which is right because the lock that `_ACCESS` took is held: nothing can come between."""

_TRIM: Final = f"""
UPDATE sessionstore_sessions SET first_position = next_position - $5, {_TOUCHED}
WHERE tenant_id = $1 AND id = $2 AND next_position - first_position > $5 RETURNING first_position
"""  # noqa: S608
_TRIM_MESSAGES: Final = "DELETE FROM sessionstore_messages WHERE tenant_id = $1 AND session_id = $2 AND position < $3"

_PRUNE: Final = """
WITH candidates AS (
    SELECT id, version, last_accessed_at, updated_at, next_position - first_position AS length
    FROM sessionstore_sessions
    WHERE tenant_id = $1 AND activity_bucket <= $2 AND updated_at < $3 AND last_accessed_at <= $4
    ORDER BY activity_bucket LIMIT $5
), counted AS (
    SELECT *, sum(length) OVER (ORDER BY id) AS running, row_number() OVER (ORDER BY id) AS place FROM candidates
), gone AS (
    DELETE FROM sessionstore_sessions AS s USING counted AS c
    WHERE s.tenant_id = $1 AND s.id = c.id AND s.version = c.version AND s.last_accessed_at = c.last_accessed_at
        AND s.updated_at = c.updated_at AND (c.running <= $6 OR c.place = 1)
    RETURNING s.id
), messages AS (
    DELETE FROM sessionstore_messages WHERE tenant_id = $1 AND session_id IN (SELECT id FROM gone)
), metadata AS (
    DELETE FROM sessionstore_metadata WHERE tenant_id = $1 AND session_id IN (SELECT id FROM gone)
)
SELECT count(*) FROM gone
"""


async def _keep(_connection: Any) -> None:
    """Leave a connection of the pool as it is: nothing was changed on it that would have to be reset."""


class PostgresFloor:
    """One connection with its prepared statements; a pool besides for what runs at once."""

    name = "floor"
    needs = "sessionstore"

    def __init__(self, connection: Any, pool: Any) -> None:
        self._connection = connection
        self._pool = pool
        self._statements: dict[str, Any] = {}

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect, and prepare every statement."""
        pool = await asyncpg.create_pool(_address(url), min_size=POOL, max_size=POOL, reset=_keep)
        floor = cls(await asyncpg.connect(_address(url)), pool)
        for statement in _STATEMENTS:
            floor._statements[statement] = await floor._connection.prepare(statement)
        return floor

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()
        await self._pool.close()

    async def append(self, session_id: str, body: dict[str, Any]) -> int:
        """Append one message; its position."""
        return int(await self._statements[_APPEND].fetchval(*_message(session_id, body)))

    async def append_together(self, session_id: str, body: dict[str, Any]) -> int:
        """Append one message while others do; the pool's connections prepare the statement once each."""
        async with self._pool.acquire() as connection:
            return int(await connection.fetchval(_APPEND, *_message(session_id, body)))

    async def append_many(self, session_id: str, bodies: list[dict[str, Any]]) -> int:
        """Append messages; the position of the first."""
        now = now_micros()
        roles = [body["role"] for body in bodies]
        texts = [orjson.dumps(body).decode() for body in bodies]
        arguments = ("", session_id, _moment(now), bucket_of(now), roles, texts)
        return int(await self._statements[_APPEND_MANY].fetchval(*arguments))

    async def read(self, session_id: str) -> list[Any]:
        """Read the bodies of a session."""
        return [orjson.loads(row[2]) for row in await self._statements[_MESSAGES].fetch("", session_id)]

    async def read_last(self, session_id: str, count: int) -> list[Any]:
        """Read the bodies of the last messages."""
        rows = await self._statements[_MESSAGES + _NEWEST].fetch("", session_id, count)
        return [orjson.loads(row[2]) for row in reversed(rows)]

    async def list_newest(self, user_id: str, count: int) -> list[Any]:
        """List a user's sessions; one more row tells whether another page follows."""
        return list((await self._statements[_LIST].fetch("", user_id, count + 1))[:count])

    async def get(self, session_id: str) -> list[Any]:
        """Read a session with its metadata."""
        return list(await self._statements[_GET].fetch("", session_id))

    async def create(self, session_id: str) -> bool:
        """Create a session."""
        now = now_micros()
        arguments = ("", session_id, now, _moment(now), bucket_of(now))
        return await self._statements[_CREATE].fetchval(*arguments) is not None

    async def fork(self, session_id: str, new_id: str) -> Any:
        """Copy a session, its source locked first."""
        now, connection = now_micros(), self._connection
        moment = _moment(now)
        await connection.execute("BEGIN")
        head = await self._statements[_ACCESS].fetchval("", session_id, moment)
        child = await self._statements[_FORK].fetch("", session_id, new_id, now, moment, bucket_of(now), head)
        await connection.execute("COMMIT")
        return child

    async def trim(self, session_id: str, keep: int) -> int:
        """Drop the oldest messages."""
        now, connection = now_micros(), self._connection
        await connection.execute("BEGIN")
        first = await self._statements[_TRIM].fetchval("", session_id, _moment(now), bucket_of(now), keep)
        await self._statements[_TRIM_MESSAGES].fetch("", session_id, first)
        await connection.execute("COMMIT")
        return keep

    async def prune(self, age: timedelta) -> int:
        """Delete old sessions in bounded transactions; how many."""
        started = now_micros()
        cutoff = started - age // timedelta(microseconds=1)
        bounds = (PRUNE_BATCH, PRUNE_BATCH_MESSAGES)
        arguments = (PRUNE_TENANT, bucket_of(cutoff), _moment(cutoff), _moment(started), *bounds)
        gone = 0
        while batch := await self._statements[_PRUNE].fetchval(*arguments):
            gone += batch
        return gone


class PostgresBytesFloor:
    """The same reads with bodies as bytes, as the store asks for them, instead of `str`, as the driver gives `json`."""

    name = "floor, bytes"
    needs = "sessionstore"

    def __init__(self, connection: Any, messages: Any, newest: Any) -> None:
        self._connection = connection
        self._messages = messages
        self._newest = newest

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect, and prepare both statements."""
        connection = await asyncpg.connect(_address(url))
        newest = await connection.prepare(_MESSAGES_AS_BYTES + _NEWEST)
        return cls(connection, await connection.prepare(_MESSAGES_AS_BYTES), newest)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def read(self, session_id: str) -> list[Any]:
        """Read the bodies of a session."""
        return [orjson.loads(row[2]) for row in await self._messages.fetch("", session_id)]

    async def read_last(self, session_id: str, count: int) -> list[Any]:
        """Read the bodies of the last messages."""
        return [orjson.loads(row[2]) for row in reversed(await self._newest.fetch("", session_id, count))]


_STATEMENTS: Final = (
    *(_APPEND, _APPEND_MANY, _MESSAGES, _MESSAGES + _NEWEST, _LIST, _GET, _CREATE, _ACCESS, _FORK, _TRIM),
    *(_TRIM_MESSAGES, _PRUNE),
)


def _address(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def _moment(micros: int) -> datetime:
    return datetime.fromtimestamp(micros / 1_000_000, UTC)


def _message(session_id: str, body: dict[str, Any]) -> tuple[Any, ...]:
    now = now_micros()
    return ("", session_id, _moment(now), bucket_of(now), body["role"], orjson.dumps(body).decode())
