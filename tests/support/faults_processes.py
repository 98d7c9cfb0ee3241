"""Processes that work on a store until they are done or killed, and tell of each thing that was acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ROOT", "Worker", "command"]

ROOT = Path(__file__).resolve().parents[2]


def command(job: str, url: str, **options: Any) -> list[str]:
    """The command line of a worker."""
    return [sys.executable, "-W", "error", "-m", "tests.faults.worker", job, url, json.dumps(options)]


class Worker:
    """A process of `tests.faults.worker`. What it has told is in `events`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.events: list[Any] = []
        self._process = process
        self._told = asyncio.Condition()
        self._reading: asyncio.Task[None]

    @classmethod
    async def start(cls, job: str, url: str, *, before: tuple[str, ...] = (), **options: Any) -> Worker:
        """Start a process and wait until it is ready to begin.

        Args:
            before: a program to run it under, with its arguments.
            options: of the job.
        """
        process = await asyncio.create_subprocess_exec(
            *before,
            *command(job, url, **options),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        worker = cls(process)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n", await process.communicate()
        return worker

    def go(self) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        # A line without its end was being written when the process died: nobody was told that.
        while (line := await self._process.stdout.readline()).endswith(b"\n"):
            async with self._told:
                self.events.append(json.loads(line))
                self._told.notify_all()
        async with self._told:
            self._told.notify_all()

    async def until(self, enough: Callable[[list[Any]], bool]) -> None:
        """Wait until it has told enough; it must not end before."""
        async with self._told:
            await self._told.wait_for(lambda: enough(self.events) or self._reading.done() or self._at_end())
        assert enough(self.events), (self._process.returncode, await self._errors())

    def _at_end(self) -> bool:
        assert self._process.stdout is not None
        return self._process.stdout.at_eof()

    async def _errors(self) -> str:
        assert self._process.stderr is not None
        return (await self._process.stderr.read()).decode(errors="replace")

    @property
    def ended_already(self) -> bool:
        """Whether there is nothing more to come."""
        return self._reading.done()

    @property
    def has_failed(self) -> bool:
        """Whether it ended by itself, and not well."""
        return self._process.returncode not in {None, 0, -signal.SIGKILL}

    async def kill(self) -> list[Any]:
        """End it with SIGKILL, unless it was done; gives all that it has told."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._reading
        assert await self._process.wait() in {0, -signal.SIGKILL}, await self._errors()
        return self.events

    async def ended(self) -> list[Any]:
        """Wait until it ends by itself, without any complaint; gives all that it has told."""
        await self._reading
        errors = await self._errors()
        assert (await self._process.wait(), errors) == (0, "")
        return self.events
