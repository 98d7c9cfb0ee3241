"""Databases that survive their processes, and servers that may be killed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support import templates
from tests.support.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def caretaker() -> Iterator[ThreadPoolExecutor]:
    """A thread to restart a server from: the kernel ends a server with the thread that started it."""
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.fixture
def mortal(caretaker: ThreadPoolExecutor) -> Iterator[PostgresServer]:
    """A server of the test's own: to be killed, or to be given settings."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def mortal_database(mortal: PostgresServer) -> Iterator[str]:
    """The URL of a migrated database on that server."""
    with templates.postgres_template(mortal) as template, templates.postgres_clone(mortal, template) as url:
        yield url
