"""Processes that migrate at once, and what became of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Ended(NamedTuple):
    """How a process ended."""

    status: int | None
    output: str
    errors: str


async def start(*command: str, cwd: Path = ROOT, **variables: str) -> asyncio.subprocess.Process:
    """Start Python with our package, wherever the tests run from."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def ended(process: asyncio.subprocess.Process, given: bytes | None = None) -> Ended:
    """Wait for the end of a process."""
    output, errors = await process.communicate(given)
    return Ended(process.returncode, output.decode(), errors.decode())


async def migrate_at_once(
    url: str, count: int, kill_at: int | None = None, *, first_for: float | None = None
) -> list[Ended]:
    """Let so many processes migrate one database, all let go when the last one is ready.

    Args:
        kill_at: before which of its statements each kills itself; with 0 each counts and measures them.
        first_for: seconds after which the first of them is killed, wherever it is then.
    """
    arguments = [url] if kill_at is None else [url, str(kill_at)]
    workers = [await start("-m", "tests.migrations.worker", *arguments) for _ in range(count)]
    for worker in workers:
        assert worker.stdout is not None
        assert await worker.stdout.readline() == b"ready\n"
    ends = asyncio.gather(*(ended(worker, b"go\n") for worker in workers))
    if first_for is not None:
        await asyncio.sleep(first_for)
        with contextlib.suppress(ProcessLookupError):
            workers[0].kill()
    return list(await ends)
