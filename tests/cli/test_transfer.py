"""`import` and `export`."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from sessionstore import SessionRepository, Transcript
from tests.cli.conftest import Cli, line


def ids(cli: Cli) -> list[str]:
    return sorted(row["id"] for row in cli.json("list", "--limit", "1000")["sessions"])


def bodies(cli: Cli, session_id: str) -> list[Any]:
    async def read(sessions: SessionRepository) -> list[Any]:
        return [message.body for message in await sessions.messages(session_id)]

    return cli.store(read)


def test_there_and_back(cli: Cli) -> None:
    """F08, F15: what is exported is what was imported, to the byte of each body."""
    messages = [{"role": "user", "z": [1, 1.0, 2**70], "a": "\0\ud800日本"}]
    path = cli.lines({"id": "a/b", "messages": messages, "metadata": {"k": 1}}, line("c", user_id="u"))
    result = cli.run("import", path)
    assert result.stdout.startswith("2 sessions imported; 1 message in 0.")
    assert result.stderr == ""
    out = cli.folder / "out.jsonl.gz"
    assert cli.run("export", str(out)).stdout.startswith("2 sessions exported; 1 message in 0.")
    written = gzip.decompress(out.read_bytes())
    assert b'"messages":[{"role":"user","z":[1,1.0,1180591620717411303424],"a":"\\u0000\\ud800\xe6\x97\xa5' in written
    assert cli.run("import", str(out), "--tenant", "other").stdout.startswith("2 sessions imported")
    assert cli.run("export", "-", "--tenant", "other").stdout_bytes == written
    assert cli.run("import", str(out)).stdout.startswith("0 sessions imported, 2 there already; 0 messages")


def test_standard_input_and_output(cli: Cli) -> None:
    """A pipe through both."""
    given = json.dumps(line("a", "x")).encode() + b"\n"
    assert cli.run("import", "-", given=gzip.compress(given)).stdout.startswith("1 session imported")
    result = cli.run("export", "-", "a")
    assert json.loads(result.stdout)["messages"] == [{"role": "user", "content": "x"}]
    assert result.stderr == ""


def test_reports_for_programs(cli: Cli) -> None:
    path = cli.lines(line("a", "x", source="s"), "broken", line("a", "y"), line("b", 1, 2))
    report = cli.json("import", path, "--on-error", "continue", code=1)
    assert report.pop("seconds") > 0
    assert report.pop("bytes") > 0
    assert report == {
        "created": 2,
        "replaced": 0,
        "skipped": 1,
        "failed": 1,
        "messages": 3,
        "ignored_keys": ["source"],
        "faults": [{"place": "line 2", "reason": "not JSON at character 0: Expecting value"}],
    }
    report = cli.json("export", str(cli.folder / "out.jsonl"))
    assert (report["sessions"], report["messages"], report["failed"]) == (2, 3, 0)


def test_a_bad_line_stops_it_or_not(cli: Cli) -> None:
    """F05: number and reason; exit code 1 either way."""
    path = cli.lines(line("a"), {"id": "b", "messages": [{"x": 1}]}, line("c"))
    result = cli.run("import", path, code=1)
    assert result.stderr.splitlines() == [
        "line 2: message 0: $.role: is required",
        "--role-key or --default-role says who speaks where messages have no role",
        "stopped there; --on-error continue goes on with the others",
    ]
    result = cli.run("import", path, "--on-error", "continue", code=1)
    assert "1 failed" in result.stdout
    assert ids(cli) == ["a", "c"]
    assert cli.run("import", path, "--default-role", "user").stdout.startswith("1 session imported, 2 there already")


def test_what_is_there_already(cli: Cli) -> None:
    cli.run("import", cli.lines(line("a", "old")))
    path = cli.lines(line("a", "new"))
    result = cli.run("import", path, "--on-conflict", "error", code=1)
    assert result.stderr.splitlines()[0] == "line 1: session 'a' exists already"
    assert bodies(cli, "a") == [{"role": "user", "content": "old"}]
    assert "1 of them replaced" in cli.run("import", path, "--on-conflict", "replace").stdout
    assert bodies(cli, "a") == [{"role": "user", "content": "new"}]


def test_data_of_others(cli: Cli) -> None:
    """H28: roles by another key, a default, and other keys as metadata."""
    messages = [{"speaker": "SYSTEM", "utterance": "hi"}, {"utterance": "?"}]
    path = cli.lines({"id": "a", "messages": messages, "meta": {"x": [1]}, "lang": "en", "source": "s"})
    options = ("--role-key", "speaker", "--default-role", "USER", "--metadata-key", "meta", "--metadata-key", "lang")
    result = cli.run("import", path, *options)
    assert result.stderr == "keys that were ignored: source (first at line 1); --metadata-key keeps one as metadata\n"
    assert bodies(cli, "a") == messages
    roles = [message["role"] for message in cli.json("show", "a")["messages"]]
    assert roles == ["SYSTEM", "USER"]
    assert cli.json("show", "a")["session"]["metadata"] == {"lang": "en", "meta": {"x": [1]}}


def test_several_files(cli: Cli) -> None:
    first, second = cli.lines(line("a"), name="x.jsonl"), cli.lines(line("b"), "broken", name="y.jsonl")
    result = cli.run("import", first, second, code=1)
    assert result.stderr.splitlines()[0] == f"{second} line 2: not JSON at character 0: Expecting value"
    assert ids(cli) == ["a", "b"]


def test_a_folder_of_session_files(cli: Cli) -> None:
    """O04: into the store and out again, equal as JSON."""
    source = cli.folder / "state"
    source.mkdir()
    moment = "2025-03-01T12:00:00Z"
    session = {
        "session_id": "../a",
        "user_id": "ada",
        "created_at": moment,
        "updated_at": "2025-03-01T12:00:00.500Z",
        "active_seed_id": None,
        "active_persona_id": "p",
        "metadata": {"k": 1},
        "user_messages": [{"content": "x", "timestamp": moment}],
        "agent_responses": [{"content": "y", "timestamp": moment, "seed_id": "s", "evaluation_passed": False}],
    }
    (source / "any name.json").write_text(json.dumps(session))
    (source / "broken.json").write_text("{")
    result = cli.run("import", str(source), "--on-error", "continue", code=1)
    assert result.stderr.startswith("broken.json: not JSON at character 1")
    target = cli.folder / "out"
    cli.run("export", str(target), "--format", "state-store")
    assert [path.name for path in target.iterdir()] == ["%2E.%2Fa.json"]
    assert json.loads((target / "%2E.%2Fa.json").read_text()) == session
    assert cli.run("import", str(target)).stdout.startswith("0 sessions imported, 1 there already")
    result = cli.run("export", str(target), "--format", "state-store", code=1)
    assert "is there already; it is only overwritten by force" in result.stderr
    cli.run("export", str(target), "--format", "state-store", "--force")
    assert cli.json("import", "--format", "state-store", str(target / "%2E.%2Fa.json"))["skipped"] == 1


def test_what_a_session_file_cannot_say(cli: Cli) -> None:
    """O04: nothing is dropped in silence."""
    cli.run("import", cli.lines(line("a", "x"), {"id": "b", "messages": [{"role": "tool"}]}))
    target = str(cli.folder / "out")
    result = cli.run("export", target, "--format", "state-store", "--on-error", "continue", code=1)
    reason = "position 0: session files hold the roles user and assistant only"
    assert result.stderr == f"session 'b': {reason}\n"
    assert result.stdout.startswith("1 session exported")
    assert cli.refused("export", target, "b", "--format", "state-store") == f"session 'b': {reason}"


def test_export_of_some(cli: Cli) -> None:
    cli.run("import", cli.lines(line("a", user_id="u"), line("b"), line("c", user_id="u")))
    out = cli.run("export", "-", "c", "b").stdout
    assert [json.loads(text)["id"] for text in out.splitlines()] == ["c", "b"]
    out = cli.run("export", "-", "--user", "u").stdout
    assert sorted(json.loads(text)["id"] for text in out.splitlines()) == ["a", "c"]


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_a_file_is_only_overwritten_by_force(sqlite_cli: Cli, name: str) -> None:
    target = sqlite_cli.folder / name
    target.write_text("precious")
    assert sqlite_cli.refused("export", str(target)).endswith("is there already; it is only overwritten by force")
    assert target.read_text() == "precious"
    sqlite_cli.run("export", str(target), "--force")
    assert target.read_bytes() != b"precious"


def test_a_failing_export_leaves_no_file(sqlite_cli: Cli) -> None:
    before = sorted(sqlite_cli.folder.iterdir())
    sqlite_cli.refused("export", str(sqlite_cli.folder / "out.jsonl"), "nobody")
    assert sorted(sqlite_cli.folder.iterdir()) == before


def test_an_import_makes_the_tables_when_asked_to(no_database: Cli) -> None:
    path = no_database.lines(line("a"))
    no_database.run("import", path, "--migrate")
    assert ids(no_database) == ["a"]


def test_long_sessions_and_their_positions(cli: Cli) -> None:
    """H22: trimmed and forked sessions come back as they were."""
    cli.run("import", cli.lines(line("a", *range(700))))
    cli.run("trim", "a", "--keep-last", "600")
    cli.run("fork", "a", "--at", "10", "--new-id", "b")
    out = str(cli.folder / "out.jsonl")
    cli.run("export", out)
    cli.run("delete", "a", "b")
    cli.run("import", out)

    async def read(sessions: SessionRepository) -> list[Transcript]:
        return [await sessions.snapshot(session_id) for session_id in ("a", "b")]

    first, second = cli.store(read)
    assert (first.session.first_position, first.session.length) == (100, 600)
    assert (second.session.parent_id, second.session.fork_position, second.session.length) == ("a", 110, 10)


def test_a_folder_is_no_file(sqlite_cli: Cli) -> None:
    error = sqlite_cli.refused("export", str(sqlite_cli.folder))
    assert error == f"{sqlite_cli.folder} is there and is not a regular file"
    error = sqlite_cli.refused("import", str(sqlite_cli.folder), "--format", "jsonl")
    assert error == f"{sqlite_cli.folder}: Is a directory"
    assert Path(sqlite_cli.folder).is_dir()
