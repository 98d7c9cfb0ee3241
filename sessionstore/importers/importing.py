"""Storing what was read: several sessions at once, each whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from sessionstore.errors import InvalidArgumentError, InvalidMessageError, SessionExistsError, SessionStoreError
from sessionstore.importers.bounds import IGNORED_KEYS
from sessionstore.importers.flight import Flight
from sessionstore.importers.sessions import Read, Reading
from sessionstore.importers.sources import Piece, Source
from sessionstore.operations import save_new
from sessionstore.repository import SessionRepository
from sessionstore.values import Session, Transcript

OnConflict: TypeAlias = Literal["skip", "replace", "error"]
OnError: TypeAlias = Literal["stop", "continue"]


@dataclass(frozen=True, slots=True)
class Fault:
    """A session that could not be imported or exported.

    Attributes:
        place: where it stands, or its id.
        reason: never with anything of its messages.
        no_role: its messages do not say who speaks, and nothing was said about that.
    """

    place: str
    reason: str
    no_role: bool = False


@dataclass(slots=True)
class ImportReport:
    """What an import did so far.

    Attributes:
        created, replaced: sessions that were stored.
        skipped: sessions that were there already.
        failed: sessions that could not be stored.
        messages, bytes: of the stored sessions; bytes as they were read.
        ignored: unknown keys, and where each was seen first.
        seconds: how long it took.
        done, total: how far the sources have been read; no total where it is not known.
    """

    created: int = 0
    replaced: int = 0
    skipped: int = 0
    failed: int = 0
    messages: int = 0
    bytes: int = 0
    ignored: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    done: int = 0
    total: int | None = 0

    @property
    def sessions(self) -> int:
        """Sessions that were stored."""
        return self.created + self.replaced


class StoppedError(SessionStoreError):
    """It stopped at a session that could not be stored or written."""


class Import:
    """One import. `report` is right at any time, also after an error; a session is stored whole or not at all.

    Running the same import again finishes what was interrupted: what is stored is skipped.
    """

    def __init__(
        self,
        repository: SessionRepository,
        *,
        reading: Reading | None = None,
        on_conflict: OnConflict = "skip",
        on_error: OnError = "stop",
        on_fault: Callable[[Fault], None] = lambda _: None,
        on_progress: Callable[[ImportReport], None] = lambda _: None,
    ) -> None:
        """Say what to do.

        Args:
            repository: where the sessions go.
            reading: how to read what other programs wrote.
            on_conflict: what becomes of a session whose id is stored already.
            on_error: whether the others go on after one that cannot be stored.
            on_fault: told of each of those.
            on_progress: told after each session.
        """
        self.report = ImportReport()
        self._repository = repository
        self._reading = reading or Reading()
        self._on_conflict = on_conflict
        self._on_error = on_error
        self._on_fault = on_fault
        self._on_progress = on_progress
        self._flight: Flight[Piece] = Flight()
        self._storing: dict[str, asyncio.Task[None]] = {}
        self._failure: BaseException | None = None

    async def run(self, sources: Sequence[Source]) -> None:
        """Import all sessions of the sources.

        Raises:
            StoppedError: at the first that could not be stored, unless the others go on.
            SessionStoreError: the database failed.
            OSError: a source cannot be read.
        """
        began = time.monotonic()
        totals = [source.total for source in sources]
        self.report.total = None if None in totals else sum(total or 0 for total in totals)
        try:
            for source, total in zip(sources, totals, strict=True):
                await self._read_all(source, self.report.done, total)
            while self._storing:
                await asyncio.wait(self._storing.values())
            if self._failure is not None:
                raise self._failure
        finally:
            unfinished = list(self._storing.values())
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
            self.report.seconds = time.monotonic() - began

    async def _read_all(self, source: Source, before: int, total: int | None) -> None:
        """Read a source to its end, or to the first failure."""
        if self._has_failed():
            return
        self._flight = Flight()
        async with contextlib.aclosing(self._flight.read(source.pieces())) as pieces:
            async for piece in pieces:
                self.report.done = before + piece.done
                await self._take(source, piece)
                if self._has_failed():
                    return
        self.report.done = before + total if total else self.report.done

    def _has_failed(self) -> bool:
        return self._failure is not None

    async def _take(self, source: Source, piece: Piece) -> None:
        """Start to store a piece; where the same session is being stored, that comes first."""
        try:
            read = source.read(piece, self._reading)
        except InvalidArgumentError as error:
            self._flight.leave(piece)
            self._refuse(Fault(piece.place, error.message))
            return
        self._note_ignored(piece, read)
        session_id = read.transcript.session.id
        while (earlier := self._storing.get(session_id)) is not None:
            await asyncio.wait([earlier])
        flight = self._flight
        task = asyncio.create_task(self._store(piece, read))
        self._storing[session_id] = task

        def landed(done: asyncio.Task[None]) -> None:
            del self._storing[session_id]
            flight.leave(piece)
            if not done.cancelled() and (error := done.exception()) is not None:
                self._failure = self._failure or error

        task.add_done_callback(landed)

    async def _store(self, piece: Piece, read: Read) -> None:
        transcript = read.transcript
        try:
            stored = await self._save(transcript)
        except SessionExistsError as error:
            if self._on_conflict == "skip":
                self.report.skipped += 1
                self._on_progress(self.report)
            else:
                self._refuse(Fault(piece.place, error.message))
        except InvalidMessageError as error:
            no_role = error.path == "$.role" and error.reason == "is required"
            self._refuse(Fault(piece.place, error.message, no_role))
        except InvalidArgumentError as error:
            self._refuse(Fault(piece.place, error.message))
        else:
            created = stored.version == 0
            self.report.created += created
            self.report.replaced += not created
            self.report.messages += len(transcript.messages)
            self.report.bytes += piece.size
            self._on_progress(self.report)

    async def _save(self, transcript: Transcript) -> Session:
        if self._on_conflict == "replace":
            return await self._repository.save(transcript)
        # Asking first spares a store that has them all the locks of as many attempts.
        if await self._repository.exists(transcript.session.id):
            raise SessionExistsError(transcript.session.id)
        return await save_new(self._repository, transcript)

    def _refuse(self, fault: Fault) -> None:
        self.report.failed += 1
        self._on_fault(fault)
        if self._on_error == "stop":
            self._failure = self._failure or StoppedError(f"{fault.place}: {fault.reason}")
        self._on_progress(self.report)

    def _note_ignored(self, piece: Piece, read: Read) -> None:
        for key in sorted(read.ignored - self.report.ignored.keys()):
            if len(self.report.ignored) < IGNORED_KEYS:
                self.report.ignored[key] = piece.place
