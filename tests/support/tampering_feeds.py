"""Mistakes in watching, to be put into the package: a check that does not find them proves nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sessionstore.changes import Cursor
from sessionstore.feeds import Topic
from sessionstore.statements.feed import FOLLOW
from sessionstore.units import feed
from sessionstore.units.unit import Kind, RunInstead, Unit

if TYPE_CHECKING:
    import pytest

    from sessionstore.dialects.base import Dialect
    from sessionstore.units.unit import Steps
    from sessionstore.values import SessionEvent

__all__ = [
    "events_before_messages",
    "events_once",
    "new_event_unseen",
    "read_again",
    "without_rewritten",
]


def events_before_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell what happened first, and then what was said, whatever came first."""
    monkeypatch.setattr(feed, "_place", lambda _event, _generation: 0)


def events_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell one event of those that are read, and believe that these were all."""

    def event(self: Any, happened: SessionEvent) -> None:
        if happened.number % 2 == 0:
            self._tell(happened.kind, self.cursor._replace(event=happened.number + 1), (), happened)

    monkeypatch.setattr(feed._Told, "event", event)


def read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget now and then how far a session was read."""
    publish = Topic._publish

    def forgetting(self: Topic, session_id: str, found: feed.Feed) -> None:
        publish(self, session_id, found)
        if len(found.changes) > 1:
            cursor = self.members.get(session_id, found.cursor)
            self.members[session_id] = Cursor(cursor.generation, max(cursor.position - 1, 0), cursor.event)

    monkeypatch.setattr(Topic, "_publish", forgetting)


def without_rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on with a rewritten history without a word."""
    leap = feed._Told.leap

    def silent(self: Any, kind: str, cursor: Cursor, event: SessionEvent | None) -> None:
        if kind == "rewritten":
            self.cursor = cursor
        else:
            leap(self, kind, cursor, event)

    monkeypatch.setattr(feed._Told, "leap", silent)


def new_event_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a session of the same generation for one of which only the messages may have changed."""
    head = feed._messages
    follow = feed.follow

    def messages_only(tenant: str, session_id: str, cursor: Cursor | None, *, limit: int = 200) -> Unit[feed.Feed]:
        honest = follow(tenant, session_id, cursor, limit=limit)

        def steps(db: Dialect) -> Steps[feed.Feed]:
            assert cursor is not None
            key = {"tenant": tenant, "session": session_id}
            rows = yield FOLLOW(**key, position=max(cursor.position, 0), limit=limit)
            if not rows or cursor.position < 0 or rows[0][0] != cursor.generation:
                raise RunInstead(honest)
            told = feed._Told(session_id, cursor._replace(event=rows[0][3]))
            told.messages(head(session_id, rows))
            return told.so_far(more=len(rows) == limit)

        return honest if cursor is None else Unit("follow", Kind.SNAPSHOT, steps)

    monkeypatch.setattr(feed, "follow", messages_only)
