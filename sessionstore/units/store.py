"""Units on the store itself."""

from __future__ import annotations

from typing import NamedTuple

from sessionstore.dialects.base import Dialect, Rows
from sessionstore.errors import SchemaOutOfDateError
from sessionstore.schema import REVISION, SchemaRow
from sessionstore.statements import maintenance
from sessionstore.units.unit import Kind, Steps, Unit


def upgrade_command(schema: str | None = None) -> str:
    """Name the command that brings a database to the newest revision."""
    return "sessionstore db upgrade" + (f" --schema {schema}" if schema else "")


def misfit(rows: Rows, schema: str | None) -> SchemaOutOfDateError | None:
    """Why this code cannot work with tables of a schema row, or with none; None if it can."""
    if not rows:
        return SchemaOutOfDateError(found=None, expected=REVISION, command=upgrade_command(schema))
    revision, compatible_from = rows[0]
    if revision < REVISION:
        return SchemaOutOfDateError(found=revision, expected=REVISION, command=upgrade_command(schema))
    if compatible_from > REVISION:
        upgrade_code = f"pip install --upgrade sessionstore  (the tables need code of {compatible_from} or later)"
        return SchemaOutOfDateError(found=revision, expected=REVISION, command=upgrade_code)
    return None


def check_schema() -> Unit[dict[str, str | None]]:
    """Refuse a database older than this code needs, or one that needs newer code; gives what its guarantees rest on."""

    def steps(db: Dialect) -> Steps[dict[str, str | None]]:
        exists = yield maintenance.SCHEMA_EXISTS(relation=db.qualified(SchemaRow.__tablename__))
        rows = (yield maintenance.SCHEMA()) if exists[0][0] else ()
        if (refusal := misfit(rows, db.schema)) is not None:
            raise refusal
        if db.one_writer:  # the rest of it hangs on each connection there
            return {maintenance.MISSING: (yield maintenance.MISSING_INDEXES())[0][0]}
        [facts] = yield maintenance.GUARANTEES()
        return dict(zip(maintenance.FACTS, facts, strict=True))

    return Unit("check_schema", Kind.READ, steps, tenantless=True)


def claim(tenant: str, job: str, *, cooldown_micros: int) -> Unit[bool]:
    """Note that a job runs now, unless it ran within the cooldown by the database's clock."""

    def steps(_db: Dialect) -> Steps[bool]:
        return bool((yield maintenance.CLAIM(tenant=tenant, job=job, cooldown=cooldown_micros)))

    return Unit("claim", Kind.WRITE, steps)


class TenantSize(NamedTuple):
    """What one tenant stores; `body_bytes` counts encoded bodies."""

    tenant: str
    sessions: int
    messages: int
    body_bytes: int


def sizes(tenant: str | None) -> Unit[list[TenantSize]]:
    """Measure one tenant, or all. Reads every body."""

    def steps(_db: Dialect) -> Steps[list[TenantSize]]:
        if tenant is None:
            counted = yield maintenance.SESSIONS_BY_TENANT()
            measured = yield maintenance.BYTES_BY_TENANT()
        else:
            counted = yield maintenance.SESSIONS_OF_TENANT(tenant=tenant)
            measured = yield maintenance.BYTES_OF_TENANT(tenant=tenant)
        body_bytes = {row[0]: int(row[1]) for row in measured}
        return [TenantSize(row[0], row[1], int(row[2]), body_bytes.get(row[0], 0)) for row in counted]

    return Unit("sizes", Kind.SNAPSHOT, steps)
