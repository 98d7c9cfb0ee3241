"""What every revision must be, read from the files; and the script for databases that nobody may touch directly."""

# ruff: noqa: S608 - the names of tables are constants
from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory

from sessionstore import migrate
from sessionstore import revisions as known_revisions
from sessionstore.schema import REVISION, VIEWS
from tests.migrations.databases import TABLES, catalog, execute, fetch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.migrations.revisions import Revisions

FOLDER = known_revisions.location()
FILES = sorted((FOLDER / "versions").glob("*.py"))


def _constants(file: Path) -> dict[str, Any]:
    found = {}
    for node in ast.parse(file.read_text()).body:
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and isinstance(node.value, ast.Constant)
        ):
            found[node.target.id] = node.value.value
    return found


def test_there_is_one_line_of_descent() -> None:
    scripts = ScriptDirectory(str(FOLDER))
    assert scripts.get_heads() == [REVISION]
    assert known_revisions.known() == tuple(f"{number:04}" for number in range(1, len(FILES) + 1))


def test_the_ledger_lists_every_revision() -> None:
    lines = [line for line in (FOLDER / "LEDGER").read_text().splitlines() if not line.startswith("#")]
    slugs = [file.stem.partition("_")[2] for file in FILES]
    constants = [_constants(file) for file in FILES]
    assert lines == [f"{c['revision']} {c['phase']} {slug}" for c, slug in zip(constants, slugs, strict=True)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_revision_stands_on_its_own(file: Path) -> None:
    tree = ast.parse(file.read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= {"__future__", "alembic", "sqlalchemy", "typing"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_revision_declares_itself(file: Path) -> None:
    constants = _constants(file)
    assert file.name.startswith(f"{constants['revision']}_")
    assert constants["phase"] in {"expand", "contract"}
    docstring = ast.get_docstring(ast.parse(file.read_text())) or ""
    for heading in ("Problem:", f"Phase: {constants['phase']}", "Locks:", "Cost at 10 M rows:", "Goes back:"):
        assert heading in docstring
    source = file.read_text()
    assert "SET LOCAL lock_timeout" in source
    assert "SET LOCAL statement_timeout" in source


async def test_the_template_makes_a_revision_that_runs(revisions: Revisions, tmp_path: Path) -> None:
    command.revision(known_revisions.config(), "add nothing", rev_id="9000")
    (written,) = (revisions.folder / "versions").glob("9000*.py")
    for heading in ("Problem:", "Phase:", "Locks:", "Cost at 10 M rows:", "Goes back:", "Rules,"):
        assert heading in (ast.get_docstring(ast.parse(written.read_text())) or "")
    known_revisions.known.cache_clear()
    url = f"sqlite:///{tmp_path / 'sessions.db'}"
    assert await migrate.upgrade(url) == "9000"
    assert await migrate.downgrade(url, REVISION) == REVISION


def test_the_script_holds_everything() -> None:
    script = migrate.sql()
    for name in TABLES:
        assert f"CREATE TABLE {name} (" in script
    for name in VIEWS:
        assert f"CREATE VIEW {name} AS" in script
    assert "CREATE TABLE sessionstore_alembic_version" in script
    assert script.count("BEGIN;") == script.count("COMMIT;") == len(FILES)
    assert migrate.sql(to=REVISION) == script


@pytest.mark.parametrize("schema", [None, "elsewhere"])
async def test_the_script_builds_the_same_database(
    postgres_empty: str, postgres_database: str, schema: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSIONSTORE_DATABASE_URL", "sqlite:///other.db")  # which is not what is asked for here
    script = re.sub(r"^--.*$", "", migrate.sql(schema=schema), flags=re.MULTILINE)
    statements = [statement.strip() for statement in script.split(";\n") if statement.strip()]
    await execute(postgres_empty, *(statement for statement in statements if statement not in {"BEGIN", "COMMIT"}))
    assert await migrate.current(postgres_empty, schema=schema) == REVISION
    assert await migrate.upgrade(postgres_empty, schema=schema) == REVISION
    scripted, migrated = await catalog(postgres_empty, schema or "public"), await catalog(postgres_database)
    for what in ("relations", "columns", "indexes"):
        assert scripted[what] == migrated[what]
    version_table = f"{schema or 'public'}.sessionstore_alembic_version"
    assert await fetch(postgres_empty, f"SELECT * FROM {version_table}") == [(REVISION,)]
