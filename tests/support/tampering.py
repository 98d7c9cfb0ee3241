"""The faults that were met on the way, to be put back: a check that does not find them proves nothing.

Each function makes the package do a thing the wrong way, for as long as the test's `monkeypatch` lasts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects import postgresql

from sessionstore.dialects.base import Statement
from sessionstore.executors import joined
from sessionstore.executors.joined import JoinedExecutor
from sessionstore.statements import messages as message_statements
from sessionstore.statements import removal as removal_statements
from sessionstore.statements.common import (
    ACCESSED,
    CHANGED,
    ITS_MESSAGES,
    MESSAGES,
    METADATA,
    REWRITTEN,
    SESSIONS,
    TENANT,
    THIS_SESSION,
    d,
    fixed,
    m,
    number,
    s,
    text,
)
from sessionstore.statements.removal import Victims
from sessionstore.units import branching, messages, removal, sessions
from sessionstore.units.events import burial
from sessionstore.units.messages import Append, Appended
from sessionstore.units.sessions import Opened
from sessionstore.units.unit import Kind, Stamp, Unit

if TYPE_CHECKING:
    import pytest

    from sessionstore.dialects.base import Dialect
    from sessionstore.executors.base import Deadline
    from sessionstore.units.unit import Steps

LENGTH = s.next_position - s.first_position


def _one_statement(name: str, moved: Any, gone: Any) -> Statement:
    """A header's UPDATE and the DELETE of its rows in one statement: the DELETE sees what the UPDATE waited for not."""
    head = moved.cte("head")
    dropped = delete(MESSAGES).where(ITS_MESSAGES, gone(head.c)).cte("dropped")
    return fixed(name, select(head).add_cte(dropped))


def trim_in_one_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trim with one statement. PostgreSQL only."""
    statement = _one_statement(
        "trim_at_once",
        update(SESSIONS)
        .where(THIS_SESSION)
        .values(CHANGED | {s.first_position: func.greatest(s.first_position, s.next_position - number("keep"))})
        .returning(s.first_position, s.next_position),
        lambda head: m.position < head.first_position,
    )

    def trim(tenant: str, session_id: str, keep: int, *, turn: bool) -> Unit[int]:
        def steps(_db: Dialect) -> Steps[int]:
            rows = yield statement(tenant=tenant, session=session_id, keep=keep, **Stamp.of_now().changed)
            return int(rows[0][1] - rows[0][0])

        return Unit("trim", Kind.WRITE, steps)

    monkeypatch.setattr(messages, "trim", trim)


def truncate_in_one_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Truncate with one statement. PostgreSQL only."""
    statement = _one_statement(
        "truncate_at_once",
        update(SESSIONS)
        .where(THIS_SESSION)
        .values(REWRITTEN | {s.next_position: func.least(s.next_position, s.first_position + number("keep"))})
        .returning(s.first_position, s.next_position),
        lambda head: m.position >= head.next_position,
    )

    def truncate(tenant: str, session_id: str, keep: int) -> Unit[int]:
        def steps(_db: Dialect) -> Steps[int]:
            rows = yield statement(tenant=tenant, session=session_id, keep=keep, **Stamp.of_now().rewritten)
            return int(rows[0][1] - rows[0][0])

        return Unit("truncate", Kind.WRITE, steps)

    monkeypatch.setattr(messages, "truncate", truncate)


def _fork_statement() -> Statement:
    source = update(SESSIONS).where(THIS_SESSION).values(ACCESSED).returning(*SESSIONS.c).cte("source")
    child = {"id": text("child"), "parent_id": source.c.id, "fork_position": source.c.next_position}
    header = insert(SESSIONS).from_select(
        [column.name for column in SESSIONS.c], select(*[child.get(column.name, column) for column in source.c])
    )
    copied = insert(MESSAGES).from_select(
        [column.name for column in MESSAGES.c],
        select(*[text("child") if column.name == "session_id" else column for column in m]).where(
            ITS_MESSAGES, m.position < select(source.c.next_position).scalar_subquery()
        ),
    )
    return fixed("fork_at_once", select(source.c.id).add_cte(header.cte("header"), copied.cte("copied")))


def fork_touching_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the child's header from the RETURNING of the source's touch, its rows from the snapshot. PostgreSQL only."""
    statement = _fork_statement()

    def fork(tenant: str, session_id: str, new_id: str, **_: Any) -> Unit[Opened]:
        def steps(_db: Dialect) -> Steps[Opened]:
            yield statement(tenant=tenant, session=session_id, child=new_id, now=Stamp.of_now().now)
            found = yield from sessions.find(tenant, new_id).steps(_db)
            assert found is not None
            return Opened(found, created=True)

        return Unit("fork", Kind.TRANSACTION, steps)

    monkeypatch.setattr(branching, "fork", fork)


def append_doing_nothing_on_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the database skip the messages whose ids are stored, after their positions were assigned."""
    honest = message_statements.inserting(bare=False)

    def build(db: Dialect) -> Any:
        insert_: Any = honest.build(db)
        dialect_insert: Any = postgresql.insert if db.array_rows else None
        if dialect_insert is None:
            return insert_.prefix_with("OR IGNORE")
        skipping = dialect_insert(MESSAGES).inline()
        return skipping.from_select(insert_._select_names, insert_.select).on_conflict_do_nothing()

    statement = Statement("insert_new", build, honest.columns)

    def steps(self: Append, _db: Dialect) -> Steps[Appended]:
        stamp = Stamp.of_now()
        rows = yield message_statements.ADVANCE(
            **self.key, count=len(self.batch.rows), expected=self.expected, **stamp.changed
        )
        yield statement(self.batch.rows, **self.key, first=rows[0][0], now=stamp.now)
        return Appended([rows[0][0]])

    monkeypatch.setattr(Append, "_directly", steps)


def _unguarded(victims: Victims) -> Victims:
    """Delete what was chosen, whatever became of it since."""

    def build(_db: Dialect) -> Any:
        choose: Any = victims.choose.build(_db)
        chosen = choose.cte("victims")
        gone = delete(SESSIONS).where(s.tenant_id == TENANT, s.id == chosen.c.id).returning(s.id).cte("gone")
        ids = select(gone.c.id)
        rows = delete(MESSAGES).where(m.tenant_id == TENANT, m.session_id.in_(ids)).cte("gone_messages")
        keys = delete(METADATA).where(d.tenant_id == TENANT, d.session_id.in_(ids)).cte("gone_metadata")
        count = [select(func.count()).select_from(table).scalar_subquery() for table in (chosen, gone)]
        return select(*count).add_cte(rows, keys)

    return Victims(victims.choose, Statement("remove_unguarded", build), None)


def prune_without_recheck(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delete sessions by their ids alone. PostgreSQL only."""
    for name in ("BY_AGE", "BY_NUMBER", "LEAST_RECENT"):
        monkeypatch.setattr(removal_statements, name, _unguarded(getattr(removal_statements, name)))


def prune_children_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delete the messages before the sessions, rechecking only the sessions. PostgreSQL only."""

    def remove(_db: Dialect, tenant: str, victims: Victims, params: dict[str, Any]) -> Steps[removal.Removed]:
        rows = yield victims.choose(tenant=tenant, **params)
        yield removal_statements.DELETE_MESSAGES(tenant=tenant, ids=[row[0] for row in rows])
        counts = yield victims.remove(tenant=tenant, **burial(victims), **params)
        return removal.Removed(counts[0][0], counts[0][1])

    monkeypatch.setattr(removal, "_remove", remove)


def evict_inside_the_creation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evict before the new session is committed, when no other creator can see it. PostgreSQL only."""
    creating = sessions._creating

    def tampered(name: str, key: tuple[str, str], steps: Any, new: Any, *, cap: int | None) -> Unit[Opened]:
        unit = creating(name, key, steps, new, cap=cap)

        def both(db: Dialect) -> Steps[Opened]:
            opened: Opened = yield from steps(db)
            following = unit.then(opened) if unit.then is not None else None
            if following is not None:
                yield from following.steps(db)
            return opened

        return Unit(name, Kind.TRANSACTION, both)

    monkeypatch.setattr(sessions, "_creating", tampered)


def savepoint_without_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave BEGIN to SQLAlchemy, which has not sent it to SQLite yet."""

    async def begun(_self: JoinedExecutor, connection: Any, _kind: Kind, _deadline: Deadline) -> None:
        if not connection.in_transaction():
            await connection.begin()

    monkeypatch.setattr(JoinedExecutor, "_begun", begun)


def joined_on_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write on the driver's connection below SQLAlchemy's. PostgreSQL only."""

    async def execute(_self: JoinedExecutor, connection: Any, sql: str, _name: str, arguments: Any = None) -> Any:
        raw = await connection.get_raw_connection()
        return await raw.driver_connection.fetch(sql, *(arguments or ()))

    monkeypatch.setattr(joined.JoinedExecutor, "_execute", execute)


__all__ = [
    "append_doing_nothing_on_conflict",
    "evict_inside_the_creation",
    "fork_touching_first",
    "joined_on_the_driver",
    "prune_children_first",
    "prune_without_recheck",
    "savepoint_without_begin",
    "trim_in_one_statement",
    "truncate_in_one_statement",
]
