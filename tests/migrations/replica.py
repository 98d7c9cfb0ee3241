"""A replica of a service that starts: `python -m tests.migrations.replica URL NUMBER`.

It says "ready", waits for a line, opens the store with `migrate=True`, and says "served" when its calls were answered.
"""

from __future__ import annotations

import asyncio
import sys

from sessionstore import SessionRepository


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def serve(url: str, number: str) -> None:
    """Open, and do what a service does."""
    async with SessionRepository.connect(url, migrate=True) as sessions:
        await sessions.create(f"own-{number}")
        for _ in range(5):
            await sessions.append("shared", {"role": "user", "by": number}, create=True)
            assert await sessions.append(f"own-{number}", {"role": "user"})
        assert await sessions.length(f"own-{number}") == 5


if __name__ == "__main__":
    _say("ready")
    sys.stdin.readline()
    asyncio.run(serve(*sys.argv[1:]))
    _say("served")
