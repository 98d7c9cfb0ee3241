"""A process on a database: `python -m tests.contract._worker prune|claim URL`.

It says "ready" and waits for a line on its input. `prune` then deletes all sessions but one, a session a transaction,
and says "pruned" after each; `claim` says whether it may run a job.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from sessionstore import PrunePolicy, SessionRepository

if TYPE_CHECKING:
    from sessionstore.units.unit import Unit


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def prune(sessions: SessionRepository) -> None:
    """Prune in the smallest batches, and report each."""
    run = sessions._run

    async def reported(unit: Unit[Any]) -> Any:
        result = await run(unit)
        if unit.name == "remove_batch":
            say("pruned")
        return result

    sessions._run = reported  # type: ignore[method-assign]
    await sessions.prune(PrunePolicy(max_age=None, max_sessions=1), batch_size=1)


async def claim(sessions: SessionRepository) -> None:
    """Try to claim a job for an hour."""
    say(str(await sessions.claim("job", cooldown_seconds=3600)))


async def main() -> None:
    """Do what the arguments say, when told to."""
    job, url = sys.argv[1:]
    async with SessionRepository.connect(url) as sessions:
        await sessions.exists("s")
        say("ready")
        await asyncio.to_thread(sys.stdin.readline)
        await {"prune": prune, "claim": claim}[job](sessions)


if __name__ == "__main__":
    asyncio.run(main())
