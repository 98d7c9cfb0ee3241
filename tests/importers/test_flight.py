"""However long the input is, so much of it is in memory and no more."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from sessionstore.importers.flight import Flight


@dataclass(frozen=True)
class Item:
    size: int


class Counting:
    """A source that knows how many of its items were asked for."""

    def __init__(self, *sizes: int) -> None:
        self.asked = 0
        self.ended = threading.Event()
        self._sizes = sizes

    def __iter__(self) -> Iterator[Item]:
        try:
            for size in self._sizes:
                self.asked += 1
                yield Item(size)
        finally:
            self.ended.set()


async def waits(flight: Flight[Item], source: Counting) -> bool:
    """Let the thread read on until it waits for room; False if it came to the end instead."""
    while not flight._changed._waiters:  # type: ignore[attr-defined]
        if source.ended.is_set():
            return False
        await asyncio.sleep(0.001)
    return True


@pytest.mark.parametrize(
    ("sizes", "in_flight"),
    [((1,) * 10, 4), ((40,) * 10, 2), ((500, 1, 1), 1), ((1, 500, 1), 1)],
    ids=["as many", "as many bytes", "one larger than all room", "it waits for the room of all others"],
)
async def test_what_is_not_done_with_is_bounded(sizes: tuple[int, ...], in_flight: int) -> None:
    source = Counting(*sizes)
    flight: Flight[Item] = Flight(items=4, size=100)
    async with contextlib.aclosing(flight.read(iter(source))) as items:
        taken = [await anext(items) for _ in range(in_flight)]
        assert await waits(flight, source), "it went on reading"
        assert source.asked == in_flight + 1
        assert (flight._items, flight._bytes) == (in_flight, sum(sizes[:in_flight]))
        for item in taken:
            flight.leave(item)
        await anext(items)


async def test_all_of_it_in_order() -> None:
    source = Counting(*range(1, 200))
    flight: Flight[Item] = Flight(items=3, size=100)
    seen = []
    async with contextlib.aclosing(flight.read(iter(source))) as items:
        async for item in items:
            seen.append(item.size)
            flight.leave(item)
    assert seen == list(range(1, 200))
    assert (flight._items, flight._bytes) == (0, 0)


async def test_an_error_of_the_source_is_raised_where_it_is_awaited() -> None:
    def broken() -> Iterator[Item]:
        yield Item(1)
        raise OSError(5, "the disk is gone")

    flight: Flight[Item] = Flight()
    async with contextlib.aclosing(flight.read(broken())) as items:
        flight.leave(await anext(items))
        with pytest.raises(OSError, match="the disk is gone"):
            await anext(items)


async def test_the_source_is_let_go_of_when_nobody_wants_more() -> None:
    source = Counting(*[1] * 100)
    flight: Flight[Item] = Flight(items=2)
    async with contextlib.aclosing(flight.read(iter(source))) as items:
        await anext(items)
    assert await asyncio.to_thread(source.ended.wait, 10)
    assert source.asked <= 3
