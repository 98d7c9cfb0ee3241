"""The example as a server, and what its clients are told."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import uvicorn

from examples.chat.app import app
from sessionstore import SessionRepository

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

__all__ = ["Reader", "Service", "Told", "following", "positions", "watchers"]


class _Complaints(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(logging.Formatter().format(record))


class Service:
    """The example in a thread and an event loop of its own, by a real server on 127.0.0.1.

    Attributes:
        url: where it is.
        complaints: what the server had to say from warnings upwards.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(app, lifespan="on", ws="none", log_config=None, timeout_graceful_shutdown=30)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self._log = _Complaints()
        self.complaints = self._log.texts

    def __enter__(self) -> Self:
        logging.getLogger("uvicorn.error").addHandler(self._log)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), self.complaints
            time.sleep(0.001)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        logging.getLogger("uvicorn.error").removeHandler(self._log)
        self._socket.close()

    @property
    def sessions(self) -> SessionRepository:
        """The service's own repository, which lives in the service's event loop."""
        sessions = app.state.sessions
        assert isinstance(sessions, SessionRepository)
        return sessions

    def cut(self) -> None:
        """Cut every connection, as a network would: without a word."""
        for connection in list(self._server.server_state.connections):
            transport: Any = connection.transport
            transport._loop.call_soon_threadsafe(transport.abort)


class Told(NamedTuple):
    """One server-sent event."""

    id: str
    kind: str
    generation: int
    messages: list[dict[str, Any]]


@contextlib.asynccontextmanager
async def following(
    client: httpx.AsyncClient, chat: str, *, after: str | None = None, seen: str | None = None
) -> AsyncIterator[AsyncIterator[Told]]:
    """The events of a chat: after a cursor in the address, or, as of a browser that comes back, in the header."""
    params = {} if after is None else {"after": after}
    headers = {} if seen is None else {"Last-Event-ID": seen}
    async with client.stream("GET", f"/chats/{chat}/changes", params=params, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _events(answer)


async def _events(answer: httpx.Response) -> AsyncIterator[Told]:
    reader = Reader()
    async for line in answer.aiter_lines():
        if (told := reader.read(line)) is not None:
            yield told


class Reader:
    """Makes events of lines."""

    def __init__(self) -> None:
        self._fields: dict[str, str] = {}

    def read(self, line: str) -> Told | None:
        """Take a line; gives the event that ends with it."""
        if line:
            name, _, value = line.partition(": ")
            self._fields[name] = value
            return None
        fields, self._fields = self._fields, {}
        return Told(fields["id"], **json.loads(fields["data"])) if "data" in fields else None


def positions(told: list[Told]) -> list[int]:
    """Of all messages, in the order they were told."""
    return [message["position"] for one in told for message in one.messages]


def watchers(sessions: SessionRepository) -> int:
    """How many watch just now."""
    listeners: dict[Any, Any] = dict(sessions._executor.listeners)
    return sum(hub._watchers for hub in listeners.values())
