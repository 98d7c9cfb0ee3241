"""What somebody sees who does something wrong, or to whom the database does."""

from __future__ import annotations

import shlex

import pytest
from typer.testing import CliRunner

from sessionstore import SessionRepository, SessionStoreError
from sessionstore.cli import app
from sessionstore.cli.running import At
from sessionstore.cli.terminal import without_passwords
from sessionstore.schema import REVISION
from tests.cli.conftest import Cli, line

READING = (
    ("list",),
    ("show", "a"),
    ("events", "a"),
    ("events", "a", "--follow"),
    ("watch",),
    ("tree",),
    ("tree", "a"),
    ("stats",),
    ("export", "-"),
    ("export", "out.jsonl"),
    ("prune", "--max-age", "1d", "--dry-run"),
    ("db", "check"),
)
WRITING = (
    ("fork", "a"),
    ("trim", "a", "--keep-last", "1"),
    ("prune", "--max-age", "1d", "--yes"),
    ("delete", "a"),
    ("import", "sessions.jsonl"),
)
NO_TABLES = (
    f"the database has no sessionstore tables, or none that may be seen, this code needs {REVISION}; "
    "run: sessionstore db upgrade"
)


@pytest.mark.parametrize("command", [*READING, *WRITING], ids=" ".join)
def test_no_database_file_is_created(
    no_database: Cli, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """F10: the error names the command to run."""
    monkeypatch.chdir(no_database.folder)
    no_database.lines(line("a"))
    assert no_database.refused(*command) == NO_TABLES
    assert list((no_database.folder / "nowhere").iterdir()) == []
    assert not (no_database.folder / "out.jsonl").exists()


@pytest.mark.parametrize("command", [("list",), ("db", "check")], ids=" ".join)
def test_no_tables_on_postgresql(unmigrated_postgres: Cli, command: tuple[str, ...]) -> None:
    """F10: as on SQLite."""
    assert unmigrated_postgres.refused(*command) == NO_TABLES
    assert unmigrated_postgres.refused(*command, "--schema", "chat") == NO_TABLES.replace(
        "sessionstore db", "sessionstore --schema chat db"
    )


def test_db_current_creates_nothing(no_database: Cli) -> None:
    assert no_database.run("db", "current").stdout == "there are no sessionstore tables\n"
    assert no_database.json("db", "current") == {"revision": None}
    assert list((no_database.folder / "nowhere").iterdir()) == []


def test_the_command_to_run_can_be_copied(no_database: Cli) -> None:
    url = no_database.url.replace("nowhere", "no where")
    (no_database.folder / "no where").mkdir()
    for options in (("--database", url, "list"), ("list", "--database", url)):
        error = no_database.refused(*options)
        command = shlex.split(error.partition("run: ")[2])
        assert command[:3] == ["sessionstore", "--database", url]
        assert CliRunner().invoke(app, [*command[1:], "--timeout", "5"]).exit_code == 0
        assert no_database.run("--database", url, "list").stdout == "there are no sessions\n"
        (no_database.folder / "no where" / "sessions.db").unlink()


PASSWORD = "s3cret@/w0rd"  # noqa: S105  # nobody's
URLS = (
    "postgresql://user:s3cret%40%2Fw0rd@127.0.0.1:1/name",
    "postgresql://user:s3cret@/w0rd@127.0.0.1:1/name",
    "postgres://user:s3cret@127.0.0.1:port/name",
    "mysql://user:s3cret@127.0.0.1/name",
    "postgresql+psycopg://user:s3cret@127.0.0.1/name",
    "postgresql://user:s3cret@127.0.0.1:1/name?nonsense=1",
    "user:s3cret@127.0.0.1/name",
)


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("command", [("list",), ("db", "check"), ("db", "upgrade"), ("import", "sessions.jsonl")])
def test_no_password_is_repeated(no_database: Cli, url: str, command: tuple[str, ...]) -> None:
    """F14: one line, without credentials, wherever the URL came from."""
    path = no_database.lines(line("a"))
    command = tuple(path if word == "sessions.jsonl" else word for word in command)
    for arguments, variables in (
        (("--timeout", "0.2", *command, "--database", url), {}),
        (("--timeout", "0.2", "--database", url, *command), {}),
        (("--timeout", "0.2", *command), {"SESSIONSTORE_DATABASE_URL": url}),
    ):
        result = no_database.run(*arguments, code=1, **variables)
        assert len(result.stderr.splitlines()) == 1
        assert result.stderr.startswith("error: ")
        assert "s3cret" not in result.output
        assert "w0rd" not in result.output


def test_a_url_in_the_wrong_place_is_not_repeated_whole(no_database: Cli) -> None:
    said = no_database.misused(URLS[0], "list")
    assert "s3cret" not in said
    assert "No such command 'postgresql://user:***@127.0.0.1:1/name'" in said
    assert "s3cret" not in no_database.misused("prune", "--max-age", URLS[1])
    assert "s3cret" not in no_database.misused("list", "--metadata", URLS[0])
    assert "s3cret" not in no_database.refused("import", f"/nowhere/{URLS[0]}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("frobnicate",), "No such command 'frobnicate'"),
        (("list", "--frobnicate"), "No such option: --frobnicate"),
        (("show",), "Missing argument 'SESSION'"),
        (("trim", "a"), "Missing option '--keep-last'"),
        (("trim", "a", "--keep-last", "-1"), "Invalid value for '--keep-last'"),
        (("trim", "a", "--keep-last", "1", "--align", "page"), "'page' is not one of 'message', 'turn'"),
        (("prune",), "--max-age, --max-sessions, --max-idle: name at least one limit"),
        (("prune", "--per-user", "--yes"), "name at least one limit"),
        (("prune", "--max-age", "soon"), "'soon' is not a time like 30d, 12h or 2w"),
        (("prune", "--max-age", "0d"), "--max-age, --max-idle: must be longer than nothing"),
        (("prune", "--max-sessions", "0"), "Invalid value for '--max-sessions'"),
        (("prune", "--max-age", "1d", "--json"), "there is nobody to ask: add --yes or --dry-run"),
        (("delete",), "name sessions or a --user"),
        (("delete", "a", "--user", "u"), "name sessions or a --user"),
        (("delete", "--user", "u", "--json"), "there is nobody to ask: add --yes"),
        (("show", "a", "--last", "1", "--all"), "it excludes --last"),
        (("events", "a", "--follow", "--after", "1"), "it excludes --after and --limit"),
        (("events", "a", "--follow", "--limit", "1"), "it excludes --after and --limit"),
        (("events", "a", "--cursor", "1.2.3"), "it goes with --follow"),
        (("events", "a", "--limit", "0"), "Invalid value for '--limit'"),
        (("events", "a", "--follow", "--cursor", "@1"), "'@1' is not a cursor of events --follow --json"),
        (("watch", "--cursor", "1.2.3"), "'1.2.3' is not a cursor of watch --json"),
        (("list", "--metadata", "lang"), "'lang' is not KEY=VALUE"),
        (("import",), "Missing argument 'PATH'"),
        (("import", "-", "x.jsonl"), "- stands alone"),
        (("import", "-", "--format", "state-store"), "session files are read from a folder"),
        (("import", "x.jsonl", "--metadata-key", "title"), "title is imported anyway"),
        (("import", "x.jsonl", "--on-conflict", "merge"), "'merge' is not one of 'skip', 'replace', 'error'"),
        (("export", "-", "--json"), "- takes JSON Lines and nothing else"),
        (("export", "-", "--format", "state-store"), "- takes JSON Lines and nothing else"),
        (("export", "x", "a", "--user", "u"), "it excludes naming sessions"),
        (("db", "frobnicate"), "No such command 'frobnicate'"),
    ],
)
def test_bad_usage(no_database: Cli, arguments: tuple[str, ...], said: str) -> None:
    assert said in no_database.misused(*arguments)
    assert list((no_database.folder / "nowhere").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("show", "nobody"), "there is no session 'nobody'"),
        (("show", ""), "session id must not be empty"),
        (("events", "nobody"), "there is no session 'nobody'"),
        (("events", "nobody", "--follow"), "there is no session 'nobody'"),
        (("events", "a", "--after", str(2**63)), f"after must be at most {2**63 - 1}"),
        (("watch", "--tenant", "a\u202eb"), "tenant must not hold the character U+202E"),
        (("tree", "nobody"), "there is no session 'nobody'"),
        (("fork", "nobody"), "there is no session 'nobody'"),
        (("fork", "a", "--new-id", "a"), "a session cannot be forked onto itself"),
        (("fork", "a", "--new-id", "b"), "session 'b' exists already"),
        (("trim", "nobody", "--keep-last", "1"), "there is no session 'nobody'"),
        (("export", "-", "nobody"), "there is no session 'nobody'"),
        (("list", "--cursor", "nonsense"), "cursor is not one of a listing"),
        (("list", "--metadata", "k=[1]"), "metadata 'k': only scalars can be searched for"),
        (("list", "--tenant", "a\u202eb"), "tenant must not hold the character U+202E"),
        (("list", "--schema", "No Such"), "schema must be a plain lower-case PostgreSQL name"),
        (("import", "/nowhere/x.jsonl"), "/nowhere/x.jsonl: No such file or directory"),
        (("db", "upgrade", "--to", "9999"), "there is no revision '9999'; there are 0001, 0002, 0003, 0004"),
    ],
)
def test_an_error_is_one_line(cli: Cli, arguments: tuple[str, ...], error: str) -> None:
    """H11, H17, F03: unknown sessions and what else the library refuses."""
    cli.store(lambda sessions: sessions.create("a"))
    cli.store(lambda sessions: sessions.create("b"))
    assert cli.refused(*arguments) == error


def test_a_file_that_is_no_database(no_database: Cli) -> None:
    """F14: and it is left alone."""
    file = no_database.folder / "nowhere" / "sessions.db"
    file.write_bytes(b"a diary" * 1000)
    assert no_database.refused("list") == "the file is not a SQLite database"
    assert file.read_bytes() == b"a diary" * 1000


@pytest.mark.parametrize("debug", [None, "1"])
def test_a_bug_is_one_line_without_what_anybody_said(
    sqlite_cli: Cli, monkeypatch: pytest.MonkeyPatch, debug: str | None
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("what somebody said")

    monkeypatch.setattr(SessionRepository, "connect", broken)
    environment = {**sqlite_cli.environment, "SESSIONSTORE_DEBUG": debug}
    result = CliRunner(env=environment).invoke(app, ["list"])
    assert result.exit_code == 1
    if debug:
        assert isinstance(result.exception, RuntimeError)
    else:
        assert result.stderr == "error: internal error (RuntimeError); SESSIONSTORE_DEBUG=1 shows where\n"


def test_an_error_text_cannot_command_the_terminal(sqlite_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def hostile(*_: object, **__: object) -> None:
        raise SessionStoreError("\x1b[2Jgone\nsecond line")

    monkeypatch.setattr(SessionRepository, "connect", hostile)
    assert sqlite_cli.refused("list") == "\\x1b[2Jgone second line"


def test_help_has_examples_and_no_secrets(no_database: Cli) -> None:
    result = no_database.run("--help", SESSIONSTORE_DATABASE_URL="postgresql://u:s3cret@h/x")
    assert "SESSIONSTORE_DATABASE_URL" in result.stdout
    assert "s3cret" not in result.stdout
    assert no_database.run("-h").stdout == result.stdout
    commands = (
        "list",
        "show",
        "events",
        "watch",
        "tree",
        "stats",
        "fork",
        "trim",
        "prune",
        "delete",
        "import",
        "export",
        "demo",
    )
    for command in (
        *((name,) for name in commands),
        *(("db", name) for name in ("upgrade", "current", "check", "sql")),
    ):
        assert command[0] in result.stdout
        said = no_database.run(*command, "--help").stdout
        assert f"sessionstore {' '.join(command)}" in said.partition("Examples:")[2], command


def test_no_command_shows_the_help() -> None:
    result = CliRunner().invoke(app, [])
    assert "Usage: sessionstore" in result.output


def test_the_version(no_database: Cli) -> None:
    words = no_database.run("--version").stdout.split()
    assert words[0] == "sessionstore"
    assert words[1][0].isdigit()


def test_a_password_in_the_query_is_not_repeated(no_database: Cli) -> None:
    """P11: nor anything else of a URL that is not known to be harmless."""
    url = "postgresql://u@127.0.0.1:1/d?password=hunter2"
    result = CliRunner().invoke(app, ["--database", url, "list"])
    assert result.exit_code == 1
    assert "hunter2" not in result.output
    at = At(database=url, given=True)
    assert "hunter2" not in at.upgrade_command
    assert "--database" in At(database="postgresql://u@h/d?pooler=transaction", given=True).upgrade_command
    assert without_passwords(f"x {url} y") == "x postgresql://u@127.0.0.1:1/d?password=*** y"
