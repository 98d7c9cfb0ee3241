"""What must be true of the tables at any moment at which nobody is writing, looked at behind the store's back.

The checks read plain SQL over plain connections and share no code with what they check.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg
from sqlalchemy import make_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sessionstore import SessionRepository

__all__ = ["Stored", "StoredMessage", "assert_sound", "batch_faults", "connect_postgres", "faults", "read_tables"]

BUCKET_MICROS = 900_000_000
"""A quarter of an hour: written out, because the constant of the package is among the things to be checked."""

_SESSIONS = (
    "SELECT tenant_id, id, first_position, next_position, generation, version, created_at, updated_at, "
    "last_accessed_at, activity_bucket, parent_id, fork_position, next_event FROM sessionstore_sessions"
)
_MESSAGES = (
    "SELECT tenant_id, session_id, position, role, CAST(body AS TEXT), message_id FROM sessionstore_messages "
    "ORDER BY tenant_id, session_id, position"
)
_METADATA = "SELECT tenant_id, session_id, key, CAST(value AS TEXT) FROM sessionstore_metadata"
_EVENTS = "SELECT tenant_id, session_id, number, kind FROM sessionstore_events ORDER BY tenant_id, session_id, number"
_TABLES = (_SESSIONS, _MESSAGES, _METADATA, _EVENTS)

Key = tuple[str, str]
"""Tenant and id of a session."""


class StoredSession(NamedTuple):
    """A row of the sessions."""

    tenant: str
    id: str
    first: int
    next: int
    generation: int
    version: int
    created_at: Any
    updated_at: Any
    last_accessed_at: Any
    bucket: int
    parent_id: str | None
    fork_position: int | None
    next_event: int


class StoredMessage(NamedTuple):
    """A row of the messages."""

    position: int
    role: str
    body: dict[str, Any]
    message_id: str | None


@dataclass
class Stored:
    """All that the tables hold."""

    sessions: dict[Key, StoredSession] = field(default_factory=dict)
    messages: dict[Key, list[StoredMessage]] = field(default_factory=lambda: defaultdict(list))
    metadata: dict[Key, dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))

    events: dict[Key, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))

    def bodies(self, session_id: str, tenant: str = "") -> list[dict[str, Any]]:
        """The bodies of a session, in order of position."""
        return [message.body for message in self.messages.get((tenant, session_id), [])]


async def connect_postgres(url: str) -> asyncpg.Connection:
    """A plain connection of the driver to the database of a SQLAlchemy URL."""
    address = make_url(url).set(drivername="postgresql")
    return await asyncpg.connect(address.render_as_string(hide_password=False))


async def read_tables(url: str, repository: SessionRepository | None = None) -> Stored:
    """Read everything. A database in memory can be reached only through the repository that has it."""
    address = make_url(url)
    if address.get_backend_name() == "postgresql":
        return await _read_postgres(url)
    if address.database in {None, "", ":memory:"}:
        assert repository is not None, "a database in memory is read through its repository"
        return await _read_memory(repository)
    with contextlib.closing(sqlite3.connect(str(address.database))) as connection:
        connection.execute("BEGIN")
        return _stored(*(connection.execute(table).fetchall() for table in _TABLES))


async def _read_postgres(url: str) -> Stored:
    connection = await connect_postgres(url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return _stored(*[await connection.fetch(table) for table in _TABLES])
    finally:
        await connection.close()


async def _read_memory(repository: SessionRepository) -> Stored:
    async with repository._shared.engine.connect() as connection:
        return _stored(*[(await connection.exec_driver_sql(table)).fetchall() for table in _TABLES])


def _stored(sessions: Iterable[Any], messages: Iterable[Any], metadata: Iterable[Any], events: Iterable[Any]) -> Stored:
    stored = Stored()
    for row in sessions:
        stored.sessions[row[0], row[1]] = StoredSession(*row)
    for tenant, session_id, position, role, body, message_id in messages:
        stored.messages[tenant, session_id].append(StoredMessage(position, role, json.loads(body), message_id))
    for tenant, session_id, key, value in metadata:
        stored.metadata[tenant, session_id][key] = json.loads(value)
    for tenant, session_id, number, kind in events:
        stored.events[tenant, session_id].append((number, kind))
    return stored


def faults(stored: Stored) -> list[str]:
    """Whatever is not as it must be; empty if all is well."""
    found = [fault for session in stored.sessions.values() for fault in _session_faults(session)]
    for key in stored.sessions.keys() | stored.messages.keys():
        found += _history_faults(key, stored.sessions.get(key), stored.messages.get(key, []))
    found += [f"{key}: metadata without a session" for key in stored.metadata if key not in stored.sessions]
    for key, events in stored.events.items():
        found += _event_faults(key, stored.sessions.get(key), [number for number, _ in events])
    return sorted(found)


def _event_faults(key: Key, session: StoredSession | None, numbers: Sequence[int]) -> list[str]:
    if session is None:
        return [f"{key}: {len(numbers)} events without a session"]
    dense = list(range(session.next_event - len(numbers), session.next_event))
    return [] if list(numbers) == dense else [f"{key}: events {numbers}, though the next is {session.next_event}"]


def _session_faults(session: StoredSession) -> list[str]:
    found = []
    if not 0 <= session.first <= session.next:
        found.append(f"{session.id}: first position {session.first}, next {session.next}")
    if session.bucket != _micros(session.updated_at) // BUCKET_MICROS:
        found.append(f"{session.id}: its activity bucket is not that of its update time")
    if session.version < 0:
        found.append(f"{session.id}: version {session.version}")
    return found


def _history_faults(key: Key, session: StoredSession | None, messages: Sequence[StoredMessage]) -> list[str]:
    if session is None:
        return [f"{key}: {len(messages)} messages without a session"]
    found = []
    kept = list(range(session.first, session.next))
    positions = [message.position for message in messages]
    if positions != kept:
        missing, stray = sorted(set(kept) - set(positions)), sorted(set(positions) - set(kept))
        found.append(f"{key}: positions {missing} are missing, {stray} are too many")
    found += [
        f"{key}: role of position {message.position} is not its body's"
        for message in messages
        if message.body.get("role", message.role) != message.role
    ]
    ids = Counter(message.message_id for message in messages if message.message_id is not None)
    found += [
        f"{key}: message id {message_id} is stored {times} times" for message_id, times in ids.items() if times > 1
    ]
    return found


def _micros(moment: Any) -> int:
    """A moment of either database, in microseconds since 1970."""
    if isinstance(moment, datetime):
        since = moment - datetime.fromtimestamp(0, moment.tzinfo)
        return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    return int(moment)


def batch_faults(bodies: Sequence[dict[str, Any]]) -> list[str]:
    """What is wrong with the batches of a history that only grew.

    A body says which batch it is of (`batch`), its place there (`at`), and how many there are (`of`).
    """
    found = []
    times = Counter((body["batch"], body["at"]) for body in bodies)
    found += [f"{where} is stored {count} times" for where, count in times.items() if count > 1]
    at = 0
    while at < len(bodies):
        head = bodies[at]
        expected = [(head["batch"], place) for place in range(head["of"])]
        if [(body["batch"], body["at"]) for body in bodies[at : at + head["of"]]] != expected:
            found.append(f"batch {head['batch']} is torn at {at}")
            at += 1
        else:
            at += head["of"]
    return found


async def assert_sound(url: str, repository: SessionRepository | None = None) -> Stored:
    """Check the tables, and return what they hold."""
    stored = await read_tables(url, repository)
    assert faults(stored) == []
    return stored
