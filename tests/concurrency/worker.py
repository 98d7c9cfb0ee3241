"""A process that works on a store when told to: `python -m tests.concurrency.worker JOB URL NUMBER`.

It says "ready", waits for a line on its input, and prints what became of its work as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from sessionstore import PrunePolicy, SessionRepository, StoreSettings, VersionConflictError

BATCHES = 8
ROUNDS = 10


def batch(name: str, size: int) -> list[dict[str, Any]]:
    """Messages that say which batch they are of."""
    return [{"role": "user", "batch": name, "at": at, "of": size} for at in range(size)]


async def append(url: str, number: int) -> list[list[int]]:
    """Append batches to one session; gives the positions of each."""
    async with SessionRepository.connect(url) as repository:
        return [
            await repository.append("shared", *batch(f"{number}-{at}", 1 + (number + at) % 4)) for at in range(BATCHES)
        ]


async def count(url: str, number: int) -> int:
    """Add to a counter by compare-and-set; gives how often that succeeded."""
    async with SessionRepository.connect(url) as repository:
        done = 0
        told = []
        while done < ROUNDS:
            session = await repository.get("shared")
            try:
                await repository.update(
                    "shared", title=str(int(session.title or 0) + 1), expected_version=session.version
                )
            except VersionConflictError as conflict:
                told.append(conflict.expected < conflict.actual)
            else:
                done += 1
        return done if all(told) else -1


async def first(url: str, number: int) -> list[int]:
    """Open a database that may not exist yet, and write to it."""
    async with SessionRepository.connect(url, migrate=True) as repository:
        await repository.open(f"own-{number}")
        return [(await repository.append("shared", *batch(f"{number}-{at}", 2), create=True))[0] for at in range(5)]


async def prune(url: str, number: int) -> int:
    """Prune; gives how many sessions this process deleted."""
    policy = PrunePolicy(max_age=None, max_sessions=5)
    async with SessionRepository.connect(url) as repository:
        return (await repository.prune(policy, batch_size=3)).total


async def fill(url: str, number: int) -> int:
    """Create sessions under a cap."""
    settings = StoreSettings(session_cap=7)
    async with SessionRepository.connect(url, settings=settings) as repository:
        for at in range(ROUNDS):
            await repository.create(f"{number}-{at}")
        return ROUNDS


async def claim(url: str, number: int) -> bool:
    """Ask for the one run of a job."""
    async with SessionRepository.connect(url) as repository:
        return await repository.claim("job", cooldown_seconds=3600)


JOBS = {job.__name__: job for job in (append, count, first, prune, fill, claim)}


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Do one job."""
    job, url, number = sys.argv[1:]
    _say("ready")
    sys.stdin.readline()
    _say(json.dumps(asyncio.run(JOBS[job](url, int(number)))))


if __name__ == "__main__":
    main()
