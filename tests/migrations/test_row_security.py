"""Revisions on a database whose rows are hidden from its owner too."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sessionstore import ReadOnlyStoreError, SessionRepository, migrate
from sessionstore.roles import apply_roles
from sessionstore.schema import REVISION
from tests.access.members import Members, fetched, members

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.migrations.revisions import Revisions
    from tests.support.postgres import Postgres

NEXT = f"{int(REVISION) + 1:04}"


@pytest.fixture
def accounts(postgres_server: Postgres) -> Iterator[Members]:
    """Accounts of the test's own; asked for before the database, so that they end after it."""
    with asyncio.Runner() as runner:
        made = members(postgres_server)
        yield runner.run(made.__aenter__())
        runner.run(made.__aexit__(None, None, None))


async def test_a_revision_skips_no_rows(accounts: Members, postgres_database: str, revisions: Revisions) -> None:
    """P9: one that would change only the rows that a policy shows, which are none, fails and changes nothing."""
    await apply_roles(postgres_database, names=accounts.names, row_level_security=True)
    await accounts.join(postgres_database)
    async with SessionRepository.connect(postgres_database, tenant="t") as sessions:
        await sessions.create("s")
    deploy = accounts.url(postgres_database, accounts.deploy)
    revisions.add(NEXT, REVISION, "op.execute(\"UPDATE sessionstore_sessions SET title = 'x'\")")
    with pytest.raises(ReadOnlyStoreError):
        await migrate.upgrade(deploy)
    assert await migrate.current(deploy) == REVISION
    revisions.add(NEXT, REVISION, "op.execute(\"ALTER TABLE sessionstore_sessions ADD COLUMN x text DEFAULT 'x'\")")
    assert await migrate.upgrade(deploy) == NEXT
    assert await fetched(postgres_database, "SELECT x FROM sessionstore_sessions") == [("x",)]
