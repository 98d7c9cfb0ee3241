"""How the watchers of a process learn of changes: one look at the database for all of them.

A **topic** is what is watched: a session, or all of a tenant's. It knows how far each of its sessions has been read,
and reads on when something says that there is more: a commit of this process at once, a look at the database for what
others did. What it reads goes to each of its **followers**, whose consumers take it when they can. All of this lives in
one event loop, and nothing of it is a transaction that is open while somebody waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from sessionstore.changes import NOTHING, Change, Cursor, tenant_cursor, unseen
from sessionstore.errors import StoreClosedError, WatchLagError, WatchLimitError
from sessionstore.executors.base import Deadline, Executor
from sessionstore.limits import (
    LAG_BYTES,
    LAG_CHANGES,
    SWEEP_ROWS,
    SWEEP_SECONDS,
    WATCH_EAGER_SECONDS,
    WATCH_MAX_SECONDS,
    WATCH_MIN_SECONDS,
    WATCH_READS,
    WATCH_SHARE,
    WATCH_SLOWING,
)
from sessionstore.units import feed
from sessionstore.units.unit import Unit

T = TypeVar("T")


class Follower:
    """One consumer of a topic, and what waits for it."""

    def __init__(self, owner: object) -> None:
        """Wait for changes on behalf of `owner`, whose end ends it."""
        self.owner = owner
        self._waiting: deque[Change] = deque()
        self._bytes = 0
        self._error: Exception | None = None
        self._wake: asyncio.Future[None] | None = None
        self.seen: dict[str, Cursor] = {}
        """What its consumer has read for itself; the topic may tell of it again."""

    def offer(self, changes: Sequence[Change]) -> None:
        """Let changes wait for the consumer, unless too much waits already: then that is an error for it instead.

        What was read at once waits at once: the consumer has had no turn in between.
        """
        if self._error is not None or not changes:
            return
        if len(self._waiting) > LAG_CHANGES or self._bytes > LAG_BYTES:
            self._waiting.clear()
            self._bytes = 0
            self.fail(WatchLagError(f"more than {LAG_CHANGES} changes or {LAG_BYTES} bytes of messages were waiting"))
            return
        self._waiting.extend(changes)
        self._bytes += sum(map(_size, changes))
        self._awake()

    def fail(self, error: Exception) -> None:
        """End with an error, after what waits."""
        self._error = self._error or error
        self._awake()

    async def take(self) -> Change:
        """Take the next change.

        Raises:
            WatchLagError: it came too late.
            SessionStoreError: the database could not be read.
        """
        while True:
            while self._waiting:
                change = self._waiting.popleft()
                self._bytes -= _size(change)
                if (new := self._unseen(change)) is not None:
                    return new
            if self._error is not None:
                raise self._error
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake

    def _unseen(self, change: Change) -> Change | None:
        """What of a change the consumer has not read for itself."""
        seen = self.seen.get(change.session_id)
        if seen is None:
            return change
        new = unseen(change, seen)
        if new is not None:
            del self.seen[change.session_id]
        return new

    def _awake(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


def _size(change: Change) -> int:
    return sum(len(message.body_json) for message in change.messages)


class Topic:
    """What is watched: one session, or all of a tenant's.

    Attributes:
        session_id: None for all of the tenant's.
        members: how far each session has been read.
        looked_at: when everything before that moment had been read, in microseconds since 1970.
    """

    def __init__(self, hub: Hub, tenant: str, session_id: str | None) -> None:
        self.hub = hub
        self.tenant = tenant
        self.session_id = session_id
        self.members: dict[str, Cursor] = {}
        self.followers: list[Follower] = []
        self.looked_at = _now()
        self.ready: asyncio.Task[None] | None = None
        self._reading: dict[str, bool] = {}

    def poke(self, session_id: str) -> None:
        """Read on in a session, now or once more after what is being read."""
        if session_id in self._reading:
            self._reading[session_id] = True
            return
        self._reading[session_id] = False
        self.hub.start(self._read_on(session_id))

    async def _read_on(self, session_id: str) -> None:
        try:
            async with self.hub.reads:
                while self.followers:
                    cursor = self.members.get(session_id, NOTHING)
                    found = await self.hub.run(feed.follow(self.tenant, session_id, cursor))
                    self._publish(session_id, found)
                    if not found.more and not self._reading[session_id]:
                        break
                    self._reading[session_id] = False
        except Exception as error:  # noqa: BLE001  # whatever it was, those who wait must hear of it
            self.fail(error)
        finally:
            del self._reading[session_id]

    def _publish(self, session_id: str, found: feed.Feed) -> None:
        if self.session_id is None and found.cursor.position < 0 and not found.more:
            self.members.pop(session_id, None)
        else:
            self.members[session_id] = found.cursor
        told = found.changes
        if self.session_id is None:
            cursor = tenant_cursor(self.looked_at)
            told = [replace(change, cursor=cursor) for change in told]
        for follower in self.followers:
            follower.offer(told)

    def fail(self, error: Exception) -> None:
        """End all followers with an error."""
        for follower in self.followers:
            follower.fail(error)
        self.followers.clear()
        self.hub.forget(self)

    # --- of a whole tenant ------------------------------------------------------------------
    async def learn(self) -> None:
        """Note how all sessions of the tenant stand, as the place from which changes are told."""
        async for standing in self.hub.sweep(self.tenant):
            self.members.setdefault(standing.session_id, standing.cursor)

    async def compare(self) -> None:
        """Look at every session of the tenant for what no look at the newest ones could show."""
        missing = set(self.members)
        async for standing in self.hub.sweep(self.tenant):
            missing.discard(standing.session_id)
            self.stands(standing.session_id, standing.cursor)
        for session_id in missing:
            self.poke(session_id)

    def stands(self, session_id: str, cursor: Cursor) -> bool:
        """Read on in a session if it stands elsewhere than it was read to; whether it does."""
        moved = self.members.get(session_id) != cursor
        if moved:
            self.poke(session_id)
        return moved


class Hub:
    """All that is watched of one database in one event loop."""

    def __init__(self, executor: Executor, loop: asyncio.AbstractEventLoop, timeout_seconds: float) -> None:
        self._executor = executor
        self._loop = loop
        self._timeout = timeout_seconds
        self.reads = asyncio.Semaphore(WATCH_READS)
        self._topics: dict[tuple[str, str | None], Topic] = {}
        self._watchers = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._poller: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self.taps: list[Callable[[str, str], None]] = []
        """Who else wants to know which session of a tenant this process has changed."""
        self.logs: dict[Path, Any] = {}
        """The event logs that are written here, by directory."""

    @classmethod
    def of(cls, executor: Executor, timeout_seconds: float) -> Hub:
        """The hub of an executor in this event loop."""
        loop = asyncio.get_running_loop()
        hub = executor.listeners.get(loop)
        if hub is None:
            for other in [other for other in list(executor.listeners) if other.is_closed()]:
                del executor.listeners[other]
            hub = executor.listeners[loop] = cls(executor, loop, timeout_seconds)
        assert isinstance(hub, Hub)  # noqa: S101  # there is no other listener
        return hub

    @property
    def ended(self) -> bool:
        """Whether its event loop is closed, or the executor has another one."""
        return self._loop.is_closed() or self._executor.listeners.get(self._loop) is not self

    async def run(self, unit: Unit[T]) -> T:
        """Run a unit that reads."""
        return await self._executor.run(unit, Deadline(self._timeout))

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run work in a task of its own."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def sweep(self, tenant: str) -> AsyncIterator[feed.Standing]:
        """Read how all sessions of a tenant stand, a page at a time."""
        after = ""
        while True:
            page = await self.run(feed.sweep(tenant, after))
            for standing in page:
                yield standing
            if len(page) < SWEEP_ROWS:
                return
            after = page[-1].session_id

    # --- who watches ------------------------------------------------------------------------
    def enter(self, limit: int) -> None:
        """Count one more watcher.

        Raises:
            WatchLimitError: there are too many.
        """
        if self._watchers >= limit:
            raise WatchLimitError(f"more than {limit} watchers: max_watchers of StoreSettings")
        self._watchers += 1

    def leave(self) -> None:
        """Count one less."""
        self._watchers -= 1

    def follow(self, tenant: str, session_id: str, cursor: Cursor, follower: Follower) -> bool:
        """Let a follower hear of a session from now on; whether it has to read on first, to where the others are."""
        topic = self._topic(tenant, session_id)
        mine = topic.members.setdefault(session_id, cursor)
        topic.followers.append(follower)
        follower.seen[session_id] = cursor
        self._watch()
        self._wake.set()  # what happened since it was read, nobody was told of
        return not cursor.has_seen(mine)

    async def follow_tenant(self, tenant: str, follower: Follower) -> dict[str, Cursor]:
        """Let a follower hear of all sessions of a tenant from now on; gives how far each has been read."""
        while True:
            topic = self._topic(tenant, None)
            if topic.ready is None:
                topic.ready = self.start(topic.learn())
            try:
                await asyncio.shield(topic.ready)
            except Exception:
                self.forget(topic)
                raise
            if self._topics.get((tenant, None)) is topic:  # nobody has left it meanwhile as the last one
                topic.followers.append(follower)
                self._watch()
                return topic.members

    def unfollow(self, tenant: str, session_id: str | None, follower: Follower) -> None:
        """Let a follower hear no more."""
        topic = self._topics.get((tenant, session_id))
        if topic is not None:
            if follower in topic.followers:
                topic.followers.remove(follower)
            if not topic.followers:
                self.forget(topic)

    def forget(self, topic: Topic) -> None:
        """Watch a topic no more."""
        key = topic.tenant, topic.session_id
        if self._topics.get(key) is topic:
            del self._topics[key]
        if not self._topics and self._poller is not None:
            self._wake.set()  # and finds that there is nothing left to do

    def close(self, owner: object) -> None:
        """End all followers of an owner."""
        self._in_loop(self._close, owner)

    def _close(self, owner: object) -> None:
        for topic in list(self._topics.values()):
            for follower in [follower for follower in topic.followers if follower.owner is owner]:
                follower.fail(StoreClosedError())
                self.unfollow(topic.tenant, topic.session_id, follower)

    def _topic(self, tenant: str, session_id: str | None) -> Topic:
        topic = self._topics.get((tenant, session_id))
        if topic is None:
            topic = self._topics[tenant, session_id] = Topic(self, tenant, session_id)
        return topic

    # --- what has changed -------------------------------------------------------------------
    def touched(self, tenant: str, session_id: str | None) -> None:
        """Somebody in this process has changed a session, or some: read on at once."""
        self._in_loop(self._touched, tenant, session_id)

    def _in_loop(self, call: Callable[..., None], *args: Any) -> None:
        if asyncio.get_running_loop() is self._loop:
            call(*args)
        else:
            with contextlib.suppress(RuntimeError):  # its loop is closed: nobody waits in it any more
                self._loop.call_soon_threadsafe(call, *args)

    def _touched(self, tenant: str, session_id: str | None) -> None:
        if session_id is None:
            if any(topic.tenant == tenant for topic in self._topics.values()):
                self._wake.set()
            return
        for key in ((tenant, session_id), (tenant, None)):
            if (topic := self._topics.get(key)) is not None and topic.followers:
                topic.poke(session_id)
        for tap in self.taps:
            tap(tenant, session_id)

    def _watch(self) -> None:
        if self._poller is None or self._poller.done():
            self._poller = self._loop.create_task(self._poll())

    async def _poll(self) -> None:
        """Look again and again, often while there is something to see, never so that the database is busy with it."""
        pause, changed_at, swept_at = WATCH_MIN_SECONDS, self._loop.time(), self._loop.time()
        while self._topics:
            begun = self._loop.time()
            self._wake.clear()
            try:
                if begun - swept_at >= SWEEP_SECONDS:
                    swept_at = begun
                    await self._sweep()
                if await self._look():
                    changed_at = begun
            except Exception as error:  # noqa: BLE001  # as above
                for topic in list(self._topics.values()):
                    topic.fail(error)
                return
            ended = self._loop.time()
            eager = ended - changed_at < WATCH_EAGER_SECONDS
            pause = WATCH_MIN_SECONDS if eager else min(pause * WATCH_SLOWING, WATCH_MAX_SECONDS)
            least = WATCH_SHARE * (ended - begun)
            await asyncio.sleep(least)  # whatever happens
            await self._rest(max(0.0, pause - least))

    async def _rest(self, seconds: float) -> None:
        """Wait so long, or until there is something to look at."""
        timer = self._loop.call_later(seconds, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    async def _look(self) -> bool:
        """Look once, for all; whether anything had changed that was not known."""
        changed = False
        for one in self._looks():
            changed = await self._look_at(one) or changed
        return changed

    def _looks(self) -> Iterable[str | None]:
        """The tenants to look at one by one, where the database shows no more at once; None for all together."""
        if not self._executor.dialect.row_level_security:
            return [None]
        return list(dict.fromkeys(topic.tenant for topic in self._topics.values()))

    async def _look_at(self, one: str | None) -> bool:
        topics = [topic for topic in self._topics.values() if topic.followers and (one is None or topic.tenant == one)]
        watched = [
            feed.Watched(topic.tenant, topic.session_id, topic.members[topic.session_id])
            for topic in topics
            if topic.session_id is not None
        ]
        whole = {topic.tenant: topic for topic in topics if topic.session_id is None}
        begun = _now()
        found = await self.run(feed.tick(watched, list(whole), begun, of=one))
        changed = bool(found.changed)
        for tenant, session_id in found.changed:
            if (one_topic := self._topics.get((tenant, session_id))) is not None:
                one_topic.poke(session_id)
        for tenant, session_id, cursor in found.standing:
            changed = whole[tenant].stands(session_id, cursor) or changed
        for tenant, session_id, generation in found.gone:
            known = whole[tenant].members.get(session_id)
            if known is not None and known.generation <= generation:
                whole[tenant].poke(session_id)
                changed = True
        for topic in whole.values():
            topic.looked_at = begun
        return changed

    async def _sweep(self) -> None:
        for topic in [topic for topic in self._topics.values() if topic.session_id is None and topic.followers]:
            await topic.compare()


_MICROS: Final = 1_000


def _now() -> int:
    return time.time_ns() // _MICROS
