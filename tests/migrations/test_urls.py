"""URLs as people write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from sessionstore import migrate
from sessionstore.dialects.urls import (
    blocking_sqlite,
    for_driver,
    is_memory,
    normalize_url,
    pooler_of,
    sqlite_file,
)
from sessionstore.errors import InvalidArgumentError


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("sqlite://", "sqlite+aiosqlite://"),
        ("sqlite:///a.db", "sqlite+aiosqlite:///a.db"),
        ("sqlite+aiosqlite:////tmp/a.db", "sqlite+aiosqlite:////tmp/a.db"),
        ("postgres://u:p%25@h/d", "postgresql+asyncpg://u:p%25@h/d"),
        ("postgresql://h/d?sslmode=require", "postgresql+asyncpg://h/d?ssl=require"),
        ("postgresql+asyncpg://h:5433/d?x=1", "postgresql+asyncpg://h:5433/d?x=1"),
        ("postgres://h/d?pooler=transaction", "postgresql+asyncpg://h/d?pooler=transaction"),
    ],
)
def test_the_driver_is_added(given: str, normal: str) -> None:
    assert normalize_url(given).render_as_string(hide_password=False) == normal
    assert normalize_url(make_url(given)) == normalize_url(normalize_url(given))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nothing",
        "postgresql://u:secret@h:port/d",
        "mysql://u:secret@h/d",
        "postgresql+psycopg://u:secret@h/d",
        "sqlite+pysqlite:///secret.db",
        "sqlite+pysqlcipher://:secret@/x",
        None,
        7,
    ],
)
def test_others_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        normalize_url(url)
    assert "secret" not in str(caught.value)
    assert "port/" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("url", "memory", "file"),
    [
        ("sqlite://", True, None),
        ("sqlite:///:memory:", True, None),
        ("sqlite:///file::memory:?cache=shared&uri=true", True, None),
        ("sqlite:///file:x?mode=memory&uri=true", True, None),
        ("sqlite:///a.db", False, Path("a.db")),
        ("sqlite:////tmp/a.db", False, Path("/tmp/a.db")),  # noqa: S108 - only a name
        ("sqlite:///file:a.db?uri=true", False, Path("a.db")),
        ("sqlite:///file:///tmp/a%2520b.db?uri=true", False, Path("/tmp/a b.db")),  # noqa: S108
        ("postgresql://h/d", False, None),
    ],
)
def test_what_a_url_names(url: str, memory: bool, file: Path | None) -> None:
    parsed = normalize_url(url)
    assert is_memory(parsed) is memory
    assert sqlite_file(parsed) == file


def test_what_stands_before_a_server() -> None:
    """P12: the driver never sees what is meant for us; what is not known is refused."""
    for kind in ("transaction", "session"):
        url = normalize_url(f"postgresql://u:secret@h/d?pooler={kind}&ssl=require")
        assert pooler_of(url) == kind
        assert dict(for_driver(url).query) == {"ssl": "require"}
    assert pooler_of(normalize_url("postgresql://h/d")) is None
    for wrong in (
        "postgresql://u:secret@h/d?pooler=statement",
        "sqlite:///secret.db?pooler=transaction",
        "sqlite://?pooler=x",
    ):
        with pytest.raises(InvalidArgumentError, match="pooler=") as caught:
            normalize_url(wrong)
        assert "secret" not in str(caught.value)


def test_the_blocking_driver() -> None:
    assert str(blocking_sqlite(normalize_url("sqlite:///a.db"))) == "sqlite+pysqlite:///a.db"


async def test_sqlite_has_no_schemas(tmp_path: Path) -> None:
    file = tmp_path / "new.db"
    calls: list[Any] = [migrate.upgrade, migrate.current, migrate.check]
    for call in calls:
        with pytest.raises(InvalidArgumentError, match="no schemas"):
            await call(f"sqlite:///{file}", schema="team")
    assert not file.exists()
