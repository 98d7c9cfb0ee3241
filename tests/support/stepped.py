"""The command line, whose backfills wait after each batch: `python -m tests.support.stepped db backfill ...`.

It says "batch" on its output then, and waits for a line on its input: whoever kills it knows where it is.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from sessionstore import backfill as backfilling
from sessionstore.cli import app

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionstore.backfill import Backfill

_backfill = backfilling.backfill


async def _stepped(*arguments: Any, on_progress: Callable[[Backfill], object], **options: Any) -> Backfill:
    def told(so_far: Backfill) -> None:
        on_progress(so_far)
        sys.stdout.write("batch\n")
        sys.stdout.flush()
        sys.stdin.readline()

    return await _backfill(*arguments, on_progress=told, **options)


if __name__ == "__main__":
    backfilling.backfill = _stepped  # type: ignore[assignment]
    app(prog_name="sessionstore")
