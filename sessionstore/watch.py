"""What happens to sessions: recorded, read back, and followed as it happens."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from typing import cast

from sessionstore import codec, limits, telemetry
from sessionstore.changes import NOTHING, Change, Cursor, parse_tenant_cursor
from sessionstore.checks import check_count, check_event_kind, check_id
from sessionstore.codec import InvalidValue, Json
from sessionstore.errors import InvalidMessageError, StoreClosedError
from sessionstore.feeds import Follower, Hub
from sessionstore.handle import Handle
from sessionstore.subscriptions import Callback, Dispatcher, Subscription, Watchable
from sessionstore.units import events as units
from sessionstore.units import feed
from sessionstore.values import SessionEvent


@telemetry.told
class Watching(Handle):
    """The verbs of a repository about events."""

    async def record_event(self, session_id: str, kind: str, *, payload: Json = None) -> int:
        """Record an event of your own between the messages of a session; returns its number.

        Args:
            kind: of your choice, but none of the store's own.
            payload: any JSON value.

        Raises:
            SessionNotFoundError: there is no such session.
            InvalidArgumentError: the kind is the store's, or no id.
            InvalidMessageError: the payload is not JSON, with the path of the fault.
        """
        session_id, kind = check_id(session_id), check_event_kind(kind)
        encoded = None
        if payload is not None:
            try:
                encoded = codec.encode(
                    payload, max_bytes=self.settings.max_body_bytes, max_depth=self.settings.max_depth
                )
            except InvalidValue as fault:
                raise InvalidMessageError(fault.path, fault.reason) from None
        size = len(encoded.text) if encoded is not None else 0
        event = units.NewEvent.of(kind, encoded)
        return await self._run(units.record(self.tenant, session_id, event, size=size))

    async def events(
        self, session_id: str, *, after: int | None = None, limit: int = limits.EVENTS_PAGE
    ) -> list[SessionEvent]:
        """Read events of a session in order: the store's own and yours. Messages are not among them.

        Args:
            after: only events with a greater number.
            limit: at most so many, and at most 1,000.

        Raises:
            SessionNotFoundError: there is no such session.
        """
        last = -1 if after is None else check_count(after, "after", minimum=-1)
        most = min(check_count(limit, "limit"), limits.EVENTS_PAGE)
        return await self._run(units.read(self.tenant, check_id(session_id), after=last, limit=most))

    async def watch(self, session_id: str | None = None, *, after: str | None = None) -> AsyncIterator[Change]:
        """Follow a session, or all sessions of the tenant: what there is, then every change as it happens.

        In order for each session, without gaps, at least once. Changes of this process come at once, those of others
        after 50 ms to 1 s. No transaction is held meanwhile. See `Change` for what is told.

        Of one session everything is told that it holds, unless `after` says from where on. Of a tenant, changes are
        told from now on, or from `after`: then of each session that was changed since, all messages once more. There a
        change may come five minutes late if it was committed long after it was made.

        Args:
            after: `Change.cursor` or `Session.cursor`: only what came after it.

        Raises:
            SessionNotFoundError: there is no such session, and no cursor of one that was there.
            InvalidArgumentError: a cursor of something else; or inside a transaction of the caller.
            WatchLagError: changes were not taken for too long. Watch again after the last one.
            WatchLimitError: there are too many watchers.
        """
        self._refuse_within("watch")
        session = None if session_id is None else check_id(session_id)
        follower = Follower(self._shared)
        hub = self._hub()
        told = (
            self._of_tenant(hub, follower, after)
            if session is None
            else self._of_session(hub, follower, session, after)
        )
        hub.enter(self.settings.max_watchers)
        try:
            async with contextlib.aclosing(told):
                async for change in told:
                    yield change
        finally:
            hub.unfollow(self.tenant, session, follower)
            hub.leave()

    def subscribe(self, session_id: str, callback: Callback) -> Subscription:
        """Call back with every change of a session from now on, whoever makes it, until it is deleted.

        A missing session is created. Awaiting what this returns waits until the session is there and nothing after
        that will be missed. Callbacks of a session are called in the order of their subscriptions, one after the
        other; they delay no verb, and an error in one is logged. They live in this process: a fork has none, a reset
        keeps them.

        Raises:
            InvalidArgumentError: the callback cannot be called; or inside a transaction of the caller.
        """
        self._refuse_within("subscribe")
        return self._dispatcher().subscribe(cast("Watchable", self), check_id(session_id), callback)

    def subscribers(self, session_id: str) -> list[Callback]:
        """The callbacks of a session, in the order of their subscriptions."""
        return self._dispatcher().of_session(self.tenant, check_id(session_id))

    def subscriber_count(self, session_id: str) -> int:
        """How many subscriptions of a session there are in this process; 0 of an unknown one."""
        return len(self.subscribers(session_id))

    # --- how it is done ---------------------------------------------------------------------
    def _hub(self) -> Hub:
        return Hub.of(self._executor, self.settings.operation_timeout_seconds)

    def _dispatcher(self) -> Dispatcher:
        return Dispatcher.of(self._shared.engine.sync_engine)

    async def _of_session(
        self, hub: Hub, follower: Follower, session_id: str, after: str | None
    ) -> AsyncGenerator[Change]:
        cursor = None if after is None else Cursor.parse(after)
        more = True
        while more:
            found = await self._run(feed.follow(self.tenant, session_id, cursor))
            for change in found.changes:
                yield change
            cursor, more = found.cursor, found.more
        more = hub.follow(self.tenant, session_id, cursor or NOTHING, follower)
        while more:
            found = await self._run(feed.follow(self.tenant, session_id, cursor))
            for change in found.changes:
                yield change
            cursor, more = found.cursor, found.more
            follower.seen[session_id] = cursor
        while True:
            yield await follower.take()

    async def _of_tenant(self, hub: Hub, follower: Follower, after: str | None) -> AsyncGenerator[Change]:
        if after is None:
            await self._joined_in(hub, follower)
        else:
            async for change in self._missed(hub, follower, parse_tenant_cursor(after)):
                yield replace(change, cursor=after)
        while True:
            yield await follower.take()

    async def _missed(self, hub: Hub, follower: Follower, moment: int) -> AsyncGenerator[Change]:
        """Tell what happened in a tenant since a moment, and have the follower hear of what happens next."""
        since = moment - int(limits.SWEEP_SECONDS * 1_000_000)
        seen: dict[str, Cursor] = {}
        gone: dict[str, int] = {}
        for _ in range(limits.RESUME_ROUNDS):
            behind: dict[str, Cursor] = {}
            async for standing in hub.sweep(self.tenant):
                known = seen.get(standing.session_id)
                if known is None and standing.used_at < since:
                    seen[standing.session_id] = standing.cursor
                elif known != standing.cursor:
                    behind[standing.session_id] = known or NOTHING
            for change in await self._gone(since, seen, gone):
                yield change
            async for change in self._read_on(behind, seen):
                yield change
            if len(behind) <= limits.RESUME_FEW:
                break
        members = await self._joined_in(hub, follower)
        behind = {
            session_id: seen.get(session_id, NOTHING)
            for session_id, cursor in members.items()
            if not seen.get(session_id, NOTHING).has_seen(cursor)
        }
        behind |= {session_id: cursor for session_id, cursor in seen.items() if session_id not in members}
        for change in await self._gone(since, seen, gone):
            yield change
        async for change in self._read_on(behind, follower.seen):
            yield change

    async def _joined_in(self, hub: Hub, follower: Follower) -> dict[str, Cursor]:
        members = await hub.follow_tenant(self.tenant, follower)
        if self._shared.closed:  # while it learned
            raise StoreClosedError
        return members

    async def _gone(self, since: int, seen: dict[str, Cursor], told: dict[str, int]) -> list[Change]:
        """Which sessions went since a moment that have not been told, and will not be by reading on in them."""
        found = []
        for change in await self._run(feed.laid(self.tenant, since)):
            known = seen.get(change.session_id)
            if told.get(change.session_id, -1) < change.generation and (
                known is None or known.generation > change.generation
            ):
                told[change.session_id] = change.generation
                found.append(change)
        return found

    async def _read_on(self, behind: dict[str, Cursor], seen: dict[str, Cursor]) -> AsyncIterator[Change]:
        for session_id, known in behind.items():
            cursor, more = known, True
            while more:
                found = await self._run(feed.follow(self.tenant, session_id, cursor))
                for change in found.changes:
                    yield change
                cursor, more = found.cursor, found.more
            seen[session_id] = cursor
