"""Every verb that rewrites, with what it must leave of a history. The expectations are written from the design."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sessionstore import NewMessage, PrunePolicy, StoreSettings, Transcript, VersionConflictError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sessionstore import SessionRepository

    Run = Callable[[SessionRepository], Awaitable[Any]]
    History = list[int]
    Expect = Callable[[History, bool], History | None]

ID = "session"
OTHER = "source"
CHILD = "child"
USERS = frozenset({0, 3, 101})
HISTORY = [0, 1, 2, 3, 4, 5]
APPENDED = [100, 101, 102]
OTHERS = [300, 301]
OLD = datetime.now(UTC) - timedelta(days=30)


def body(number: int) -> dict[str, Any]:
    """A message that is known by its number."""
    return {"role": "user" if number in USERS else "assistant", "n": number}


def bodies(numbers: History) -> list[dict[str, Any]]:
    """Messages by their numbers."""
    return [body(number) for number in numbers]


@dataclass(frozen=True)
class Verb:
    """A verb and what follows from it.

    Attributes:
        left: what it leaves of a history; None if the session is gone. Told whether somebody appended before.
        child: what the session named CHILD then holds.
        stale: it must be refused with a VersionConflictError if somebody appended before.
    """

    name: str
    run: Run
    left: Expect
    child: Callable[[History], History] | None = None
    stale: bool = False
    settings: StoreSettings = field(default_factory=StoreSettings)

    def __str__(self) -> str:
        return self.name


async def prepare(repository: SessionRepository) -> None:
    """Make the session, last used and changed before the other one."""
    await repository.save(Transcript.of(ID, bodies(HISTORY), user_id="user", updated_at=OLD, metadata={"key": 1}))
    await repository.save(Transcript.of(OTHER, bodies(OTHERS)))


def from_turn(history: History, keep: int) -> History:
    """The last `keep` messages, and those before them back to a user message where there is one."""
    cut = max(len(history) - keep, 0)
    turn = next((at for at in range(cut, -1, -1) if history[at] in USERS), cut)
    return history[turn:]


def _same(history: History, _appended: bool) -> History:
    return history


def _always(history: History | None) -> Expect:
    return lambda _history, _appended: history


def _only_if_used(history: History, appended: bool) -> History | None:
    return history if appended else None


def _save(numbers: History, **expected: int) -> Run:
    return lambda r: r.save(Transcript.of(ID, bodies(numbers), user_id="user", updated_at=OLD), **expected)


def _append(number: int, **options: Any) -> Run:
    return lambda r: r.append(ID, body(number), **options)


def _with_ids(*numbers: int) -> Run:
    return lambda r: r.append(ID, *(NewMessage(body(number), message_id=f"m{number}") for number in numbers))


_BY_AGE = PrunePolicy(max_age=timedelta(days=7), max_sessions=None)
_BY_NUMBER = PrunePolicy(max_age=None, max_sessions=1)
_CAP = StoreSettings(session_cap=2)
VERSION = 0
"""Of the session as `prepare` leaves it: a save that creates begins there."""

VERBS = (
    Verb("trim", lambda r: r.trim(ID, 2), lambda h, _: h[-2:]),
    Verb("trim to nothing", lambda r: r.trim(ID, 0), _always([])),
    Verb("trim at a turn", lambda r: r.trim(ID, 1, align="turn"), lambda h, _: from_turn(h, 1)),
    Verb("truncate", lambda r: r.truncate(ID, 2), lambda h, _: h[:2]),
    Verb("pop", lambda r: r.pop(ID), lambda h, _: h[:-1]),
    Verb("compact", lambda r: r.compact(ID, body(600), keep_last=1), lambda h, _: [600, *from_turn(h, 1)]),
    Verb(
        "compact expecting",
        lambda r: r.compact(ID, body(600), keep_last=1, expected_version=VERSION),
        lambda h, _: [600, *from_turn(h, 1)],
        stale=True,
    ),
    Verb("replace", lambda r: r.replace_messages(ID, bodies([200, 201])), _always([200, 201])),
    Verb(
        "replace expecting",
        lambda r: r.replace_messages(ID, bodies([200]), expected_version=VERSION),
        _always([200]),
        stale=True,
    ),
    Verb("reset", lambda r: r.reset(ID), _always([])),
    Verb("delete", lambda r: r.delete(ID), _always(None)),
    Verb("fork", lambda r: r.fork(ID, new_id=CHILD), _same, child=lambda h: h),
    Verb("fork at", lambda r: r.fork_at(ID, 7, new_id=CHILD), _same, child=lambda h: h[:7]),
    Verb("fork over it", lambda r: r.fork(OTHER, new_id=ID, replace=True), _always(OTHERS)),
    Verb("save", _save([0, 1, 2, 7]), _always([0, 1, 2, 7])),
    Verb("save expecting", _save([0, 7], expected_version=VERSION), _always([0, 7]), stale=True),
    Verb("update", lambda r: r.update(ID, title="title"), _same),
    Verb("update expecting", lambda r: r.update(ID, title="t", expected_version=VERSION), _same, stale=True),
    Verb("set metadata", lambda r: r.set_metadata(ID, {"key": 2}), _same),
    Verb("append", _append(500), lambda h, _: [*h, 500]),
    Verb("append with ids", _with_ids(500, 501), lambda h, _: [*h, 500, 501]),
    Verb("append expecting", _append(500, expected_length=6), lambda h, _: [*h, 500], stale=True),
    Verb("append or create", _append(500, create=True), lambda h, _: [*h, 500]),
    Verb("open", lambda r: r.open(ID), _same),
    Verb("prune by age", lambda r: r.prune(_BY_AGE), _only_if_used),
    Verb("prune by number", lambda r: r.prune(_BY_NUMBER), _only_if_used),
    Verb("evict", lambda r: r.create("new"), _only_if_used, settings=_CAP),
    Verb("delete user", lambda r: r.delete_user("user"), _always(None)),
    Verb("delete all", lambda r: r.delete_all(), _always(None)),
)

STALE = VersionConflictError
