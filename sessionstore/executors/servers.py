"""Engines of our own for PostgreSQL, and what changes where a pooler stands between.

A pooler in transaction mode lends a connection of the server for one transaction. What is said of the *session* is then
said to somebody else's next client, or to nobody: prepared statements, settings, advisory locks. And PgBouncer refuses
settings in the packet that opens a connection, but for the few that it follows itself, `application_name` among them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import URL, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from sessionstore import limits
from sessionstore.dialects.urls import TRANSACTION, for_driver, pooler_of

TIMEOUTS: Final = {
    "lock_timeout": str(int(limits.POSTGRES_LOCK_SECONDS * 1000)),
    "idle_in_transaction_session_timeout": str(int(limits.POSTGRES_IDLE_IN_TRANSACTION_SECONDS * 1000)),
}
"""A client that vanished with a row locked does not block others for long."""


def settings_for(*, row_level_security: bool) -> dict[str, str]:
    """What the store's own connections set.

    Without row-level security it is off for the connection too: should somebody switch it on beside a running service,
    statements fail, instead of finding nothing.
    """
    return TIMEOUTS if row_level_security else TIMEOUTS | {"row_security": "off"}


UNNAMED: Final[Mapping[str, Any]] = MappingProxyType(
    {"statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}
)
"""For the driver, and for SQLAlchemy's adapter of it: parse anew with each execution, under no name."""

_ARRAYS: Final = "SELECT $1::bigint[], $2::text[], $3::bytea[], $4::boolean[], $5::timestamptz[]"
"""The types of our parameters that the driver has to ask the server about."""


def server_engine(url: URL, application_name: str, settings: Mapping[str, str] | None = None) -> AsyncEngine:
    """Make an engine whose connections have settings, as far as the pooler that the URL names leaves that open.

    In transaction mode none do: `SET LOCAL` has to say it again in each transaction.
    """
    pooler, startup = pooler_of(url), {"application_name": application_name}
    arguments: dict[str, Any] = {"timeout": limits.POSTGRES_CONNECT_SECONDS, "server_settings": startup}
    if pooler is None:
        startup.update(settings or {})
    elif pooler == TRANSACTION:
        arguments.update(UNNAMED)
    engine = create_async_engine(for_driver(url), poolclass=NullPool, hide_parameters=True, connect_args=arguments)
    if pooler is not None:
        first = _learn if pooler == TRANSACTION else partial(_set, settings or {})
        event.listen(engine.sync_engine, "connect", lambda adapted, _: adapted.run_async(partial(_begun, first)))
    return engine


async def _begun(first: Callable[[Any], Awaitable[None]], driver: Any) -> None:
    """Begin a new connection; nobody else would close one that was left in the middle of it."""
    try:
        await first(driver)
    except BaseException:
        driver.terminate()
        raise


async def _set(settings: Mapping[str, str], driver: Any) -> None:
    """In session mode a connection of the server is ours until we close ours, and the pooler resets it then."""
    for name, value in settings.items():
        await driver.execute(f"SET {name} = {value}")


async def _learn(driver: Any) -> None:
    """Let the driver ask about types in one transaction.

    It switches `jit` off for the session while it asks, and on again: left to itself, on two connections of the server.
    """
    await driver.execute("BEGIN")
    await driver.prepare(_ARRAYS, name="")
    await driver.execute("COMMIT")
