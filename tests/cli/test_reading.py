"""`list`, `show`, `tree`, `stats`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sessionstore import NewMessage, SessionRepository, Transcript
from tests.cli.conftest import Cli

MOMENT = datetime(2025, 1, 1, 12, tzinfo=UTC)


def fill(cli: Cli, count: int, *, tenant: str = "", **columns: Any) -> None:
    """Sessions s0, s1, ... each a minute older than the one before, of one message each."""

    async def work(sessions: SessionRepository) -> None:
        for at in range(count):
            messages = [NewMessage({"role": "user", "content": f"hello {at}"}, created_at=MOMENT)]
            updated = MOMENT - timedelta(minutes=at)
            await sessions.save(Transcript.of(f"s{at}", messages, updated_at=updated, **columns))

    cli.store(work, tenant)


def test_list_for_people(cli: Cli) -> None:
    """O12: the newest change first."""
    fill(cli, 2, user_id="ada", title="Ein Gespräch\x1b[2J")
    cli.store(lambda sessions: sessions.fork("s1", new_id="f"))
    head, _, *rows = cli.run("list").stdout.splitlines()
    assert head.split() == ["id", "title", "user", "messages", "parent", "updated", "(UTC)"]
    assert [row.split()[0] for row in rows] == ["f", "s0", "s1"]
    assert "s1" in rows[0].split()
    assert "Ein Gespräch\\x1b[2J" in rows[1]
    assert rows[1].endswith("2025-01-01 12:00")
    assert "\x1b" not in cli.run("list").stdout


def test_list_for_programs(cli: Cli) -> None:
    """O11, O12: page by page."""
    fill(cli, 5, user_id="ada", metadata={"project_ids": "p1"})
    page = cli.json("list", "--limit", "3")
    assert [row["id"] for row in page["sessions"]] == ["s0", "s1", "s2"]
    assert page["sessions"][0] == {
        "id": "s0",
        "user_id": "ada",
        "title": None,
        "parent_id": None,
        "message_count": 1,
        "active_seed_id": None,
        "project_id": "p1",
        "created_at": "2025-01-01T12:00:00Z",
        "updated_at": "2025-01-01T12:00:00Z",
    }
    rest = cli.json("list", "--cursor", page["cursor"])
    assert ([row["id"] for row in rest["sessions"]], rest["cursor"]) == (["s3", "s4"], None)
    assert f"--cursor {page['cursor']}" in cli.run("list", "--limit", "3").stderr


def test_list_of_some(cli: Cli) -> None:
    """O11: by user, by parent and by metadata."""

    async def work(sessions: SessionRepository) -> None:
        await sessions.create("a", user_id="ada", metadata={"lang": "ja", "n": 5, "on": True, "code": "5"})
        await sessions.create("b", user_id="bob", metadata={"lang": "de"})
        await sessions.fork("a", new_id="c")

    cli.store(work)

    def ids(*options: str) -> list[str]:
        return sorted(row["id"] for row in cli.json("list", *options)["sessions"])

    assert ids("--user", "bob") == ["b"]
    assert ids("--parent", "a") == ["c"]
    assert ids("--metadata", "lang=ja") == ids("--metadata", 'lang="ja"') == ["a", "c"]
    assert ids("--metadata", "n=5", "--metadata", "on=true") == ["a", "c"]
    assert ids("--metadata", 'n="5"') == []
    assert ids("--metadata", 'code="5"') == ["a", "c"]
    assert cli.run("list", "--user", "nobody").stdout == "there are no sessions\n"


def test_tenants_are_apart(cli: Cli) -> None:
    """X01: each option names one, wherever it stands."""
    fill(cli, 1, tenant="acme")
    assert cli.json("list")["sessions"] == []
    assert len(cli.json("list", "--tenant", "acme")["sessions"]) == 1
    assert len(cli.json("--tenant", "acme", "list")["sessions"]) == 1
    assert cli.refused("show", "s0") == "there is no session 's0'"


def conversation(cli: Cli) -> None:
    bodies = [{"role": ("user", "assistant")[at % 2], "content": f"number {at}"} for at in range(30)]

    async def work(sessions: SessionRepository) -> None:
        messages = [NewMessage(body, message_id=f"m{at}", created_at=MOMENT) for at, body in enumerate(bodies)]
        columns: dict[str, Any] = {"system_message": "Be brief.\x07", "model": "large", "user_id": "ada", "title": "t"}
        transcript = Transcript.of("a", messages, metadata={"k": [1]}, updated_at=MOMENT, **columns)
        await sessions.save(transcript)
        await sessions.trim("a", 25)

    cli.store(work)


def test_show_for_people(cli: Cli) -> None:
    conversation(cli)
    said = cli.run("show", "a").stdout
    for fact in ("ada", "large", "Be brief.\\x07", "25 (positions 5 to 29)", "2025-01-01 12:00 UTC", "[1]"):
        assert fact in said
    assert "5 earlier messages (--all shows them)" in said
    assert "number 9\n" not in said
    assert said.index("number 10") < said.index("number 29")
    assert "number 5" in cli.run("show", "a", "--all").stdout
    assert "number 28" not in cli.run("show", "a", "--last", "1").stdout
    assert "number" not in cli.run("show", "a", "--last", "0").stdout


def test_show_for_programs(cli: Cli) -> None:
    """H30: all messages, bodies as they are stored."""
    conversation(cli)
    cli.store(lambda sessions: sessions.append("a", {"z": 1.0, "role": "tool", "a": 2**70}))
    shown = cli.json("show", "a")
    assert shown["session"]["id"] == "a"
    assert shown["session"]["created_at"] == "2025-01-01T12:00:00Z"
    assert shown["session"]["metadata"] == {"k": [1]}
    assert (shown["session"]["first_position"], shown["session"]["length"]) == (5, 26)
    assert [message["position"] for message in shown["messages"]] == list(range(5, 31))
    assert shown["messages"][0] == {
        "position": 5,
        "role": "assistant",
        "message_id": "m5",
        "created_at": "2025-01-01T12:00:00Z",
        "body": {"role": "assistant", "content": "number 5"},
    }
    assert (
        b'"body":{"z":1.0,"role":"tool","a":1180591620717411303424}}]}' in cli.run("show", "a", "--json").stdout_bytes
    )
    assert len(cli.json("show", "a", "--last", "2")["messages"]) == 2
    assert cli.json("show", "a", "--last", "0")["messages"] == []


def test_show_of_a_fork_and_of_an_empty_session(cli: Cli) -> None:
    """H24: where it was forked, and from what."""
    conversation(cli)
    cli.store(lambda sessions: sessions.fork_at("a", 0, new_id="b"))
    said = cli.run("show", "b").stdout
    assert "a at 5" in said
    assert said.splitlines()[0].split() == ["session", "b"]


def grown(cli: Cli) -> None:
    async def work(sessions: SessionRepository) -> None:
        await sessions.append("a", {"role": "user"}, create=True)
        await sessions.fork("a", new_id="b")
        await sessions.fork("b", new_id="c")
        await sessions.fork("a", new_id="d")
        await sessions.fork("d", new_id="e")
        await sessions.delete("d")
        await sessions.create("alone")
        for session_id, parent_id in (("x", "y"), ("y", "x")):
            await sessions.save(Transcript.of(session_id, parent_id=parent_id))

    cli.store(work)


def names(said: str) -> list[str]:
    return [
        line.partition("  ")[0] if line[0] not in "├└│ " else line.partition("─ ")[2].partition("  ")[0]
        for line in said.splitlines()
    ]


def test_tree(cli: Cli) -> None:
    """H16: forks below their parents; what is gone is shown, and circles end."""
    grown(cli)
    result = cli.run("tree")
    assert names(result.stdout) == ["a", "b", "c", "d", "e", "x", "y"]
    assert "d  is gone" in result.stdout
    assert "x  0 messages" in result.stdout
    assert "its parent y descends from it" in result.stdout
    assert "1 session without forks (--all shows them)" in result.stderr
    assert "alone" in names(cli.run("tree", "--all").stdout)


def test_tree_of_one_family(cli: Cli) -> None:
    """H16: from its oldest ancestor that is left."""
    grown(cli)
    assert names(cli.run("tree", "c").stdout) == ["a", "b", "c"]
    assert names(cli.run("tree", "e").stdout) == ["d", "e"]
    assert names(cli.run("tree", "y").stdout) == ["x", "y"]
    assert names(cli.run("tree", "alone").stdout) == ["alone"]
    assert cli.run("tree", "alone").stderr == ""


def test_tree_for_programs(cli: Cli) -> None:
    grown(cli)
    rows = cli.json("tree")["sessions"]
    assert [(row["id"], row["depth"], row["missing"], row["circular"]) for row in rows] == [
        ("a", 0, False, False),
        ("b", 1, False, False),
        ("c", 2, False, False),
        ("d", 0, True, False),
        ("e", 1, False, False),
        ("x", 0, False, True),
        ("y", 1, False, False),
    ]


def test_tree_of_nothing(cli: Cli) -> None:
    result = cli.run("tree")
    assert (result.stdout, result.stderr) == ("", "there are no sessions\n")
    assert cli.json("tree") == {"sessions": []}


def test_stats(cli: Cli) -> None:
    """X01: every tenant of the database, or one."""
    fill(cli, 3, tenant="acme")
    fill(cli, 1)
    cli.store(lambda sessions: sessions.create("empty"))
    body_bytes = len('{"role":"user","content":"hello 0"}')
    tenants = [
        {"tenant": "", "sessions": 2, "messages": 1, "body_bytes": body_bytes},
        {"tenant": "acme", "sessions": 3, "messages": 3, "body_bytes": 3 * body_bytes},
    ]
    total = {"sessions": 5, "messages": 4, "body_bytes": 4 * body_bytes}
    assert cli.json("stats") == {"tenants": tenants, "total": total}
    assert cli.json("stats", "--tenant", "acme")["tenants"] == tenants[1:]
    assert cli.json("stats", "--tenant", "")["tenants"] == tenants[:1]
    rows = [line.split() for line in cli.run("stats").stdout.splitlines()]
    assert ["(none)", "2", "1", "35", "B"] in rows
    assert ["acme", "3", "3", "105", "B"] in rows
    assert ["total", "5", "4", "140", "B"] in rows
    assert not any("total" in line for line in cli.run("stats", "--tenant", "acme").stdout.splitlines())


def test_stats_of_nothing(cli: Cli) -> None:
    assert cli.json("stats") == {"tenants": [], "total": {"sessions": 0, "messages": 0, "body_bytes": 0}}


@pytest.mark.parametrize(
    "command", [("list",), ("show", "s0"), ("events", "s0"), ("tree", "--all"), ("stats",)], ids=" ".join
)
def test_reading_changes_nothing(cli: Cli, command: tuple[str, ...]) -> None:
    """H08: not even recency."""
    fill(cli, 1)
    before = cli.store(lambda sessions: sessions.get("s0"))
    cli.run(*command)
    cli.json(*command)
    assert cli.store(lambda sessions: sessions.get("s0")) == before


def test_json_is_utf8_whatever_the_locale(sqlite_cli: Cli) -> None:
    fill(sqlite_cli, 1, title="日本 é")
    process = sqlite_cli.process("list", "--json")
    output, errors = process.communicate()
    assert (process.returncode, errors) == (0, b"")
    assert json.loads(output)["sessions"][0]["title"] == "日本 é"
    assert "日本 é".encode() in output
