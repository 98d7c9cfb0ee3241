"""Databases as every release has made them, with rows in every table: upgraded, used, and taken back."""

# ruff: noqa: S608 - the names of tables and columns are constants
from __future__ import annotations

from pathlib import Path

import pytest

from sessionstore import DocumentRepository, SchemaOutOfDateError, SessionRepository, migrate
from sessionstore.revisions import known
from sessionstore.schema import REVISION
from sessionstore.units import store as store_units
from sessionstore.verification import verify
from tests.migrations.databases import VERSION_TABLE, catalog, execute, fetch, rows_of, tables_of
from tests.migrations.freeze import ODD, load

REVISIONS = known()


@pytest.mark.parametrize("revision", REVISIONS)
async def test_it_is_what_the_revisions_make(empty_url: str, revision: str, tmp_path: Path) -> None:
    """P9: a revision that has landed is never edited: it still makes the database that it made then."""
    url = empty_url
    await load(revision, url)
    assert await migrate.current(url) == revision
    assert await fetch(url, f"SELECT version_num FROM {VERSION_TABLE}") == [(revision,)]
    before = await catalog(url)
    if url.startswith("sqlite"):
        fresh = f"sqlite+aiosqlite:///{tmp_path / 'fresh.db'}"
        await migrate.upgrade(fresh, to=revision)
        assert await catalog(fresh) == before
    else:
        await migrate.upgrade(url, to=revision, schema="fresh")
        fresh_catalog = await catalog(url, "fresh")
        for what in ("relations", "columns", "indexes"):
            assert fresh_catalog[what] == before[what]


@pytest.mark.parametrize("revision", REVISIONS)
async def test_every_table_has_rows(empty_url: str, revision: str) -> None:
    """P9: what is tried below is tried on something."""
    url = empty_url
    await load(revision, url)
    tables = await tables_of(url)
    assert len(tables) == {"0001": 5, "0002": 5, "0003": 6, "0004": 8}[revision]
    assert all((await rows_of(url, tables)).values())


@pytest.mark.parametrize("revision", REVISIONS)
async def test_upgraded_used_and_taken_back(empty_url: str, revision: str) -> None:
    """P9, P8: no row changes on the way up or down, every verb works, and what was written on top stays."""
    url = empty_url
    await load(revision, url)
    tables, made = await tables_of(url), await catalog(url)
    before = await rows_of(url, tables)
    assert await migrate.upgrade(url) == REVISION
    assert await rows_of(url, tables) == before
    async with SessionRepository.connect(url) as sessions:
        assert [finding async for finding in verify(sessions, all_tenants=True)] == []
    assert await rows_of(url, tables) == before
    await use(url)
    used = await rows_of(url, tables)
    assert await migrate.downgrade(url, revision) == revision
    assert await rows_of(url, tables) == used
    assert await catalog(url) == made
    assert await migrate.upgrade(url) == REVISION
    async with SessionRepository.connect(url) as sessions:
        assert await sessions.length("talk") == 8
        assert [finding async for finding in verify(sessions, all_tenants=True)] == []


async def use(url: str) -> None:
    """Read what was there, and do what services do."""
    async with SessionRepository.connect(url) as sessions:
        for tenant in ("", "acme"):
            own = sessions.for_tenant(tenant)
            session = await own.get("talk")
            assert (session.title, session.metadata) == ("A título", {"lang": "de", "n": 1.0, "t": ["\0"]})
            found = await own.messages("talk")
            assert [message.position for message in found] == [2, 3, 4, 5, 6, 7]
            assert repr(found[-1].body) == repr(ODD)
            assert (await own.lineage("fork")).parent_id == "talk"
            assert await own.append("talk", {"role": "user", "content": "new"}) == [8]
            await own.update("talk", title="t", summary="s")
            await own.set_metadata("talk", {"k": 1}, remove=["t"])
            assert (await own.fork_at("talk", 2, new_id="branch")).length == 2
            assert await own.append("talk", {"role": "user"}) == [9]
            assert await own.delete("empty")
    async with DocumentRepository.connect(url) as documents:
        assert await documents.find_markdown("notes/de", "plan") == "# Plan\n"
        assert await documents.find_json("notes/de", "plan") == {"z": 1, "a": "\ud800"}


@pytest.mark.parametrize("revision", REVISIONS[:-1])
async def test_code_of_then_on_tables_of_now(empty_url: str, revision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P9: the replicas that a deploy has not reached yet go on, opening included."""
    url = empty_url
    await load(revision, url)
    monkeypatch.setattr(store_units, "REVISION", revision)
    async with SessionRepository.connect(url) as opened_before:
        assert await opened_before.length("talk") == 6
        await migrate.upgrade(url)
        assert await opened_before.append("talk", {"role": "user"}) == [8]
        await use_again(url)


async def use_again(url: str) -> None:
    """Open the database anew, as a replica that restarts."""
    async with SessionRepository.connect(url) as sessions:
        assert await sessions.append("talk", {"role": "user"}) == [9]


@pytest.mark.parametrize("revision", REVISIONS[:-1])
async def test_code_of_now_on_tables_of_then(empty_url: str, revision: str) -> None:
    """P9, F10: refused with the command to run, and nothing is written."""
    url = empty_url
    await load(revision, url)
    before = await rows_of(url, await tables_of(url))
    async with SessionRepository.connect(url, migrate=True) as sessions:
        await sessions.get("talk")
    await migrate.downgrade(url, revision)
    with pytest.raises(SchemaOutOfDateError) as refused:
        async with SessionRepository.connect(url):
            pass
    assert (refused.value.found, refused.value.expected) == (revision, REVISION)
    assert refused.value.command == "sessionstore db upgrade"
    assert await rows_of(url, await tables_of(url)) == before


async def test_code_that_the_tables_have_left_behind(empty_url: str) -> None:
    """P9, F10: after a contract revision, code of before is refused: at opening, and in a caller's transaction."""
    await migrate.upgrade(empty_url)
    await execute(empty_url, "UPDATE sessionstore_schema SET revision = '9998', compatible_from = '9997'")
    with pytest.raises(SchemaOutOfDateError, match="need code of 9997 or later"):
        async with SessionRepository.connect(empty_url):
            pass
