"""Write the diagram and the reference in docs/schema.md: `python -m tests.docs.schema`.

Tables come from the ORM classes, with what their comments say; views from a migrated PostgreSQL database, because only
the revisions know the comments and the types of their columns. Nothing here names a table: a new one needs no change.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from sqlalchemy import CheckConstraint, Column, Constraint, ForeignKeyConstraint, Index, PrimaryKeyConstraint, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import ColumnCollectionConstraint

from sessionstore.migrate import upgrade
from sessionstore.schema import Base
from tests.docs.markdown import ROOT
from tests.migrations.databases import fetch
from tests.support.postgres import PostgresServer

PAGE: Final = ROOT / "docs" / "schema.md"

_GENERATED: Final = re.compile(r"(?<=<!-- schema -->\n).*?(?=<!-- end -->\n)", re.DOTALL)
_DIALECTS: Final = {"postgresql": postgresql.dialect(), "sqlite": sqlite.dialect()}  # type: ignore[no-untyped-call]

_VIEW_COLUMNS: Final = """
SELECT CAST(c.relname AS text), obj_description(c.oid), CAST(a.attname AS text),
  format_type(a.atttypid, a.atttypmod), col_description(c.oid, a.attnum)
FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relkind = 'v' AND c.relname LIKE 'sessionstore\\_%'
ORDER BY c.relname, a.attnum
"""

PURPOSES: Final = {
    "primary key": "what a row is known by, and found by",
    "unique": "no two rows alike in this",
    "foreign key": "a guard against changes by hand: no row without the one it belongs to",
    "check": "a guard against changes by hand",
}
"""What the constraints are for; an index says it in its `info`."""


class View(NamedTuple):
    """A view and its columns: name, type, comment."""

    name: str
    comment: str
    columns: list[tuple[str, str, str]]


async def views(url: str) -> list[View]:
    """The views of a migrated PostgreSQL database, by name."""
    found: dict[str, View] = {}
    for name, comment, *column in await fetch(url, _VIEW_COLUMNS):
        view = found.setdefault(name, View(name, comment or "", []))
        view.columns.append((column[0], column[1], column[2] or ""))
    return list(found.values())


def page(of_views: list[View]) -> str:
    """The page as it should be."""
    return _GENERATED.sub(lambda _: reference(of_views), PAGE.read_text(), count=1)


def reference(of_views: list[View]) -> str:
    """What is generated."""
    parts = ["\n## The diagram\n", diagram(), "\n## The tables\n"]
    parts += [_described(table) for table in Base.metadata.tables.values()]
    parts += ["\n## The views\n", *(_described_view(view) for view in of_views), "\n"]
    return "".join(parts)


def diagram() -> str:
    """Every table with its columns, and who refers to whom, as Mermaid."""
    lines = ["", "```mermaid", "erDiagram"]
    for table in Base.metadata.tables.values():
        lines += [f"    {table.name} {{", *(f"        {_drawn(column)}" for column in table.columns), "    }"]
    for table in Base.metadata.tables.values():
        for key in sorted(table.foreign_key_constraints, key=lambda each: str(each.name)):
            lines.append(f'    {key.referred_table.name} ||--o{{ {table.name} : "{", ".join(key.column_keys)}"')
    return "\n".join([*lines, "```", ""])


def _drawn(column: Column[Any]) -> str:
    marks = [mark for mark, wanted in (("PK", column.primary_key), ("FK", column.foreign_keys)) if wanted]
    kind = type_of(column, "postgresql").partition(" COLLATE ")[0].replace("timestamp with time zone", "timestamptz")
    return " ".join([kind, column.name, ", ".join(marks)]).rstrip()


def _described(table: Table) -> str:
    lines = ["", f"### {table.name}", "", table.comment or "", ""]
    lines += ["| column | on PostgreSQL | on SQLite | null | what it is |", "|---|---|---|---|---|"]
    for column in table.columns:
        types = f"`{type_of(column, 'postgresql')}` | `{type_of(column, 'sqlite')}`"
        lines.append(f"| `{column.name}` | {types} | {'yes' if column.nullable else ''} | {_cell(column.comment)} |")
    lines += ["", "| key, check or index | what it holds | what it is for |", "|---|---|---|"]
    lines += [f"| `{name}` | {_cell(content)} | {purpose} |" for name, content, purpose in held(table)]
    options = table.dialect_options["postgresql"]["with"] or {}
    if options:
        stated = ", ".join(f"`{name} = {value}`" for name, value in options.items())
        lines += ["", f"On PostgreSQL it is stored with {stated}."]
    return "\n".join([*lines, ""])


def type_of(column: Column[Any], dialect: str) -> str:
    """The type of a column as the database itself names it."""
    kind, collate, collation = column.type.compile(dialect=_DIALECTS[dialect]).partition(" COLLATE ")
    return (kind.lower() if dialect == "postgresql" else kind) + collate + collation


def held(table: Table) -> Iterator[tuple[str, str, str]]:
    """The constraints and indexes of a table: name, content, purpose."""
    for constraint in sorted(table.constraints, key=_in_order):
        kind, content = _content(constraint)
        yield str(constraint.name), f"{kind} {content}", PURPOSES[kind]
    for index in sorted(table.indexes, key=lambda each: str(each.name)):
        yield str(index.name), _content_of_index(index), index.info.get("for", "")


def _in_order(constraint: Constraint) -> tuple[int, str]:
    kind, _ = _content(constraint)
    return list(PURPOSES).index(kind), str(constraint.name)


def _content(constraint: Constraint) -> tuple[str, str]:
    if isinstance(constraint, CheckConstraint):
        return "check", f"`{constraint.sqltext}`"
    assert isinstance(constraint, ColumnCollectionConstraint)
    columns = _listed(constraint.columns.keys())
    if isinstance(constraint, ForeignKeyConstraint):
        referred = _listed(element.column.name for element in constraint.elements)
        deleted = f", on delete {constraint.ondelete.lower()}" if constraint.ondelete else ""
        return "foreign key", f"{columns} to `{constraint.referred_table.name}` {referred}{deleted}"
    return "primary key" if isinstance(constraint, PrimaryKeyConstraint) else "unique", columns


def _content_of_index(index: Index) -> str:
    columns = _listed(str(getattr(each, "name", None) or each) for each in index.expressions)
    where = index.dialect_options["postgresql"]["where"]
    return f"{'unique index' if index.unique else 'index'} {columns}" + ("" if where is None else f" where `{where}`")


def _listed(names: Iterable[str]) -> str:
    return f"`({', '.join(names)})`"


def _described_view(view: View) -> str:
    lines = ["", f"### {view.name}", "", view.comment, "", "| column | on PostgreSQL | what it is |", "|---|---|---|"]
    lines += [f"| `{name}` | `{kind}` | {_cell(comment)} |" for name, kind, comment in view.columns]
    return "\n".join([*lines, ""])


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


async def _views_of_a_new_database() -> list[View]:
    with PostgresServer() as server:
        url = await server.create_database("sessionstore_test_docs")
        await upgrade(url)
        return await views(url)


if __name__ == "__main__":
    written = page(asyncio.run(_views_of_a_new_database()))
    if PAGE.read_text() == written:
        sys.exit(0)
    PAGE.write_text(written)
    print(f"wrote {PAGE.relative_to(ROOT)}")  # noqa: T201  # it is a program
