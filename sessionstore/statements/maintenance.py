"""Statements about the store itself: its schema, its shared jobs, its size."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite

from sessionstore.dialects.base import Dialect
from sessionstore.dialects.constructs import byte_length, database_clock, relation_exists
from sessionstore.schema import Base, MaintenanceRow, SchemaRow
from sessionstore.statements.common import TENANT, fixed, m, number, s, statement, text

JOBS: Final = Base.metadata.tables[MaintenanceRow.__tablename__]
j: Final = JOBS.c


@statement("claim")
def CLAIM(db: Dialect) -> Any:  # noqa: N802  # a statement, named like the constants beside it
    """Note that a job runs now, unless it ran within the cooldown; gives its name if it may run."""
    insert: Any = postgresql.insert if db.array_rows else sqlite.insert
    return (
        insert(JOBS)
        .inline()
        .values(tenant_id=TENANT, job=text("job"), last_run_at=database_clock())
        .on_conflict_do_update(
            index_elements=[j.tenant_id, j.job],
            set_={"last_run_at": database_clock()},
            where=j.last_run_at <= database_clock(-number("cooldown")),
        )
        .returning(j.job)
    )


SCHEMA_EXISTS: Final = fixed("schema_exists", select(relation_exists(text("relation"))))
"""Looks into the catalog: a SELECT of a table that is not there would abort a caller's transaction."""

SCHEMA: Final = fixed("schema", select(SchemaRow.__table__.c.revision, SchemaRow.__table__.c.compatible_from))

_PER_TENANT_SESSIONS: Final = select(
    s.tenant_id, func.count().label("sessions"), func.sum(s.next_position - s.first_position).label("messages")
).group_by(s.tenant_id)

SESSIONS_BY_TENANT: Final = fixed("sessions_by_tenant", _PER_TENANT_SESSIONS.order_by(s.tenant_id))

BYTES_BY_TENANT: Final = fixed(
    "bytes_by_tenant",
    select(m.tenant_id, func.sum(byte_length(m.body))).group_by(m.tenant_id).order_by(m.tenant_id),
)
"""Reads every body of the database."""

SESSIONS_OF_TENANT: Final = fixed("sessions_of_tenant", _PER_TENANT_SESSIONS.where(s.tenant_id == TENANT))

BYTES_OF_TENANT: Final = fixed(
    "bytes_of_tenant",
    select(m.tenant_id, func.sum(byte_length(m.body))).where(m.tenant_id == TENANT).group_by(m.tenant_id),
)
"""Reads every body of the tenant."""
