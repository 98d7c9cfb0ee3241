"""Units on the messages of one session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, NamedTuple

from sessionstore.batch import Batch, MessageRow
from sessionstore.dialects.base import Dialect, Row, Rows
from sessionstore.errors import MessageIdConflictError, SessionNotFoundError, VersionConflictError
from sessionstore.limits import CHUNK_BYTES, CHUNK_ROWS, INT64_MAX, TURN_SCAN
from sessionstore.statements import messages, sessions
from sessionstore.statements.sessions import FIRST, NEXT
from sessionstore.units.events import changing, own
from sessionstore.units.removal import evict_after
from sessionstore.units.sessions import NewSession, check_version, insert_session, refused, with_metadata
from sessionstore.units.unit import Joint, Kind, MessageIdTakenError, RunInstead, Stamp, Steps, Unit
from sessionstore.values import Message, Session


class Appended(NamedTuple):
    """The positions of an append, and whether it made the session."""

    positions: list[int]
    created: bool = False


class Append(NamedTuple):
    """What one append is to do.

    Attributes:
        expected: the length that the session must have.
        create: whether a missing session is made; over `cap`, others are evicted.
    """

    tenant: str
    session_id: str
    batch: Batch
    expected: int | None = None
    create: bool = False
    cap: int | None = None

    @property
    def key(self) -> dict[str, Any]:
        """Parameters that name the session."""
        return {"tenant": self.tenant, "session": self.session_id}

    def unit(self) -> Unit[Appended]:
        """Append in the fewest statements, taking the more thorough ways only where they turn out to be needed."""
        if not self.batch.rows:
            return self._as(Kind.TRANSACTION, self._nothing)
        if self.batch.ids:
            return self._as(Kind.TRANSACTION, self._directly)
        alone = self.create or self.expected is not None
        joint = None if alone else Joint((self.tenant, self.session_id), self, _joined)
        return self._as(Kind.WRITE, self._directly, joint)

    def _as(self, kind: Kind, steps: Any, joint: Joint[Appended] | None = None) -> Unit[Appended]:
        rows, size, ids = len(self.batch.rows), self.batch.size, self.batch.ids
        repeatable = 0 < ids == rows
        touches = self.tenant, self.session_id
        return Unit("append", kind, steps, repeatable, rows, size, touches=touches, then=self._evict, joint=joint)

    def _evict(self, appended: Appended) -> Unit[None] | None:
        return evict_after(self.tenant, self.session_id, self.cap, created=appended.created)

    def _directly(self, db: Dialect) -> Steps[Appended]:
        batch = self.batch
        if batch.ids and not db.optimistic_ids:
            return (yield from self._knowing_ids())
        thorough = self._as(Kind.TRANSACTION, lambda _: self._knowing_ids())
        params = {**self.key, "count": len(batch.rows), "expected": self.expected, **Stamp.of_now().changed}
        if db.modifying_ctes and not batch.ids:
            rows = yield messages.append(batch.rows, **params)
        else:
            rows = yield messages.ADVANCE(**params)
            if rows:
                try:
                    yield messages.insert_rows(batch.rows, **self.key, first=rows[0][0], now=params["now"])
                except MessageIdTakenError:
                    raise RunInstead(thorough) from None
        if not rows:
            if batch.ids and self.expected is not None:
                raise RunInstead(thorough)  # a retry's own first try has changed the length, which is no conflict
            yield from self._missing()
        return Appended(list(range(rows[0][0], rows[0][0] + len(batch.rows))))

    def _missing(self) -> Steps[None]:
        """Tell why no row was there to advance, or make the session."""
        rows = yield sessions.HEAD(**self.key)
        if rows:
            self._conflict(rows[0][1] - rows[0][0])
        self._check_creation()
        raise RunInstead(self._as(Kind.TRANSACTION, self._creating))

    def _check_creation(self) -> None:
        if not self.create:
            raise SessionNotFoundError(self.session_id)
        if self.expected not in {None, 0}:
            self._conflict(0)

    def _conflict(self, length: int) -> None:
        if self.expected is not None:
            raise VersionConflictError(self.session_id, what="length", expected=self.expected, actual=length)

    def _creating(self, db: Dialect) -> Steps[Appended]:
        """Make the session, unless somebody else just did, and append."""
        opened = yield from insert_session(db, self.tenant, self.session_id, NewSession())
        positions = (yield from self._knowing_ids()).positions
        return Appended(positions, created=opened is not None)

    def _knowing_ids(self) -> Steps[Appended]:
        """Lock the session, look which ids are stored, append the others; right whatever was there before."""
        batch = self.batch
        locked = yield sessions.LOCK(**self.key)
        if not locked:
            yield from self._missing()
        stored = yield from self._stored()
        stamp = Stamp.of_now()
        new = [row for row in batch.rows if row.message_id not in stored]
        if not new:
            yield sessions.ACCESS(**self.key, now=stamp.now)
            return Appended([stored[row.message_id] for row in batch.rows])
        length = locked[0][NEXT] - locked[0][FIRST]
        if self.expected not in {None, length}:
            self._conflict(length)
        rows = yield messages.ADVANCE(**self.key, count=len(new), expected=None, **stamp.changed)
        first = rows[0][0]
        renumbered = [row._replace(step=step) for step, row in enumerate(new)]
        yield messages.insert_rows(renumbered, **self.key, first=first, now=stamp.now)
        following = count(first)
        return Appended([stored[row.message_id] if row.message_id in stored else next(following) for row in batch.rows])

    def _stored(self) -> Steps[dict[str | None, int]]:
        """The positions of the batch's ids that are stored already, each with an equal body."""
        bodies = {row.message_id: row.body for row in self.batch.rows if row.message_id is not None}
        if not bodies:
            return {}
        positions: dict[str | None, int] = {}
        for position, message_id, body in (yield messages.STORED_IDS(**self.key, ids=list(bodies))):
            if bytes(body) != bodies[message_id]:
                raise MessageIdConflictError(self.session_id, message_id)
            positions[message_id] = position
        return positions

    def _nothing(self, db: Dialect) -> Steps[Appended]:
        """Append no message: only the recency moves, and only where there is a session."""
        rows = yield sessions.ACCESS(**self.key, now=Stamp.of_now().now)
        if rows:
            if self.expected not in {None, length := rows[0][NEXT] - rows[0][FIRST]}:
                self._conflict(length)
            return Appended([])
        self._check_creation()
        opened = yield from insert_session(db, self.tenant, self.session_id, NewSession())
        return Appended([], created=opened is not None)


def _joined(parts: list[Append]) -> Unit[list[Appended]]:
    """Append several batches to one session as one, in their order."""
    rows = [row for part in parts for row in part.batch.rows]
    renumbered = [row._replace(step=step) for step, row in enumerate(rows)]
    size = sum(part.batch.size for part in parts)
    whole = parts[0]._replace(batch=Batch(renumbered, size, ids=0))

    def steps(db: Dialect) -> Steps[list[Appended]]:
        positions = iter((yield from whole._directly(db)).positions)  # noqa: SLF001  # of this module
        return [Appended(list(islice(positions, len(part.batch.rows)))) for part in parts]

    return Unit("append", Kind.WRITE, steps, rows=len(rows), size=size, touches=(whole.tenant, whole.session_id))


@dataclass(frozen=True, slots=True)
class Window:
    """Which messages to read: between two exclusive positions, of some roles, the first or the last so many."""

    after: int = -1
    before: int = INT64_MAX
    roles: tuple[str, ...] | None = None
    limit: int = INT64_MAX
    newest: bool = False
    turn: bool = False


def read(tenant: str, session_id: str, window: Window) -> Unit[Rows]:
    """Read a window of messages, in order of position."""

    def steps(_db: Dialect) -> Steps[Rows]:
        params: dict[str, Any] = {"after": window.after, "before": window.before, "limit": window.limit}
        if window.roles is not None:
            params["roles"] = list(window.roles)
        if window.turn:
            params["scan"] = TURN_SCAN
        statement = messages.read(newest=window.newest, roles=window.roles is not None, turn=window.turn)
        rows = yield statement(tenant=tenant, session=session_id, **params)
        if not rows and not (yield sessions.EXISTS(tenant=tenant, session=session_id)):
            raise SessionNotFoundError(session_id)
        return rows[::-1] if window.newest and not window.turn else rows

    return Unit("messages", Kind.READ, steps)


class HistoryPage(NamedTuple):
    """Some messages, and the generation of the history that they are of."""

    rows: Rows
    generation: int


def page(tenant: str, session_id: str, *, after: int, limit: int) -> Unit[HistoryPage]:
    """Read the next messages after a position."""
    statement = messages.read(newest=False, roles=False, turn=False, stamped=True)

    def steps(_db: Dialect) -> Steps[HistoryPage]:
        params = {"after": after, "before": INT64_MAX, "limit": limit}
        rows = yield statement(tenant=tenant, session=session_id, **params)
        stamped = rows or (yield sessions.HEAD(tenant=tenant, session=session_id))
        if not stamped:
            raise SessionNotFoundError(session_id)
        return HistoryPage(rows, stamped[0][-1])

    return Unit("iter_messages", Kind.READ, steps)


def trim(tenant: str, session_id: str, keep: int, *, turn: bool) -> Unit[int]:
    """Drop the oldest messages; how many are kept."""
    key = {"tenant": tenant, "session": session_id}

    def steps(db: Dialect) -> Steps[int]:
        row = yield from accessed(tenant, session_id)
        first = (yield from turn_start(tenant, row, keep)) if turn else max(row[FIRST], row[NEXT] - keep)
        if first > row[FIRST]:
            yield from changing(db, sessions.TRIM, own("trimmed"), **key, first=first, **Stamp.of_now().changed)
            # The lock is held, so this statement sees every message that was committed before it.
            yield messages.DELETE_RANGE(**key, low=0, high=first)
        return int(row[NEXT] - first)

    return Unit("trim", Kind.TRANSACTION, steps, touches=(tenant, session_id))


def accessed(tenant: str, session_id: str) -> Steps[Row]:
    """Touch a session and lock its row."""
    rows = yield sessions.ACCESS(tenant=tenant, session=session_id, now=Stamp.of_now().now)
    if not rows:
        raise SessionNotFoundError(session_id)
    return rows[0]


def turn_start(tenant: str, row: Row, keep: int) -> Steps[int]:
    """Where the last `keep` messages begin, moved back to the start of their turn."""
    cut = max(row[FIRST], row[NEXT] - keep)
    if keep == 0 or cut == row[FIRST]:
        return int(cut)
    least = max(row[FIRST], cut - TURN_SCAN)
    rows = yield messages.TURN(tenant=tenant, session=row[0], cut=cut, least=least)
    return int(rows[0][0] if rows else cut)


def truncate(tenant: str, session_id: str, keep: int) -> Unit[int]:
    """Drop the newest messages; how many are kept."""
    key = {"tenant": tenant, "session": session_id}

    def steps(db: Dialect) -> Steps[int]:
        row = yield from accessed(tenant, session_id)
        following = min(row[FIRST] + keep, row[NEXT])
        if following < row[NEXT]:
            params = {**key, "next": following, **Stamp.of_now().rewritten}
            yield from changing(db, sessions.TRUNCATE, own("truncated"), **params)
            yield messages.DELETE_RANGE(**key, low=following, high=INT64_MAX)
        return int(following - row[FIRST])

    return Unit("truncate", Kind.TRANSACTION, steps, touches=(tenant, session_id))


def pop(tenant: str, session_id: str) -> Unit[Message | None]:
    """Take the newest message away."""
    key = {"tenant": tenant, "session": session_id}

    def steps(db: Dialect) -> Steps[Message | None]:
        row = yield from accessed(tenant, session_id)
        if row[FIRST] == row[NEXT]:
            return None
        params = {**key, "next": row[NEXT] - 1, **Stamp.of_now().rewritten}
        yield from changing(db, sessions.POP, own("truncated"), **params)
        taken = yield messages.TAKE(**key, low=params["next"])
        return Message(session_id, taken[0]) if taken else None

    return Unit("pop", Kind.TRANSACTION, steps, touches=(tenant, session_id))


def replace(tenant: str, session_id: str, batch: Batch, *, expected: int | None) -> Unit[Session]:
    """Put another history in the place of the one there is."""
    key = {"tenant": tenant, "session": session_id}

    def steps(db: Dialect) -> Steps[Session]:
        stamp = Stamp.of_now()
        params = {**key, "count": len(batch.rows), "expected": expected, **stamp.rewritten}
        rows = yield from changing(db, sessions.REPLACE, own("replaced"), **params)
        row = rows[0] if rows else (yield from refused(tenant, session_id, expected))
        yield messages.DELETE_RANGE(**key, low=0, high=INT64_MAX)
        yield from insert(key, batch.rows, first=0, now=stamp.now)
        return (yield from with_metadata(tenant, row))

    touches = tenant, session_id
    return Unit("replace_messages", Kind.TRANSACTION, steps, rows=len(batch.rows), size=batch.size, touches=touches)


def insert(key: dict[str, Any], rows: list[MessageRow], *, first: int, now: int) -> Steps[None]:
    """Insert any number of rows, a bounded chunk a statement."""
    for chunk in _chunks(rows):
        yield messages.insert_rows(chunk, **key, first=first, now=now)


def _chunks(rows: list[MessageRow]) -> Iterator[list[MessageRow]]:
    chunk: list[MessageRow] = []
    size = 0
    for row in rows:
        if chunk and (len(chunk) >= CHUNK_ROWS or size + len(row.body) > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
        size += len(row.body)
    if chunk:
        yield chunk


def compact(tenant: str, session_id: str, summary: Batch, *, keep: int, expected: int | None) -> Unit[Session]:
    """Put one summary message in the place of everything before the last `keep` messages and their turn."""
    key = {"tenant": tenant, "session": session_id}

    def steps(db: Dialect) -> Steps[Session]:
        row = yield from accessed(tenant, session_id)
        check_version(row, expected)
        cut = yield from turn_start(tenant, row, keep)
        if cut > row[FIRST] and row[NEXT] - row[FIRST] > keep:
            stamp = Stamp.of_now()
            params = {**key, "first": cut - 1, **stamp.rewritten}
            [row] = yield from changing(db, sessions.COMPACT, own("compacted"), **params)
            yield messages.DELETE_RANGE(**key, low=0, high=cut)
            message_id = summary.rows[0].message_id
            if message_id is not None and (yield messages.STORED_IDS(**key, ids=[message_id])):
                raise MessageIdConflictError(session_id, message_id)
            yield messages.insert_rows(summary.rows, **key, first=cut - 1, now=stamp.now)
        return (yield from with_metadata(tenant, row))

    return Unit("compact", Kind.TRANSACTION, steps, size=summary.size, touches=(tenant, session_id))
