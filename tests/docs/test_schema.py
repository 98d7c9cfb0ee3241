"""docs/schema.md: up to date, and what a migrated database of each kind says about itself."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest

from sessionstore import SessionRepository
from sessionstore.schema import Base
from tests.docs import schema
from tests.docs.markdown import blocks, read, rows, sections
from tests.migrations.databases import execute, fetch

PAGE: Final = "docs/schema.md"

# ruff: noqa: S608 - what is put into SQL here are names that stand in the catalogs
_COLUMNS: Final = """
SELECT CAST(attname AS text), format_type(atttypid, atttypmod)
    || CASE WHEN collname = 'C' THEN ' COLLATE "C"' ELSE '' END, NOT attnotnull, col_description(attrelid, attnum)
FROM pg_attribute LEFT JOIN pg_collation AS c ON c.oid = attcollation
WHERE attrelid = '{}'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_CONSTRAINTS: Final = """
SELECT CAST(conname AS text), CAST(contype AS text), pg_get_constraintdef(oid) FROM pg_constraint
WHERE conrelid = '{}'::regclass AND contype <> 'n'
"""
_INDEXES: Final = """
SELECT CAST(relname AS text), pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid
WHERE indrelid = '{}'::regclass
  AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype <> 'f')
"""


def described(name: str) -> tuple[list[list[str]], list[list[str]]]:
    """What the page says of a table: its columns, and what holds them together."""
    found = rows(sections(read(PAGE))[name])
    border = next(at for at, row in enumerate(found) if row[0] == "key, check or index")
    return found[1:border], found[border + 1 :]


def code(cell: str) -> str:
    """A cell without its marks."""
    return cell.strip("`").replace("\\|", "|")


async def relations(url: str, kind: str) -> set[str]:
    """The tables or views of ours that a database has, but Alembic's own table."""
    if url.startswith("postgresql"):
        query = f"SELECT CAST(relname AS text) FROM pg_class WHERE relkind = '{kind[0].replace('t', 'r')}'"
    else:
        query = f"SELECT name FROM sqlite_master WHERE type = '{kind}'"
    names = {name for (name,) in await fetch(url, query)}
    return {name for name in names if name.startswith("sessionstore_")} - {"sessionstore_alembic_version"}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """A migrated database on disk."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{request.getfixturevalue('sqlite_file')}"
    return str(request.getfixturevalue("postgres_database"))


async def test_the_page_is_up_to_date(postgres_database: str) -> None:
    written = schema.page(await schema.views(postgres_database))
    assert schema.PAGE.read_text() == written, "run python -m tests.docs.schema"


async def test_a_comment_that_changed_would_be_noticed(postgres_database: str) -> None:
    await execute(postgres_database, "COMMENT ON VIEW sessionstore_message_texts IS 'other'")
    assert schema.PAGE.read_text() != schema.page(await schema.views(postgres_database))


def test_every_index_says_what_it_is_for() -> None:
    """Give a new one `info={"for": ...}`."""
    assert [index.name for table in Base.metadata.tables.values() for index in table.indexes if not index.info] == []


async def test_every_table_and_view_is_on_the_page(url: str) -> None:
    headings = {heading for heading in sections(read(PAGE)) if heading.startswith("sessionstore_")}
    assert headings == await relations(url, "table") | await relations(url, "view")


async def test_columns_are_those_of_the_database(url: str) -> None:
    for name in await relations(url, "table"):
        written = [[code(cell) for cell in row] for row in described(name)[0]]
        if url.startswith("postgresql"):
            found = [[*row[:2], "yes" if row[2] else "", row[3]] for row in await fetch(url, _COLUMNS.format(name))]
            assert [[row[0], row[1], row[3], row[4]] for row in written] == found
        else:
            of_file = await fetch(url, f"SELECT name, type, \"notnull\" FROM pragma_table_info('{name}')")
            assert [(row[0], row[2], row[3]) for row in written] == [
                (column, kind, "" if required else "yes") for column, kind, required in of_file
            ]


async def test_columns_of_views_are_those_of_the_database(url: str) -> None:
    for name in await relations(url, "view"):
        columns = "SELECT attname FROM pg_attribute WHERE attrelid = '{}'::regclass AND attnum > 0 ORDER BY attnum"
        if url.startswith("sqlite"):
            columns = "SELECT name FROM pragma_table_info('{}')"
        written = [code(row[0]) for row in rows(sections(read(PAGE))[name])[1:]]
        assert written == [str(column) for (column,) in await fetch(url, columns.format(name))]


async def test_keys_checks_and_indexes_are_those_of_postgresql(postgres_database: str) -> None:
    for name in await relations(postgres_database, "table"):
        written = {code(row[0]): code(row[1]) for row in described(name)[1]}
        constraints = await fetch(postgres_database, _CONSTRAINTS.format(name))
        indexes = await fetch(postgres_database, _INDEXES.format(name))
        assert written.keys() == {row[0] for row in constraints} | {row[0] for row in indexes}, name
        for constraint, kind, definition in constraints:
            if kind != "c":  # a check comes back in the server's own words; SQLite keeps ours, see below
                assert _words(written[constraint]) == _words(definition)
        for index, definition in indexes:
            columns = definition.partition(" USING btree ")[2]
            unique = "unique index" if "UNIQUE" in definition else "index"
            assert _words(written[index]) == _words(f"{unique} {columns}"), index


def _words(text: str) -> list[str]:
    """What is said, whatever the case, marks and line breaks."""
    without = re.sub(r"\bREFERENCES (?:\w+\.)?", "to ", re.sub(r"\bWHERE \((.*)\)", r"where \1", text))
    return re.findall(r"\w+", without.lower())


async def test_keys_checks_and_indexes_are_those_of_sqlite(sqlite_file: object) -> None:
    url = f"sqlite+aiosqlite:///{sqlite_file}"
    for name in await relations(url, "table"):
        of_table = f"SELECT name, sql FROM sqlite_master WHERE tbl_name = '{name}' AND sql IS NOT NULL AND type = "
        ((_, table),) = await fetch(url, of_table + "'table'")
        indexes = dict(await fetch(url, of_table + "'index'"))
        written = {code(row[0]): code(row[1]) for row in described(name)[1]}
        constraints = {name: _words(text) for name, text in _constraints(table)}
        assert written.keys() == constraints.keys() | indexes.keys(), name
        for constraint, words in constraints.items():
            assert _words(written[constraint]) == words
        for index, definition in indexes.items():
            columns = definition.partition(f"ON {name} ")[2]
            unique = "unique index" if "UNIQUE" in definition else "index"
            assert _words(written[index]) == _words(f"{unique} {columns}"), index


def _constraints(table: str) -> list[tuple[str, str]]:
    """The named constraints of a CREATE TABLE."""
    parts = re.split(r"\bCONSTRAINT (\w+)", table)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def test_the_diagram_has_every_table_column_and_key() -> None:
    (diagram,) = blocks("mermaid", PAGE)
    drawn = {
        table: body.split("\n")
        for table, body in re.findall(r"^    (\w+) \{\n(.*?)\n    \}$", diagram.code, re.MULTILINE | re.DOTALL)
    }
    tables = Base.metadata.tables
    assert {name: [line.split()[1] for line in body] for name, body in drawn.items()} == {
        name: [column.name for column in table.columns] for name, table in tables.items()
    }
    arrows = {tuple(found) for found in re.findall(r"^    (\w+) \|\|--o\{ (\w+) : ", diagram.code, re.MULTILINE)}
    assert arrows == {
        (key.referred_table.name, name) for name, table in tables.items() for key in table.foreign_key_constraints
    }


async def test_the_settings_that_are_advised_are_accepted(postgres_database: str) -> None:
    """All but lz4 are in every server; the store goes on with them."""
    advised = "".join(block.code for block in blocks("sql", PAGE) if "settings" in block.words)
    known = "SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'"
    has_lz4 = await fetch(postgres_database, known)
    statements = [part for part in advised.split(";") if part.strip() and ("lz4" not in part or has_lz4 == [(True,)])]
    assert len(statements) >= 3
    await execute(postgres_database, *statements)
    query = "SELECT relname::text, reloptions::text FROM pg_class WHERE reloptions IS NOT NULL AND relkind = 'r'"
    stored: dict[str, Any] = dict(await fetch(postgres_database, query))
    assert "fillfactor=85" in stored["sessionstore_sessions"]
    for table in ("sessionstore_sessions", "sessionstore_messages"):
        assert "autovacuum_vacuum_scale_factor=0.02" in stored[table]
    async with SessionRepository.connect(postgres_database) as sessions:
        await sessions.append("s", {"role": "user", "content": "hello " * 1000}, create=True)
        assert await sessions.length("s") == 1
