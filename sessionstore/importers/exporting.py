"""Writing sessions out: each as of one moment, several read at once, one held at a time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Protocol

from sessionstore.errors import CorruptBodyError, CorruptStoreError, InvalidArgumentError, SessionNotFoundError
from sessionstore.importers import jsonl, state_store
from sessionstore.importers.bounds import (
    CLOCK_SKEW_SECONDS,
    EXPORT_PASSES,
    LINE_BYTES,
    LISTING_PAGE,
    SNAPSHOT_MESSAGES,
    SNAPSHOTS,
)
from sessionstore.importers.importing import Fault, OnError, StoppedError
from sessionstore.importers.targets import FileNames, new_file
from sessionstore.repository import SessionRepository
from sessionstore.values import Transcript


class Target(Protocol):
    """Something that sessions are written to."""

    def put(self, transcript: Transcript) -> int:
        """Write a session, and say how many bytes that took; blocks.

        Raises:
            InvalidArgumentError: the format cannot hold it.
        """


class LinesTarget:
    """A file of JSON Lines."""

    def __init__(self, file: BinaryIO) -> None:
        """Write to an open file."""
        self._file = file

    def put(self, transcript: Transcript) -> int:
        """Write a session as a line."""
        line = _importable(jsonl.line_of(transcript))
        self._file.write(line)
        return len(line)


class FilesTarget:
    """A folder of session files of the state store."""

    def __init__(self, folder: Path, *, force: bool) -> None:
        """Write to a folder; `force` overwrites files of the same names."""
        self._folder = folder
        self._force = force
        self._names = FileNames()

    def put(self, transcript: Transcript) -> int:
        """Write a session as a file."""
        text = _importable(state_store.file_of(transcript))
        path = self._folder / f"{self._names.stem(transcript.session.id)}.json"
        with new_file(path, force=self._force) as file:
            file.write(text)
        return len(text)


def _importable(text: bytes) -> bytes:
    if len(text) > LINE_BYTES:
        raise InvalidArgumentError(f"takes {len(text)} bytes, more than an import would read")
    return text


@dataclass(slots=True)
class ExportReport:
    """What an export did so far; `failed` sessions could not be written, `bytes` were before compression."""

    sessions: int = 0
    failed: int = 0
    messages: int = 0
    bytes: int = 0
    seconds: float = 0.0
    total: int | None = None


@dataclass(frozen=True, slots=True)
class _Wanted:
    session_id: str
    messages: int


class Export:
    """One export. `report` is right at any time, also after an error.

    Sessions come in the order of the listing, the newest change first. One that is written to while the export runs is
    as of one moment all the same, and none is left out that was there from its beginning to its end.
    """

    def __init__(
        self,
        repository: SessionRepository,
        target: Target,
        *,
        on_error: OnError = "stop",
        on_fault: Callable[[Fault], None] = lambda _: None,
        on_progress: Callable[[ExportReport], None] = lambda _: None,
    ) -> None:
        """Say what to do.

        Args:
            repository: where the sessions are.
            target: where they go.
            on_error: whether the others go on after one that cannot be written.
            on_fault: told of each of those.
            on_progress: told after each session.
        """
        self.report = ExportReport()
        self._repository = repository
        self._target = target
        self._on_error = on_error
        self._on_fault = on_fault
        self._on_progress = on_progress

    async def run(self, session_ids: Iterable[str] = (), *, user_id: str | None = None) -> None:
        """Export the named sessions, or all, or all of a user.

        Raises:
            SessionNotFoundError: a named session is not there.
            StoppedError: at the first that is damaged, or that the format cannot hold, unless the others go on.
            SessionStoreError: the database failed.
            OSError: the target cannot be written.
        """
        began = time.monotonic()
        named = list(dict.fromkeys(session_ids))
        self.report.total = len(named) or None
        try:
            wanted = self._named(named) if named else self._listed(user_id)
            async with contextlib.aclosing(self._snapshots(wanted)) as snapshots:
                async for wanted_one, snapshot in snapshots:
                    await self._put(wanted_one, snapshot, must=bool(named))
                    self._on_progress(self.report)
        finally:
            self.report.seconds = time.monotonic() - began

    async def _put(self, wanted: _Wanted, snapshot: asyncio.Task[Transcript], *, must: bool) -> None:
        try:
            transcript = await snapshot
            # In a thread: a pipe may block, and an event loop that waits holds up transactions.
            size = await asyncio.to_thread(self._target.put, transcript)
        except SessionNotFoundError:
            if must:
                raise
        except (InvalidArgumentError, CorruptBodyError, CorruptStoreError) as error:
            self.report.failed += 1
            fault = Fault(f"session {wanted.session_id!r}", error.message)
            self._on_fault(fault)
            if self._on_error == "stop":
                raise StoppedError(f"{fault.place}: {fault.reason}") from None
        else:
            self.report.sessions += 1
            self.report.messages += len(transcript.messages)
            self.report.bytes += size

    async def _snapshots(
        self, wanted: AsyncIterator[_Wanted]
    ) -> AsyncGenerator[tuple[_Wanted, asyncio.Task[Transcript]], None]:
        """Read ahead, in order."""
        ahead: deque[tuple[_Wanted, asyncio.Task[Transcript]]] = deque()
        try:
            async for one in wanted:
                while ahead and not _has_room([other for other, _ in ahead], one):
                    yield ahead.popleft()
                ahead.append((one, asyncio.create_task(self._repository.snapshot(one.session_id))))
            while ahead:
                yield ahead.popleft()
        finally:
            for _, task in ahead:
                task.cancel()
            await asyncio.gather(*(task for _, task in ahead), return_exceptions=True)

    async def _named(self, session_ids: Iterable[str]) -> AsyncIterator[_Wanted]:
        for session_id in session_ids:
            yield _Wanted(session_id, await self._repository.length(session_id))

    async def _listed(self, user_id: str | None) -> AsyncIterator[_Wanted]:
        """List every session once. One that changes meanwhile moves to the front, so the front is looked at again."""
        began = datetime.now(UTC)
        since: datetime | None = None
        seen: set[str] = set()
        for _ in range(EXPORT_PASSES):
            found = 0
            async for one in self._pass(user_id, since):
                if one.session_id not in seen:
                    found += 1
                    seen.add(one.session_id)
                    yield one
            if not found:
                return
            since = began - timedelta(seconds=CLOCK_SKEW_SECONDS)

    async def _pass(self, user_id: str | None, since: datetime | None) -> AsyncIterator[_Wanted]:
        cursor: str | None = None
        while True:
            page = await self._repository.list_sessions(user_id=user_id, limit=LISTING_PAGE, cursor=cursor)
            for row in page.rows:
                if since is not None and row.updated_at < since:
                    return
                yield _Wanted(row.id, row.message_count)
            cursor = page.cursor
            if cursor is None:
                return


def _has_room(ahead: list[_Wanted], one: _Wanted) -> bool:
    return len(ahead) < SNAPSHOTS and sum(other.messages for other in ahead) + one.messages <= SNAPSHOT_MESSAGES
