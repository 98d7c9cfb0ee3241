"""Callbacks that are told of the changes of a session, in this process."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any, Final, Protocol, TypeAlias

from sqlalchemy import Engine

from sessionstore import telemetry
from sessionstore.changes import DELETED, Change, Cursor, unseen
from sessionstore.errors import InvalidArgumentError, SessionStoreError, StoreClosedError, WatchLagError
from sessionstore.limits import WATCH_MAX_SECONDS
from sessionstore.values import Session

Callback: TypeAlias = Callable[[Change], Awaitable[Any] | Any]

_log: Final = logging.getLogger("sessionstore")


class Watchable(Protocol):
    """What subscriptions need of a repository."""

    @property
    def tenant(self) -> str:
        """Whose sessions."""

    async def open(self, session_id: str) -> Session:
        """Get or create a session."""

    async def exists(self, session_id: str) -> bool:
        """Whether there is one."""

    def watch(self, session_id: str, *, after: str) -> AsyncIterator[Change]:
        """Follow it."""


class Subscription:
    """One callback of a session. Await it to know that the session is there and nothing after that is missed."""

    def __init__(self, callback: Callback, drop: Callable[[Subscription], None]) -> None:
        """Made by `SessionRepository.subscribe`."""
        self._callback = callback
        self._drop = drop
        self._active = True
        self._awaited = False
        self._opening: asyncio.Task[Session | SessionStoreError]

    @property
    def callback(self) -> Callback:
        """What is called."""
        return self._callback

    @property
    def active(self) -> bool:
        """Whether it may still be called."""
        return self._active

    def cancel(self) -> None:
        """Call back no more. Cancelling once more does nothing."""
        self._active = False
        self._drop(self)

    def __await__(self) -> Generator[Any, None, Subscription]:
        """Wait until the session is there; raises why it is not."""
        self._awaited = True
        opened = yield from asyncio.shield(self._opening).__await__()
        if isinstance(opened, SessionStoreError):
            raise opened
        return self


class Dispatcher:
    """The subscriptions of a database in this process, a line of them for each session."""

    _all: Final[weakref.WeakKeyDictionary[Engine, Dispatcher]] = weakref.WeakKeyDictionary()

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], _Line] = {}

    @classmethod
    def of(cls, engine: Engine) -> Dispatcher:
        """The one of an engine."""
        return cls._all.setdefault(engine, cls())

    def subscribe(self, repository: Watchable, session_id: str, callback: Callback) -> Subscription:
        """Add a callback to those of a session.

        Raises:
            InvalidArgumentError: it cannot be called.
        """
        if not callable(callback):
            raise InvalidArgumentError("callback must be callable with one argument, the change")
        key = (repository.tenant, session_id)
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line(session_id, lambda empty: self._forget(key, empty))
        return line.add(repository, callback)

    def _forget(self, key: tuple[str, str], line: _Line) -> None:
        """Let go of an empty line, unless another one is in its place by now."""
        if self._lines.get(key) is line:
            del self._lines[key]

    def of_session(self, tenant: str, session_id: str) -> list[Callback]:
        """The callbacks of a session, in the order in which they were added."""
        line = self._lines.get((tenant, session_id))
        return [] if line is None else [subscription.callback for subscription in line.subscriptions]


class _Line:
    """The subscriptions of one session, told of each change one after the other."""

    def __init__(self, session_id: str, on_empty: Callable[[_Line], object]) -> None:
        self.subscriptions: list[Subscription] = []
        self._session_id = session_id
        self._on_empty = on_empty
        self._task: asyncio.Task[None] | None = None
        self._telling = False
        self._seen: dict[Subscription, Cursor] = {}
        """Where the session stood when it was opened for a subscription; none before that."""

    def add(self, repository: Watchable, callback: Callback) -> Subscription:
        """Add a callback, and open the session."""
        subscription = Subscription(callback, self.drop)
        self.subscriptions.append(subscription)
        opening = asyncio.get_running_loop().create_task(self._open(subscription, repository))
        subscription._opening = opening  # noqa: SLF001  # of this module
        return subscription

    async def _open(self, subscription: Subscription, repository: Watchable) -> Session | SessionStoreError:
        telemetry.apart()
        try:
            session = await repository.open(self._session_id)
        except SessionStoreError as error:
            self.drop(subscription)
            if not subscription._awaited:  # noqa: SLF001  # nobody will hear of it
                fields = {"event": "sessionstore.subscription_failed", "error": type(error).__name__}
                _log.error("a subscription failed: %s", error, extra=fields)
            return error
        except BaseException:
            self.drop(subscription)
            raise
        if subscription.active:
            self._seen[subscription] = Cursor.parse(session.cursor)
            if self._task is None or self._task.done():
                self._task = asyncio.get_running_loop().create_task(self._follow(repository, session.cursor))
        return session

    def drop(self, *subscriptions: Subscription) -> None:
        """Let go of subscriptions, and with the last of the session."""
        for subscription in subscriptions:
            subscription._active = False  # noqa: SLF001  # of this module
            self._seen.pop(subscription, None)
            if subscription in self.subscriptions:
                self.subscriptions.remove(subscription)
        if not self.subscriptions:
            self._on_empty(self)
            # A callback that is under way ends in its own time, and the task after it.
            if self._task is not None and not self._telling and not self._is_current(self._task):
                self._task.cancel()

    @staticmethod
    def _is_current(task: asyncio.Task[None]) -> bool:
        try:
            return task is asyncio.current_task()
        except RuntimeError:  # outside of any event loop
            return False

    async def _follow(self, repository: Watchable, cursor: str) -> None:
        telemetry.apart()
        while self.subscriptions:
            try:
                changes: Any = repository.watch(self._session_id, after=cursor)
                async with contextlib.aclosing(changes):
                    async for change in changes:
                        await self._tell(change)
                        cursor = change.cursor
                        if change.kind == DELETED:
                            self.drop(*[one for one in self.subscriptions if self._unseen(change, one) is not None])
                        if not self.subscriptions:
                            return
            except StoreClosedError as error:
                if await self._is_closed(repository):
                    self.drop(*self.subscriptions)
                else:  # its engine was disposed of, and goes on with other connections
                    await self._pause(error)
            except WatchLagError:
                fields = {"event": "sessionstore.subscription_lags"}
                _log.warning("the callbacks of a session lag behind its changes; they go on", extra=fields)
            except Exception as error:  # noqa: BLE001  # there is nobody to raise it to
                await self._pause(error)

    async def _is_closed(self, repository: Watchable) -> bool:
        try:
            await repository.exists(self._session_id)
        except StoreClosedError:
            return True
        except SessionStoreError:
            pass  # it will be seen when it is watched again
        return False

    async def _pause(self, error: Exception) -> None:
        fields = {"event": "sessionstore.subscription_waits", "error": type(error).__name__}
        _log.error("the subscriptions of a session wait for the database: %s", type(error).__name__, extra=fields)
        await asyncio.sleep(WATCH_MAX_SECONDS)

    async def _tell(self, change: Change) -> None:
        self._telling = True
        try:
            for subscription in list(self.subscriptions):
                new = self._unseen(change, subscription)
                if new is not None:
                    await self._call(subscription.callback, new)
        finally:
            self._telling = False

    async def _call(self, callback: Callback, change: Change) -> None:
        try:
            result = callback(change)
            if inspect.isawaitable(result):
                await result
        except (Exception, asyncio.CancelledError) as error:  # there is nobody to raise it to, and the others go on
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # this task was meant, not something that the callback waits for
            fields = {"event": "sessionstore.callback_failed", "error": type(error).__name__}
            _log.error("a callback of a session failed: %s", type(error).__name__, extra=fields)

    def _unseen(self, change: Change, subscription: Subscription) -> Change | None:
        """What of a change is new to a subscription; None: nothing of it, or it is not there (yet, or any more)."""
        seen = self._seen.get(subscription)
        return None if seen is None else unseen(change, seen)
