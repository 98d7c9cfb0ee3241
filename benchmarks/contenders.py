"""Who is measured.

A contender is a class with `open(url)`, `close()` and those of these coroutines that it can do; a workload is run for
whoever has its verb:

    append(session_id, body)            append_together(session_id, body), where that differs with many at once
    append_many(session_id, bodies)     read(session_id)            read_last(session_id, count)
    list_newest(user_id, count)         get(session_id)             create(session_id)
    fork(session_id, new_id)            trim(session_id, keep)      prune(age)

`needs` names the database it works on: "sessionstore" has our tables, anything else is prepared by the contender.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final, Protocol, Self

from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmarks.data import PRUNE_TENANT
from benchmarks.floor_postgresql import PostgresBytesFloor, PostgresFloor
from benchmarks.floor_sqlite import SqliteBytesFloor, SqliteFloor, SqliteHopFloor
from sessionstore import PrunePolicy, Session, SessionRepository

OURS: Final = "sessionstore"


class Contender(Protocol):
    """What every contender has; the verbs are looked up by name."""

    name: str
    needs: str

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect, so that nothing of that falls into a measurement."""

    async def close(self) -> None:
        """Let go of everything."""


class Store:
    """The store, through `SessionRepository.connect`."""

    name = "connect()"
    needs = OURS

    def __init__(self, sessions: SessionRepository) -> None:
        self._sessions = sessions
        self._old = sessions.for_tenant(PRUNE_TENANT)

    @classmethod
    async def open(cls, url: str) -> Any:
        """Open the repository."""
        return cls(await SessionRepository.connect(url).__aenter__())

    async def close(self) -> None:
        """Close the repository."""
        await self._sessions.aclose()

    async def append(self, session_id: str, body: dict[str, Any]) -> int:
        """Append one message; its position."""
        return (await self._sessions.append(session_id, body))[0]

    async def append_many(self, session_id: str, bodies: list[dict[str, Any]]) -> int:
        """Append messages; the position of the first."""
        return (await self._sessions.append(session_id, *bodies))[0]

    async def read(self, session_id: str) -> list[Any]:
        """Read the bodies of a session."""
        return [message.body for message in await self._sessions.messages(session_id)]

    async def read_last(self, session_id: str, count: int) -> list[Any]:
        """Read the bodies of the last messages."""
        return [message.body for message in await self._sessions.messages(session_id, last=count)]

    async def list_newest(self, user_id: str, count: int) -> list[Any]:
        """List a user's sessions."""
        return (await self._sessions.list_sessions(user_id=user_id, limit=count)).rows

    async def get(self, session_id: str) -> Session:
        """Read a session with its metadata."""
        return await self._sessions.get(session_id)

    async def create(self, session_id: str) -> bool:
        """Create a session."""
        return bool(await self._sessions.create(session_id))

    async def fork(self, session_id: str, new_id: str) -> Session:
        """Copy a session."""
        return await self._sessions.fork(session_id, new_id=new_id)

    async def trim(self, session_id: str, keep: int) -> int:
        """Drop the oldest messages."""
        return await self._sessions.trim(session_id, keep)

    async def prune(self, age: timedelta) -> int:
        """Delete old sessions; how many."""
        return (await self._old.prune(PrunePolicy(max_age=age, max_sessions=None))).total


class StoreOnEngine(Store):
    """The store on an engine of the caller's, with the pool of one."""

    name = "own engine"

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(SessionRepository(engine))
        self._engine = engine

    @classmethod
    async def open(cls, url: str) -> Any:
        """Make the engine and the repository, and connect."""
        options = {} if make_url(url).get_backend_name() == "sqlite" else {"pool_size": 16}
        contender = cls(create_async_engine(url, **options))
        await contender._sessions.exists("nobody")  # the schema is checked on first use
        return contender

    async def close(self) -> None:
        """Close the repository and the engine."""
        await super().close()
        await self._engine.dispose()


FLOORS: Final[dict[str, tuple[type[Contender], ...]]] = {
    "sqlite": (SqliteFloor, SqliteBytesFloor, SqliteHopFloor),
    "postgresql": (PostgresFloor, PostgresBytesFloor),
}
FLOOR: Final = SqliteFloor.name
BYTES: Final = SqliteBytesFloor.name
HOP: Final = SqliteHopFloor.name
STORES: Final[tuple[type[Contender], ...]] = (Store, StoreOnEngine)
