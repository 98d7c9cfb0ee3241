"""`status`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sessionstore.dialects.urls import normalize_url
from sessionstore.schema import REVISION, Base
from tests.cli.conftest import Cli, line
from tests.support.planting import plant

if TYPE_CHECKING:
    import pytest

WORD = "canary-5b1d"


def change(cli: Cli, sql: str) -> None:
    asyncio.run(plant(normalize_url(cli.url).render_as_string(hide_password=False), sql))


def filled(cli: Cli) -> None:
    cli.run("import", cli.lines(*(line(name, WORD, WORD, metadata={"k": WORD}) for name in "abc")))
    cli.run("--tenant", "acme", "import", cli.lines(line("d", WORD)))


def test_what_it_tells(cli: Cli) -> None:
    """One page for people, all tenants, and nothing that was said."""
    filled(cli)
    told = cli.run("status").stdout
    assert f"{REVISION}, for code from 0001; this code has {REVISION}" in told
    assert "4 sessions, 7 messages, 2 tenants" in told
    assert all(name in told for name in Base.metadata.tables)
    assert [told.count(name) for name in ("acme", "(none)", "most sessions", "most messages")] == [2, 2, 1, 1]
    assert ("application name" in told) == ("autovacuum" in told) == cli.url.startswith("postgresql")
    assert "unknown" not in told
    assert WORD not in told


def test_as_json(cli: Cli) -> None:
    """Everything, on one line."""
    filled(cli)
    found = cli.json("status")
    assert (found["revision"], found["refused"], found["unknown"]) == (REVISION, None, [])
    assert (found["sessions"]["count"], found["sessions"]["messages"]) == (4, 7)
    assert found["sessions"]["most_sessions"][0] == {"tenant": "", "sessions": 3, "messages": 6}
    assert {table["name"] for table in found["tables"]} == set(Base.metadata.tables)
    assert WORD not in str(found)


def test_tables_of_another_revision(cli: Cli) -> None:
    """F10: it says what to run, and all else that there is; exit code 0, since it did what it was asked."""
    filled(cli)
    change(cli, "UPDATE sessionstore_schema SET revision = '0000', compatible_from = '0000'")
    assert "db upgrade" in cli.refused("verify")
    first, *rest = cli.run("status").stdout.splitlines()
    assert first == f"the database is at revision 0000, this code needs {REVISION}; run: sessionstore db upgrade"
    assert any("4 sessions" in each for each in rest)


def test_without_tables(no_database: Cli, unmigrated_postgres: Cli) -> None:
    """F10: a clear message, exit code 1, and no file."""
    for nothing in (no_database, unmigrated_postgres):
        reason = f"the database has no sessionstore tables, or none that may be seen, this code needs {REVISION}"
        assert nothing.refused("status") == f"{reason}; run: sessionstore db upgrade"
    assert list((no_database.folder / "nowhere").iterdir()) == []


def test_what_is_wrong_and_what_is_unknown(sqlite_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """P1: weaker settings and parts that could not be seen have a line each."""
    monkeypatch.setattr("sessionstore.limits.STATUS_DBSTAT_BYTES", 0)
    change(sqlite_cli, "PRAGMA journal_mode = DELETE")
    told = sqlite_cli.run("status").stdout
    assert "journal_mode=delete: readers and writers wait for each other" in told
    assert "unknown: sizes: " in told


def test_a_name_cannot_command_the_terminal(cli: Cli) -> None:
    """P11: a tenant is shown as text."""
    filled(cli)
    change(cli, "UPDATE sessionstore_sessions SET tenant_id = 'x\x1b[2Jy' WHERE id = 'd'")
    told = cli.run("status").stdout
    assert "\x1b" not in told
    assert "x\\x1b[2Jy" in told


def test_it_is_about_all_tenants(sqlite_cli: Cli) -> None:
    """Naming one makes no sense behind the command."""
    assert "No such option" in sqlite_cli.misused("status", "--tenant", "acme")
