"""A process that works on a store, to be killed: `python -m tests.faults.worker JOB URL OPTIONS`.

It says "ready", waits for a line on its input, and prints one line of JSON for each thing that was acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from sessionstore import PrunePolicy, SessionNotFoundError, SessionRepository, StoreSettings
from tests.faults.watching import change, watch
from tests.support import tampering
from tests.support.faults_history import History, Writer, messages_of

MAX_AGE = timedelta(days=7)
PAUSE_SECONDS = 0.005
"""Between two things that one task does where others are to get on as well. It decides nothing."""


def say(**told: Any) -> None:
    """Tell of something, in one write: a line is told whole or not at all."""
    os.write(1, json.dumps(told).encode() + b"\n")


async def write(url: str, *, name: str, tasks: int, batches: int | None = None, **options: Any) -> None:
    """Append to the shared session, every other task with message ids; tells of each batch."""
    history = History()
    settings = StoreSettings(durability=options.get("durability", "full"))
    async with SessionRepository.connect(url, settings=settings) as repository:
        await asyncio.gather(
            *[
                _written(
                    Writer(
                        repository,
                        history,
                        f"{name}-{task}",
                        with_ids=bool(task % 2),
                        filler="x" * options.get("filler", 0),
                        told=lambda batch, positions: say(batch=batch, positions=positions),
                    ),
                    batches,
                )
                for task in range(tasks)
            ],
            *[_rewrite(repository, f"{name}-moving") for _ in range(options.get("rewriting", 0))],
        )
    if batches is not None:
        say(longest=history.longest, errors=history.errors)


async def _written(writer: Writer, batches: int | None) -> None:
    for _ in count() if batches is None else range(batches):
        await writer.append()


async def _rewrite(repository: SessionRepository, session_id: str) -> None:
    """Use every verb that writes in more than one statement, for ever."""
    await repository.append(session_id, *messages_of("first", 3), create=True)
    for number in count():
        await repository.append(session_id, *messages_of(f"more-{number}", 5))
        await repository.compact(session_id, {"role": "system", "content": "summary"}, keep_last=6)
        await repository.trim(session_id, 5)
        await repository.fork_at(session_id, 4, new_id=f"{session_id}-child", replace=True)
        await repository.truncate(session_id, 4)
        await repository.pop(session_id)
        await repository.set_metadata(session_id, {"number": number})
        await repository.replace_messages(session_id, messages_of(f"other-{number}", 4))
        if number % 5 == 4:
            await repository.delete(session_id)
            await repository.append(session_id, *messages_of("again", 3), create=True)


async def first(url: str, *, name: str, batches: int) -> None:
    """Open a file that may not exist yet, and write to it; tells how long each call took, at most."""
    history = History()
    started = time.monotonic()
    async with SessionRepository.connect(url, migrate=True) as repository:
        opening = time.monotonic() - started
        await repository.append("shared", create=True)
        writer = Writer(
            repository,
            history,
            name,
            with_ids=False,
            told=lambda batch, positions: say(batch=batch, positions=positions),
        )
        await _written(writer, batches)
    say(opening=opening, longest=history.longest, errors=history.errors)


async def prune(url: str, *, tamper: bool = False) -> None:
    """Prune by age for ever, a session at a time; tells how many sessions each prune deleted."""
    if tamper:
        tampering.prune_without_recheck(pytest.MonkeyPatch())
    policy = PrunePolicy(max_age=MAX_AGE, max_sessions=None)
    async with SessionRepository.connect(url) as repository:
        while True:
            say(pruned=(await repository.prune(policy, batch_size=1)).total)
            await asyncio.sleep(PAUSE_SECONDS)


async def use(url: str, *, name: str, tasks: int, sessions: list[str]) -> None:
    """Append to old sessions while they are there; tells of each that was used.

    From both ends of the list, and fast over what is gone: so they soon are where the pruners are.
    """
    async with SessionRepository.connect(url) as repository:

        async def one(task: int) -> None:
            for number, session_id in enumerate(sessions if task % 2 else reversed(sessions)):
                batch = f"{name}-{task}-{number}"
                try:
                    await repository.append(session_id, *messages_of(batch, 2, with_ids=True))
                except SessionNotFoundError:
                    say(missing=session_id)
                else:
                    say(used=session_id, batch=batch)
                    await asyncio.sleep(PAUSE_SECONDS)

        await asyncio.gather(*(one(task) for task in range(tasks)))
    say(done=True)


JOBS = {job.__name__: job for job in (write, first, prune, use, change, watch)}


def main() -> None:
    """Do one job."""
    job, url, options = sys.argv[1:]
    os.write(1, b"ready\n")
    sys.stdin.readline()
    asyncio.run(JOBS[job](url, **json.loads(options)))


if __name__ == "__main__":
    main()
