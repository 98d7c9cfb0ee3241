"""Units on whole sessions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sessionstore.batch import Batch, MessageRow
from sessionstore.dialects.base import Dialect, Row, Rows
from sessionstore.errors import SessionNotFoundError
from sessionstore.kinds import STORE_KINDS
from sessionstore.limits import INT64_MAX
from sessionstore.statements import events, mapping, messages, metadata, sessions
from sessionstore.statements.sessions import FIRST, GENERATION, NEXT, NEXT_EVENT, VERSION
from sessionstore.units.events import NewEvent, changing, metadata_changed, own, updated
from sessionstore.units.messages import insert
from sessionstore.units.removal import evict_after
from sessionstore.units.sessions import CREATED, MetadataValue, Opened, check_version
from sessionstore.units.unit import Kind, RunInstead, Stamp, Steps, Unit, bucket_of
from sessionstore.values import SESSION_FIELDS, Session, SessionEvent

_ALL = messages.read(newest=False, roles=False, turn=False)


class Snapshot(NamedTuple):
    """A session and the rows of all its messages."""

    session: Session
    rows: Rows
    events: tuple[SessionEvent, ...] = ()


def snapshot(tenant: str, session_id: str) -> Unit[Snapshot]:
    """Read a session and its messages as of one moment."""

    def steps(db: Dialect) -> Steps[Snapshot]:
        while True:
            rows = yield sessions.GET(tenant=tenant, session=session_id)
            if not rows:
                raise SessionNotFoundError(session_id)
            history = yield from _history(tenant, session_id)
            own = yield from _own_events(tenant, session_id, rows[0])
            # Where the caller's transaction shows a newer moment to each statement, look whether one has passed.
            if db.snapshots or (yield from _unchanged(tenant, rows[0])):
                return Snapshot(mapping.joined_session(rows), history, own)

    return Unit("snapshot", Kind.SNAPSHOT, steps)


_WITHOUT_PLACE: Final = ["created", "updated", "metadata_changed", "trimmed"]
"""Kinds of events that neither are the caller's own nor take the place of one away."""


def _own_events(tenant: str, session_id: str, row: Row) -> Steps[tuple[SessionEvent, ...]]:
    if row[NEXT_EVENT] <= 1:  # only that it was created
        return ()
    rows = yield events.OTHER_KINDS(tenant=tenant, session=session_id, kinds=_WITHOUT_PLACE)
    return _placed(mapping.events(session_id, rows), row[FIRST])


def _placed(events: Iterable[SessionEvent], first_position: int) -> tuple[SessionEvent, ...]:
    """The caller's own events that still have a place among the messages, from all that could have taken it away."""
    kept: list[SessionEvent] = []
    for event in events:
        if event.kind not in STORE_KINDS:
            kept.append(event)
        elif event.kind == "truncated":
            kept = [own for own in kept if own.next_position <= event.next_position]
        elif event.kind != "compacted":
            kept.clear()
    return tuple(own for own in kept if own.next_position >= first_position)


def _unchanged(tenant: str, row: Row) -> Steps[bool]:
    now = yield sessions.HEAD(tenant=tenant, session=row[0])
    return bool(now) and now[0][2] == row[VERSION]


def _history(tenant: str, session_id: str) -> Steps[Rows]:
    return (yield _ALL(tenant=tenant, session=session_id, after=-1, before=INT64_MAX, limit=INT64_MAX))


class _Change(NamedTuple):
    """What of a stored history differs from the one to be saved: ranges of positions, each [low, high)."""

    delete: list[tuple[int, int]]
    insert: list[tuple[int, int]]
    rewritten: bool
    """Whether a reader may have seen what is no longer so: a trimmed front or a new tail does not count."""


class _Values(NamedTuple):
    """What of the stored metadata differs: the keys to set, and those to remove."""

    changed: list[MetadataValue]
    gone: list[str]


_COLUMNS: Final = (*sessions.CHANGEABLE, "parent_id", "fork_position")
"""The columns that a save may change."""


@dataclass(frozen=True, slots=True)
class Save:
    """What one save is to do.

    Attributes:
        columns: of the session, as the INSERT names them.
        first: position of the first message of `batch`.
        created, updated: microseconds since 1970.
    """

    tenant: str
    session_id: str
    columns: dict[str, Any]
    values: tuple[MetadataValue, ...]
    batch: Batch
    first: int
    created: int
    updated: int
    expected: int | None
    cap: int | None

    @property
    def key(self) -> dict[str, Any]:
        """Parameters that name the session."""
        return {"tenant": self.tenant, "session": self.session_id}

    @property
    def head(self) -> int:
        """The position after the last message."""
        return self.first + len(self.batch.rows)

    def unit(self) -> Unit[Opened]:
        """Make the stored session what the transcript says, writing only what differs."""

        def then(opened: Opened) -> Unit[None] | None:
            return evict_after(self.tenant, self.session_id, self.cap, created=opened.created)

        rows = len(self.batch.rows)
        touches = self.tenant, self.session_id
        return Unit("save", Kind.TRANSACTION, self._steps, rows=rows, size=self.batch.size, touches=touches, then=then)

    def _steps(self, db: Dialect) -> Steps[Opened]:
        locked = yield sessions.LOCK(**self.key)
        if locked:
            yield from self._overwrite(locked[0])
        else:
            yield from self._create(db)
        rows = yield sessions.GET(**self.key)
        return Opened(mapping.joined_session(rows), created=not locked)

    def _params(self, generation: int) -> dict[str, Any]:
        return {
            **self.key,
            **self.columns,
            "first_position": self.first,
            "next_position": self.head,
            "generation": generation,
            "created": self.created,
            "updated": self.updated,
            "bucket": bucket_of(self.updated),
        }

    def _create(self, db: Dialect) -> Steps[None]:
        if self.expected is not None:
            raise SessionNotFoundError(self.session_id)
        now = Stamp.of_now().now
        params = {**self._params(now), "version": 0, "next_event": 1, "now": now}
        if not (yield from changing(db, sessions.CREATE, CREATED, **params)):
            raise RunInstead(self.unit())  # somebody else created it since
        yield from insert(self.key, self.batch.rows, first=self.first, now=now)
        if self.values:
            yield metadata.SET(self.values, **self.key)

    def _overwrite(self, row: Row) -> Steps[None]:
        check_version(row, self.expected)
        stored = yield from _history(self.tenant, self.session_id)
        change = self._compare(row, stored)
        values = yield from self._changed_values()
        now = Stamp.of_now().now
        generation = max(row[GENERATION] + 1, now) if change.rewritten else row[GENERATION]
        happened = self._events(row, change, values)
        yield sessions.OVERWRITE(**self._params(generation), now=now, events=len(happened))
        for back, event in zip(range(len(happened), 0, -1), happened, strict=True):
            yield events.RECORD(**self.key, **event.params, back=back, now=now)
        for low, high in change.delete:
            yield messages.DELETE_RANGE(**self.key, low=low, high=high)
        for low, high in change.insert:
            rows = self.batch.rows[low - self.first : high - self.first]
            yield from insert(self.key, rows, first=self.first, now=now)
        if values.changed:
            yield metadata.SET(values.changed, **self.key)
        if values.gone:
            yield metadata.REMOVE(**self.key, keys=values.gone)

    def _events(self, row: Row, change: _Change, values: _Values) -> list[NewEvent]:
        """What the save is, beside the messages that it adds."""
        happened = []
        if change.rewritten:
            happened.append(own("replaced"))
        elif self.first > row[FIRST]:
            happened.append(own("trimmed"))
        columns = [name for name in _COLUMNS if row[SESSION_FIELDS.index(name)] != self.columns[name]]
        if columns:
            happened.append(updated(columns))
        if values.changed or values.gone:
            happened.append(metadata_changed([value.key for value in values.changed], values.gone))
        return happened

    def _compare(self, row: Row, stored: Rows) -> _Change:
        """Find the positions at which both have the same message, from where both begin to the first difference."""
        old_first, old_head = row[FIRST], row[NEXT]
        start = min(max(self.first, old_first), old_head)
        if start < self.first:
            start = same = old_head
        else:
            same = start
            while same < min(self.head, old_head) and _equal(
                stored[same - old_first], self.batch.rows[same - self.first]
            ):
                same += 1
        delete = [(old_first, min(start, self.first)), (same, old_head)]
        insert_ = [(self.first, min(start, self.head)), (max(same, self.first), self.head)]
        return _Change(
            [(low, high) for low, high in delete if low < high],
            [(low, high) for low, high in insert_ if low < high],
            rewritten=same < old_head or self.first < min(start, self.head),
        )

    def _changed_values(self) -> Steps[_Values]:
        """Find the metadata that differs."""
        stored = yield sessions.METADATA_OF(**self.key)
        before = {key: bytes(value) for key, value, _ in stored}
        changed = [entry for entry in self.values if before.get(entry.key) != entry.value.encode()]
        return _Values(changed, sorted(before.keys() - {entry.key for entry in self.values}))


def _equal(stored: Row, row: MessageRow) -> bool:
    _, role, body, _, message_id, created_at = stored
    same_time = row.created_at is None or mapping.micros(created_at) == row.created_at
    return same_time and role == row.role and message_id == row.message_id and bytes(body) == row.body
