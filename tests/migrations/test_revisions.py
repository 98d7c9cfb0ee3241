"""What every revision must be, read from the files; and the script for databases that nobody may touch directly."""

# ruff: noqa: S608 - the names of tables are constants
from __future__ import annotations

import ast
import itertools
import re
from typing import TYPE_CHECKING, Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory

from sessionstore import SessionRepository, StoreSettings, migrate
from sessionstore import revisions as known_revisions
from sessionstore.schema import REVISION, VIEWS
from tests.migrations.databases import TABLES, bare, catalog, execute, fetch

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


def broken_rules(script: str, revision: str, phase: str) -> list[str]:
    """What the SQL of an upgrade may not do in its phase."""
    compatible = re.findall(r"compatible_from = '(\w+)'|INSERT INTO sessionstore_schema .*'(\w+)'\)", script)
    if phase == "contract":
        return [] if compatible and compatible[-1][0] not in {"", revision} else ["a contract says who may stay"]
    taken = re.findall(
        r"\b(DROP (?:TABLE|COLUMN|VIEW|INDEX(?! CONCURRENTLY))|RENAME|SET NOT NULL|ALTER (?:COLUMN )?\w+ TYPE"
        r"|DELETE FROM sessionstore_(?!alembic)|TRUNCATE)\b",
        script,
    )
    return taken + (["an expand leaves compatible_from alone"] if compatible and revision != "0001" else [])


@pytest.mark.parametrize("migration", migrate.history(), ids=lambda migration: migration.revision)
def test_a_revision_keeps_to_its_phase(migration: migrate.Migration) -> None:
    """P9: an expand takes nothing away from code that runs, and a contract says which code may stay."""
    place = known_revisions.place(migration.revision)
    before = "base" if place == 0 else known_revisions.known()[place - 1]
    script = migrate.sql(start=before, to=migration.revision)
    assert broken_rules(script, migration.revision, migration.phase) == []


@pytest.mark.parametrize(
    ("script", "phase"),
    [
        ("ALTER TABLE sessionstore_sessions DROP COLUMN title;", "expand"),
        ("ALTER TABLE sessionstore_sessions RENAME COLUMN title TO name;", "expand"),
        ("ALTER TABLE sessionstore_sessions ALTER COLUMN title SET NOT NULL;", "expand"),
        ("ALTER TABLE sessionstore_sessions ALTER COLUMN title TYPE varchar(9);", "expand"),
        ("DROP VIEW sessionstore_message_texts;", "expand"),
        ("UPDATE sessionstore_schema SET revision = '0009', compatible_from = '0009' WHERE id = 1;", "expand"),
        ("UPDATE sessionstore_schema SET revision = '0009' WHERE id = 1;", "contract"),
    ],
)
def test_a_phase_that_is_not_kept_to_is_found(script: str, phase: str) -> None:
    """P9: each kind of it."""
    assert broken_rules(script, "0009", phase)


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
    parts = [("base", "0001"), *itertools.pairwise(known_revisions.known())]
    scripts = [migrate.sql(start=start, to=to) for start, to in parts]
    advice = script[: script.index("BEGIN;")]
    assert advice + "".join(part.removeprefix(advice) for part in scripts) == script


async def run_script(url: str, script: str) -> None:
    """Run a script as `psql` does."""
    connection = await bare(url)
    await connection.execute(script)
    await connection.close()


@pytest.mark.parametrize("schema", [None, "elsewhere"])
async def test_scripts_lead_up_and_down(postgres_empty: str, schema: str | None) -> None:
    """P9: step by step to the newest, with rows, and back to nothing; each says where the database is then."""
    for start, to in [("base", "0001"), *itertools.pairwise(known_revisions.known())]:
        await run_script(postgres_empty, migrate.sql(start=start, to=to, schema=schema))
        assert await migrate.current(postgres_empty, schema=schema) == to
    settings = StoreSettings(schema=schema)
    async with SessionRepository.connect(postgres_empty, settings=settings) as sessions:
        await sessions.append("s", {"role": "user"}, create=True)
    made = await catalog(postgres_empty, schema or "public")
    await run_script(postgres_empty, migrate.sql(start="head", to="0001", schema=schema))
    assert await migrate.current(postgres_empty, schema=schema) == "0001"
    await run_script(postgres_empty, migrate.sql(start="0001", schema=schema))
    assert await catalog(postgres_empty, schema or "public") == made
    async with SessionRepository.connect(postgres_empty, settings=settings) as sessions:
        assert await sessions.length("s") == 1
    await run_script(postgres_empty, migrate.sql(start="head", to="base", schema=schema))
    assert await migrate.current(postgres_empty, schema=schema) is None
    assert not any((await catalog(postgres_empty, schema or "public")).values())


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
