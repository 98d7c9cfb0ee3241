"""Scripts for databases that nobody may touch directly, run as DBAs do: `psql` goes on after an error unless told."""

# ruff: noqa: S608 - the names of tables are constants
from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import asyncpg
import pytest
from sqlalchemy import make_url

from sessionstore import migrate
from sessionstore.revisions import known
from sessionstore.schema import REVISION
from tests.migrations.databases import VERSION_TABLE, bare, catalog, execute, fetch
from tests.migrations.revisions import NEXT

if TYPE_CHECKING:
    from tests.migrations.revisions import Revisions

PSQL = shutil.which("psql")
Run = Callable[..., Awaitable[str]]


async def with_psql(url: str, script: str, *, stop: bool) -> str:
    """What psql says of a script; an empty text if nothing failed."""
    assert PSQL is not None
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    arguments = [*(("-v", "ON_ERROR_STOP=1") if stop else ()), "-X", "-q", "-f", "-", plain]
    process = await asyncio.create_subprocess_exec(
        PSQL, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate(script.encode())
    return "\n".join(line for line in errors.decode().splitlines() if "ERROR" in line)


async def one_by_one(url: str, script: str, *, stop: bool) -> str:
    """The same, for where there is no psql."""
    connection = await bare(url)
    errors = []
    statements = re.split(r";\n", re.sub(r"^--.*$", "", script, flags=re.MULTILINE))
    for statement in filter(str.strip, statements):
        try:
            await connection.execute(statement)
        except asyncpg.PostgresError as error:
            errors.append(f"ERROR: {error}")
            if stop:
                break
    await connection.close()
    return "\n".join(errors)


@pytest.fixture(params=["one by one", pytest.param("psql", marks=pytest.mark.processes)])
def run(request: pytest.FixtureRequest) -> Run:
    if request.param == "one by one":
        return one_by_one
    return with_psql if PSQL else one_by_one


async def where(url: str, schema: str | None) -> tuple[list[object], list[object]]:
    """What both tables say of the revision."""
    at = f'"{schema}".' if schema else ""
    rows = [await fetch(url, f"SELECT revision FROM {at}sessionstore_schema")]
    rows.append(await fetch(url, f"SELECT version_num FROM {at}{VERSION_TABLE}"))
    return [row[0] for row in rows[0]], [row[0] for row in rows[1]]


@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("schema", [None, "elsewhere"])
async def test_a_script_for_another_revision_changes_nothing(
    run: Run, postgres_empty: str, schema: str | None, stop: bool
) -> None:
    """P9: up from where the database is not yet, down from where it is no more, and on tables that are there."""
    await migrate.upgrade(postgres_empty, to="0001", schema=schema)
    before = await catalog(postgres_empty, schema or "public")
    scripts = [
        migrate.sql(start="0002", schema=schema),
        migrate.sql(start="head", to="0001", schema=schema),
        migrate.sql(start="base", to="0001", schema=schema),
    ]
    for script in scripts:
        said = await run(postgres_empty, script, stop=stop)
        assert "nothing was done" in said
        assert await catalog(postgres_empty, schema or "public") == before
        assert await where(postgres_empty, schema) == (["0001"], ["0001"])
    assert await run(postgres_empty, migrate.sql(start="0001", schema=schema), stop=stop) == ""
    assert await where(postgres_empty, schema) == ([REVISION], [REVISION])
    assert await migrate.upgrade(postgres_empty, schema=schema) == REVISION


@pytest.mark.parametrize("stop", [False, True])
async def test_what_follows_a_revision_that_fails_is_not_done(
    run: Run, postgres_empty: str, revisions: Revisions, stop: bool
) -> None:
    """P9: also where the revision after it does not need what the failed one would have made."""
    last = f"{int(NEXT) + 1:04}"
    revisions.add(NEXT, REVISION, "op.execute('SELECT * FROM missing')")
    revisions.add(last, NEXT, "op.execute('CREATE TABLE sessionstore_extra (id int)')")
    said = await run(postgres_empty, migrate.sql(), stop=stop)
    assert '"missing" does not exist' in said
    assert (f"for a database at revision {NEXT}, and this one is at {REVISION}" in said) is not stop
    assert await where(postgres_empty, None) == ([REVISION], [REVISION])
    assert await fetch(postgres_empty, "SELECT to_regclass('sessionstore_extra')") == [(None,)]


async def test_what_follows_a_block_without_a_transaction_is_looked_at_too(
    run: Run, postgres_empty: str, revisions: Revisions
) -> None:
    """P9: an index is built outside of the transaction; on another database its revision is not written down."""
    body = "with op.get_context().autocommit_block():\n    op.execute('CREATE INDEX CONCURRENTLY i ON missing (id)')"
    revisions.add(NEXT, REVISION, body)
    await migrate.upgrade(postgres_empty, to="0001")
    said = await run(postgres_empty, migrate.sql(start=REVISION), stop=False)
    assert said.count("nothing was done") == 2
    assert await where(postgres_empty, None) == (["0001"], ["0001"])


async def test_the_two_tables_have_to_agree(run: Run, postgres_database: str) -> None:
    """P9: a database that a script has left torn is not torn further."""
    await execute(postgres_database, f"UPDATE {VERSION_TABLE} SET version_num = '0001'")
    said = await run(postgres_database, migrate.sql(start="head", to="0002"), stop=False)
    assert "nothing was done" in said
    assert await where(postgres_database, None) == ([REVISION], ["0001"])


@pytest.mark.parametrize("schema", [None, "elsewhere"])
async def test_down_to_nothing_and_up_again(run: Run, postgres_empty: str, schema: str | None) -> None:
    """P9: nothing of ours is left, so the script for an empty database builds the same again."""
    there_and_back = (migrate.sql(schema=schema), migrate.sql(start="head", to="base", schema=schema))
    for script in (*there_and_back, there_and_back[0]):
        assert await run(postgres_empty, script, stop=False) == ""
        left = await fetch(postgres_empty, "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'sessionstore%'")
        assert (left == [(0,)]) is (script is there_and_back[1])
    assert await where(postgres_empty, schema) == ([REVISION], [REVISION])
    await migrate.check(postgres_empty, schema=schema)


def test_a_script_says_how_it_is_to_be_run() -> None:
    """P9: in its first line, before anything is done."""
    for start, to in [("base", "head"), ("head", "base"), (known()[0], known()[1])]:
        first, *_ = migrate.sql(start=start, to=to).splitlines()
        assert first.startswith("--")
        assert "psql -v ON_ERROR_STOP=1" in first
