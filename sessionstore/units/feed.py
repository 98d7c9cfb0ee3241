"""Units of those who watch: what happened in a session after a cursor, and which of many sessions have changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sessionstore.changes import DELETED, MESSAGES, REWRITTEN, Change, Cursor
from sessionstore.checks import stored_instant
from sessionstore.dialects.base import Dialect, Row, Rows
from sessionstore.errors import SessionNotFoundError
from sessionstore.kinds import REWRITING
from sessionstore.limits import INT64_MAX, SWEEP_ROWS, WATCH_LATE_MICROS, WATCH_ROWS
from sessionstore.statements import events, feed, mapping
from sessionstore.units.unit import Kind, RunInstead, Steps, Unit, bucket_of
from sessionstore.values import Message, SessionEvent

_ORIGINS: Final = frozenset({"created", "forked"})


class Feed(NamedTuple):
    """Changes after a cursor, in order.

    Attributes:
        cursor: after the last of them.
        more: there are some after it already.
    """

    changes: list[Change]
    cursor: Cursor
    more: bool

    def upto(self, head: int) -> Feed:
        """The same, with all before the head seen if there is no more: what is not there has been trimmed."""
        return (
            self if self.more else self._replace(cursor=self.cursor._replace(position=max(self.cursor.position, head)))
        )


def follow(tenant: str, session_id: str, cursor: Cursor | None, *, limit: int = WATCH_ROWS) -> Unit[Feed]:
    """Read what happened in a session after a cursor; without one, what it holds and how it came to be.

    Of a history that was rewritten since, the last rewriting alone is told: what was between is gone.

    Raises:
        SessionNotFoundError: there is no such session, and no cursor that says that there was one.
    """
    key = {"tenant": tenant, "session": session_id}
    position = 0 if cursor is None else max(cursor.position, 0)

    def messages_only(_db: Dialect) -> Steps[Feed]:
        rows = yield feed.FOLLOW(**key, position=position, limit=limit)
        if not rows or cursor is None or cursor.position < 0:
            raise RunInstead(whole)
        generation, _, following, next_event = rows[0][: feed.HEAD_WIDTH]
        if (generation, next_event) != (cursor.generation, cursor.event) or cursor.position > following:
            raise RunInstead(whole)
        told = _told(_Told(session_id, cursor), _messages(session_id, rows), [], more=len(rows) == limit)
        return told.upto(following)

    def everything(_db: Dialect) -> Steps[Feed]:
        rows = yield feed.FOLLOW(**key, position=position, limit=limit)
        if not rows:
            return (yield from _missing(key, cursor))
        generation, first, following, next_event = rows[0][: feed.HEAD_WIDTH]
        start = Cursor(generation, first, 0) if cursor is None or cursor.position < 0 else cursor
        told = _Told(session_id, start)
        here = start.generation == generation
        now = Cursor(generation, following, next_event)
        if here and not now.has_seen(
            start
        ):  # of a database that was restored since, or made up: whoever has it is lost
            told.leap(REWRITTEN, now, None)
            return told.so_far(more=False)
        since = {"after": start.event - 1, "generation": start.generation, "limit": limit}
        unseen = mapping.events(session_id, (yield (events.AFTER if here else events.UNSEEN)(**key, **since)))
        if here:
            full = len(unseen) == limit
            upto = unseen[-1].number + 1 if full else next_event
            return _merged(told, rows, unseen, upto=upto, limit=limit, full=full).upto(following)
        return (yield from _elsewhere(key, told, unseen, now, limit))

    whole = Unit("follow", Kind.SNAPSHOT, everything)
    return whole if cursor is None else Unit("follow", Kind.READ, messages_only)


class _Told:
    """Changes on the way, and how far they have come."""

    def __init__(self, session_id: str, cursor: Cursor) -> None:
        self.session_id = session_id
        self.cursor = cursor
        self.changes: list[Change] = []

    def messages(self, messages: Sequence[Message]) -> None:
        """Tell of appended messages."""
        if messages:
            self._tell(MESSAGES, self.cursor._replace(position=messages[-1].position + 1), tuple(messages), None)

    def event(self, event: SessionEvent) -> None:
        """Tell of an event, of this generation or before it."""
        position = self.cursor.position
        if event.generation == self.cursor.generation:
            position = max(position, event.first_position)  # what was before that was trimmed
        self._tell(event.kind, Cursor(self.cursor.generation, position, event.number + 1), (), event)

    def leap(self, kind: str, cursor: Cursor, event: SessionEvent | None) -> None:
        """Tell of what leads elsewhere."""
        self._tell(kind, cursor, (), event)

    def _tell(self, kind: str, cursor: Cursor, messages: tuple[Message, ...], event: SessionEvent | None) -> None:
        generation = self.cursor.generation if kind == DELETED else cursor.generation
        self.cursor = cursor
        self.changes.append(Change(self.session_id, kind, generation, messages, event, str(cursor)))

    def so_far(self, *, more: bool) -> Feed:
        """What has been told."""
        return Feed(self.changes, self.cursor, more)


def _messages(session_id: str, rows: Rows) -> list[Message]:
    """The messages of rows of FOLLOW."""
    if rows[0][feed.HEAD_WIDTH] is None:
        return []
    return mapping.messages(session_id, [row[feed.HEAD_WIDTH :] for row in rows])


def _told(told: _Told, messages: list[Message], happened: Iterable[SessionEvent], *, more: bool) -> Feed:
    """Tell of events and messages of one generation, each event at its place."""
    at = 0
    for event in happened:
        start = at
        while at < len(messages) and messages[at].position < _place(event, told.cursor.generation):
            at += 1
        told.messages(messages[start:at])
        if event.kind not in REWRITING:
            told.event(event)
    told.messages(messages[at:])
    return told.so_far(more=more)


def _place(event: SessionEvent, generation: int) -> int:
    """Before which position an event is told: how a session came to be before all that it came with.

    What happened in earlier generations has no place among these messages, and comes before them all.
    """
    if event.generation != generation:
        return 0
    return event.first_position if event.kind in _ORIGINS else event.next_position


def _merged(told: _Told, rows: Rows, happened: list[SessionEvent], *, upto: int, limit: int, full: bool) -> Feed:
    """Tell as much of one generation, and of events before it, as was read both of messages and of events.

    Args:
        upto: the number before which all its events were read.
        full: there may be more events.
    """
    messages = _messages(told.session_id, rows)
    places = [_place(event, told.cursor.generation) for event in happened]
    cut = len(messages) == limit
    end = messages[-1].position + 1 if cut else INT64_MAX
    if full:
        end = min(end, max(places, default=told.cursor.position))
    later = next((at for at, place in enumerate(places) if place > end), len(happened))
    if later < len(happened):
        upto = happened[later].number
    told_now = [message for message in messages if message.position < end]
    feed_ = _told(told, told_now, happened[:later], more=cut or full)
    return feed_._replace(cursor=feed_.cursor._replace(event=max(upto, feed_.cursor.event)))


def _missing(key: dict[str, Any], cursor: Cursor | None) -> Steps[Feed]:
    """Tell that a session is gone, if that is new."""
    if cursor is None:
        raise SessionNotFoundError(key["session"])
    told = _Told(key["session"], cursor)
    if cursor.position >= 0:
        buried = yield from _tombstone(key, cursor.generation)
        generation = max(cursor.generation, buried.generation) if buried is not None else cursor.generation
        told.leap(DELETED, Cursor(generation, -1, 0), buried)
    return told.so_far(more=False)


def _tombstone(key: dict[str, Any], generation: int) -> Steps[SessionEvent | None]:
    rows = yield events.TOMBSTONE(**key, generation=generation)
    return _buried(key["session"], rows[0]) if rows else None


def _buried(session_id: str, row: Row) -> SessionEvent:
    generation, number, kind, deleted_at = row
    return SessionEvent(session_id, number, kind, generation, 0, 0, stored_instant(deleted_at))


def _elsewhere(key: dict[str, Any], told: _Told, unseen: list[SessionEvent], now: Cursor, limit: int) -> Steps[Feed]:
    """Tell how a history became another one, up to where it can be told message by message again."""
    before = told.cursor
    buried = yield from _tombstone(key, before.generation)
    origin = next((event for event in unseen if event.number == 0 and event.generation > before.generation), None)
    if buried is not None or origin is not None:
        place = Cursor(origin.generation, origin.first_position, 0) if origin else Cursor(now.generation, -1, 0)
        told.leap(DELETED, place, buried)
        return told.so_far(more=True)
    rewriting = [at for at, event in enumerate(unseen) if _rewrites(event, before)]
    # By hand, or by code that knows no events, it was rewritten before the first event that knows of it.
    unknown = next((at for at, event in enumerate(unseen) if event.generation > before.generation), len(unseen))
    last = rewriting[-1] if rewriting else unknown
    for event in unseen[:last]:
        if not _rewrites(event, before):
            told.leap(event.kind, Cursor(event.generation, event.next_position, event.number + 1), event)
    if rewriting:
        event = unseen[last]
        told.leap(REWRITTEN, Cursor(event.generation, event.next_position, event.number + 1), event)
    elif last < len(unseen):
        event = unseen[last]
        told.leap(REWRITTEN, Cursor(event.generation, event.next_position, event.number), None)
    elif len(unseen) < limit:
        told.leap(REWRITTEN, now, None)
    return told.so_far(more=True)


def _rewrites(event: SessionEvent, before: Cursor) -> bool:
    return event.generation > before.generation and (event.kind in REWRITING or event.kind == "forked")


class Watched(NamedTuple):
    """A session that is watched for itself, and what is known of it."""

    tenant: str
    session_id: str
    cursor: Cursor


class Tick(NamedTuple):
    """What has changed.

    Attributes:
        changed: sessions that are no longer as known.
        standing: how sessions of whole tenants stand that were active lately.
        gone: sessions of whole tenants that went lately, with their generation.
    """

    changed: list[tuple[str, str]]
    standing: list[tuple[str, str, Cursor]]
    gone: list[tuple[str, str, int]]


def tick(watched: Sequence[Watched], tenants: Sequence[str], now: int, *, of: str | None = None) -> Unit[Tick]:
    """Look which sessions have changed, of all that are watched: one statement.

    Args:
        now: microseconds since 1970.
        of: the one tenant that all of this is about, where the database shows no other.
    """
    since = now - WATCH_LATE_MICROS
    known = [(tenant, session_id, *cursor) for tenant, session_id, cursor in watched]

    def steps(db: Dialect) -> Steps[Tick]:
        arrays = [list(entries) for entries in zip(*known, strict=True)] or [[] for _ in feed.KEYS]
        given = {f"known_{name}": entries for name, entries in zip(feed.KEYS, arrays, strict=True)}
        bounds = {"whole": list(tenants), "bucket": bucket_of(now) - 1, "since": since}
        rows = yield feed.TICK(tenant=of, **(given if db.array_rows else {"known": known}), **bounds)
        found = Tick([], [], [])
        for what, tenant, session_id, generation, position, event in rows:
            if what == feed.CHANGED:
                found.changed.append((tenant, session_id))
            elif what == feed.STANDS:
                found.standing.append((tenant, session_id, Cursor(generation, position, event)))
            else:
                found.gone.append((tenant, session_id, generation))
        return found

    return Unit("tick", Kind.READ, steps, tenantless=of is None)


class Standing(NamedTuple):
    """How a session stands, and when it was used; it has not been changed since."""

    session_id: str
    cursor: Cursor
    used_at: int


def sweep(tenant: str, after_id: str) -> Unit[list[Standing]]:
    """Read how the sessions of a tenant stand, a page by id."""

    def steps(_db: Dialect) -> Steps[list[Standing]]:
        rows = yield feed.SWEEP(tenant=tenant, after_id=after_id, limit=SWEEP_ROWS)
        return [Standing(row[0], Cursor(*row[1:4]), mapping.micros(row[4])) for row in rows]

    return Unit("sweep", Kind.READ, steps)


def laid(tenant: str, since: int) -> Unit[list[Change]]:
    """Tell which sessions of a tenant went since a moment, each once; without a cursor."""

    def steps(_db: Dialect) -> Steps[list[Change]]:
        rows = yield feed.LAID(tenant=tenant, since=since)
        newest = {row[0]: _buried(row[0], row[1:]) for row in sorted(rows, key=itemgetter(0, 1))}
        return [Change(event.session_id, DELETED, event.generation, (), event, "") for event in newest.values()]

    return Unit("laid", Kind.READ, steps)
