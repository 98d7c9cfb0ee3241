"""A process that migrates when told to: `python -m tests.migrations.worker URL [KILL_AT]`.

It says "ready", waits for a line on its input, and prints the revision it reached. With KILL_AT it kills itself before
its so-many-th statement, as a deploy is killed: with nothing tidied away.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from sqlalchemy import Engine, event

from sessionstore.migrate import upgrade


def kill_at(number: int) -> None:
    """End this process before its so-many-th statement."""
    seen = 0

    @event.listens_for(Engine, "before_cursor_execute")
    def count(*_: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Migrate once."""
    if len(sys.argv) > 2:
        kill_at(int(sys.argv[2]))
    _say("ready")
    sys.stdin.readline()
    _say(asyncio.run(upgrade(sys.argv[1])))


if __name__ == "__main__":
    main()
