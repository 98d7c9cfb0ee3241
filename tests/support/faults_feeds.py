"""What watchers wrote down, and whether it is what happened: nothing missed, in order, nothing twice.

A feed is **broken off** where history becomes another one: by a change `rewritten` or `deleted`; also where the watcher
first meets a session that was rewritten before, which shows in events of earlier generations than the change. Of what
was acknowledged,

- a message may be absent only if the feed is broken off after everything that its writer did before it and the watcher
  was told of, and before the next message of that writer that the watcher was told of; or if a `trimmed` with a later
  first position follows in the same piece of the feed;
- an event of a caller's own may be absent only if such a break is a `deleted`;
- between two breaks no position is left out, unless a `trimmed` beyond it follows;
- after the last break everything is told that the session holds from there on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from sessionstore import SessionRepository

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from sessionstore import Change, Message, SessionEvent

__all__ = ["END", "NOTE", "Acknowledged", "Held", "Told", "as_line", "misplaced", "missed", "read_feed", "unlike"]

NOTE = "note"
END = "end"
"""Kinds of own events: what writers record, and what says that a session is not changed any more."""

BREAKS = {"rewritten", "deleted"}


class Told(NamedTuple):
    """A change, as a watcher wrote it down.

    Attributes:
        messages: position and id of each.
        number: of the event, with the session's generation, first and next position after it, and the mark of an own
            one.
    """

    session: str
    kind: str
    generation: int
    messages: list[tuple[int, str | None]]
    number: int | None
    happened_in: int | None
    first: int | None
    following: int | None
    mark: str | None
    cursor: str

    @property
    def of_the_past(self) -> bool:
        """Whether it is an event of before the history that is told."""
        return self.kind not in BREAKS and self.happened_in not in {None, self.generation}


def as_line(change: Change) -> bytes:
    """Write a change as a line."""
    event = change.event
    messages = [(message.position, message.message_id) for message in change.messages]
    seen: tuple[int | None, ...] = (None, None, None, None)
    if event is not None:
        seen = (event.number, event.generation, event.first_position, event.next_position)
    payload = event.payload if event is not None else None
    mark = payload.get("mark") if isinstance(payload, dict) else None
    told = (change.session_id, change.kind, change.generation, messages, *seen, mark, change.cursor)
    return json.dumps(told).encode() + b"\n"


def read_feed(path: Path) -> list[Told]:
    """Read what was written; a line without its end was being written when the process died."""
    lines = path.read_bytes().split(b"\n")[:-1]
    feed = [Told(*entries) for entries in map(json.loads, lines)]
    return [told._replace(messages=[(position, name) for position, name in told.messages]) for told in feed]


@dataclass
class Acknowledged:
    """What one task was told of one session, in order: ids of messages with their positions, marks of events."""

    items: list[tuple[str, int | None]] = field(default_factory=list)


@dataclass
class Held:
    """What a session holds in the end."""

    generation: int
    first: int
    messages: list[Message]
    events: list[SessionEvent]

    @classmethod
    async def read(cls, repository: SessionRepository, session_id: str) -> Held:
        """Read it, by verbs that have nothing to do with watching."""
        session = await repository.get(session_id)
        messages = await repository.messages(session_id)
        return cls(session.generation, session.first_position, messages, await repository.events(session_id))


# --- order, and repeats ---------------------------------------------------------------------------


class _Place:
    """How far a feed of one session has come. `hole` is the end of what was left out and has no excuse yet."""

    def __init__(self) -> None:
        self.generation = -1
        self.position = -1
        self.number = -1
        self.hole = 0

    def step(self, told: Told) -> Iterable[str]:
        """Go on, and say what was wrong with it."""
        if told.kind in BREAKS:
            self.position, self.hole = -1, 0
        if told.kind == "deleted":
            self.number = -1
            return
        if told.generation < self.generation:
            yield f"generation {told.generation} after {self.generation}"
        if told.generation > self.generation:
            if told.kind == "messages" and self.position >= 0:
                yield f"messages of generation {told.generation} without a break"
            self.generation, self.position = told.generation, -1
        for position, _ in told.messages:
            if position <= self.position:
                yield f"position {position} after {self.position}"
            self._to(position)
        yield from self._event(told)

    def _to(self, position: int) -> None:
        if 0 <= self.position < position - 1:
            self.hole = position
        self.position = position

    def _event(self, told: Told) -> Iterable[str]:
        if told.number is None or told.following is None or told.first is None:
            return
        if told.number <= self.number:
            yield f"event {told.number} after {self.number}"
        self.number = told.number
        if told.kind not in {"created", "forked"} and not told.of_the_past:
            if told.following <= self.position:
                yield f"event {told.number} of place {told.following} after position {self.position}"
            self._to(max(self.position, told.following - 1))
        if told.kind == "trimmed" and told.first >= self.hole:
            self.hole = 0


def misplaced(feed: Sequence[Told], *, cut: bool = False) -> list[str]:
    """What is not in its order in a feed of any sessions, or is there twice, or was left out in the middle.

    Args:
        cut: the watcher was killed, so that what explains a gap may not be there.
    """
    places: dict[str, _Place] = {}
    found = []
    for at, told in enumerate(feed):
        place = places.setdefault(told.session, _Place())
        found += [f"{told.session}, change {at}, {told.kind}: {fault}" for fault in place.step(told)]
    left_out = [(name, place.hole) for name, place in places.items() if place.hole and not cut]
    return found + [f"{name}: something before {position} was left out" for name, position in left_out]


# --- nothing missed -------------------------------------------------------------------------------


class _Index:
    """Where in a feed of one session things are told, and where it is broken off."""

    def __init__(self, feed: Sequence[Told], resumed: int | None) -> None:
        self.at: dict[str, int] = {}
        for place, told in enumerate(feed):
            for name in [name for _, name in told.messages] + [told.mark]:
                if name is not None:
                    self.at.setdefault(name, place)
        self.deleted = [place for place, told in enumerate(feed) if told.kind == "deleted"]
        self.breaks = [place for place, told in enumerate(feed) if told.kind in BREAKS or told.of_the_past]
        if resumed is not None:
            self.breaks = sorted([*self.breaks, resumed])
        self.past = {place for place, told in enumerate(feed) if told.of_the_past}
        self.trims = [(place, told.first or 0) for place, told in enumerate(feed) if told.kind == "trimmed"]
        self.end = len(feed)

    def excused(self, position: int | None, low: int, high_message: int, high: int) -> bool:
        """Whether something may be absent that was done between what is told at two places."""
        if position is None:
            return any(low <= place <= high for place in self.deleted)
        if any(low <= place <= high_message for place in self.breaks):
            return True
        if max((place for place in self.breaks if place <= low), default=None) in self.past:
            return True  # of what was met as it was then, `misplaced` finds what is left out afterwards
        end = min((place for place in self.breaks if place > low), default=self.end)
        return any(low <= place <= end and first > position for place, first in self.trims)


def missed(feed: Sequence[Told], acknowledged: Iterable[Acknowledged], *, resumed: int | None = None) -> list[str]:
    """What was acknowledged, is not in a feed of one session, and has no excuse.

    Args:
        resumed: from where on the feed tells again what there is, after which earlier messages may be gone.
    """
    index = _Index(feed, resumed)
    found = []
    for task in acknowledged:
        told = [index.at.get(name) for name, _ in task.items]
        for place, (name, position) in enumerate(task.items):
            if told[place] is not None:
                continue
            low = next((at for at in reversed(told[:place]) if at is not None), -1)
            after = list(zip(task.items[place + 1 :], told[place + 1 :], strict=True))
            high = next((at for _, at in after if at is not None), index.end)
            high_message = next((at for (_, where), at in after if at is not None and where is not None), index.end)
            if not index.excused(position, low, high_message, high):
                found.append(f"{name} at {position} is not in the feed, between changes {low} and {high}")
    return found


def unlike(feed: Sequence[Told], held: Held) -> list[str]:
    """How a feed of one session, after its last break, is other than what the session holds from there on."""
    last = max((place for place, told in enumerate(feed) if told.kind in BREAKS), default=None)
    start, number = 0, -1
    if last is not None and feed[last].kind == "rewritten":
        start, number = feed[last].following or 0, feed[last].number or 0
    rest = feed[last + 1 :] if last is not None else feed
    told = [entry for change in rest for entry in change.messages]
    holds = [(message.position, message.message_id) for message in held.messages if message.position >= start]
    kept = [entry for entry in told if entry[0] >= held.first]
    found = [] if kept == holds else [f"tells {_differing(kept, holds)} and holds {_differing(holds, kept)}"]
    events = [told.number for told in rest if told.number is not None]
    expected = [event.number for event in held.events if event.number > number and not _unsaid(event.kind, last)]
    return found if events == expected else [*found, f"tells events {events} and holds {expected}"]


def _unsaid(kind: str, last: int | None) -> bool:
    """Whether an event is not told to who begins after it: that a history which he never saw was rewritten."""
    return kind in {"truncated", "replaced", "compacted", "reset"} or (kind == "rewritten" and last is None)


def _differing(some: list[Any], others: list[Any]) -> list[Any]:
    return [entry for entry in some if entry not in others][:5]
