"""A process that works on a backfill until it is killed: `python -m tests.contract._backfiller URL`."""

from __future__ import annotations

import asyncio
import sys

from sessionstore import SessionRepository
from sessionstore.backfill import backfill


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main() -> None:
    """Say a word after each batch, and rest after it."""
    async with SessionRepository.connect(sys.argv[1]) as sessions:
        await backfill(
            sessions, "message-columns", batch_rows=100, pause_seconds=0.1, on_progress=lambda _: _say("batch")
        )


if __name__ == "__main__":
    asyncio.run(main())
