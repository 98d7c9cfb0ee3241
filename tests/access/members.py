"""Accounts that can log in, made members of the roles of a test; and what is looked at behind the store's back."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import make_url

from sessionstore.roles import RoleNames
from tests.support.invariants import connect_postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.postgres import Postgres


class Members:
    """The roles of a test, and a login for each; its password is its name.

    Attributes:
        names: of the roles.
        deploy, service, looker: the accounts.
        admin: may make roles, and is no superuser.
    """

    def __init__(self) -> None:
        mark = f"sessionstore_test_{uuid4().hex[:8]}"
        self.names = RoleNames(f"{mark}_owner", f"{mark}_app", f"{mark}_reader")
        self.deploy, self.service, self.looker, self.admin = (
            f"{mark}_{each}" for each in ("deploy", "service", "looker", "admin")
        )

    @property
    def logins(self) -> tuple[str, ...]:
        """The accounts."""
        return (self.deploy, self.service, self.looker, self.admin)

    def url(self, database: str, login: str) -> str:
        """The URL of a database for one of the accounts."""
        return make_url(database).set(username=login, password=login).render_as_string(hide_password=False)

    async def join(self, database: str) -> None:
        """Make each account a member of its role, as the script says."""
        owner, app, reader = self.names.owner, self.names.app, self.names.reader
        for role, login in ((owner, self.deploy), (app, self.service), (reader, self.looker)):
            await run(database, f"GRANT {role} TO {login}")
        await run(database, f"ALTER ROLE {self.deploy} SET role = '{owner}'")


@contextlib.asynccontextmanager
async def members(server: Postgres) -> AsyncIterator[Members]:
    """Accounts of a test's own. Roles belong to the whole server: they go again, once their database has."""
    made = Members()
    for login in made.logins:
        await server.execute(f"CREATE ROLE {login} LOGIN PASSWORD '{login}'")
    await server.execute(f"ALTER ROLE {made.admin} CREATEROLE")
    try:
        yield made
    finally:
        for role in (*made.logins, made.names.owner, made.names.app, made.names.reader):
            await server.execute(f"DROP ROLE IF EXISTS {role}")


async def run(url: str, *statements: str) -> None:
    """Execute statements as the account of a URL."""
    connection = await connect_postgres(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def fetched(url: str, query: str) -> list[Any]:
    """The rows of a query, as the account of a URL."""
    connection = await connect_postgres(url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def denied(url: str, *statements: str) -> None:
    """See each statement refused for lack of rights, alone."""
    for statement in statements:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await run(url, statement)
