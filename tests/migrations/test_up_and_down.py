"""Up, down to nothing, and up again, with rows in every table."""

# ruff: noqa: S608 - the names of tables are constants
from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from sessionstore import migrate
from sessionstore.dialects.urls import normalize_url
from sessionstore.errors import InvalidArgumentError, SchemaOutOfDateError
from sessionstore.schema import REVISION
from tests.migrations.databases import (
    VERSION_TABLE,
    catalog,
    count_rows,
    execute,
    fetch,
    files_in,
    mode_of,
    rows_in_every_table,
)

if TYPE_CHECKING:
    from pathlib import Path


async def test_up_down_and_up_again_with_rows(empty_url: str) -> None:
    assert await migrate.upgrade(empty_url) == REVISION
    first = await catalog(empty_url)
    await execute(empty_url, *rows_in_every_table(empty_url))
    assert all((await count_rows(empty_url)).values())

    assert await migrate.downgrade(empty_url, "base") is None
    left = await catalog(empty_url)
    assert not any(left.values())
    assert await fetch(empty_url, f"SELECT * FROM {VERSION_TABLE}") == []

    assert await migrate.upgrade(empty_url) == REVISION
    assert await catalog(empty_url) == first
    counts = await count_rows(empty_url)
    assert counts.pop("sessionstore_schema") == 1
    assert not any(counts.values())
    await execute(empty_url, *rows_in_every_table(empty_url))


async def test_again_is_nothing_to_do_and_keeps_the_rows(empty_url: str) -> None:
    await migrate.upgrade(empty_url, to=REVISION)
    await execute(empty_url, *rows_in_every_table(empty_url))
    before = await count_rows(empty_url)
    assert await migrate.upgrade(empty_url) == REVISION
    assert await count_rows(empty_url) == before


async def test_current_and_check(empty_url: str) -> None:
    assert await migrate.current(empty_url) is None
    with pytest.raises(SchemaOutOfDateError) as caught:
        await migrate.check(empty_url)
    assert (caught.value.found, caught.value.expected) == (None, REVISION)
    assert caught.value.command == "sessionstore db upgrade"
    await migrate.upgrade(empty_url)
    assert await migrate.current(empty_url) == REVISION
    await migrate.check(empty_url)


async def test_reading_creates_no_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'none.db'}"
    assert await migrate.current(url) is None
    with pytest.raises(SchemaOutOfDateError):
        await migrate.check(url)
    assert files_in(tmp_path) == []


async def test_a_new_file_is_private(tmp_path: Path) -> None:
    file = tmp_path / "private.db"
    await migrate.upgrade(f"sqlite:///{file}")
    assert mode_of(file) == 0o600


async def test_down_from_nothing_is_nothing_to_do(empty_url: str) -> None:
    assert await migrate.downgrade(empty_url, "base") is None


@pytest.mark.parametrize("to", ["0000", "base", "", "+1", "0001; DROP TABLE x"])
async def test_an_unknown_revision_is_refused_before_anything_is_opened(tmp_path: Path, to: str) -> None:
    url = f"sqlite:///{tmp_path / 'none.db'}"
    with pytest.raises(InvalidArgumentError, match="there is no revision"):
        await migrate.upgrade(url, to=to)
    assert files_in(tmp_path) == []
    with pytest.raises(InvalidArgumentError, match="there is no revision"):
        await migrate.downgrade(url, "head")
    with pytest.raises(InvalidArgumentError, match=r"there is (no revision|nothing to do)"):
        migrate.sql(to=to)


async def test_a_newer_database_that_still_serves_this_code_is_left_alone(empty_url: str) -> None:
    await migrate.upgrade(empty_url)
    await _newer(empty_url, compatible_from="0001")
    assert await migrate.upgrade(empty_url) == "9999"
    with pytest.raises(SchemaOutOfDateError, match="pip install --upgrade sessionstore"):
        await migrate.check(empty_url)
    with pytest.raises(SchemaOutOfDateError, match="at revision 9999"):
        await migrate.downgrade(empty_url, "base")


async def test_a_newer_database_that_does_not_serve_this_code_is_refused(empty_url: str) -> None:
    await migrate.upgrade(empty_url)
    await _newer(empty_url, compatible_from="9998")
    with pytest.raises(SchemaOutOfDateError, match="pip install --upgrade sessionstore"):
        await migrate.upgrade(empty_url)


async def _newer(url: str, *, compatible_from: str) -> None:
    await execute(
        url,
        f"UPDATE sessionstore_schema SET revision = '9999', compatible_from = '{compatible_from}'",
        f"UPDATE {VERSION_TABLE} SET version_num = '9999'",
    )


async def test_an_engine_serves_as_well_as_a_url(empty_url: str) -> None:
    engine = create_async_engine(empty_url, pool_size=2, max_overflow=0)
    assert await migrate.current(engine) is None
    assert await migrate.upgrade(engine) == REVISION
    await migrate.check(engine)
    assert await migrate.downgrade(engine, "base") is None
    await engine.dispose()


@pytest.mark.parametrize("name", ["100% sure.db", "a?b#c.db", "ключ.db"])
async def test_odd_file_names(tmp_path: Path, name: str) -> None:
    engine_url = normalize_url("sqlite://").set(database=str(tmp_path / name))
    assert await migrate.upgrade(engine_url) == REVISION
    assert files_in(tmp_path) == [name]
    assert await migrate.current(engine_url) == REVISION


async def test_a_file_named_by_uri(tmp_path: Path) -> None:
    url = f"sqlite:///file:{tmp_path}/by%2520uri.db?uri=true"
    assert await migrate.current(url) is None
    assert files_in(tmp_path) == []
    assert await migrate.upgrade(url) == REVISION
    assert await migrate.current(url) == REVISION
