"""Waiting for something to happen elsewhere, without guessing how long it takes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds. The test's own timeout ends one that never does."""
    while not condition():  # noqa: ASYNC110  # what is waited for happens in a thread, or has no event
        await asyncio.sleep(0.001)
