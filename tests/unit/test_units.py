"""Units driven by hand: which statements they send for which rows, without a database."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import (
    MessageIdConflictError,
    NewMessage,
    SessionExistsError,
    SessionNotFoundError,
    SessionOwnerError,
    StoreSettings,
    VersionConflictError,
)
from sessionstore.batch import Batch
from sessionstore.dialects import dialect_of
from sessionstore.executors.base import Progress
from sessionstore.statements import events
from sessionstore.statements import removal as victims
from sessionstore.units import branching, messages, removal, sessions, transcripts
from sessionstore.units.messages import Append
from sessionstore.units.sessions import NewSession
from sessionstore.units.unit import Kind, MessageIdTakenError, RunInstead
from sessionstore.values import SESSION_FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sessionstore.dialects.base import Call, Dialect, Row, Rows
    from sessionstore.units.unit import Unit

POSTGRES = dialect_of("postgresql", "asyncpg")
SQLITE = dialect_of("sqlite", "aiosqlite")
JOINED = replace(POSTGRES, optimistic_ids=False, snapshots=False)
BOTH = pytest.mark.parametrize("db", [POSTGRES, SQLITE], ids=["postgresql", "sqlite"])
MOMENT = datetime(2024, 5, 1, tzinfo=UTC)
GONE: Rows = ()


def row(first: int = 0, following: int = 0, version: int = 3, **columns: Any) -> Row:
    """A row of a session's columns."""
    values = dict.fromkeys(SESSION_FIELDS)
    values |= {"id": "s", "user_id": "", "model": "", "max_turns": 0, "generation": 7, "next_event": 0}
    values |= dict.fromkeys(("created_at", "updated_at", "last_accessed_at"), MOMENT)
    values |= {"first_position": first, "next_position": following, "version": version, **columns}
    return tuple(values.values())


def joined(*args: int, **columns: Any) -> Rows:
    """The same with no metadata beside it."""
    return [(*row(*args, **columns), None, None, None)]


@dataclass
class Driven:
    """A unit that was fed rows.

    Attributes:
        calls: what it sent, but for events.
        events: kinds of the events that it recorded.
        result: what it returned, or None if it raised.
    """

    calls: list[Call]
    result: Any = None
    events: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [call.statement.name for call in self.calls]

    def params(self, name: str) -> dict[str, Any]:
        return next(call.params for call in self.calls if call.statement.name == name)


def recorded(progress: Progress[Any]) -> Iterator[str]:
    """Let a unit record its events; their kinds."""
    while (call := progress.call) is not None and call.statement is events.RECORD:
        yield call.params["kind"]
        progress.send(())


def drive(unit: Unit[Any], db: Dialect, *fed: Rows | Exception) -> Driven:
    """Feed a unit rows, or errors, one for each statement."""
    progress = Progress(unit, db)
    driven = Driven([])
    for rows in fed:
        assert progress.call is not None, f"nothing was asked after {driven.names}"
        driven.calls.append(progress.call)
        if all((db.modifying_ctes, "kind" in progress.call.params, rows)):
            driven.events.append(progress.call.params["kind"])
        if isinstance(rows, Exception):
            progress.throw(rows)
        else:
            progress.send(rows)
        driven.events += recorded(progress)
    assert progress.call is None, f"and then {progress.call}"
    driven.result = progress.result
    return driven


def batch(*given: Any) -> Batch:
    return Batch.of(given, StoreSettings())


def append(*given: Any, **options: Any) -> Append:
    return Append("t", "s", batch(*given), **options)


PLAIN = {"role": "user"}
WITH_ID = NewMessage({"role": "user", "n": 1}, message_id="m1")
STORED = b'{"role":"user","n":1}'


def test_append_is_one_statement_on_postgresql() -> None:
    """F16: an append without ids is one statement, and only the first position comes back."""
    driven = drive(append(PLAIN, PLAIN).unit(), POSTGRES, [(5,)])
    assert driven.names == ["append"]
    assert driven.result.positions == [5, 6]
    assert append(PLAIN).unit().kind is Kind.WRITE


def test_append_is_two_statements_on_sqlite() -> None:
    """F16: on SQLite the positions are assigned, then the rows inserted."""
    driven = drive(append(PLAIN, PLAIN).unit(), SQLITE, [(5,)], GONE)
    assert driven.names == ["advance", "insert_messages"]
    assert driven.params("insert_messages")["first"] == 5


@BOTH
def test_append_to_nothing(db: Dialect) -> None:
    """F03: no row to advance and none to be found is an unknown session."""
    with pytest.raises(SessionNotFoundError) as caught:
        drive(append(PLAIN).unit(), db, GONE, GONE)
    assert caught.value.session_id == "s"


@BOTH
def test_append_against_another_length(db: Dialect) -> None:
    """X03: no row to advance though there is one is another length than expected; both numbers are told."""
    with pytest.raises(VersionConflictError) as caught:
        drive(append(PLAIN, expected=4).unit(), db, GONE, [(2, 8, 1)])
    assert (caught.value.expected, caught.value.actual) == (4, 6)


@BOTH
def test_append_creating(db: Dialect) -> None:
    """X04: a missing session is created in the same transaction as its messages."""
    with pytest.raises(RunInstead) as handed:
        drive(append(PLAIN, create=True).unit(), db, GONE, GONE)
    creating = handed.value.unit
    assert creating.kind is Kind.TRANSACTION
    driven = drive(creating, db, [("s",)], [row()], [(0,)], GONE)
    assert driven.names == ["create", "lock", "advance", "insert_messages"]
    assert driven.result.created


def test_append_with_ids_finds_one_taken() -> None:
    """P3: on a taken id everything is undone, and done again with the session locked."""
    unit = append(PLAIN, WITH_ID).unit()
    assert unit.kind is Kind.TRANSACTION
    with pytest.raises(RunInstead) as handed:
        drive(unit, POSTGRES, [(5,)], MessageIdTakenError())
    assert handed.value.__suppress_context__
    driven = drive(handed.value.unit, POSTGRES, [row(2, 5)], [(3, "m1", STORED)], [(5,)], GONE)
    assert driven.names == ["lock", "stored_ids", "advance", "insert_messages"]
    assert driven.params("advance")["count"] == 1
    assert [entry[0] for entry in driven.calls[-1].rows or ()] == [0]
    assert driven.result.positions == [5, 3]


@pytest.mark.parametrize("db", [SQLITE, JOINED], ids=["sqlite", "joined"])
def test_append_with_ids_looks_first(db: Dialect) -> None:
    """P3: where a failed insert costs more than a look, the look comes first."""
    driven = drive(append(WITH_ID).unit(), db, [row(2, 5)], [(3, "m1", STORED)], [row(2, 5)])
    assert driven.names == ["lock", "stored_ids", "access"]
    assert driven.result.positions == [3]


def test_append_of_a_stored_id_with_another_body() -> None:
    """P3: a stored id with another body is a conflict."""
    with pytest.raises(MessageIdConflictError) as caught:
        drive(append(WITH_ID).unit(), SQLITE, [row(2, 5)], [(3, "m1", b'{"role":"user"}')])
    assert caught.value.message_id == "m1"


@BOTH
def test_retry_of_an_append_that_expected_a_length(db: Dialect) -> None:
    """P3, P8: the retry of an append with ids is answered by what is stored, though the length has moved on."""
    unit = append(WITH_ID, expected=3).unit()
    fed: list[Rows] = [[row(2, 6)], [(5, "m1", STORED)], [row(2, 6)]]
    if db.optimistic_ids:
        with pytest.raises(RunInstead) as handed:
            drive(unit, db, GONE)
        unit = handed.value.unit
    assert drive(unit, db, *fed).result.positions == [5]


@BOTH
def test_empty_append(db: Dialect) -> None:
    """H29: an empty append touches, and still tells an unknown session and another length."""
    driven = drive(append().unit(), db, [row(2, 5)])
    assert (driven.names, driven.result.positions) == (["access"], [])
    with pytest.raises(SessionNotFoundError):
        drive(append().unit(), db, GONE)
    with pytest.raises(VersionConflictError):
        drive(append(expected=1).unit(), db, [row(2, 5)])
    with pytest.raises(VersionConflictError):
        drive(append(expected=1, create=True).unit(), db, GONE)


def test_which_appends_are_repeatable() -> None:
    """P3: only an append whose every message has an id may be done twice."""
    assert append(WITH_ID).unit().repeatable
    assert not append(WITH_ID, PLAIN).unit().repeatable
    assert not append(PLAIN).unit().repeatable


@BOTH
def test_trim(db: Dialect) -> None:
    """H26: the header's row is locked before it is changed, and the rows are deleted in a statement of their own."""
    driven = drive(messages.trim("t", "s", 2, turn=False), db, [row(3, 9)], [row(7, 9)], GONE)
    assert driven.names == ["access", "trim", "delete_range"]
    assert driven.events == ["trimmed"]
    assert (driven.params("delete_range")["low"], driven.params("delete_range")["high"]) == (0, 7)
    assert driven.result == 2
    nothing = drive(messages.trim("t", "s", 6, turn=False), db, [row(3, 9)])
    assert (nothing.events, nothing.result) == ([], 6)
    assert messages.trim("t", "s", 2, turn=False).kind is Kind.TRANSACTION


@BOTH
def test_trim_at_a_turn(db: Dialect) -> None:
    """H26: the row is locked before the turn is looked for."""
    driven = drive(messages.trim("t", "s", 2, turn=True), db, [row(3, 9)], [(5,)], [row(5, 9)], GONE)
    assert driven.names == ["access", "turn", "trim", "delete_range"]
    assert (driven.params("turn")["cut"], driven.params("turn")["least"]) == (7, 3)
    assert driven.params("trim")["first"] == 5


@BOTH
def test_truncate_and_pop(db: Dialect) -> None:
    """H27: likewise for what drops the newest."""
    driven = drive(messages.truncate("t", "s", 2), db, [row(3, 9)], [row(3, 5)], GONE)
    assert (driven.names, driven.result) == (["access", "truncate", "delete_range"], 2)
    assert driven.events == ["truncated"]
    assert driven.params("delete_range")["low"] == 5
    taken = (4, "user", STORED, True, None, MOMENT)
    driven = drive(messages.pop("t", "s"), db, [row(0, 5)], [row(0, 4)], [taken])
    assert (driven.names, driven.result.position) == (["access", "pop", "take"], 4)
    assert driven.events == ["truncated"]
    empty = drive(messages.pop("t", "s"), db, [row(3, 3)])
    assert (empty.events, empty.result) == ([], None)


@BOTH
@pytest.mark.parametrize(
    "unit",
    [
        messages.trim("t", "s", 1, turn=False),
        messages.trim("t", "s", 1, turn=True),
        messages.truncate("t", "s", 1),
        messages.pop("t", "s"),
        messages.compact("t", "s", batch(PLAIN), keep=1, expected=None),
        sessions.reset("t", "s"),
        branching.fork("t", "s", "new", keep=None, replace=False, cap=None),
        branching.lineage("t", "s"),
        transcripts.snapshot("t", "s"),
    ],
    ids=lambda unit: unit.name,
)
def test_unknown_session(db: Dialect, unit: Unit[Any]) -> None:
    """H11, H17: the first statement finds nothing, and there is no second."""
    with pytest.raises(SessionNotFoundError):
        drive(unit, db, GONE)


@BOTH
def test_compare_and_set(db: Dialect) -> None:
    """X03: a change that finds no row tells an unknown session from another version."""
    for unit in (
        sessions.change("t", "s", {"title": "x"}, expected=3),
        messages.replace("t", "s", batch(PLAIN), expected=3),
    ):
        with pytest.raises(VersionConflictError) as caught:
            drive(unit, db, GONE, [(0, 0, 5)])
        assert (caught.value.expected, caught.value.actual) == (3, 5)
        with pytest.raises(SessionNotFoundError):
            drive(unit, db, GONE, GONE)


@BOTH
def test_compact(db: Dialect) -> None:
    """H37: the summary takes the position before the cut, after a look whether its id is kept."""
    unit = messages.compact("t", "s", batch(WITH_ID), keep=2, expected=3)
    driven = drive(unit, db, [row(2, 9)], [(6,)], [row(5, 9)], GONE, GONE, GONE, GONE)
    assert driven.names == [
        *("access", "turn", "compact", "delete_range"),
        *("stored_ids", "insert_messages", "metadata_of"),
    ]
    assert driven.params("compact")["first"] == driven.params("insert_messages")["first"] == 5
    assert driven.params("delete_range")["high"] == 6
    assert drive(unit, db, [row(2, 4)], GONE).names == ["access", "metadata_of"]
    with pytest.raises(VersionConflictError):
        drive(unit, db, [row(2, 9, 4)])


@BOTH
def test_delete(db: Dialect) -> None:
    """H13, X05: the parent first, then its children in statements of their own."""
    driven = drive(sessions.delete("t", "s"), db, [("s", 7, 2)], GONE, GONE, GONE, GONE)
    assert driven.names == ["delete", "delete_range", "clear_metadata", "clear_events", "bury_one"]
    assert (driven.params("bury_one")["generation"], driven.params("bury_one")["number"]) == (7, 2)
    assert driven.result is True
    assert drive(sessions.delete("t", "s"), db, GONE).result is False


@BOTH
def test_fork(db: Dialect) -> None:
    """P2: the source's row is locked before anything of it is copied, and the header says what the rows are."""
    unit = branching.fork("t", "s", "new", keep=2, replace=False, cap=None)
    driven = drive(unit, db, [row(3, 9)], [("new",)], GONE, GONE, joined(3, 5))
    assert driven.names == ["access", "create", "copy_messages", "copy_metadata", "get"]
    header = driven.params("create")
    assert (header["first_position"], header["next_position"], header["fork_position"]) == (3, 5, 5)
    assert driven.params("copy_messages")["high"] == 5
    with pytest.raises(SessionExistsError):
        drive(unit, db, [row(3, 9)], GONE)


@BOTH
def test_fork_over_another(db: Dialect) -> None:
    """H19: both rows are locked in one order; the target keeps its lineage and grows a version and a generation."""
    unit = branching.fork("t", "s", "new", keep=None, replace=True, cap=None)
    target = row(0, 1, id="new", parent_id="p", fork_position=1, generation=2**60)
    driven = drive(unit, db, [("new",), ("s",)], [row(3, 9)], GONE, [target], GONE, GONE, GONE, GONE, GONE, joined())
    assert driven.names == [
        *("lock_many", "access", "create", "lock", "overwrite"),
        *("delete_range", "clear_metadata", "copy_messages", "copy_metadata", "get"),
    ]
    assert driven.params("overwrite")["parent_id"] == "p"
    assert driven.params("overwrite")["generation"] == 2**60 + 1
    with pytest.raises(RunInstead):
        drive(unit, db, [("s",)], [row(3, 9)], GONE, GONE)


@BOTH
def test_fork_never_takes_updated_at_back(db: Dialect) -> None:
    """H19: updated_at of an overwritten session does not go back, whatever this process's clock says."""
    unit = branching.fork("t", "s", "new", keep=None, replace=True, cap=None)
    later = datetime(2200, 1, 1, tzinfo=UTC)
    target = row(0, 1, id="new", updated_at=later)
    driven = drive(unit, db, [("new",), ("s",)], [row()], GONE, [target], GONE, GONE, GONE, GONE, GONE, joined())
    micros = int(later.timestamp()) * 1_000_000
    assert driven.params("overwrite")["updated"] >= micros
    assert driven.params("overwrite")["bucket"] >= micros // 900_000_000


def opening(user: str = "") -> Unit[Any]:
    return sessions.open_("t", "s", NewSession(user_id=user), cap=None)


@BOTH
def test_open(db: Dialect) -> None:
    """O09: touch and read; where there is nothing, create; where somebody else did, begin again."""
    assert drive(opening(), db, [("s",)], joined()).result.created is False
    with pytest.raises(RunInstead) as handed:
        drive(opening(), db, GONE, GONE)
    creating = handed.value.unit
    assert drive(creating, db, [("s",)]).result.created is True
    with pytest.raises(RunInstead):
        drive(creating, db, GONE)


@BOTH
def test_open_of_anothers(db: Dialect) -> None:
    """O09: another user's session is refused, but never to who does not say for whom he asks."""
    with pytest.raises(SessionOwnerError):
        drive(opening("ann"), db, GONE, joined(user_id="bob"))
    assert drive(opening("ann"), db, [("s",)], joined(user_id="")).result.session.user_id == ""
    # Created by somebody else between the two statements.
    assert drive(opening(), db, GONE, joined(user_id="bob")).result.session.user_id == "bob"


def test_snapshot_where_each_statement_sees_its_own_moment() -> None:
    """P2: a caller's READ COMMITTED transaction is read again until nothing moved between the two reads."""
    message = (0, "user", STORED, True, None, MOMENT)
    unit = transcripts.snapshot("t", "s")
    driven = drive(unit, JOINED, joined(0, 0, 3), [message], [(0, 1, 4)], joined(0, 1, 4), [message], [(0, 1, 4)])
    assert driven.result.session.version == 4
    assert len(driven.result.rows) == driven.result.session.length
    assert drive(unit, POSTGRES, joined(0, 1, 4), [message]).names == ["get", "read"]


def test_eviction_looks_again() -> None:
    """P6: a victim that was used meanwhile survives, and another is looked for."""
    driven = drive(removal.evict("t", "new", 3), POSTGRES, [(2, 1)], GONE, [(1, 1)], GONE)
    assert driven.names == ["remove_least_recent", "purge_tombstones"] * 2
    assert drive(removal.evict("t", "new", 3), SQLITE, GONE).names == ["choose_least_recent"]


def test_batch_of_a_prune() -> None:
    """P6: one statement on PostgreSQL; on SQLite the choice and the deletes are under one lock."""
    unit = removal.batch("t", victims.OF_TENANT, {}, batch_size=7)
    driven = drive(unit, POSTGRES, [(7, 5)])
    assert driven.names == ["remove_of_tenant"]
    assert (driven.result.chosen, driven.result.gone) == (7, 5)
    driven = drive(unit, SQLITE, [("a", 1), ("b", 2)], GONE, GONE, GONE, GONE)
    assert driven.names == [
        *("choose_of_tenant", "delete_messages", "delete_metadata", "delete_events", "delete_sessions")
    ]
    assert driven.params("delete_messages")["ids"] == ["a", "b"]
