"""Statements of backfills: a page of a tenant's rows by their keys, the rows that change, and how far it is.

A row is changed only while it still holds what was read: a history that was rewritten meanwhile has new rows.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    LargeBinary,
    Text,
    and_,
    case,
    column,
    func,
    literal_column,
    select,
    table,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from sessionstore.dialects.base import Dialect, Statement
from sessionstore.dialects.constructs import byte_length, database_clock, json_bytes
from sessionstore.schema import BackfillRow, Base
from sessionstore.statements.common import MESSAGES, METADATA, TENANT, d, fixed, flag, m, number, statement, text
from sessionstore.statements.messages import incoming
from sessionstore.statements.verification import AFTER_PLACE

BACKFILLS: Final = Base.metadata.tables[BackfillRow.__tablename__]
b: Final = BACKFILLS.c

PROGRESS: Final = (b.job, b.total, b.seen, b.changed, b.unreadable, b.started_at, b.updated_at, b.finished_at)
"""In the order of the fields of `Backfill`."""

_THIS_JOB: Final = b.job == text("job")

ALL: Final = fixed("backfills", select(*PROGRESS).order_by(b.job))

LOCK: Final = fixed("lock_backfill", select(b.after_key, *PROGRESS).where(_THIS_JOB).with_for_update())
"""How far a backfill is; on PostgreSQL nobody else works on its next batch until this one is committed."""


@statement("start_backfill")
def START(db: Dialect) -> Any:  # noqa: N802  # a statement, named like the constants beside it
    """Begin a backfill, unless it has begun; anew if it is to be restarted."""
    insert: Any = postgresql.insert if db.modifying_ctes else sqlite.insert
    clock = database_clock()
    begun = {"total": number("total"), "seen": 0, "changed": 0, "unreadable": 0, "started_at": clock}
    begun |= {"updated_at": clock, "after_key": None, "finished_at": None}
    return (
        insert(BACKFILLS)
        .inline()
        .values(job=text("job"), **begun)
        .on_conflict_do_update(index_elements=[b.job], set_=begun, where=flag("restart"))
    )


SAVE: Final = fixed(
    "save_backfill",
    update(BACKFILLS)
    .where(_THIS_JOB)
    .values(
        after_key=text("reached"),
        seen=b.seen + number("seen"),
        changed=b.changed + number("changed"),
        unreadable=b.unreadable + number("unreadable"),
        updated_at=database_clock(),
        finished_at=case((flag("finished"), database_clock())),
    ),
)


def _estimating(name: str) -> Statement:
    """Tell about how many rows a table has, without reading it; NULL if nobody knows."""

    def build(db: Dialect) -> Any:
        if db.one_writer:
            return select(func.max(literal_column("rowid"))).select_from(Base.metadata.tables[name])
        counted = table("pg_class", column("oid"), column("reltuples"), schema="pg_catalog")
        about = func.nullif(func.greatest(counted.c.reltuples, -1), -1).cast(BigInteger)
        return select(about).where(counted.c.oid == func.to_regclass(literal_column(f"'{db.qualified(name)}'")))

    return Statement(f"estimate_{name.removeprefix('sessionstore_')}", build)


ESTIMATE_MESSAGES: Final = _estimating(MESSAGES.name)
ESTIMATE_METADATA: Final = _estimating(METADATA.name)

NEXT_MESSAGE_TENANT: Final = fixed(
    "backfill_next_message_tenant", select(func.min(m.tenant_id)).where(m.tenant_id > text("after_tenant"))
)
"""The tenant after another that has messages; NULL after the last."""

NEXT_VALUE_TENANT: Final = fixed(
    "backfill_next_value_tenant", select(func.min(d.tenant_id)).where(d.tenant_id > text("after_tenant"))
)


def _next(name: str, key: tuple[Any, ...], after: Any, *columns: Any) -> Statement:
    """Read so many rows after a key."""
    return fixed(name, select(*key, *columns).where(after).order_by(*key).limit(number("limit")))


MESSAGE_ROWS: Final = _next(
    "backfill_messages",
    (m.session_id, m.position),
    AFTER_PLACE,
    *(json_bytes(m.body), m.plain, m.role, m.seed_id, m.phase_reached, m.evaluation_passed),
)

_MESSAGE_CHANGES: Final = {
    "session": Text,
    "position": BigInteger,
    "raw": LargeBinary,
    "plain": Boolean,
    "role": Text,
    "seed_id": Text,
    "phase_reached": Text,
    "evaluation_passed": Boolean,
}


@statement("backfill_message_columns", *_MESSAGE_CHANGES)
def CHANGE_MESSAGES(db: Dialect) -> Any:  # noqa: N802  # as START
    """Write the columns of messages that follow from their bodies."""
    rows = incoming(db, _MESSAGE_CHANGES).row
    its_key = and_(m.tenant_id == TENANT, m.session_id == rows["session"], m.position == rows["position"])
    copies = {name: rows[name] for name in ("plain", "role", "seed_id", "phase_reached", "evaluation_passed")}
    return update(MESSAGES).where(its_key, json_bytes(m.body) == rows["raw"]).values(copies)


_VALUE: Final = (d.session_id, d.key)
_AFTER_VALUE: Final = and_(d.tenant_id == TENANT, tuple_(*_VALUE) > tuple_(text("after_id"), text("after_key")))

VALUE_PLACES: Final = _next("backfill_value_places", _VALUE, _AFTER_VALUE, byte_length(d.value))
"""Where the next values are, and how large they are."""

VALUE_ROWS: Final = _next("backfill_values", _VALUE, _AFTER_VALUE, json_bytes(d.value), d.plain, d.value_key)

_VALUE_CHANGES: Final = {
    "session": Text,
    "key": Text,
    "raw": LargeBinary,
    "plain": Boolean,
    "value_key": Text,
}


@statement("backfill_value_columns", *_VALUE_CHANGES)
def CHANGE_VALUES(db: Dialect) -> Any:  # noqa: N802  # as START
    """Write the columns of metadata that follow from their values."""
    rows = incoming(db, _VALUE_CHANGES).row
    its_key = and_(d.tenant_id == TENANT, d.session_id == rows["session"], d.key == rows["key"])
    copies = {name: rows[name] for name in ("plain", "value_key")}
    return update(METADATA).where(its_key, json_bytes(d.value) == rows["raw"]).values(copies)
