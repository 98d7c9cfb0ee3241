"""A way between the store and PostgreSQL that can break: it loses a request or a reply, or stops in silence."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple, Self

from sqlalchemy import make_url

__all__ = ["Break", "Proxy", "Reply", "Request"]

_HEADER = struct.Struct("!cI")


class Break(Enum):
    """What happens to the way."""

    CUT = auto()
    """Both sides see the connection closed."""
    DARK = auto()
    """Nothing passes any more, on no connection, and none is closed."""


class Reply(NamedTuple):
    """The end of the server's answer to a request.

    Attributes:
        tag: of the last command that was completed: "INSERT 0 1", "COMMIT".
        query: what was asked.
        in_transaction: whether a transaction is open now.
    """

    tag: str
    query: str
    in_transaction: bool


class Request(NamedTuple):
    """A request that makes the server do something: a query, or the execution of a prepared statement."""

    query: str
    in_transaction: bool


class Proxy:
    """Forwards connections to a PostgreSQL server until it is told otherwise.

    Attributes:
        on_reply: asked about each answer before it is forwarded; a break happens in its place.
        on_request: the same for each request.
        broken: how many breaks there have been.
    """

    def __init__(self, url: str) -> None:
        self._to = make_url(url)
        self._server: asyncio.Server
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._light = asyncio.Event()
        self._light.set()
        self.on_reply: Callable[[Reply], Break | None] = lambda _: None
        self.on_request: Callable[[Request], Break | None] = lambda _: None
        self.broken = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()

    @property
    def url(self) -> str:
        """The URL of the database, this way."""
        port = self._server.sockets[0].getsockname()[1]
        # Encryption is negotiated before there are messages, and nobody listens here but us.
        here = self._to.set(host="127.0.0.1", port=port).update_query_dict({"ssl": "disable"})
        return here.render_as_string(hide_password=False)

    @property
    def is_dark(self) -> bool:
        """Whether the network is gone."""
        return not self._light.is_set()

    def darken(self) -> None:
        """Let nothing pass any more."""
        self._light.clear()

    def lighten(self) -> None:
        """Let everything pass again, what has waited first."""
        self._light.set()

    def once_replied(self, condition: Callable[[Reply], bool], how: Break) -> None:
        """Break at the next answer of which a condition holds."""

        def decide(reply: Reply) -> Break | None:
            if not condition(reply):
                return None
            self.on_reply = lambda _: None
            return how

        self.on_reply = decide

    def once_requested(self, condition: Callable[[Request], bool], how: Break) -> None:
        """Break at the next request of which a condition holds."""

        def decide(request: Request) -> Break | None:
            if not condition(request):
                return None
            self.on_request = lambda _: None
            return how

        self.on_request = decide

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._light.wait()
            to_server, server_writer = await asyncio.open_connection(self._to.host, self._to.port)
            self._writers.add(server_writer)
            way = _Way(self, reader, writer, to_server, server_writer)
            await way.run()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # either side has gone, or the test is over
        finally:
            self._tasks.discard(task)

    async def passed(self) -> None:
        """Wait until something may pass."""
        await self._light.wait()

    async def breaks(self, how: Break | None) -> bool:
        """Break the way; whether the connection is to be closed."""
        if how is None:
            return False
        self.broken += 1
        if how is Break.DARK:
            self._light.clear()
            await self._light.wait()
            return False
        return True


class _Way:
    """One connection through a proxy."""

    def __init__(
        self,
        proxy: Proxy,
        client: asyncio.StreamReader,
        client_writer: asyncio.StreamWriter,
        server: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._client_writer = client_writer
        self._server = server
        self._server_writer = server_writer
        self._in_transaction = False
        self._prepared: dict[bytes, str] = {}
        self._query = ""

    async def run(self) -> None:
        directions = [asyncio.ensure_future(self._requests()), asyncio.ensure_future(self._replies())]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            self._client_writer.transport.abort()
            self._server_writer.transport.abort()

    async def _requests(self) -> None:
        start = await self._client.readexactly(4)
        start += await self._client.readexactly(int.from_bytes(start) - 4)
        await self._pass(self._server_writer, start)
        while True:
            kind, message = await _message(self._client)
            if self._executes(kind, message):
                request = Request(self._query, self._in_transaction)
                if await self._proxy.breaks(self._proxy.on_request(request)):
                    return
            await self._pass(self._server_writer, message)

    def _executes(self, kind: bytes, message: bytes) -> bool:
        """Whether a message makes the server do something; notes what."""
        first, _, rest = message[5:].partition(b"\0")
        second = rest.partition(b"\0")[0]
        match kind:
            case b"P":  # a name, and the statement that is to have it
                self._prepared[first] = second.decode()
            case b"B":  # a portal, and the name of its statement
                self._query = self._prepared[second]
            case b"Q":
                self._query = first.decode()
        return kind in {b"Q", b"E"}

    async def _replies(self) -> None:
        held, tag = b"", ""
        while True:
            kind, message = await _message(self._server)
            if kind == b"C":
                tag = message[5:].partition(b"\0")[0].decode()
            # From the completion on everything is held: it belongs to the answer that may be lost.
            held += message
            if tag and kind != b"Z":
                continue
            if kind == b"Z":
                self._in_transaction = message[5:6] != b"I"
                if tag and await self._proxy.breaks(
                    self._proxy.on_reply(Reply(tag, self._query, self._in_transaction))
                ):
                    return
            await self._pass(self._client_writer, held)
            held, tag = b"", ""

    async def _pass(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        await self._proxy.passed()
        writer.write(data)
        await writer.drain()


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The kind of the next message, and all of it."""
    header = await reader.readexactly(_HEADER.size)
    kind, length = _HEADER.unpack(header)
    return kind, header + await reader.readexactly(length - 4)
