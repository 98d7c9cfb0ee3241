"""A process that migrates when told to: `python -m tests.migrations.worker URL [KILL_AT]`.

It says "ready", waits for a line on its input, and prints the revision it reached. With KILL_AT it kills itself before
its so-many-th statement, as a deploy is killed: with nothing tidied away. A COMMIT is a statement too. With 0 it prints
how many there were, and how many seconds they took, instead.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event

from sessionstore.migrate import upgrade

if TYPE_CHECKING:
    from collections.abc import Callable


def before_each(act: Callable[[int], object]) -> Callable[[], None]:
    """Call something with the number of each statement before it is sent, from 1; gives what ends that."""
    numbers = itertools.count(1)

    def count(*_: Any) -> None:
        act(next(numbers))

    events = ("before_cursor_execute", "commit")
    for name in events:
        event.listen(Engine, name, count)

    def end() -> None:
        for name in events:
            event.remove(Engine, name, count)

    return end


def _end_at(last: int) -> Callable[[int], None]:
    def act(number: int) -> None:
        if number == last:
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Migrate once."""
    seen: list[int] = []
    if len(sys.argv) > 2:
        last = int(sys.argv[2])
        before_each(_end_at(last) if last else seen.append)
    _say("ready")
    sys.stdin.readline()
    begun = time.monotonic()
    reached = asyncio.run(upgrade(sys.argv[1]))
    _say(f"{len(seen)} {time.monotonic() - begun}" if seen else reached)


if __name__ == "__main__":
    main()
