"""What cannot work is one clear error of the store, and never tells a password."""

from __future__ import annotations

import socket
import traceback
from typing import TYPE_CHECKING

import pytest
from alembic.util import CommandError
from asyncpg import InterfaceError
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from sessionstore import migrate, revisions
from sessionstore.dialects.faults import explained
from sessionstore.errors import (
    CorruptStoreError,
    InvalidArgumentError,
    ReadOnlyStoreError,
    SessionStoreError,
    StorageFullError,
    StoreBusyError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from sessionstore.schema import REVISION
from tests.migrations.databases import execute

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "tell-nobody"  # noqa: S105 - it is the point that it does not show


def _tells_nothing(error: BaseException) -> None:
    assert error.__cause__ is None
    assert error.__suppress_context__
    assert SECRET not in "".join(traceback.format_exception(error)) + repr(error)


async def test_a_path_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(SessionStoreError, match="cannot be opened") as caught:
        await migrate.upgrade(f"sqlite:///{tmp_path / 'no' / 'folder' / 'x.db'}")
    _tells_nothing(caught.value)
    with pytest.raises(SessionStoreError, match="cannot be opened"):
        await migrate.current(f"sqlite:///{tmp_path}")


async def test_a_file_that_is_something_else(tmp_path: Path) -> None:
    file = tmp_path / "letter.db"
    file.write_text("Dear Sir or Madam, " * 500)
    for call in (migrate.upgrade, migrate.current):
        with pytest.raises(CorruptStoreError, match="not a SQLite database"):
            await call(f"sqlite:///{file}")
    assert file.read_text().startswith("Dear Sir")


async def test_a_file_that_may_not_be_written(sqlite_file: Path, tmp_path: Path) -> None:
    read_only = f"sqlite:///file:{sqlite_file}?uri=true&mode=ro"
    assert await migrate.upgrade(read_only) == REVISION
    with pytest.raises(ReadOnlyStoreError):
        await migrate.downgrade(read_only, "base")


async def test_no_server_there() -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for call in (migrate.upgrade, migrate.current, migrate.check):
            with pytest.raises(StoreUnavailableError) as caught:
                await call(f"postgresql://somebody:{SECRET}@127.0.0.1:{port}/x")
            _tells_nothing(caught.value)


async def test_no_such_database(postgres_empty: str) -> None:
    url = make_url(postgres_empty).set(database="missing", password=SECRET)
    with pytest.raises(SessionStoreError, match="no database of that name") as caught:
        await migrate.upgrade(url)
    _tells_nothing(caught.value)


async def test_no_such_user(postgres_empty: str) -> None:
    url = make_url(postgres_empty).set(username="nobody-we-know", password=SECRET)
    with pytest.raises(SessionStoreError, match="refused the user") as caught:
        await migrate.upgrade(url)
    _tells_nothing(caught.value)


async def test_an_option_that_the_driver_does_not_know(postgres_empty: str) -> None:
    url = make_url(postgres_empty).update_query_dict({"colour": "blue"})
    with pytest.raises(InvalidArgumentError, match="option"):
        await migrate.upgrade(url.set(password=SECRET))


async def test_a_read_only_server(postgres_empty: str) -> None:
    settings = {"server_settings": {"default_transaction_read_only": "on"}}
    engine = create_async_engine(postgres_empty, connect_args=settings)
    with pytest.raises(ReadOnlyStoreError, match="read-only"):
        await migrate.upgrade(engine)
    await engine.dispose()


async def test_an_engine_without_a_second_connection(postgres_empty: str) -> None:
    engine = create_async_engine(postgres_empty, pool_size=1, max_overflow=0, pool_timeout=0.1)
    with pytest.raises(StoreTimeoutError, match="need two"):
        await migrate.upgrade(engine)
    await engine.dispose()


async def test_tables_that_are_there_already(empty_url: str) -> None:
    await execute(empty_url, "CREATE TABLE sessionstore_messages (id INTEGER)")
    with pytest.raises(SessionStoreError, match=r"42P07|SQLITE_ERROR") as caught:
        await migrate.upgrade(empty_url)
    _tells_nothing(caught.value)
    assert await migrate.current(empty_url) is None


async def test_a_patience_that_is_none(empty_url: str) -> None:
    for seconds in (0, -1, float("nan"), float("inf"), True):
        with pytest.raises(InvalidArgumentError, match="timeout_seconds"):
            await migrate.upgrade(empty_url, timeout_seconds=seconds)


def test_faults_without_a_code() -> None:
    with pytest.raises(SessionStoreError, match="do not fit"), migrate._translated():
        raise CommandError("Can't locate revision")
    with pytest.raises(SessionStoreError, match="the migration failed: InterfaceError"), migrate._translated():
        raise InterfaceError("never shown")


def test_an_installation_without_migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revisions, "__file__", str(tmp_path / "sessionstore" / "revisions.py"))
    with pytest.raises(SessionStoreError, match="has no migrations"):
        revisions.location.__wrapped__()
    packed = tmp_path / "sessionstore" / "_alembic" / "migrations"
    packed.mkdir(parents=True)
    (packed / "env.py").touch()
    assert revisions.location.__wrapped__() == packed


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("08006", StoreUnavailableError),
        ("40P01", StoreBusyError),
        ("53100", StorageFullError),
        ("53300", StoreUnavailableError),
        ("57014", StoreTimeoutError),
        ("57P03", StoreUnavailableError),
        ("XX001", CorruptStoreError),
        ("99999", SessionStoreError),
    ],
)
def test_states_of_postgresql(state: str, kind: type[SessionStoreError]) -> None:
    error = OSError("never shown")
    error.sqlstate = state  # type: ignore[attr-defined]
    found = explained(error, "it")
    assert type(found) is kind
    assert "never shown" not in str(found)
