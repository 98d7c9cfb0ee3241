"""`alembic -c alembic.ini ...` alone does the same, from any directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url

from sessionstore import migrate
from sessionstore.schema import REVISION
from tests.migrations.databases import execute, fetch, files_in
from tests.migrations.processes import ROOT, Ended, ended, start

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.processes

INI = str(ROOT / "alembic.ini")
VARIABLE = "SESSIONSTORE_DATABASE_URL"


async def _alembic(folder: Path, *arguments: str, **variables: str) -> Ended:
    return await ended(await start("-m", "alembic", "-c", INI, *arguments, cwd=folder, **variables))


async def test_up_and_down(empty_url: str, tmp_path: Path) -> None:
    plain = make_url(empty_url).set(drivername=make_url(empty_url).get_backend_name())
    url = plain.render_as_string(hide_password=False)
    up = await _alembic(tmp_path, "upgrade", "head", **{VARIABLE: url})
    assert up.status == 0, up.errors
    assert "Running upgrade  -> 0001" in up.errors
    await migrate.check(empty_url)
    await execute(empty_url, "CREATE TABLE not_ours (id INTEGER)")
    down = await _alembic(tmp_path, "-x", f"url={url}", "downgrade", "base")
    assert down.status == 0, down.errors
    assert await migrate.current(empty_url) is None
    assert await fetch(empty_url, "SELECT * FROM not_ours") == []


async def test_nothing_is_found_to_generate(postgres_database: str, tmp_path: Path) -> None:
    # Not on SQLite, where Alembic cannot compare indexes that have an expression.
    await execute(postgres_database, "CREATE TABLE not_ours (id INTEGER)")
    same = await _alembic(tmp_path, "-x", f"url={postgres_database}", "check")
    assert same.status == 0, same.output + same.errors
    assert "No new upgrade operations detected" in same.output


async def test_a_schema_and_a_percent_sign(postgres_empty: str, tmp_path: Path) -> None:
    named = make_url(postgres_empty).set(password="50% sure")  # noqa: S106 - nobody checks it
    url = named.render_as_string(hide_password=False)
    assert "%" in url
    arguments = ["-x", f"url={url}", "-x", "schema=elsewhere", "-x", "timeout=30"]
    up = await _alembic(tmp_path, *arguments, "upgrade", "head")
    assert up.status == 0, up.errors
    assert await migrate.current(postgres_empty, schema="elsewhere") == REVISION
    assert await migrate.current(postgres_empty) is None


async def test_a_script(tmp_path: Path) -> None:
    script = await _alembic(tmp_path, "-x", "schema=elsewhere", "upgrade", "head", "--sql")
    assert script.status == 0, script.errors
    assert script.output.strip() == migrate.sql(schema="elsewhere").strip()
    refused = await _alembic(tmp_path, "-x", "url=sqlite:///x.db", "upgrade", "head", "--sql")
    assert refused.status != 0
    assert "scripts are for PostgreSQL" in refused.output + refused.errors
    assert files_in(tmp_path) == []


async def test_no_database_named(tmp_path: Path) -> None:
    nothing = await _alembic(tmp_path, "upgrade", "head", **{VARIABLE: ""})
    assert nothing.status != 0
    assert VARIABLE in nothing.output + nothing.errors
