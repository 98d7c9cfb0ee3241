"""Revisions on a database whose rows are hidden from its owner too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sessionstore import ReadOnlyStoreError, SessionRepository, migrate
from sessionstore.roles import apply_roles
from sessionstore.schema import REVISION
from tests.access.conftest import accounts  # noqa: F401  # a fixture
from tests.access.members import Members, fetched
from tests.migrations.revisions import NEXT

if TYPE_CHECKING:
    from tests.migrations.revisions import Revisions


async def test_a_revision_skips_no_rows(
    accounts: Members,  # noqa: F811
    postgres_database: str,
    revisions: Revisions,
) -> None:
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
