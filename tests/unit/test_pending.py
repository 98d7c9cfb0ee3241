"""A call that is started in one thread while its deadline passes in another."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import StoreBusyError, StoreTimeoutError
from sessionstore.executors.base import Deadline
from sessionstore.executors.pending import Pending
from sessionstore.units.unit import Kind, Unit

if TYPE_CHECKING:
    from collections.abc import Callable


class Watched(asyncio.Future[Any]):
    """A future of a call whose deadline passes just before, or just after, somebody looks whether it is done."""

    def __init__(self, *, before: Callable[[], None] = lambda: None, after: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._around = [(before, after)]

    def done(self) -> bool:
        before, after = self._around.pop() if self._around else (lambda: None, lambda: None)
        before()
        answer = super().done()
        after()
        return answer


def waited_for(kind: Kind) -> Pending:
    """A call in the event loop of the test."""
    return Pending(Unit("unit", kind, lambda _: iter(())), Deadline(60))  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("hindered", [False, True])
async def test_the_deadline_passes_just_after_the_look(kind: Kind, hindered: bool) -> None:
    """P3, P4: the work goes on, so nobody is told that it has not happened."""
    call = waited_for(kind)
    call.hindrance = StoreBusyError() if hindered else None
    call.future = Watched(after=call._expire)
    assert call.start()
    with pytest.raises(StoreTimeoutError) as caught:
        await call.future
    assert caught.value.maybe_committed is (not kind.reads)


@pytest.mark.parametrize("kind", Kind)
async def test_the_deadline_passes_just_before_the_look(kind: Kind) -> None:
    """P4: the work is dropped. A write may say that nobody knows, which is careful; a read may not."""
    call = waited_for(kind)
    call.future = Watched(before=call._expire)
    assert not call.start()
    assert (call.started, call.unknown) == (False, False)
    with pytest.raises(StoreTimeoutError) as caught:
        await call.future
    assert not (kind.reads and caught.value.maybe_committed)


@pytest.mark.parametrize("kind", Kind)
async def test_who_has_left_is_not_served(kind: Kind) -> None:
    """P4: a call whose deadline passed while it waited has not happened, and hears what hindered it."""
    for hindrance in (None, StoreBusyError()):
        call = waited_for(kind)
        call.hindrance = hindrance
        call._expire()
        assert not call.start()
        with pytest.raises(type(hindrance or StoreTimeoutError())) as caught:
            await call.future
        assert getattr(caught.value, "maybe_committed", None) is False
