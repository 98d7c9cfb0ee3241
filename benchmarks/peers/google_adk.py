"""`DatabaseSessionService` of google-adk: sessions of an app and a user, with state; no forks, trimming or pruning."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, Self

from benchmarks import data
from benchmarks.data import Seeded
from benchmarks.peers.loading import load, moment

_APP: Final = "bench"
_USER: Final = "somebody"

_EVENTS: Final = ("id", "app_name", "user_id", "session_id", "invocation_id", "timestamp", "event_data")
_SESSIONS: Final = ("app_name", "user_id", "id", "state", "create_time", "update_time")


class GoogleAdk:
    """One service. An append needs the session in memory: the call that warms up loads it, without its events."""

    name = "google-adk"
    needs = "google-adk"

    def __init__(self, service: Any) -> None:
        self._service = service
        self._loaded: dict[str, asyncio.Future[Any]] = {}
        self._events = importlib.import_module("google.adk.events")
        self._types = importlib.import_module("google.genai.types")
        self._config = importlib.import_module("google.adk.sessions.base_session_service").GetSessionConfig

    @classmethod
    async def open(cls, url: str) -> Self:
        """Make the service, which makes its tables."""
        service = importlib.import_module("google.adk.sessions").DatabaseSessionService(db_url=url)
        await service.prepare_tables()
        return cls(service)

    async def close(self) -> None:
        """Close the service."""
        await self._service.close()

    @classmethod
    async def prepare(cls, url: str, sessions: Sequence[Seeded]) -> None:
        """Let it make its tables, then fill them."""
        contender = await cls.open(url)
        events = [contender.event(body) for body in data.bodies(data.BODIES)]
        dumped = [event.model_dump(exclude_none=True, mode="json") for event in events]
        await contender.close()
        users = {entry.user or _USER for entry in sessions} | {_USER}
        await load(url, "app_states", ("app_name", "state", "update_time"), [(_APP, "{}", moment(0))])
        states = [(_APP, user, "{}", moment(0)) for user in users]
        await load(url, "user_states", ("app_name", "user_id", "state", "update_time"), states)
        times = ((entry, moment(entry.at)) for entry in sessions)
        rows = ((_APP, entry.user or _USER, entry.id, "{}", at, at) for entry, at in times)
        await load(url, "sessions", _SESSIONS, rows)
        await load(url, "events", _EVENTS, _event_rows(sessions, dumped))

    async def append(self, session_id: str, body: dict[str, Any]) -> None:
        """Append one event."""
        await self._service.append_event(await self._session(session_id), self.event(body))

    async def append_many(self, session_id: str, bodies: list[dict[str, Any]]) -> None:
        """Append events one by one: there is no other way."""
        for body in bodies:
            await self.append(session_id, body)

    async def read(self, session_id: str) -> list[Any]:
        """Read a session with its events."""
        return list((await self._get(session_id)).events)

    async def read_last(self, session_id: str, count: int) -> list[Any]:
        """Read a session with its last events."""
        return list((await self._get(session_id, self._config(num_recent_events=count))).events)

    async def list_newest(self, user_id: str, count: int) -> list[Any]:
        """List all sessions of a user, to keep the newest; there are no counts."""
        listed = await self._service.list_sessions(app_name=_APP, user_id=user_id)
        return list(reversed(listed.sessions[-count:]))

    async def get(self, session_id: str) -> Any:
        """Read a session without its events."""
        return await self._get(session_id, self._config(num_recent_events=0))

    async def create(self, session_id: str) -> Any:
        """Create a session."""
        return await self._service.create_session(app_name=_APP, user_id=_USER, session_id=session_id)

    def mark(self, message: Any) -> tuple[int, int]:
        """Task and number of an event."""
        return int(message.custom_metadata["task"]), int(message.custom_metadata["number"])

    async def _get(self, session_id: str, config: Any = None) -> Any:
        found = await self._service.get_session(app_name=_APP, user_id=_USER, session_id=session_id, config=config)
        assert found is not None, session_id
        return found

    async def _session(self, session_id: str) -> Any:
        # Tasks that append to one session must share one object: the service refuses the second one as stale.
        loading = self._loaded.get(session_id)
        if loading is None:
            loading = self._loaded[session_id] = asyncio.ensure_future(self.get(session_id))
        return await loading

    def event(self, body: dict[str, Any]) -> Any:
        """A message as an event."""
        role = "user" if body["role"] == "user" else "model"
        content = self._types.Content(role=role, parts=[self._types.Part(text=body["content"])])
        marks = {"task": body["task"], "number": body["number"]}
        return self._events.Event(author=role, content=content, custom_metadata=marks)


def _event_rows(sessions: Sequence[Seeded], dumped: Sequence[dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    for at, entry in enumerate(sessions):
        if not entry.small:
            for position in range(entry.length):
                event_id, time = f"event-{at}-{position}", entry.at + position
                event = {**dumped[position % len(dumped)], "id": event_id, "timestamp": time / 1_000_000}
                key = (event_id, _APP, entry.user or _USER, entry.id)
                yield (*key, event["invocation_id"], moment(time), json.dumps(event))
