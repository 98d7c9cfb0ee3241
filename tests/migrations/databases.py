"""Plain SQL on either kind of database, and what its catalogs say."""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from sessionstore.schema import VIEWS, Base, View

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection

# ruff: noqa: S608 - what is put into SQL here are names that stand in this file
VERSION_TABLE = "sessionstore_alembic_version"
TABLES = sorted(Base.metadata.tables)


async def on_connection(url: str, work: Callable[[Connection], Any]) -> Any:
    """Run blocking work in one committed transaction."""
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.begin() as connection:
        result = await connection.run_sync(work)
    await engine.dispose()
    return result


async def execute(url: str, *statements: str) -> None:
    """Run statements as they are, in one transaction."""

    def work(connection: Connection) -> None:
        for statement in statements:
            connection.exec_driver_sql(statement)

    await on_connection(url, work)


async def fetch(url: str, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    rows = await on_connection(url, lambda connection: connection.exec_driver_sql(query).all())
    return [tuple(row) for row in rows]


async def bare(url: str) -> asyncpg.Connection:
    """A driver connection to a PostgreSQL database, to hold locks with."""
    return await asyncpg.connect(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False))


async def given_up(url: str) -> bool:
    """Whether a migration of a PostgreSQL database has given up a try: it sleeps on the connection of its lock.

    It says nothing else there until it has tried again, so that nobody who looks comes too late.
    """
    query = """
        SELECT 1 FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'sessionstore-migrate'
        AND query LIKE 'SELECT pg_sleep%'
    """
    return bool(await fetch(url, query))


def files_in(folder: Path) -> list[str]:
    """The names of what is there."""
    return sorted(path.name for path in folder.iterdir())


def mode_of(file: Path) -> int:
    """Who may do what with a file."""
    return stat.S_IMODE(file.stat().st_mode)


async def build_from_classes(url: str) -> None:
    """Build the database that the ORM classes describe, which nothing but this comparison ever does."""

    def work(connection: Connection) -> None:
        Base.metadata.create_all(connection)
        for name, view in VIEWS.items():
            connection.exec_driver_sql(f"CREATE VIEW {name} AS {view.selects[connection.dialect.name]}")
            if connection.dialect.name == "postgresql":
                _explain(connection, name, view)

    await on_connection(url, work)


def _explain(connection: Connection, name: str, view: View) -> None:
    quoted = {column: comment.replace("'", "''") for column, comment in view.columns.items()}
    connection.exec_driver_sql(f"COMMENT ON VIEW {name} IS '{view.comment}'")
    for column, comment in quoted.items():
        connection.exec_driver_sql(f"COMMENT ON COLUMN {name}.{column} IS '{comment}'")


async def catalog(url: str, schema: str = "public") -> dict[str, list[Any]]:
    """Everything the database says about the objects of ours in it, the version table excepted."""
    return await on_connection(url, lambda connection: _catalog(connection, schema))  # type: ignore[no-any-return]


def _catalog(connection: Connection, schema: str) -> dict[str, list[Any]]:
    if connection.dialect.name == "sqlite":
        return _sqlite_catalog(connection)
    parameters = {"schema": schema, "version": VERSION_TABLE + "%"}
    return {
        what: [tuple(row) for row in connection.execute(text(query), parameters)]
        for what, query in POSTGRESQL_CATALOGS.items()
    }


_RELATIONS = """
    SELECT c.*, CAST(c.relname AS text) AS name FROM pg_class c
    WHERE c.relnamespace = to_regnamespace(:schema) AND c.relname NOT LIKE :version
"""

POSTGRESQL_CATALOGS = {
    "relations": f"""
        SELECT name, relkind, relpersistence, reloptions, relrowsecurity,
            obj_description(r.oid, 'pg_class')
        FROM ({_RELATIONS}) r ORDER BY name""",
    "columns": f"""
        SELECT name, attnum, attname, format_type(atttypid, atttypmod), attnotnull, collname, attidentity,
            attgenerated, pg_get_expr(adbin, adrelid),
            col_description(r.oid, attnum)
        FROM ({_RELATIONS}) r JOIN pg_attribute a ON a.attrelid = r.oid AND attnum > 0 AND NOT attisdropped
        LEFT JOIN pg_collation l ON l.oid = attcollation
        LEFT JOIN pg_attrdef d ON d.adrelid = r.oid AND d.adnum = attnum
        WHERE relkind IN ('r', 'v') ORDER BY name, attnum""",
    "constraints": f"""
        SELECT name, conname, contype, pg_get_constraintdef(k.oid), convalidated, condeferrable
        FROM ({_RELATIONS}) r JOIN pg_constraint k ON k.conrelid = r.oid ORDER BY name, conname""",
    "indexes": f"""
        SELECT name, replace(pg_get_indexdef(r.oid), :schema || '.', ''), indisunique, indisprimary, indisvalid
        FROM ({_RELATIONS}) r JOIN pg_index i ON i.indexrelid = r.oid ORDER BY name""",
    "views": f"SELECT name, pg_get_viewdef(r.oid) FROM ({_RELATIONS}) r WHERE relkind = 'v' ORDER BY name",
    "triggers": f"""
        SELECT name, tgname FROM ({_RELATIONS}) r JOIN pg_trigger t ON t.tgrelid = r.oid
        WHERE NOT tgisinternal ORDER BY name, tgname""",
}


def _sqlite_catalog(connection: Connection) -> dict[str, list[Any]]:
    master = connection.exec_driver_sql(
        f"SELECT type, name, tbl_name, sql FROM sqlite_master WHERE tbl_name <> '{VERSION_TABLE}' ORDER BY type, name"
    ).all()
    found: dict[str, list[Any]] = {
        "objects": [(kind, name, of, re.sub(r"[\s\"]+", " ", sql or "")) for kind, name, of, sql in master]
    }
    for kind, name, _, _ in master:
        pragmas = {
            "table": ["table_xinfo", "foreign_key_list", "index_list"],
            "view": ["table_xinfo"],
            "index": ["index_xinfo"],
        }
        for pragma in pragmas[kind]:
            rows = connection.exec_driver_sql(f"PRAGMA {pragma}({name})").all()
            # Indexes are numbered by age, which is nobody's business.
            found[f"{pragma} {name}"] = sorted(tuple(row)[pragma == "index_list" :] for row in rows)
    return found


def rows_in_every_table(url: str) -> list[str]:
    """Statements that put rows into every table, with bodies that SQL JSON functions cannot read among them."""
    at = "1700000000123456" if url.startswith("sqlite") else "to_timestamp(1700000000.123456)"
    session = "tenant_id, id, user_id, model, max_turns, first_position, next_position, generation, version, next_event"
    message = "tenant_id, session_id, position, role, body, plain, message_id, created_at"
    return [
        (
            f"INSERT INTO sessionstore_sessions ({session}, parent_id, created_at, updated_at, last_accessed_at, "
            f"activity_bucket) VALUES ('t', 's', 'u', '', 0, 0, 4, 1, 0, 0, 'gone', {at}, {at}, {at}, 1888888)"
        ),
        rf"""INSERT INTO sessionstore_messages ({message}) VALUES
            ('t', 's', 0, 'user', '{{"role": "user", "content": "h\u00e9llo"}}', true, 'm0', {at}),
            ('t', 's', 1, 'user', '{{"role": "user", "content": "nul \u0000 here"}}', false, NULL, {at}),
            ('t', 's', 2, 'tool', '{{"role": "tool", "content": "lone \ud800 here"}}', false, NULL, {at}),
            ('t', 's', 3, 'tool', '{{"role": "tool", "content": [{{"text": "x"}}]}}', true, 'm3', {at})""",
        (
            "INSERT INTO sessionstore_metadata (tenant_id, session_id, key, value, plain, value_key) "
            r"""VALUES ('t', 's', 'k', '"a\u0000b"', false, '"a'), ('t', 's', 'n', '1.0', true, '1.0')"""
        ),
        (
            "INSERT INTO sessionstore_documents "
            "(tenant_id, category, name, format, body, plain, created_at, updated_at) "
            f"""VALUES ('t', 'a/b', 'd', 'markdown', '"text"', true, {at}, {at})"""
        ),
        (
            "INSERT INTO sessionstore_events (tenant_id, session_id, number, kind, generation, first_position, "
            rf"""next_position, payload, plain, created_at) VALUES ('t', 's', 0, 'created', 1, 0, 0, NULL, true, {at}),
            ('t', 's', 1, 'own', 1, 0, 4, '{{"half": "\ud800"}}', false, {at})"""
        ),
        (
            "INSERT INTO sessionstore_tombstones (tenant_id, session_id, generation, number, kind, deleted_at) "
            f"VALUES ('t', 'gone', 1, 3, 'deleted', {at})"
        ),
        f"INSERT INTO sessionstore_maintenance (tenant_id, job, last_run_at) VALUES ('t', 'prune', {at})",
        (
            "INSERT INTO sessionstore_backfills (job, after_key, total, seen, changed, unreadable, started_at, "
            f"""updated_at) VALUES ('message-columns', '["t","s",1]', 4, 2, 0, 0, {at}, {at})"""
        ),
    ]


async def count_rows(url: str) -> dict[str, int]:
    """How many rows each of our tables has."""
    return {table: (await fetch(url, f"SELECT count(*) FROM {table}"))[0][0] for table in TABLES}


async def tables_of(url: str) -> dict[str, str]:
    """Our tables that have rows to keep, and their columns."""
    found = {}
    for table in sorted(set(TABLES) - {"sessionstore_schema"}):
        columns = [column.name for column in Base.metadata.tables[table].columns]
        if url.startswith("sqlite"):
            there = await fetch(url, f"SELECT name FROM pragma_table_info('{table}')")
        else:
            there = await fetch(
                url,
                f"SELECT attname FROM pg_attribute WHERE attrelid = to_regclass('{table}') "
                "AND attnum > 0 AND NOT attisdropped",
            )
        names = [column for column in columns if (column,) in there]
        if names:
            found[table] = ", ".join(f"CAST({name} AS TEXT)" for name in names)
    return found


async def rows_of(url: str, tables: dict[str, str]) -> dict[str, list[Any]]:
    """Every row, as text."""
    return {table: sorted(await fetch(url, f"SELECT {columns} FROM {table}")) for table, columns in tables.items()}
