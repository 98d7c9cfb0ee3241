"""A process that works on a backfill until it is killed: `python -m tests.contract._backfiller URL`."""

from __future__ import annotations

import asyncio
import sys

from sessionstore import SessionRepository
from sessionstore.backfill import backfill


def _wait(_: object) -> None:
    """Say a word, and wait for a line."""
    sys.stdout.write("batch\n")
    sys.stdout.flush()
    sys.stdin.readline()


async def main() -> None:
    """Begin no batch before it is told to."""
    async with SessionRepository.connect(sys.argv[1]) as sessions:
        await backfill(sessions, "message-columns", batch_rows=100, on_progress=_wait)


if __name__ == "__main__":
    asyncio.run(main())
