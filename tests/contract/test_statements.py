"""What every statement that can be sent has in common: it names its tenant."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import sessionstore
from sessionstore.dialects.base import PREFIX
from sessionstore.schema import Base
from tests.contract._statements import DIALECTS, MAKERS, Sent, every_statement, modules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sessionstore.dialects.base import Dialect

STATEMENTS = every_statement()
PACKAGE = Path(sessionstore.__file__).parent

WITHOUT_A_TENANT = {
    "schema_exists": "looks for a table in the catalog",
    "schema": "reads the one row that says what the tables are",
    "guarantees": "reads settings of the database, and the collation of its columns",
    "status_patience": "sets how long a transaction waits",
    "status_tables": "reads the catalog and statistics",
    "status_indexes": "reads the catalog",
    "status_sizes": "measures tables and indexes",
    "status_tenants": "counts sessions of all tenants, for whoever runs the database",
    "status_server": "reads settings of the server",
    "status_connections": "reads what the server knows of its connections",
    "status_oldest_transaction": "reads what the server knows of its connections",
    "status_file": "reads settings and the header of a file",
    "status_lacking_rights": "looks for the rights of this role in the catalog",
    "missing_indexes": "looks for indexes in the catalog",
    "tick": "looks at the sessions that a process watches, each by its tenant and id, and at tenants that it watches",
    "purge_all_tombstones": "forgets what is a day old, for whoever runs the database",
    "next_tenant": "walks from tenant to tenant to verify them all, for whoever runs the database",
    "sessions_by_tenant": "measures all tenants, for whoever runs the database",
    "bytes_by_tenant": "measures all tenants, for whoever runs the database",
    **dict.fromkeys(
        ("estimate_messages", "estimate_metadata"), "counts the rows of a table about, without reading them"
    ),
    **dict.fromkeys(
        (
            *("backfills", "lock_backfill", "start_backfill", "save_backfill"),
            *("backfill_next_message_tenant", "backfill_next_value_tenant"),
        ),
        "how far a backfill is, which goes from tenant to tenant, for whoever runs the database",
    ),
}
"""The statements that are not about one tenant's rows, and why."""

OF_TENANTS = {name for name, table in Base.metadata.tables.items() if "tenant_id" in table.c}

REFERENCE = re.compile(r"(?:\bFROM|\bJOIN|\bUPDATE|\bUSING|,)\s+(sessionstore_\w+)(?![.\w])(?:\s+AS\s+(\w+))?")
INSERT = re.compile(r"INSERT INTO (sessionstore_\w+) \((\w+)[^)]*\)\s+(?:SELECT\s+|VALUES \()(:\w+)")
CONDITION = re.compile(r"(?:\bWHERE|\bON|\bAND) (\w+)\.tenant_id = (?::(\w+)|(\w+)\.tenant_id)")


def sql_of(sent: Sent, dialect: Dialect) -> str:
    """A statement with its parameters by name."""
    named = type(dialect.engine_dialect)(paramstyle="named")  # type: ignore[call-arg]
    return str(sent.statement.build(dialect).compile(dialect=named))


def cases() -> Iterator[Any]:
    for sent in STATEMENTS:
        for dialect in DIALECTS:
            if dialect.name in sent.databases:
                yield pytest.param(sent, dialect, id=f"{dialect.name}-{sent.where}")


def unbound(sql: str) -> list[str]:
    """The tables whose rows a statement reaches without naming the tenant, once for each time it does."""
    references = [alias or table for table, alias in REFERENCE.findall(sql) if table in OF_TENANTS]
    conditions = CONDITION.findall(sql)
    bound = [name for name, parameter, _ in conditions if parameter == "p_tenant"]
    bound += [name for name, _, other in conditions if other in bound]
    for name in bound:
        if name in references:
            references.remove(name)
    for table, first, value in INSERT.findall(sql):
        if table in OF_TENANTS and (first, value) != ("tenant_id", ":p_tenant"):
            references.append(table)
    return references


@pytest.mark.parametrize(("sent", "dialect"), list(cases()))
def test_it_binds_the_tenant(sent: Sent, dialect: Dialect) -> None:
    """P7, X01: wherever it reads, changes or inserts rows of a tenant, on the table itself."""
    sql = sql_of(sent, dialect)
    tables = {table for table in OF_TENANTS if re.search(rf"\b{table}\b", sql)}
    if sent.statement.name in WITHOUT_A_TENANT:
        assert ":p_tenant" not in sql, "it names a tenant after all: take it off the list"
        return
    assert tables, "about no table of a tenant: put it on the list, with the reason"
    seen = {table for table, _ in REFERENCE.findall(sql)} | {table for table, _, _ in INSERT.findall(sql)}
    assert tables <= seen, "this test does not understand how a table is used here"
    assert unbound(sql) == []
    assert "ON CONFLICT (" not in sql or "ON CONFLICT (tenant_id, " in sql
    assert "tenant" in dialect.compile(sent.statement).names


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT sessionstore_sessions.id FROM sessionstore_sessions WHERE sessionstore_sessions.id = :p_session",
        "DELETE FROM sessionstore_messages WHERE sessionstore_messages.tenant_id = :p_other",
        "UPDATE sessionstore_sessions SET version=1 WHERE sessionstore_sessions.id = :p_session",
        "SELECT a.id FROM sessionstore_sessions AS a, sessionstore_sessions AS b WHERE a.tenant_id = :p_tenant",
        "SELECT 1 FROM sessionstore_sessions AS a JOIN sessionstore_metadata AS b ON 1 WHERE a.tenant_id = :p_tenant",
        "INSERT INTO sessionstore_metadata (tenant_id, key) VALUES (:p_session, :p_key)",
        "INSERT INTO sessionstore_metadata (key, tenant_id) SELECT :p_tenant AS x, :p_key AS y",
        "SELECT 1 FROM sessionstore_sessions AS a WHERE a.id = :p_session OR a.tenant_id = :p_tenant",
    ],
)
def test_this_test_can_fail(sql: str) -> None:
    """P7: a statement that forgets the tenant somewhere is found."""
    assert unbound(sql)


def test_the_list_of_exceptions_is_short_and_true() -> None:
    """P7: each of them exists."""
    assert set(WITHOUT_A_TENANT) <= {sent.statement.name for sent in STATEMENTS}
    assert len(WITHOUT_A_TENANT) == 27


def test_statements_are_made_in_one_room() -> None:
    """P7: so that the walk through the modules there misses none."""
    rooms = {Path(str(module.__file__)) for module in modules()} | {PACKAGE / "dialects" / "base.py"}
    for file in PACKAGE.rglob("*.py"):
        if file in rooms or "_alembic" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in MAKERS | {"Statement"}, f"{file}:{node.lineno}"


def test_no_column_comes_unasked() -> None:
    """X06: columns are listed, so that one that a migration adds changes no row."""
    for sent in STATEMENTS:
        for dialect in DIALECTS:
            if dialect.name in sent.databases:
                sql = sql_of(sent, dialect).replace("EXISTS (SELECT *", "")
                assert not re.search(r"(?:SELECT|RETURNING) \*|\.\*", sql), sent.where


def test_no_parameter_hides_a_constant() -> None:
    """O12: what a statement says itself has names of its own, also after the prefix of parameters is taken off."""
    for sent in STATEMENTS:
        for dialect in DIALECTS:
            if dialect.name in sent.databases:
                binds = sent.statement.build(dialect).compile(dialect=dialect.engine_dialect).binds  # type: ignore[attr-defined]
                parameters = {name.removeprefix(PREFIX) for name, bind in binds.items() if bind.required}
                compiled = dialect.compile(sent.statement)
                assert not parameters & compiled.constants.keys(), f"{dialect.name}: {sent.where}"
                sent_along = set(compiled.names) - compiled.constants.keys()
                assert sent_along == parameters, f"{dialect.name}: {sent.where}"


def test_names_tell_statements_apart() -> None:
    """F14: an error names the statement that failed; only variants of one share a name."""
    names: dict[str, set[str]] = {}
    for sent in STATEMENTS:
        names.setdefault(sent.statement.name, set()).add(sent.where.partition("(")[0])
    assert {name: places for name, places in names.items() if len(places) > 1} == {}
