"""Databases whose roles go after them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.access.members import Members, members
from tests.support import templates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres import Postgres


@pytest.fixture
def accounts(postgres_server: Postgres) -> Iterator[Members]:
    """Accounts of the test's own."""
    # Asked for before the databases, so that it ends after them: what owns something cannot be dropped.
    with asyncio.Runner() as runner:
        made = members(postgres_server)
        yield runner.run(made.__aenter__())
        runner.run(made.__aexit__(None, None, None))


@pytest.fixture
def empty(accounts: Members, postgres_server: Postgres) -> Iterator[str]:
    """The URL of an empty database, as a superuser."""
    with templates.postgres_clone(postgres_server, None) as url:
        yield url


@pytest.fixture
def migrated(accounts: Members, postgres_server: Postgres, postgres_template: str) -> Iterator[str]:
    """The URL of a migrated database, as a superuser."""
    with templates.postgres_clone(postgres_server, postgres_template) as url:
        yield url
