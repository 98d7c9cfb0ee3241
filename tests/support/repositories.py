"""Repositories for contract tests: every way to use one, raw SQL beside it, and what must be true after any call."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sqlalchemy import StaticPool, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from sessionstore import Message, SessionRepository, Transcript
from sessionstore.executors.joined import JoinedExecutor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from sessionstore import Session

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
BUCKET_MICROS = 15 * 60 * 1_000_000
CHILD_TABLES = ("sessionstore_messages", "sessionstore_metadata", "sessionstore_events")
TABLES = ("sessionstore_sessions", *CHILD_TABLES)


class Way(NamedTuple):
    """How a repository comes by its connection, and to which kind of database."""

    name: str
    database: str

    def __str__(self) -> str:
        return f"{self.name}-{self.database}"


WAYS = tuple(
    Way(name, database)
    for name, databases in {
        "connect": ("sqlite-file", "sqlite-memory", "postgresql"),
        "engine": ("sqlite-file", "sqlite-memory", "postgresql"),
        "connection": ("sqlite-file", "postgresql"),
        "session": ("sqlite-file", "postgresql"),
    }.items()
    for database in databases
)
"""`connection` and `session` are `within()` a transaction of the caller."""


def callers_engine(url: str) -> AsyncEngine:
    """An engine as a service would make it."""
    memory = make_url(url).database is None
    return create_async_engine(url, poolclass=StaticPool) if memory else create_async_engine(url)


@contextlib.asynccontextmanager
async def opened(way: str, url: str) -> AsyncIterator[SessionRepository]:
    """A repository used in one way. What was done within a transaction of the caller ends with its rollback."""
    if way == "connect":
        async with SessionRepository.connect(url) as sessions:
            yield sessions
        return
    engine = callers_engine(url)
    try:
        async with SessionRepository(engine) as sessions:
            if way == "engine":
                yield sessions
                return
            caller = engine.connect() if way == "connection" else AsyncSession(engine)
            async with caller as transaction:
                yield sessions.within(transaction)
                await transaction.rollback()
            assert await row_counts(sessions) == dict.fromkeys(TABLES, 0), "survived the caller's rollback"
    finally:
        await engine.dispose()


# --- raw SQL beside a repository ------------------------------------------------------------------


@contextlib.asynccontextmanager
async def raw(sessions: SessionRepository) -> AsyncIterator[AsyncConnection]:
    """A connection that sees what the repository sees: the caller's transaction, or a committed one of its own."""
    joined = sessions._joined
    if isinstance(joined, JoinedExecutor):
        yield await joined._connection()
    else:
        async with sessions._shared.engine.begin() as connection:
            yield connection


async def execute(sessions: SessionRepository, sql: str, **params: Any) -> None:
    async with raw(sessions) as connection:
        await connection.execute(text(sql), params)


async def rows(sessions: SessionRepository, sql: str, **params: Any) -> list[tuple[Any, ...]]:
    async with raw(sessions) as connection:
        return [tuple(row) for row in await connection.execute(text(sql), params)]


async def row_counts(sessions: SessionRepository, tables: Iterable[str] = TABLES) -> dict[str, int]:
    """Count rows, at one moment: what a caller has left behind may still be written while others are asked."""
    counts = ", ".join(f"(SELECT count(*) FROM {table}) AS {table}" for table in tables)  # noqa: S608
    return dict(zip(tables, (await rows(sessions, f"SELECT {counts}"))[0], strict=True))


def on_postgresql(sessions: SessionRepository) -> bool:
    return sessions._shared.engine.dialect.name == "postgresql"


def micros(moment: datetime | int) -> int:
    """Microseconds since 1970, of a time as the database gives it or as the API does."""
    return moment if isinstance(moment, int) else (moment - EPOCH) // MICROSECOND


async def set_columns(sessions: SessionRepository, session_id: str, **columns: Any) -> None:
    """Change columns of a session behind the store's back; moments are given as datetimes."""
    if "updated_at" in columns:
        columns["activity_bucket"] = micros(columns["updated_at"]) // BUCKET_MICROS
    if not on_postgresql(sessions):
        columns = {name: micros(value) if isinstance(value, datetime) else value for name, value in columns.items()}
    changes = ", ".join(f"{name} = :{name}" for name in columns)
    sql = f"UPDATE sessionstore_sessions SET {changes} WHERE id = :the_id AND tenant_id = :the_tenant"  # noqa: S608
    await execute(sessions, sql, the_id=session_id, the_tenant=sessions.tenant, **columns)


async def backdate(sessions: SessionRepository, session_id: str, by: timedelta = timedelta(hours=1)) -> Session:
    """Let a session be older than it is, so that what moves can be told from what stays without waiting."""
    now = await sessions.get(session_id)
    await set_columns(
        sessions,
        session_id,
        created_at=now.created_at - by,
        updated_at=now.updated_at - by,
        last_accessed_at=now.last_accessed_at - by,
        generation=now.generation - by // MICROSECOND,
    )
    return await sessions.get(session_id)


async def set_body(sessions: SessionRepository, session_id: str, position: int, body: str | bytes) -> None:
    """Damage a stored body. PostgreSQL's `json` only takes what is JSON."""
    value = "CAST(:body AS json)" if on_postgresql(sessions) else "CAST(:body AS TEXT)"
    sql = f"UPDATE sessionstore_messages SET body = {value} WHERE session_id = :id AND position = :position"  # noqa: S608
    await execute(sessions, sql, body=body, id=session_id, position=position)


# --- what must be true after any call -------------------------------------------------------------

_LAYOUT = """
SELECT s.tenant_id, s.id, s.first_position, s.next_position, s.updated_at, s.activity_bucket,
       count(m.position), min(m.position), max(m.position)
FROM sessionstore_sessions s
LEFT JOIN sessionstore_messages m ON m.tenant_id = s.tenant_id AND m.session_id = s.id
GROUP BY s.tenant_id, s.id, s.first_position, s.next_position, s.updated_at, s.activity_bucket
"""


async def check_invariants(sessions: SessionRepository) -> None:
    """Positions are dense between first and next, buckets fit, and no row is left of a session that is gone."""
    for tenant, session_id, first, following, updated_at, bucket, count, least, most in await rows(sessions, _LAYOUT):
        where = (tenant, session_id)
        assert 0 <= first <= following, where
        assert count == following - first, where
        assert (least, most) == ((first, following - 1) if count else (None, None)), where
        assert bucket == micros(updated_at) // BUCKET_MICROS, where
    for table in CHILD_TABLES:
        orphans = (
            f"SELECT c.tenant_id, c.session_id FROM {table} c LEFT JOIN sessionstore_sessions s "  # noqa: S608
            "ON s.tenant_id = c.tenant_id AND s.id = c.session_id WHERE s.id IS NULL"
        )
        assert await rows(sessions, orphans) == [], f"orphans in {table}"


# --- conversations --------------------------------------------------------------------------------


def say(role: str, content: object, **extra: Any) -> dict[str, Any]:
    """A body."""
    return {"role": role, "content": content, **extra}


def talk(length: int) -> list[dict[str, Any]]:
    """So many messages, by user and assistant in turn."""
    return [say(("user", "assistant")[at % 2], f"message {at}") for at in range(length)]


def bodies(messages: Iterable[Message]) -> list[dict[str, Any]]:
    return [message.body for message in messages]


def contents(messages: Iterable[Message]) -> list[Any]:
    return [message.body["content"] for message in messages]


def positions(messages: Iterable[Message]) -> list[int]:
    return [message.position for message in messages]


def read(transcript: Transcript) -> list[Message]:
    """The messages of a transcript that came from the store."""
    messages = [message for message in transcript.messages if isinstance(message, Message)]
    assert len(messages) == len(transcript.messages)
    return messages


async def stored(sessions: SessionRepository, session_id: str) -> list[Mapping[str, Any]]:
    """The bodies of a session, as a fresh read gives them."""
    return cast("list[Mapping[str, Any]]", bodies(await sessions.messages(session_id)))
