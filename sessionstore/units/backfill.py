"""Units of backfills: begin one, and do its next batch.

A batch and the note of how far it came are one transaction, so that a backfill that was killed goes on exactly there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import orjson

from sessionstore import codec
from sessionstore.batch import projected
from sessionstore.checks import check_role
from sessionstore.codec import InvalidValue
from sessionstore.dialects.base import Dialect, Row, Rows, Statement
from sessionstore.limits import CHUNK_BYTES
from sessionstore.statements import backfill as statements
from sessionstore.statements.verification import PLACES
from sessionstore.stored import Stored
from sessionstore.units.unit import Kind, Steps, Unit
from sessionstore.units.verification import fitting


class Job(NamedTuple):
    """What a backfill does.

    Attributes:
        what: for people, in one line.
        estimate: tells about how many there are.
        next_tenant: the one after another that has such rows, so that the others cost nothing.
        places: keys of the rows after a key, and the size of each row.
        rows: the rows after a key: the key, the encoded value, and the columns that follow from it.
        first: a key before all others of a tenant.
        names: of the parts of a key, as the statements take it.
        derived: the columns as they should be, of an encoded value and what they are; None if it is not JSON.
        change: writes them.
    """

    what: str
    estimate: Statement
    next_tenant: Statement
    places: Statement
    rows: Statement
    first: tuple[Any, ...]
    names: tuple[str, ...]
    derived: Callable[[bytes, Row], tuple[Any, ...] | None]
    change: Statement


def _of_message(raw: bytes, columns: Row) -> tuple[Any, ...] | None:
    plain, role, *_ = columns
    stored = Stored(raw, plain)
    if not stored.readable or not isinstance(stored.value, dict):
        return None
    return (stored.plain, _role(stored.value.get("role"), role), *projected(stored.value).values())


def _role(own: object, stated: str) -> str:
    """The role that a body names; the one stated beside it where it names none."""
    try:
        return check_role(own)
    except InvalidValue:
        return stated


def _of_value(raw: bytes, columns: Row) -> tuple[Any, ...] | None:
    stored = Stored(raw, columns[0])
    if not stored.readable:
        return None
    return stored.plain, codec.scalar_key(codec.Encoded(raw, stored.plain), stored.value)


JOBS: Final = {
    "message-columns": Job(
        what="role, plain, seed_id, phase_reached and evaluation_passed of messages, from their bodies",
        estimate=statements.ESTIMATE_MESSAGES,
        next_tenant=statements.NEXT_MESSAGE_TENANT,
        places=PLACES,
        rows=statements.MESSAGE_ROWS,
        first=("", -1),
        names=("after_id", "after"),
        derived=_of_message,
        change=statements.CHANGE_MESSAGES,
    ),
    "metadata-columns": Job(
        what="plain and value_key of metadata, from their values",
        estimate=statements.ESTIMATE_METADATA,
        next_tenant=statements.NEXT_VALUE_TENANT,
        places=statements.VALUE_PLACES,
        rows=statements.VALUE_ROWS,
        first=("", ""),
        names=("after_id", "after_key"),
        derived=_of_value,
        change=statements.CHANGE_VALUES,
    ),
}


def progress() -> Unit[list[Row]]:
    """Tell how far all backfills are that were ever begun."""

    def steps(_db: Dialect) -> Steps[list[Row]]:
        return list((yield statements.ALL()))

    return Unit("backfills", Kind.READ, steps, tenantless=True)


def start(name: str, *, restart: bool) -> Unit[Row]:
    """Begin a backfill, or find how far it is."""

    def steps(_db: Dialect) -> Steps[Row]:
        about = yield JOBS[name].estimate()
        yield statements.START(job=name, total=about[0][0] if about else None, restart=restart)
        return (yield statements.LOCK(job=name))[0][1:]

    return Unit("start_backfill", Kind.TRANSACTION, steps, repeatable=True)


def advance(name: str, *, limit: int) -> Unit[Row]:
    """Do the next batch of a backfill; gives how far it is then."""
    job = JOBS[name]

    def steps(_db: Dialect) -> Steps[Row]:
        [(reached, *so_far)] = yield statements.LOCK(job=name)
        if so_far[-1] is not None:
            return so_far
        tenant, *key = orjson.loads(reached) if reached else ("", *job.first)
        rows = yield from _page(job, tenant, key, limit)
        while not rows:
            # Only when nothing is left: rows that came in between may have pushed others out of the last batch.
            tenant = (yield job.next_tenant(after_tenant=tenant))[0][0]
            if tenant is None:
                yield statements.SAVE(job=name, **_NOTHING, reached=None, finished=True)
                return (yield statements.LOCK(job=name))[0][1:]
            rows = yield from _page(job, tenant, job.first, limit)
        changes, unreadable = _changes(job, rows)
        if changes:
            yield job.change(changes, tenant=tenant)
        done = {"seen": len(rows), "changed": len(changes), "unreadable": unreadable}
        reached = orjson.dumps([tenant, *rows[-1][: len(job.first)]]).decode()
        yield statements.SAVE(job=name, **done, reached=reached, finished=False)
        return (yield statements.LOCK(job=name))[0][1:]

    return Unit("backfill", Kind.TRANSACTION, steps, repeatable=True, rows=limit)


_NOTHING: Final = {"seen": 0, "changed": 0, "unreadable": 0}


def _page(job: Job, tenant: str, key: Iterable[Any], limit: int) -> Steps[Rows]:
    """The rows of a tenant after a key; more bytes would hold too much in memory, and a lock for too long."""
    after = dict(zip(job.names, key, strict=True))
    places = yield job.places(tenant=tenant, **after, limit=limit)
    count = fitting(places, limit, CHUNK_BYTES)
    return (yield job.rows(tenant=tenant, **after, limit=count)) if count else ()


def _changes(job: Job, rows: Any) -> tuple[list[Row], int]:
    """The rows to write, key and value first; and how many cannot be read."""
    changes: list[Row] = []
    width, unreadable = len(job.first), 0
    for row in rows:
        key, raw, columns = row[:width], row[width], tuple(row[width + 1 :])
        derived = job.derived(raw, columns)
        if derived is None:
            unreadable += 1
        elif derived != columns:
            changes.append((*key, raw, *derived))
    return changes, unreadable
