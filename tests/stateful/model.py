"""What the design says of sessions, in plain Python: no SQL, no positions of its own accord, one dict.

`touched` and `changed` count what moves last_accessed_at and updated_at, `rewritten` what makes a new generation: the
machine compares how they move, not their values.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

TURN_SCAN = 1_000
COLUMNS = ("user_id", "model", "title", "summary", "active_seed_id")
EMPTY = {"user_id": "", "model": "", "title": None, "summary": None, "active_seed_id": None}


class Missing(Exception):  # noqa: N818  # a verdict, not an error
    """There is no such session."""


class Taken(Exception):  # noqa: N818
    """There is one of that id already."""


class Stale(Exception):  # noqa: N818
    """It is not as it was expected to be."""


class Conflict(Exception):  # noqa: N818
    """A message id is stored with another body."""


class Foreign(Exception):  # noqa: N818
    """It is another user's."""


class Msg(NamedTuple):
    """A message."""

    n: int
    role: str
    id: str | None = None


@dataclass
class Conversation:
    """A session."""

    columns: dict[str, Any] = field(default_factory=lambda: dict(EMPTY))
    metadata: dict[str, Any] = field(default_factory=dict)
    history: list[Msg] = field(default_factory=list)
    first: int = 0
    version: int = 0
    parent: str | None = None
    fork_position: int | None = None
    touched: int = 0
    changed: tuple[int, int] = (0, 0)
    """When it was changed: (0, what a save said), or (1, a growing number)."""
    rewritten: int = 0

    @property
    def next(self) -> int:
        return self.first + len(self.history)


class Model:
    """One tenant."""

    def __init__(self) -> None:
        self.sessions: dict[str, Conversation] = {}
        self._clock = itertools.count(1)

    # --- what moves what --------------------------------------------------------------------

    def _touch(self, session: Conversation) -> None:
        session.touched = next(self._clock)

    def _change(self, session: Conversation, *, rewrite: bool = False) -> None:
        moment = next(self._clock)
        session.touched, session.changed = moment, (1, moment)
        session.version += 1
        if rewrite:
            session.rewritten = moment

    def _new(self, session: Conversation) -> Conversation:
        moment = next(self._clock)
        session.touched, session.changed, session.rewritten = moment, (1, moment), moment
        return session

    def get(self, key: str) -> Conversation:
        if key not in self.sessions:
            raise Missing
        return self.sessions[key]

    def _expecting(self, key: str, expected: int | None) -> Conversation:
        session = self.get(key)
        if expected not in {None, session.version}:
            raise Stale
        return session

    # --- sessions ---------------------------------------------------------------------------

    def create(self, key: str, columns: dict[str, Any], metadata: dict[str, Any], cap: int | None = None) -> None:
        if key in self.sessions:
            raise Taken
        self.sessions[key] = self._new(Conversation({**EMPTY, **columns}, dict(metadata)))
        self._evict(key, cap)

    def open(self, key: str, columns: dict[str, Any], metadata: dict[str, Any], cap: int | None = None) -> None:
        session = self.sessions.get(key)
        if session is None:
            self.create(key, columns, metadata, cap)
            return
        owner, asking = session.columns["user_id"], columns.get("user_id", "")
        if owner and asking and owner != asking:
            raise Foreign
        self._touch(session)

    def _evict(self, kept: str, cap: int | None) -> None:
        if cap is None:
            return
        others = sorted((key for key in self.sessions if key != kept), key=lambda key: self.sessions[key].touched)
        for key in others[: max(len(self.sessions) - cap, 0)]:
            del self.sessions[key]

    def update(self, key: str, columns: dict[str, Any], expected: int | None) -> None:
        session = self._expecting(key, expected)
        cleared = {name: EMPTY[name] if value is None else value for name, value in columns.items()}
        session.columns |= cleared
        self._change(session)

    def set_metadata(self, key: str, values: dict[str, Any], remove: list[str], expected: int | None) -> None:
        session = self._expecting(key, expected)
        session.metadata |= values
        for name in remove:
            session.metadata.pop(name, None)
        self._change(session)

    def reset(self, key: str) -> None:
        session = self.get(key)
        session.history, session.first, session.metadata = [], 0, {}
        session.columns["summary"] = None
        self._change(session, rewrite=True)

    def delete(self, key: str) -> bool:
        return self.sessions.pop(key, None) is not None

    def delete_user(self, user: str) -> int:
        mine = [key for key, session in self.sessions.items() if session.columns["user_id"] == user]
        for key in mine:
            del self.sessions[key]
        return len(mine)

    def prune(self, most: int) -> int:
        oldest_first = sorted(self.sessions, reverse=True)
        oldest_first.sort(key=lambda key: self.sessions[key].changed)
        surplus = oldest_first[: max(len(oldest_first) - most, 0)]
        for key in surplus:
            del self.sessions[key]
        return len(surplus)

    # --- messages ---------------------------------------------------------------------------

    def append(self, key: str, messages: list[Msg], expected: int | None, *, create: bool) -> list[int]:
        session = self.sessions.get(key)
        if session is None:
            if not create:
                raise Missing
            session = Conversation()
        stored = {kept.id: session.first + at for at, kept in enumerate(session.history) if kept.id is not None}
        for message in messages:
            if message.id in stored and session.history[stored[message.id] - session.first][:2] != message[:2]:
                raise Conflict
        new = [message for message in messages if message.id not in stored]
        if (new or not messages) and expected not in {None, len(session.history)}:
            raise Stale
        self.sessions[key] = session if key in self.sessions else self._new(session)
        positions = itertools.count(session.next)
        session.history += new
        if new:
            self._change(session)
        else:
            self._touch(session)
        return [stored[message.id] if message.id in stored else next(positions) for message in messages]

    def _cut(self, session: Conversation, keep: int, *, turn: bool) -> int:
        """How many of the oldest are before the last `keep`, or before the turn they begin in."""
        cut = max(len(session.history) - keep, 0)
        if turn and keep and cut:
            starts = (at for at in range(cut, max(cut - TURN_SCAN, 0) - 1, -1) if session.history[at].role == "user")
            cut = next(starts, cut)
        return cut

    def window(self, key: str, last: int, *, turn: bool) -> list[int]:
        session = self.get(key)
        return list(range(session.first + self._cut(session, last, turn=turn), session.next))

    def trim(self, key: str, keep: int, *, turn: bool) -> int:
        session = self.get(key)
        cut = self._cut(session, keep, turn=turn)
        if cut:
            session.history, session.first = session.history[cut:], session.first + cut
            self._change(session)
        else:
            self._touch(session)
        return len(session.history)

    def truncate(self, key: str, keep: int) -> int:
        session = self.get(key)
        if len(session.history) > keep:
            session.history = session.history[:keep]
            session.columns["summary"] = None
            self._change(session, rewrite=True)
        else:
            self._touch(session)
        return len(session.history)

    def pop(self, key: str) -> Msg | None:
        session = self.get(key)
        if not session.history:
            self._touch(session)
            return None
        self._change(session, rewrite=True)
        return session.history.pop()

    def replace(self, key: str, messages: list[Msg], expected: int | None) -> None:
        session = self._expecting(key, expected)
        session.history, session.first = list(messages), 0
        self._change(session, rewrite=True)

    def compact(self, key: str, summary: Msg, keep: int, expected: int | None) -> None:
        session = self._expecting(key, expected)
        cut = self._cut(session, keep, turn=True)
        if not cut:
            self._touch(session)
            return
        kept = session.history[cut:]
        if summary.id is not None and summary.id in {message.id for message in kept}:
            raise Conflict
        session.history, session.first = [summary, *kept], session.first + cut - 1
        self._change(session, rewrite=True)

    # --- forks and whole sessions -----------------------------------------------------------

    def fork(self, key: str, new: str, keep: int | None, *, over: bool, cap: int | None = None) -> None:
        source = self.get(key)
        target = self.sessions.get(new)
        if target is not None and not over:
            raise Taken
        self._touch(source)
        child = replace(copy.deepcopy(source), history=source.history[:keep], version=0, parent=key, fork_position=None)
        child.fork_position = child.next
        self._new(child)
        if target is not None:
            child.version, child.parent, child.fork_position = target.version + 1, target.parent, target.fork_position
        self.sessions[new] = child
        if target is None:
            self._evict(new, cap)

    def save(self, key: str, saved: Conversation, expected: int | None) -> None:
        stored = self.sessions.get(key)
        if stored is None:
            if expected is not None:
                raise Missing
            changed = saved.changed
            self.sessions[key] = self._new(saved)
            saved.changed, saved.version = changed, 0
            return
        if expected not in {None, stored.version}:
            raise Stale
        saved.touched, saved.version = next(self._clock), stored.version + 1
        saved.rewritten = saved.touched if self._rewrites(stored, saved) else stored.rewritten
        self.sessions[key] = saved

    def _rewrites(self, stored: Conversation, saved: Conversation) -> bool:
        """Whether a position that a reader may have seen says something else now, or nothing without a trim."""
        old = {stored.first + at: message for at, message in enumerate(stored.history)}
        new = {saved.first + at: message for at, message in enumerate(saved.history)}
        reborn = any(position < stored.first for position in new)
        return reborn or any(position >= saved.first and new.get(position) != old[position] for position in old)

    def lineage(self, key: str) -> tuple[str | None, tuple[str, ...], str]:
        session = self.get(key)
        children = tuple(sorted(child for child, other in self.sessions.items() if other.parent == key))
        seen = [key]
        parent = session.parent
        while parent is not None and parent in self.sessions and parent not in seen:
            seen.append(parent)
            parent = self.sessions[parent].parent
        return (session.parent if session.parent in self.sessions else None), children, seen[-1]
