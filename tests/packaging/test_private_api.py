"""What the store uses of aiosqlite beyond its public interface, pinned: a release that moves it fails here.

Only for a database in memory, which lives in the one connection of its engine: see docs/adr/0003-memory.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
import threading
from collections.abc import AsyncIterator
from typing import Any

import aiosqlite
import pytest

from tests.packaging.environments import ROOT

PRIVATE = re.compile(r"driver\._\w+")


def test_private_names_are_used_in_one_file_only() -> None:
    users = {
        path.relative_to(ROOT).as_posix(): set(PRIVATE.findall(path.read_text()))
        for path in (ROOT / "sessionstore").rglob("*.py")
    }
    assert {path: names for path, names in users.items() if names} == {
        "sessionstore/executors/memory.py": {"driver._execute", "driver._conn", "driver._connection"}
    }


@contextlib.asynccontextmanager
async def in_memory() -> AsyncIterator[Any]:
    """A connection, without types: its private functions have none."""
    async with aiosqlite.connect(":memory:", isolation_level=None) as connection:
        yield connection


async def test_execute_runs_a_function_in_the_thread_of_the_connection() -> None:
    async with in_memory() as connection:
        first = await connection._execute(threading.get_ident)
        assert first == await connection._execute(threading.get_ident)
        assert first != threading.get_ident()


async def test_execute_lets_nothing_come_between_the_statements_of_a_function() -> None:
    async with in_memory() as connection:
        await connection.execute("CREATE TABLE t (n)")

        def ten(start: int) -> None:
            for n in range(start, start + 10):
                connection._conn.execute("INSERT INTO t VALUES (?)", (n,))

        await asyncio.gather(*(connection._execute(ten, start) for start in range(0, 50, 10)))
        rows = await connection.execute_fetchall("SELECT n FROM t ORDER BY rowid")
        assert [row[0] for row in rows] == list(range(50))


async def test_execute_raises_what_the_function_raises() -> None:
    def fail() -> None:
        raise sqlite3.OperationalError("no such thing")

    async with in_memory() as connection:
        with pytest.raises(sqlite3.OperationalError, match="no such thing"):
            await connection._execute(fail)


async def test_conn_is_the_connection_of_the_standard_library_and_connection_tells_whether_it_is_open() -> None:
    connection: Any = await aiosqlite.connect(":memory:")
    assert isinstance(connection._conn, sqlite3.Connection)
    assert connection._connection is connection._conn
    await connection.close()
    assert connection._connection is None
