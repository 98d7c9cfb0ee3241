"""`SQLChatMessageHistory` of langchain-community: no list of sessions, no window of messages, and no index either."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, Self

from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks import data
from benchmarks.data import Seeded
from benchmarks.peers.loading import engine_of, load


class Langchain:
    """An object a session, on one engine."""

    name = "langchain"
    needs = "langchain"

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._histories: dict[str, Any] = {}
        self._kind = importlib.import_module("langchain_community.chat_message_histories").SQLChatMessageHistory
        self._messages = importlib.import_module("langchain_core.messages")

    @classmethod
    async def open(cls, url: str) -> Self:
        """Make the engine."""
        return cls(engine_of(url))

    async def close(self) -> None:
        """Dispose of the engine."""
        await self._engine.dispose()

    @classmethod
    async def prepare(cls, url: str, sessions: Sequence[Seeded]) -> None:
        """Let it make its table with a first message, then fill it."""
        contender = await cls.open(url)
        await contender.append("first", data.body(0))
        to_dict = importlib.import_module("langchain_core.messages").message_to_dict
        texts = [json.dumps(to_dict(contender.message(body))) for body in data.bodies(data.BODIES)]
        await contender.close()
        await load(url, "message_store", ("session_id", "message"), _rows(sessions, texts))

    async def append(self, session_id: str, body: dict[str, Any]) -> None:
        """Append one message."""
        await self._history(session_id).aadd_messages([self.message(body)])

    async def append_many(self, session_id: str, bodies: list[dict[str, Any]]) -> None:
        """Append messages."""
        await self._history(session_id).aadd_messages([self.message(body) for body in bodies])

    async def read(self, session_id: str) -> list[Any]:
        """Read a session."""
        return list(await self._history(session_id).aget_messages())

    async def read_last(self, session_id: str, count: int) -> list[Any]:
        """Read a session, to keep the last messages."""
        return list(await self._history(session_id).aget_messages())[-count:]

    def mark(self, message: Any) -> tuple[int, int]:
        """Task and number of a message."""
        return int(message.additional_kwargs["task"]), int(message.additional_kwargs["number"])

    def _history(self, session_id: str) -> Any:
        history = self._histories.get(session_id)
        if history is None:
            history = self._histories[session_id] = self._kind(session_id, connection=self._engine)
        return history

    def message(self, body: dict[str, Any]) -> Any:
        """A body as one of its messages."""
        kind = self._messages.HumanMessage if body["role"] == "user" else self._messages.AIMessage
        marks = {"task": body["task"], "number": body["number"]}
        return kind(content=body["content"], additional_kwargs=marks)


def _rows(sessions: Sequence[Seeded], texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    for entry in sessions:
        if not entry.small:
            for position in range(entry.length):
                yield entry.id, texts[position % len(texts)]
