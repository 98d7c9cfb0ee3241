"""A team runs our revisions in its own Alembic history, with an environment that knows nothing of us."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sessionstore import SchemaOutOfDateError, SessionRepository, SessionStoreError, migrate
from sessionstore.schema import REVISION
from tests.migrations.databases import VERSION_TABLE, bare, catalog, fetch
from tests.migrations.processes import Ended, ended, start

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.processes

INI = """
[alembic]
script_location = %(here)s/history
version_locations = %(here)s/history/versions{separator}{ours}
path_separator = os
"""

# What `alembic init -t async` writes, less its logging.
ENVIRONMENT = """
import asyncio
import os

from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine


def run(connection):
    context.configure(connection=connection, target_metadata=None)
    with context.begin_transaction():
        context.run_migrations()


async def connected():
    engine = create_async_engine(os.environ["DATABASE_URL"])
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()


asyncio.run(connected())
"""

REVISION_OF_THEIRS = """
import sqlalchemy as sa
from alembic import op

revision = "5e41ce"
down_revision = None


def upgrade():
    op.create_table("users", sa.Column("id", sa.Integer(), primary_key=True))


def downgrade():
    op.drop_table("users")
"""


class History:
    """A service's own history, which has ours beside its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._url = url
        versions = folder / "history" / "versions"
        versions.mkdir(parents=True)
        (folder / "alembic.ini").write_text(INI.format(separator=":", ours=migrate.location() / "versions"))
        (folder / "history" / "env.py").write_text(ENVIRONMENT)
        (versions / "5e41ce_users.py").write_text(REVISION_OF_THEIRS)

    async def run(self, *arguments: str, status: int = 0) -> Ended:
        """Run the `alembic` command."""
        process = await start("-m", "alembic", *arguments, cwd=self._folder, DATABASE_URL=self._url)
        found = await ended(process)
        assert found.status == status, found.errors
        return found


@pytest.fixture
def history(tmp_path: Path, empty_url: str) -> History:
    folder = tmp_path / "service"
    folder.mkdir()
    return History(folder, empty_url)


async def test_our_revisions_in_their_history(history: History, empty_url: str) -> None:
    """P9, F10: opening looks at our row alone; there is no version table of ours, and it is not missed."""
    await history.run("upgrade", "heads")
    assert sorted(await fetch(empty_url, "SELECT version_num FROM alembic_version")) == [(REVISION,), ("5e41ce",)]
    assert VERSION_TABLE not in repr(await catalog(empty_url))
    assert await fetch(empty_url, "SELECT * FROM users") == []
    async with SessionRepository.connect(empty_url) as sessions:
        await sessions.append("s", {"role": "user", "content": "x"}, create=True)
    await migrate.check(empty_url)
    assert await migrate.upgrade(empty_url) == REVISION
    async with SessionRepository.connect(empty_url, migrate=True) as sessions:
        assert await sessions.length("s") == 1


async def test_they_go_on_and_back(history: History, empty_url: str) -> None:
    """P9: revision by revision, with rows; what they have to run is not run by us."""
    await history.run("upgrade", "0001")
    with pytest.raises(SchemaOutOfDateError) as refused:
        async with SessionRepository.connect(empty_url):
            pass
    assert refused.value.found == "0001"
    with pytest.raises(SessionStoreError, match="another Alembic history made these tables: migrate them there"):
        await migrate.upgrade(empty_url)
    assert await migrate.current(empty_url) == "0001"
    await history.run("upgrade", "heads")
    async with SessionRepository.connect(empty_url) as sessions:
        await sessions.append("s", {"role": "user", "content": "x"}, create=True)
    await history.run("downgrade", "0001")
    assert await fetch(empty_url, "SELECT count(*) FROM sessionstore_messages") == [(1,)]
    await history.run("upgrade", "heads")
    assert await migrate.current(empty_url) == REVISION


async def test_a_revision_bounds_its_own_waits(tmp_path: Path, postgres_empty: str) -> None:
    """P9: their environment sets no timeout, and a table is locked for ever: the deploy fails, and hangs nowhere."""
    history = History(tmp_path, postgres_empty)
    await history.run("upgrade", "0001")
    other = await bare(postgres_empty)
    await other.execute("BEGIN")
    await other.execute("LOCK TABLE sessionstore_messages")
    refused = await history.run("upgrade", "heads", status=1)
    assert "lock timeout" in refused.errors
    await other.close()
    assert await migrate.current(postgres_empty) == "0001"
    await history.run("upgrade", "heads")
    assert await migrate.current(postgres_empty) == REVISION


async def test_what_is_generated_leaves_our_tables_alone(history: History, empty_url: str) -> None:
    """P9: with our revisions beside theirs, both heads are current, and nothing is left to run."""
    await history.run("upgrade", "heads")
    current = await history.run("current")
    assert {line.partition(" ")[0] for line in current.output.splitlines()} == {REVISION, "5e41ce"}
    assert (await history.run("heads")).output.count("(head)") == 2
    del empty_url
