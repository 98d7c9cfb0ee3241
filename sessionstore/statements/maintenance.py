"""Statements about the store itself: its schema, its shared jobs, its size."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Select, Text, cast, column, func, literal_column, select, table, true, union_all
from sqlalchemy.dialects import postgresql, sqlite

from sessionstore.dialects.base import Dialect
from sessionstore.dialects.constructs import byte_length, database_clock, relation_exists
from sessionstore.schema import (
    TENANT_CONDITION,
    TENANT_POLICY,
    TENANT_TABLES,
    Base,
    MaintenanceRow,
    Name,
    SchemaRow,
)
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

SERVER_SETTINGS: Final = (
    "server_encoding",
    "fsync",
    "full_page_writes",
    "synchronous_commit",
    "default_transaction_read_only",
    "standard_conforming_strings",
)
"""What the guarantees rest on in PostgreSQL's configuration, by the names that it has there."""

NOT_BYTEWISE: Final = "not_bytewise"
"""The columns that are declared to compare bytewise and do not."""


EXEMPT: Final = "exempt"
"""Why policies mean nothing to this role."""

UNPROTECTED: Final = "unprotected"
"""The tables on which row-level security is not as it should be."""

FILTERED: Final = "filtered"
"""The tables of which this role is shown only the rows that a policy lets through."""

ROW_SECURITY: Final = {
    EXEMPT: """
        SELECT CASE
            WHEN rolsuper THEN 'a superuser'
            WHEN rolbypassrls THEN 'exempt by BYPASSRLS'
            WHEN EXISTS (
                SELECT FROM pg_roles r WHERE (r.rolsuper OR r.rolbypassrls) AND pg_has_role(r.oid, 'MEMBER')
            ) THEN 'a member of a superuser, or of a role with BYPASSRLS'
            WHEN EXISTS (
                SELECT FROM pg_class WHERE oid IN ({tables}) AND pg_has_role(relowner, 'MEMBER')
            ) THEN 'the owner of the tables or a member of it'
        END
        FROM pg_roles WHERE rolname = current_user
    """,
    UNPROTECTED: """
        SELECT string_agg(c.relname, ', ' ORDER BY c.relname) FROM pg_class c
        WHERE c.oid IN ({tables}) AND NOT (
            c.relrowsecurity AND c.relforcerowsecurity
            AND EXISTS (
                SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = '{policy}'
                AND p.polcmd = '*' AND p.polroles = '{{0}}'
                AND pg_get_expr(p.polqual, c.oid) = {condition} AND pg_get_expr(p.polwithcheck, c.oid) = {condition}
            )
            AND NOT EXISTS (
                SELECT FROM pg_policy p, unnest(p.polroles) AS whose(role)
                WHERE p.polrelid = c.oid AND p.polname <> '{policy}' AND p.polpermissive
                AND (whose.role = 0 OR pg_has_role(whose.role, 'MEMBER'))
            )
        )
    """,
    FILTERED: """
        SELECT string_agg(relname, ', ' ORDER BY relname) FROM pg_class
        WHERE oid IN ({tables}) AND row_security_active(oid)
    """,
}
"""What there is to know of row-level security; NULL where there is nothing.

A policy of another name would let more rows through, if it applies to this role.
"""

MISSING: Final = "missing_index"
"""The unique indexes that are not there."""

UNIQUE: Final = tuple(
    sorted(str(index.name) for table in Base.metadata.tables.values() for index in table.indexes if index.unique)
)

FACTS: Final = (*SERVER_SETTINGS, NOT_BYTEWISE, MISSING, *ROW_SECURITY)
"""What `GUARANTEES` gives, in this order."""


@statement("guarantees")
def GUARANTEES(db: Dialect) -> Any:  # noqa: N802  # as CLAIM
    """PostgreSQL only: `SERVER_SETTINGS`, NULL where it has no such setting, `NOT_BYTEWISE` and `ROW_SECURITY`."""
    settings = [func.current_setting(_quoted(name), true()).label(name) for name in SERVER_SETTINGS]
    bytewise = _not_bytewise(db).scalar_subquery().label(NOT_BYTEWISE)
    return select(*settings, bytewise, _missing(db).scalar_subquery().label(MISSING), *_row_security(db))


@statement("missing_indexes")
def MISSING_INDEXES(db: Dialect) -> Any:  # noqa: N802  # as CLAIM
    """The names of the unique indexes that are not there; NULL if they all are."""
    return _missing(db)


def _missing(db: Dialect) -> Select[Any]:
    # Not VALUES, whose columns have no names on SQLite.
    wanted = union_all(*[select(_quoted(name).label("name")) for name in UNIQUE]).subquery("wanted")
    name = wanted.c.name
    if db.one_writer:
        master = table("sqlite_master", column("name"))
        return select(func.group_concat(name, _quoted(", "))).where(name.not_in(select(master.c.name)))
    there = func.to_regclass(func.concat(_quoted(db.qualified("")), name))
    return select(func.string_agg(name, _quoted(", "))).where(there.is_(None))


def _row_security(db: Dialect) -> list[Any]:
    doubled = TENANT_CONDITION.replace("'", "''")
    places = {
        "tables": ", ".join(f"to_regclass('{db.qualified(name)}')" for name in TENANT_TABLES),
        "policy": TENANT_POLICY,
        "condition": f"'{doubled}'",
    }
    return [literal_column(f"({sql.format(**places)})", Text).label(name) for name, sql in ROW_SECURITY.items()]


def _not_bytewise(db: Dialect) -> Select[Any]:
    attribute = table("pg_attribute", *map(column, ("attrelid", "attname", "attcollation")), schema="pg_catalog")
    collation = table("pg_collation", column("oid"), column("collname"), schema="pg_catalog")
    tables = Base.metadata.tables
    names = sorted({each.name for of in tables.values() for each in of.c if each.type is Name})
    return (
        select(func.string_agg(cast(attribute.c.attname, Text), _quoted(", ")))
        .join_from(attribute, collation, collation.c.oid == attribute.c.attcollation)
        .where(
            attribute.c.attrelid.in_([func.to_regclass(_quoted(db.qualified(name))) for name in tables]),
            attribute.c.attname.in_([_quoted(name) for name in names]),
            collation.c.collname.not_in([_quoted("C"), _quoted("POSIX")]),
        )
    )


def _quoted(constant: str) -> Any:
    return literal_column(f"'{constant}'")


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
