"""Work read ahead by a thread and bounded by its size: memory stays flat on input of any length."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

from sessionstore.importers.bounds import FLIGHT_BYTES, FLIGHT_SESSIONS


class Sized(Protocol):
    """Something that takes room."""

    @property
    def size(self) -> int:
        """Bytes."""


S = TypeVar("S", bound=Sized)


class Flight(Generic[S]):
    """Items that were read and are not done with yet: so many and so many bytes, or a single one of any size.

    A thread of its own reads, because reading may wait for a pipe, and an event loop that waits holds up transactions.
    It is a daemon: nobody can interrupt a thread that waits for input, and the process must still be able to end.
    """

    def __init__(self, *, items: int = FLIGHT_SESSIONS, size: int = FLIGHT_BYTES) -> None:
        self._most_items = items
        self._most_bytes = size
        self._items = 0
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition()

    async def read(self, source: Iterator[S]) -> AsyncGenerator[S, None]:
        """Give the items of a blocking iterator; whoever is done with one says so by `leave`."""
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[tuple[S | None, BaseException | None]] = asyncio.Queue()

        def hand_over(item: S | None, error: BaseException | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(arrived.put_nowait, (item, error))

        threading.Thread(target=self._work, args=(source, hand_over), name="sessionstore-import", daemon=True).start()
        try:
            while True:
                item, error = await arrived.get()
                if error is not None:
                    raise error
                if item is None:
                    return
                yield item
        finally:
            self.close()

    def _work(self, source: Iterator[S], hand_over: Callable[[Any, BaseException | None], None]) -> None:
        try:
            for item in source:
                if not self._enter(item.size):
                    return
                hand_over(item, None)
        except BaseException as error:  # noqa: BLE001  # raised again where the items are awaited
            hand_over(None, error)
        else:
            hand_over(None, None)

    def _enter(self, size: int) -> bool:
        """Wait for room; False once nobody wants any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_room(size))
            self._items += 1
            self._bytes += size
            return not self._closed

    def _has_room(self, size: int) -> bool:
        fits = self._items < self._most_items and self._bytes + size <= self._most_bytes
        return fits or not self._items

    def leave(self, item: S) -> None:
        """Give back the room of an item."""
        with self._changed:
            self._items -= 1
            self._bytes -= item.size
            self._changed.notify()

    def close(self) -> None:
        """Let the thread end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
