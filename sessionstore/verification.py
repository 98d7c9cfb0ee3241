"""Is everything that is stored as it must be? For operators, after an accident, a restore or a change by hand.

Everything is read once, in pages, and nothing is changed or locked. What a finding says never quotes a conversation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, TypeVar

from sessionstore import codec
from sessionstore.batch import projected
from sessionstore.dialects.base import Row, Rows
from sessionstore.repository import SessionRepository
from sessionstore.statements import mapping
from sessionstore.stored import Stored
from sessionstore.units import verification as units
from sessionstore.units.unit import Unit, bucket_of
from sessionstore.units.verification import Header, History, Place, Rest

__all__ = ["Checked", "Fault", "Finding", "verify"]

# ruff: noqa: SLF001  # a verb of the repository that applications do not need

T = TypeVar("T")


class Fault(StrEnum):
    """What can be wrong."""

    MISSING = "missing"
    """A position that is kept has no message."""
    STRAY = "stray"
    """A message is outside the positions that are kept."""
    DOUBLE = "double"
    """Two messages have one position, or one message id."""
    ORPHAN = "orphan"
    """Messages, metadata or events of a session that there is not."""
    COUNTER = "counter"
    """A number of a session, or of one of its events, that cannot be."""
    TIME = "time"
    """A moment that cannot be, or the bucket of another one."""
    PARENT = "parent"
    """A session forked from nothing, from itself, or at no possible position."""
    JSON = "json"
    """A body that is no JSON object, a value that is no JSON, a markdown document that is no text."""
    PLAIN = "plain"
    """The flag that tells which decoder reads a value is wrong."""
    COPY = "copy"
    """A column that copies a part of the value beside it differs from it."""


_MEANING: Final = {
    Fault.MISSING: "there is no message",
    Fault.STRAY: "a message outside the positions that are kept",
    Fault.DOUBLE: "it is stored more than once",
    Fault.ORPHAN: "there is no such session",
    Fault.COUNTER: "a number that cannot be",
    Fault.TIME: "a moment that cannot be",
    Fault.PARENT: "a parent that cannot be",
    Fault.JSON: "what is stored is not the JSON it must be",
    Fault.PLAIN: "the flag does not say how to read what is stored",
    Fault.COPY: "a column that is not what it copies",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, and where; never a body, a metadata value or a document.

    Attributes:
        session_id: None for a document.
        position: of the message, or the first of several.
        count: how many positions in a row.
        key: of the metadata; a message id that is stored more than once; the number of an event; of a document its
            category, name and format.
        column: of the row, where one is to blame.
    """

    fault: Fault
    tenant: str
    session_id: str | None = None
    position: int | None = None
    count: int = 1
    key: str | None = None
    column: str | None = None

    def __str__(self) -> str:
        """One line for people."""
        where = [f"tenant {self.tenant!r}"] if self.tenant else []
        if self.session_id is not None:
            where.append(f"session {self.session_id!r}")
        if self.position is not None:
            last = "" if self.count == 1 else f" to {self.position + self.count - 1}"
            where.append(f"position{'s' if last else ''} {self.position}{last}")
        if self.key is not None:
            where.append(f"document {self.key!r}" if self.session_id is None else f"key {self.key!r}")
        if self.column is not None:
            where.append(f"column {self.column}")
        return f"{', '.join(where)}: {_MEANING[self.fault]} ({self.fault})"


@dataclass(slots=True)
class Checked:
    """How much has been looked at."""

    sessions: int = 0
    messages: int = 0
    metadata: int = 0
    events: int = 0
    documents: int = 0

    @property
    def total(self) -> int:
        """All rows."""
        return self.sessions + self.messages + self.metadata + self.events + self.documents


async def verify(
    sessions: SessionRepository,
    *,
    all_tenants: bool = False,
    on_progress: Callable[[Checked], object] | None = None,
) -> AsyncIterator[Finding]:
    """Look at every row of the repository's tenant, or of every tenant, and tell what is wrong.

    Others may go on reading and writing: each page is read as of one moment, within the deadline of a call, and held
    no longer. What changes between two pages is not taken for damage. Memory holds one page. Reads every body.

    Args:
        on_progress: told after each page how much has been looked at.

    Raises:
        SessionStoreError: a page could not be read.
    """
    sessions._refuse_within("verify")
    walk = _Walk(sessions, on_progress or (lambda _: None))
    tenant: str | None = "" if all_tenants else sessions.tenant
    while tenant is not None:
        async for finding in walk.over(tenant):
            yield finding
        tenant = await sessions._run(units.next_tenant(tenant)) if all_tenants else None


class _Walk:
    """Reads page after page of a tenant, and has each checked in a thread: a large body takes a while to decode."""

    def __init__(self, sessions: SessionRepository, on_progress: Callable[[Checked], object]) -> None:
        self._run = sessions._run
        self._on_progress = on_progress
        self._checked = Checked()

    async def over(self, tenant: str) -> AsyncIterator[Finding]:
        """Check all that a tenant stores."""
        place: Place | None = Place()
        while place is not None:
            page = await self._run(units.history(tenant, place))
            for finding in await self._in_thread(_history, page):
                yield replace(finding, tenant=tenant)
            begun = 0 if place.whole else 1
            self._count(sessions=max(len(page.headers) - begun, 0), messages=len(page.rows))
            place = page.end
        for read, check, width, counted in _BY_KEY:
            after: tuple[str, ...] | None = ("",) * width
            while after is not None:
                rest = await self._run(read(tenant, after))
                for finding in await self._in_thread(check, rest.rows):
                    yield replace(finding, tenant=tenant)
                self._count(**({counted: len(rest.rows)} if counted else {}))
                after = rest.end

    async def _in_thread(self, check: Callable[[T], Iterator[Finding]], page: T) -> list[Finding]:
        return await asyncio.to_thread(lambda: list(check(page)))

    def _count(self, **more: int) -> None:
        for name, count in more.items():
            setattr(self._checked, name, getattr(self._checked, name) + count)
        self._on_progress(replace(self._checked))


def _found(fault: Fault, **where: Any) -> Finding:
    return Finding(fault=fault, tenant="", **where)


# --- sessions and their messages ----------------------------------------------------------------


def _history(page: History) -> Iterator[Finding]:
    """What is wrong with some sessions, and with the messages between two places."""
    by_session = {session_id: list(rows) for session_id, rows in groupby(page.rows, key=itemgetter(0))}
    for header in page.headers:
        rows = by_session.pop(header.id, [])
        begun = not page.start.whole and header.id == page.start.session_id
        if not begun:
            yield from _header(header)
        if all(_is_count(number) for number in (header.first_position, header.next_position)):
            reach = _Reach(
                after=page.start.position if begun else -1,
                whole=page.end is None or page.end.whole or page.end.session_id != header.id,
            )
            yield from _positions(header, [row[1] for row in rows], reach)
        for row in rows:
            yield from _message(row)
    for session_id, rows in by_session.items():
        if page.start.whole or session_id != page.start.session_id:
            yield _found(Fault.ORPHAN, session_id=session_id, position=rows[0][1])


def _header(header: Header) -> Iterator[Finding]:
    """What is wrong with the columns of a session."""
    for name in ("first_position", "generation", "version", "next_event", "max_turns"):
        if not _is_count(getattr(header, name)):
            yield _found(Fault.COUNTER, session_id=header.id, column=name)
    head = header.next_position
    if not _is_count(head) or (_is_count(header.first_position) and head < header.first_position):
        yield _found(Fault.COUNTER, session_id=header.id, column="next_position")
    for name in ("created_at", "updated_at", "last_accessed_at"):
        if not _is_moment(getattr(header, name)):
            yield _found(Fault.TIME, session_id=header.id, column=name)
    if _is_moment(header.updated_at) and header.activity_bucket != bucket_of(mapping.micros(header.updated_at)):
        yield _found(Fault.TIME, session_id=header.id, column="activity_bucket")
    if header.parent_id == header.id:
        yield _found(Fault.PARENT, session_id=header.id, column="parent_id")
    fork = header.fork_position
    if fork is not None and (header.parent_id is None or not _is_count(fork)):
        yield _found(Fault.PARENT, session_id=header.id, column="fork_position")


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_moment(value: object) -> bool:
    return type(value) is int or isinstance(value, datetime)


@dataclass(frozen=True, slots=True)
class _Reach:
    """Which messages of a session a page holds: those after a position, to the last (`whole`) or not."""

    after: int
    whole: bool


@dataclass(slots=True)
class _Runs:
    """Positions of one fault, told as runs."""

    fault: Fault
    session_id: str
    runs: list[list[Any]] = field(default_factory=list)

    def add(self, position: Any, count: int = 1) -> None:
        last = self.runs[-1] if self.runs else None
        if last is not None and last[0] + last[1] == position:
            last[1] += count
        else:
            self.runs.append([position, count])

    def findings(self) -> Iterator[Finding]:
        for position, count in self.runs:
            yield _found(self.fault, session_id=self.session_id, position=position, count=count)


def _positions(header: Header, positions: list[Any], reach: _Reach) -> Iterator[Finding]:
    """Compare the positions of messages with those that the header keeps: each of [first, next), and once."""
    missing, stray, double = (_Runs(fault, header.id) for fault in (Fault.MISSING, Fault.STRAY, Fault.DOUBLE))
    due = max(header.first_position, reach.after + 1)
    before = None
    for position in positions:
        if position == before:
            double.add(position)
        elif type(position) is not int or not header.first_position <= position < header.next_position:
            stray.add(position)
        else:
            if position > due:
                missing.add(due, position - due)
            due = position + 1
        before = position
    if reach.whole and due < header.next_position:
        missing.add(due, header.next_position - due)
    for runs in (missing, stray, double):
        yield from runs.findings()


def _message(row: Row) -> Iterator[Finding]:
    """What is wrong with a message of an existing session."""
    session_id, position, role, raw, plain, created_at, *copies = row
    where = {"session_id": session_id, "position": position}
    if not _is_moment(created_at):
        yield _found(Fault.TIME, **where, column="created_at")
    value = Stored(raw, plain)
    if not value.readable or not isinstance(value.value, dict):
        yield _found(Fault.JSON, **where)
        return
    if not value.flag_is_right:
        yield _found(Fault.PLAIN, **where)
    body = value.value
    own = body.get("role")
    if not role or (own is not None and own != role):
        yield _found(Fault.COPY, **where, column="role")
    for (name, part), copy in zip(projected(body).items(), copies, strict=True):
        if copy != part:
            yield _found(Fault.COPY, **where, column=name)


def _message_ids(rows: Rows) -> Iterator[Finding]:
    for session_id, message_id, times in rows:
        if times > 1:
            yield _found(Fault.DOUBLE, session_id=session_id, key=message_id, column="message_id")


# --- metadata and documents ---------------------------------------------------------------------


def _metadata(rows: Rows) -> Iterator[Finding]:
    for session_id, key, raw, plain, value_key, session in rows:
        where = {"session_id": session_id, "key": key}
        if session is None:
            yield _found(Fault.ORPHAN, **where)
            continue
        value = Stored(raw, plain)
        if not value.readable:
            yield _found(Fault.JSON, **where)
            continue
        if not value.flag_is_right:
            yield _found(Fault.PLAIN, **where)
        if value_key != codec.scalar_key(codec.Encoded(raw, bool(plain)), value.value):
            yield _found(Fault.COPY, **where, column="value_key")


def _events(rows: Rows) -> Iterator[Finding]:
    for session_id, number, raw, plain, created_at, next_event in rows:
        where = {"session_id": session_id, "key": f"event {number}"}
        if next_event is None:
            yield _found(Fault.ORPHAN, **where)
            continue
        if number >= next_event:
            yield _found(Fault.COUNTER, **where, column="number")
        if not _is_moment(created_at):
            yield _found(Fault.TIME, **where, column="created_at")
        value = None if raw is None else Stored(raw, plain)
        if value is not None and not value.readable:
            yield _found(Fault.JSON, **where)
        elif value is not None and not value.flag_is_right:
            yield _found(Fault.PLAIN, **where)


def _documents(rows: Rows) -> Iterator[Finding]:
    for category, name, kind, raw, plain, created_at, updated_at in rows:
        where = {"key": f"{category}/{name}.{kind}"}
        for column, moment in (("created_at", created_at), ("updated_at", updated_at)):
            if not _is_moment(moment):
                yield _found(Fault.TIME, **where, column=column)
        value = Stored(raw, plain)
        if not value.readable or (kind == "markdown" and not isinstance(value.value, str)):
            yield _found(Fault.JSON, **where)
        elif not value.flag_is_right:
            yield _found(Fault.PLAIN, **where)


_BY_KEY: Final[
    tuple[
        tuple[Callable[[str, tuple[str, ...]], Unit[Rest]], Callable[[Rows], Iterator[Finding]], int, str | None], ...
    ]
] = (
    (units.message_ids, _message_ids, 2, None),
    (units.metadata, _metadata, 2, "metadata"),
    (units.events, _events, 2, "events"),
    (units.documents, _documents, 3, "documents"),
)
"""What is read by key alone: the unit, the check, how many names a key has, what is counted."""
