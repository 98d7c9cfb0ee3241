"""A process that erases a user: `python -m tests.contract._eraser URL`.

It deletes a few sessions a transaction, says "erased" after each, and goes on when it is given a line: whoever kills it
knows between which batches.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from sessionstore import SessionRepository, retention

if TYPE_CHECKING:
    from sessionstore.units.unit import Unit

BATCH = 4


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main() -> None:
    """Erase the user `ann`."""
    vars(retention)["PRUNE_BATCH"] = BATCH
    async with SessionRepository.connect(sys.argv[1]) as sessions:
        run = sessions._run

        async def told(unit: Unit[Any]) -> Any:
            result = await run(unit)
            say("erased")
            await asyncio.to_thread(sys.stdin.readline)
            return result

        sessions._run = told  # type: ignore[method-assign]
        say(f"done {await sessions.delete_user('ann')}")


if __name__ == "__main__":
    asyncio.run(main())
