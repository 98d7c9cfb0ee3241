"""The two sessions of openai-agents that keep history in SQL: no list of sessions, no forks, no trimming."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, Self

from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks import data
from benchmarks.data import Seeded
from benchmarks.databases import sqlite_path
from benchmarks.peers.loading import engine_of, load

_SESSIONS = ("session_id",)
_MESSAGES = ("session_id", "message_data")


class _Openai:
    """What both have in common: an object a session, kept as an agent would keep it."""

    needs = "openai-agents"

    def __init__(self) -> None:
        self._sessions: dict[str, Any] = {}

    def _make(self, session_id: str) -> Any:
        raise AssertionError(session_id)

    def _session(self, session_id: str) -> Any:
        session = self._sessions.get(session_id)
        if session is None:
            session = self._sessions[session_id] = self._make(session_id)
        return session

    async def append(self, session_id: str, body: dict[str, Any]) -> None:
        """Append one message."""
        await self._session(session_id).add_items([body])

    async def append_many(self, session_id: str, bodies: list[dict[str, Any]]) -> None:
        """Append messages."""
        await self._session(session_id).add_items(bodies)

    async def read(self, session_id: str) -> list[Any]:
        """Read a session."""
        return list(await self._session(session_id).get_items())

    async def read_last(self, session_id: str, count: int) -> list[Any]:
        """Read the last messages."""
        return list(await self._session(session_id).get_items(limit=count))

    def mark(self, message: Any) -> tuple[int, int]:
        """Task and number of a message."""
        return int(message["task"]), int(message["number"])


class OpenaiSqlAlchemy(_Openai):
    """`SQLAlchemySession`, on one engine."""

    name = "openai SQLAlchemySession"

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__()
        self._engine = engine
        self._kind = importlib.import_module("agents.extensions.memory").SQLAlchemySession

    @classmethod
    async def open(cls, url: str) -> Self:
        """Make the engine."""
        return cls(engine_of(url))

    async def close(self) -> None:
        """Dispose of the engine."""
        await self._engine.dispose()

    @classmethod
    async def prepare(cls, url: str, sessions: Sequence[Seeded]) -> None:
        """Let it make its tables with a first message, then fill them."""
        engine = engine_of(url)
        kind = importlib.import_module("agents.extensions.memory").SQLAlchemySession
        await kind("first", engine=engine, create_tables=True).add_items([data.body(0)])
        await engine.dispose()
        await _filled(url, sessions)

    def _make(self, session_id: str) -> Any:
        return self._kind(session_id, engine=self._engine)


class OpenaiSqlite(_Openai):
    """`SQLiteSession`: a thread of the default pool for each call."""

    name = "openai SQLiteSession"

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._kind = importlib.import_module("agents").SQLiteSession

    @classmethod
    async def open(cls, url: str) -> Self:
        """Note the file."""
        return cls(sqlite_path(url))

    async def close(self) -> None:
        """Close all sessions."""
        for session in self._sessions.values():
            session.close()

    @classmethod
    async def prepare(cls, url: str, sessions: Sequence[Seeded]) -> None:
        """Let it make its tables, then fill them."""
        importlib.import_module("agents").SQLiteSession("first", sqlite_path(url)).close()
        await _filled(url, sessions)

    def _make(self, session_id: str) -> Any:
        return self._kind(session_id, self._path)


async def _filled(url: str, sessions: Sequence[Seeded]) -> None:
    # Nobody reads the small ones: there is no list to find them in.
    wanted = [entry for entry in sessions if not entry.small]
    await load(url, "agent_sessions", _SESSIONS, [(entry.id,) for entry in wanted])
    await load(url, "agent_messages", _MESSAGES, _messages(wanted))


def _messages(sessions: Sequence[Seeded]) -> Iterator[tuple[str, str]]:
    texts = [json.dumps(message, separators=(",", ":")) for message in data.bodies(data.BODIES)]
    for entry in sessions:
        for position in range(entry.length):
            yield entry.id, texts[position % len(texts)]
