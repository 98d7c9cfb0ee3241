"""Statements that tell how a database is: its catalog, its statistics and the counters of sessions. None reads a body.

Catalogs are readable by any role, and looking into them takes no lock on a table. `SIZES` and `TENANTS` take the
weakest one, which a migration or a VACUUM FULL may keep them waiting for: `PATIENCE` bounds that.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    FromClause,
    Select,
    Text,
    and_,
    case,
    cast,
    column,
    exists,
    func,
    literal_column,
    not_,
    null,
    or_,
    select,
    table,
    true,
    union_all,
    values,
)
from sqlalchemy.dialects.postgresql import OID

from sessionstore.dialects.base import Dialect
from sessionstore.limits import STATUS_TENANTS
from sessionstore.schema import TENANT_TABLES, Base, SchemaRow
from sessionstore.statements.common import ONE, ZERO, fixed, s, statement, text
from sessionstore.statements.verification import moment

TABLES_OF_OURS: Final = tuple(sorted(Base.metadata.tables))


def _catalog(name: str, *columns: str) -> Any:
    """A table or view of PostgreSQL's own."""
    return table(name, *map(column, columns), schema="pg_catalog")


_CLASS: Final = ("oid", "relname", "relnamespace", "relkind", "reltuples")
_c: Final = _catalog("pg_class", *_CLASS).alias("c")
_n: Final = _catalog("pg_namespace", "oid", "nspname").alias("n")
_x: Final = _catalog("pg_index", "indexrelid", "indrelid", "indisvalid", "indisready").alias("x")
_i: Final = _catalog("pg_class", *_CLASS).alias("i")
_t: Final = _catalog(
    "pg_stat_all_tables",
    *("relid", "n_live_tup", "n_dead_tup", "n_tup_upd", "n_tup_hot_upd", "last_vacuum", "last_autovacuum"),
).alias("t")
_a: Final = _catalog(
    "pg_stat_activity",
    *("datname", "pid", "application_name", "state", "backend_type", "xact_start"),
).alias("a")


def _text(value: str) -> Any:
    return literal_column(f"'{value}'", Text)


def _big(value: Any) -> Any:
    return cast(value, BigInteger)


def _ours(db: Dialect) -> Any:
    """Whether a row of `c` is a table of ours: where settings say, or where the search path leads."""
    # By rows and not to_regclass, which fails for a role that may not use the schema.
    place = _n.c.nspname == _text(db.schema) if db.schema else func.pg_table_is_visible(_c.c.oid)
    return and_(
        _c.c.relnamespace == _n.c.oid,
        _c.c.relkind.in_([_text("r"), _text("p")]),
        _c.c.relname.in_([_text(name) for name in TABLES_OF_OURS]),
        place,
    )


PATIENCE: Final = fixed(
    "status_patience",
    select(
        func.set_config(_text("lock_timeout"), text("lock_timeout"), true()),
        func.set_config(_text("statement_timeout"), text("statement_timeout"), true()),
    ),
)
"""PostgreSQL only: how many milliseconds the rest of this transaction may wait for a lock, and take a statement."""


# --- tables and indexes -------------------------------------------------------------------------

_master: Final = table("sqlite_master", *map(column, ("type", "name", "tbl_name")))
_of_master: Final = _master.c.tbl_name.in_([_text(name) for name in TABLES_OF_OURS])


@statement("status_tables")
def TABLES(db: Dialect) -> Select[Any]:  # noqa: N802  # a statement, named like the constants beside it
    """Our tables that are there, and on PostgreSQL what its statistics say of them.

    Name, rows, dead rows, updates, HOT updates, last vacuum, last autovacuum, whether row-level security hides rows.
    """
    if db.one_writer:
        nothing = [null().label(name) for name in ("rows", "dead", "updates", "hot", "vacuum", "autovacuum", "hidden")]
        return (
            select(_master.c.name, *nothing)
            .where(_of_master, _master.c.type == _text("table"))
            .order_by(_master.c.name)
        )
    # A table that was never analyzed has -1 rows there, or 0 with older servers.
    rows = case((_c.c.reltuples > ZERO, _big(_c.c.reltuples)), else_=_t.c.n_live_tup)
    return (
        select(
            *(cast(_c.c.relname, Text), rows, _t.c.n_dead_tup, _t.c.n_tup_upd, _t.c.n_tup_hot_upd),
            *(_t.c.last_vacuum, _t.c.last_autovacuum, func.row_security_active(_c.c.oid)),
        )
        .select_from(_c.join(_n, _c.c.relnamespace == _n.c.oid).outerjoin(_t, _t.c.relid == _c.c.oid))
        .where(_ours(db))
        .order_by(_c.c.relname)
    )


@statement("status_indexes")
def INDEXES(db: Dialect) -> Any:  # noqa: N802  # as TABLES
    """The indexes of our tables, whoever made them: table, name, whether it serves queries."""
    if db.one_writer:
        made = (_of_master, _master.c.type == _text("index"))
        found = select(_master.c.tbl_name, _master.c.name, true()).where(*made)
        return found.order_by(_master.c.tbl_name, _master.c.name)
    serves = and_(_x.c.indisvalid, _x.c.indisready)
    return (
        select(cast(_c.c.relname, Text), cast(_i.c.relname, Text), serves)
        .select_from(
            _c.join(_n, _c.c.relnamespace == _n.c.oid)
            .join(_x, _x.c.indrelid == _c.c.oid)
            .join(_i, _i.c.oid == _x.c.indexrelid)
        )
        .where(_ours(db))
        .order_by(_c.c.relname, _i.c.relname)
    )


_dbstat: Final = table("dbstat", *map(column, ("name", "pagetype", "pgsize", "ncell")))


@statement("status_sizes")
def SIZES(db: Dialect) -> Any:  # noqa: N802  # as TABLES
    """The bytes of our tables and their indexes by name, on SQLite with how many entries are in them.

    Tables with what PostgreSQL keeps beside them (TOAST). SQLite visits every page of the file.
    """
    if db.one_writer:
        entries = func.sum(case((_dbstat.c.pagetype == _text("leaf"), _dbstat.c.ncell), else_=ZERO))
        names = select(_master.c.name).where(_of_master)
        return (
            select(_dbstat.c.name, func.sum(_dbstat.c.pgsize), entries)
            .where(_dbstat.c.name.in_(names))
            .group_by(_dbstat.c.name)
            .order_by(_dbstat.c.name)
        )
    from_tables = _c.join(_n, _c.c.relnamespace == _n.c.oid)
    from_indexes = from_tables.join(_x, _x.c.indrelid == _c.c.oid).join(_i, _i.c.oid == _x.c.indexrelid)
    return union_all(_sized(db, _c, from_tables), _sized(db, _i, from_indexes))


def _sized(db: Dialect, relation: Any, of: FromClause) -> Select[Any]:
    columns = cast(relation.c.relname, Text), func.pg_table_size(relation.c.oid), cast(null(), BigInteger)
    return select(*columns).select_from(of).where(_ours(db))


# --- sessions -----------------------------------------------------------------------------------

_by_tenant: Final = (
    select(
        s.tenant_id.label("tenant"),
        func.count().label("sessions"),
        func.sum(s.next_position - s.first_position).label("messages"),
        *(
            choose(moment(column_)).label(f"{prefix}_{column_.name}")
            for column_ in (s.created_at, s.updated_at)
            for prefix, choose in (("first", func.min), ("last", func.max))
        ),
    )
    .group_by(s.tenant_id)
    .cte("by_tenant")
)


def _ranked() -> Select[Any]:
    t = _by_tenant.c
    total = [func.count().over(), func.sum(t.sessions).over(), func.sum(t.messages).over()]
    total += [func.min(t.first_created_at).over(), func.max(t.last_created_at).over()]
    total += [func.min(t.first_updated_at).over(), func.max(t.last_updated_at).over()]
    names = (
        "tenants",
        "all_sessions",
        "all_messages",
        "first_created",
        "last_created",
        "first_updated",
        "last_updated",
    )
    by_sessions = func.row_number().over(order_by=(t.sessions.desc(), t.tenant))
    by_messages = func.row_number().over(order_by=(t.messages.desc(), t.tenant))
    ranked = select(
        *(t.tenant, t.sessions, t.messages, by_sessions.label("by_sessions"), by_messages.label("by_messages")),
        *(each.label(name) for each, name in zip(total, names, strict=True)),
    ).subquery("ranked")
    r = ranked.c
    most = literal_column(str(STATUS_TENANTS), BigInteger)
    return (
        select(
            *(r.tenant, r.sessions, _big(r.messages), r.by_sessions, r.by_messages, r.tenants),
            *(_big(r.all_sessions), _big(r.all_messages)),
            *(r[name] for name in names[3:]),
        )
        .where(or_(r.by_sessions <= most, r.by_messages <= most))
        .order_by(r.by_sessions)
    )


TENANTS: Final = fixed("status_tenants", _ranked())
"""The busiest tenants, and in each row what holds for all of them together.

Tenant, its sessions and messages, its rank by either; then tenants, sessions, messages, the first and the last creation
and the first and the last change. Reads the table of sessions once, and no other: messages are counted by counters.
"""


# --- PostgreSQL only ----------------------------------------------------------------------------

_here: Final = _a.c.datname == func.current_database()


def _setting(name: str) -> Any:
    return func.current_setting(_text(name))


SERVER: Final = fixed("status_server", select(_setting("server_version"), func.pg_is_in_recovery()))
"""PostgreSQL only: its version, and whether it is a replica."""

CONNECTIONS: Final = fixed(
    "status_connections",
    select(
        func.coalesce(_a.c.application_name, _text("")).label("application"),
        func.count().label("connections"),
        func.count().filter(_a.c.state == _text("active")),
        func.count().filter(_a.c.state.like(_text("idle in transaction%"))),
        func.count().filter(_a.c.state.is_(None)),
    )
    # Of what is hidden, the kind is too.
    .where(_here, func.coalesce(_a.c.backend_type, _text("client backend")) == _text("client backend"))
    .group_by(literal_column("1"))
    .order_by(literal_column("2").desc(), literal_column("1")),
)
"""PostgreSQL only: application name, connections, how many are active, in a transaction, hidden from this role."""

OLDEST_TRANSACTION: Final = fixed(
    "status_oldest_transaction",
    select(
        *(_a.c.pid, func.coalesce(_a.c.application_name, _text("")), _a.c.state, _a.c.backend_type),
        _big(func.date_part(_text("epoch"), func.clock_timestamp() - _a.c.xact_start)),
    )
    .where(_here, _a.c.xact_start.is_not(None), _a.c.pid != func.pg_backend_pid())
    .order_by(_a.c.xact_start)
    .limit(literal_column("1")),
)
"""PostgreSQL only: process, application name, state, kind of process, seconds. Never what it says to the server."""


# --- SQLite only --------------------------------------------------------------------------------


def _pragma(name: str) -> Any:
    return select(column(name)).select_from(table(f"pragma_{name}")).scalar_subquery()


_has_dbstat: Final = exists(
    select(ZERO).select_from(table("pragma_module_list")).where(column("name") == _text("dbstat"))
)

FILE: Final = fixed(
    "status_file",
    select(
        func.sqlite_version(),
        *(_pragma(name) for name in ("journal_mode", "synchronous", "page_size", "page_count", "freelist_count")),
        case((_has_dbstat, ONE), else_=ZERO),
    ),
)
"""SQLite only: its version, then what the pragmas say on a connection of the store, and whether it has dbstat."""


@statement("status_lacking_rights")
def LACKING(db: Dialect) -> Any:  # noqa: N802  # as TABLES
    """PostgreSQL only: what a service needs and this role has not, table and right."""
    wanted = values(column("relation", Text), column("wanted", Text), name="wanted").data(
        [(_text(name), _text(right)) for name, rights in _NEEDED.items() for right in rights]
    )
    relation = func.to_regclass(func.concat(_text(db.qualified("")), wanted.c.relation))
    may = func.has_table_privilege(cast(relation, OID), wanted.c.wanted)
    return (
        select(wanted.c.relation, wanted.c.wanted)
        .where(relation.is_not(None), not_(may))
        .order_by(wanted.c.relation, wanted.c.wanted)
    )


_NEEDED: Final = {
    **dict.fromkeys(TENANT_TABLES, ("SELECT", "INSERT", "UPDATE", "DELETE")),
    SchemaRow.__tablename__: ("SELECT",),
}
