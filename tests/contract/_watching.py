"""Taking what a watch tells, without guessing when it has told all: a caller's event is the end that is waited for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Self

from sessionstore import Change, SessionRepository
from tests.support.waiting import until

END = "the-end"


@contextlib.asynccontextmanager
async def watching(
    sessions: SessionRepository, session_id: str | None = None, *, after: str | None = None
) -> AsyncIterator[Any]:
    """A watch that is closed in the end."""
    async with contextlib.aclosing(sessions.watch(session_id, after=after)) as feed:  # type: ignore[type-var]
        yield feed


async def upto(feed: AsyncIterator[Change], kind: str = END) -> list[Change]:
    """What is told before a change of some kind."""
    changes: list[Change] = []
    async for change in feed:
        if change.kind == kind:
            return changes
        changes.append(change)
    raise AssertionError("the watch ended")


async def ended(sessions: SessionRepository, session_id: str, *, after: str | None = None) -> list[Change]:
    """All that there is to tell of a session now."""
    await sessions.record_event(session_id, END)
    async with watching(sessions, session_id, after=after) as feed:
        return await upto(feed)


def told(changes: Iterable[Change]) -> list[tuple[Any, ...]]:
    """What changes tell, however messages were bundled."""
    entries: list[tuple[Any, ...]] = []
    for change in changes:
        if change.messages:
            entries += [("message", message.position, message.body["content"]) for message in change.messages]
        else:
            entries.append((change.kind, change.event.number if change.event else None))
    return entries


def kinds(changes: Iterable[Any]) -> list[str]:
    """The kinds of changes or events, in order."""
    return [change.kind for change in changes]


class Collector:
    """A consumer that takes everything at once, in a task of its own."""

    def __init__(self, feed: AsyncIterator[Change]) -> None:
        self.changes: list[Change] = []
        self._feed = feed
        self.task = asyncio.create_task(self._collect())

    async def _collect(self) -> None:
        async for change in self._feed:
            self.changes.append(change)

    @property
    def told(self) -> list[tuple[Any, ...]]:
        """What was taken so far."""
        return told(self.changes)

    async def has(self, entry: Sequence[Any]) -> None:
        """Wait until something was told, by what it begins with."""
        entry = tuple(entry)
        await until(lambda: self.task.done() or any(one[: len(entry)] == entry for one in self.told))
        if self.task.done():
            self.task.result()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        await self._feed.aclose()  # type: ignore[attr-defined]


def collecting(sessions: SessionRepository, session_id: str | None = None, *, after: str | None = None) -> Collector:
    """A collector of a watch."""
    return Collector(sessions.watch(session_id, after=after))


async def following(sessions: SessionRepository, tenant: str, session_id: str | None) -> None:
    """Wait until a watch of a session, or of the tenant, hears of changes as they happen."""
    hubs = sessions._shared.executor.listeners  # type: ignore[union-attr]

    def heard() -> bool:
        hub: Any = next(iter(hubs.values()), None)
        topic = hub and hub._topics.get((tenant, session_id))
        return bool(topic and topic.followers)

    await until(heard)
