"""Statements on the rows of messages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    LargeBinary,
    Text,
    and_,
    column,
    delete,
    func,
    insert,
    select,
    update,
)

from sessionstore.batch import MessageRow, are_bare
from sessionstore.dialects.base import Call, Dialect, Statement
from sessionstore.dialects.constructs import InstantList, TextList, any_of, json_bytes, json_of_bytes, param
from sessionstore.schema import Instant
from sessionstore.statements.common import (
    CHANGED,
    ITS_MESSAGES,
    MESSAGE_COLUMNS,
    MESSAGES,
    NOW,
    ONE,
    SESSION,
    SESSIONS,
    TENANT,
    THIS_SESSION,
    fixed,
    m,
    number,
    s,
    text,
    unless_expected,
)

_BARE: Final = {"step": BigInteger, "role": Text, "body": LargeBinary, "plain": Boolean}
_WHOLE: Final = _BARE | {
    "message_id": Text,
    "created_at": Instant,
    "seed_id": Text,
    "phase_reached": Text,
    "evaluation_passed": Boolean,
}
"""A message to be inserted: its entries and their types, in the order of `batch.MessageRow`.

Most messages are bare, and sending five entries less for each of them makes an append a tenth cheaper.
"""


class Incoming(NamedTuple):
    """The rows of a bulk statement.

    Attributes:
        row: its entries by name.
        sources: FROM clauses that give them; none where they are parameters.
    """

    row: Any
    sources: tuple[Any, ...]

    def put(self, inserting: Any, values: dict[str, Any]) -> Any:
        """Complete an INSERT of these rows."""
        if not self.sources:
            return inserting.values(values)
        return inserting.from_select(list(values), select(*values.values()).select_from(*self.sources))


def incoming(db: Dialect, types: dict[str, Any]) -> Incoming:
    """Take rows: from an array parameter a column, or a single one from a parameter a column."""
    if not db.array_rows:
        return Incoming({name: param(name, kind) for name, kind in types.items()}, ())
    arrays = [param(name, InstantList() if kind is Instant else ARRAY(kind())) for name, kind in types.items()]
    columns = [column(name, kind()) for name, kind in types.items()]
    rows = func.unnest(*arrays).table_valued(*columns, name="incoming").render_derived()
    return Incoming(rows.c, (rows,))


def _values(row: Any, first: Any, types: dict[str, Any]) -> dict[str, Any]:
    """The columns of a message, from an incoming row and the position of the first."""
    given = {name: row[name] for name in types if name != "step"}
    return {
        "tenant_id": TENANT,
        "session_id": SESSION,
        "position": first + row["step"],
        **given,
        "body": json_of_bytes(row["body"]),
        "created_at": func.coalesce(given["created_at"], NOW) if "created_at" in given else NOW,
    }


@cache
def inserting(*, bare: bool) -> Statement:
    """Build the insert of rows at `first` and after."""
    types = _BARE if bare else _WHOLE

    def build(db: Dialect) -> Any:
        rows = incoming(db, types)
        return rows.put(insert(MESSAGES).inline(), _values(rows.row, number("first"), types))

    return Statement("insert_messages", build, tuple(types))


def insert_rows(rows: Sequence[MessageRow], **params: Any) -> Call:
    """Insert rows at `first` and after."""
    return inserting(bare=are_bare(rows))(rows, **params)


def _advance() -> Any:
    return (
        update(SESSIONS)
        .where(THIS_SESSION, unless_expected(s.next_position - s.first_position, "expected"))
        .values(CHANGED | {s.next_position: s.next_position + number("count")})
        .returning((s.next_position - number("count")).label("first"))
    )


ADVANCE: Final = fixed("advance", _advance())
"""Assign `count` positions; gives the first. No row: no such session, or another length than expected."""


@cache
def appending(*, bare: bool) -> Statement:
    """Build the statement that assigns positions and inserts rows; it gives the first position.

    Right only because the rows come from the caller: whatever this statement read of other tables would be as old as
    its start, though the UPDATE may have waited for a lock. Databases with `modifying_ctes` only.
    """
    types = _BARE if bare else _WHOLE

    def build(db: Dialect) -> Any:
        head = _advance().cte("head")
        rows = incoming(db, types)
        values = _values(rows.row, head.c.first, types)
        chosen = select(*values.values()).select_from(head, *rows.sources)
        inserted = insert(MESSAGES).inline().from_select(list(values), chosen)
        return select(head.c.first).add_cte(inserted.cte("inserted"))

    return Statement("append", build, tuple(types))


def append(rows: Sequence[MessageRow], **params: Any) -> Call:
    """Assign positions and insert the rows in one statement; gives the first position."""
    return appending(bare=are_bare(rows))(rows, **params)


STORED_IDS: Final = fixed(
    "stored_ids",
    select(m.position, m.message_id, json_bytes(m.body)).where(
        ITS_MESSAGES, any_of(m.message_id, param("ids", TextList))
    ),
)

DELETE_RANGE: Final = fixed(
    "delete_range", delete(MESSAGES).where(ITS_MESSAGES, m.position >= number("low"), m.position < number("high"))
)

TAKE: Final = fixed(
    "take", delete(MESSAGES).where(ITS_MESSAGES, m.position >= number("low")).returning(*MESSAGE_COLUMNS)
)

TURN: Final = fixed(
    "turn",
    select(m.position)
    .where(ITS_MESSAGES, m.role == "user", m.position <= number("cut"), m.position >= number("least"))
    .order_by(m.position.desc())
    .limit(ONE),
)
"""The nearest user message at or before a cut."""

COPY: Final = fixed(
    "copy_messages",
    insert(MESSAGES)
    .inline()
    .from_select(
        [entry.name for entry in MESSAGES.c],
        select(
            TENANT, text("child"), *[entry for entry in MESSAGES.c if entry.name not in {"tenant_id", "session_id"}]
        ).where(ITS_MESSAGES, m.position < number("high")),
    ),
)

_GENERATION: Final = select(s.generation).where(THIS_SESSION).scalar_subquery()


@cache
def read(*, newest: bool, roles: bool, turn: bool, stamped: bool = False) -> Statement:
    """Build the read of a window of messages.

    `newest` takes the window from the end (rows come newest first, unless `turn`); `turn` moves its start back to a
    user message; `stamped` adds the session's generation to each row.
    """

    def chosen(table: Any) -> Any:
        bounds = [table.position > number("after"), table.position < number("before")]
        if roles:
            bounds.append(any_of(table.role, param("roles", TextList)))
        return and_(table.tenant_id == TENANT, table.session_id == SESSION, *bounds)

    columns: Sequence[Any] = (*MESSAGE_COLUMNS, _GENERATION) if stamped else MESSAGE_COLUMNS
    if not turn:
        order = m.position.desc() if newest else m.position
        return fixed("read", select(*columns).where(chosen(m)).order_by(order).limit(number("limit")))

    inner, outer = MESSAGES.alias("inner_rows").c, MESSAGES.alias("user_rows").c
    window = (
        select(inner.position).where(chosen(inner)).order_by(inner.position.desc()).limit(number("limit")).subquery()
    )
    cut = select(func.min(window.c.position).label("cut")).cte("cut")
    start = (
        select(outer.position)
        .where(outer.tenant_id == TENANT, outer.session_id == SESSION, outer.role == "user")
        .where(outer.position <= cut.c.cut, outer.position >= cut.c.cut - number("scan"))
        .where(outer.position > number("after"))
        .order_by(outer.position.desc())
        .limit(ONE)
        .scalar_subquery()
    )
    first = select(func.coalesce(start, cut.c.cut)).scalar_subquery()
    return fixed("read_turn", select(*columns).where(chosen(m), m.position >= first).order_by(m.position))
