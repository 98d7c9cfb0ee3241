"""Text for people: nothing that somebody said can command the terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from rich.console import Console

from sessionstore import NewMessage, Transcript, VersionConflictError
from sessionstore.cli.messages import drawn
from sessionstore.cli.terminal import brief, json_of, one_line, plural, safe, size, when, without_passwords
from sessionstore.units.store import TenantSize


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("a\r\nb\tc\nd", "a\nb\tc\nd"),
        ("a\rb", "a\\x0db"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
        ("日本 émoji 👩‍👩‍👧 [bold]", "日本 émoji 👩‍👩‍👧 [bold]"),
    ],
)
def test_what_would_command_a_terminal_is_shown(text: str, shown: str) -> None:
    assert safe(text) == shown
    assert "\n" not in one_line(text)


def test_a_title_is_cut_to_what_a_table_has_room_for() -> None:
    assert brief("short") == "short"
    assert brief("x" * 100) == "x" * 27 + "…"
    assert brief("日" * 100) == "日" * 13 + " …"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (12_345, "12 kB"), (5_200_000, "5.2 MB"), (4 * 10**12, "4,000 GB")],
)
def test_bytes(count: int, text: str) -> None:
    assert size(count) == text


def test_numbers_and_times() -> None:
    assert [plural(count, "session") for count in (0, 1, 2000)] == ["0 sessions", "1 session", "2,000 sessions"]
    assert when(datetime(2025, 1, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))) == "2024-12-31 23:30"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot reach postgresql://u:p@ss/w@rd@host/db now", "cannot reach postgresql://u:***@host/db now"),
        ("postgresql://u@host/db", "postgresql://u@host/db"),
        ("at 12:30, mail me@example.org", "at 12:30, mail me@example.org"),
    ],
)
def test_passwords(text: str, shown: str) -> None:
    assert without_passwords(text) == shown


def test_json_of_what_the_library_gives() -> None:
    moment = datetime(2025, 1, 1, tzinfo=UTC)
    value = {"at": moment, "size": TenantSize("t", 1, 2, 3), "odd": ["\ud800", 2**70, None], "pair": (1, 2)}
    assert json_of(value) == (
        b'{"at":"2025-01-01T00:00:00Z","size":{"tenant":"t","sessions":1,"messages":2,"body_bytes":3},'
        b'"odd":["\\ud800",1180591620717411303424,null],"pair":[1,2]}'
    )
    with pytest.raises(ValueError, match="must be a JSON value"):
        json_of(VersionConflictError("a", expected=1, actual=2))


class Drawn:
    """Messages as they were drawn, for an assertion to look into."""

    def __init__(self, *bodies: dict[str, Any], full: bool = False) -> None:
        moment = datetime(2025, 1, 1, tzinfo=UTC)
        messages = [NewMessage(body, role=body.get("role", "x"), created_at=moment) for body in bodies]
        transcript = Transcript.of("a", messages)
        console = Console(width=100, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
        for one in drawn(transcript.session, list(map(_stored, enumerate(messages))), full=full):
            console.print(one)
        console.file.close()
        self.lines = [line.rstrip() for line in console.export_text().splitlines()]


def _stored(numbered: tuple[int, NewMessage]) -> Any:
    position, message = numbered
    body = json_of(dict(message.body))
    from sessionstore import Message  # noqa: PLC0415  # the only place that makes one by hand

    return Message("a", (position, message.role, body, False, None, message.created_at))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"role": "user", "content": "hello\x1b[2J"}, ["hello\\x1b[2J"]),
        ({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}, ["a", "[image_url]"]),
        (
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1}'}}],
            },
            ['→ f({"a": 1})'],
        ),
        (
            {"role": "assistant", "content": [{"type": "tool_use", "name": "g", "input": {"q": "x\ny"}}]},
            ['→ g({"q":"x\\ny"})'],
        ),
        ({"role": "assistant", "tool_calls": ["odd", {"name": "h"}]}, ['"odd"', "→ h({})"]),
        ({"role": "user", "content": [{"type": "tool_result", "content": "42"}]}, ["42"]),
        ({"role": "user", "tool_calls": "odd", "content": ["said"]}, ["said"]),
        ({"utterance": "no content"}, ['{"utterance":"no content"}']),
        ({"role": "user", "content": ""}, ['{"role":"user","content":""}']),
    ],
)
def test_a_message(body: dict[str, Any], expected: list[str]) -> None:
    """H34: strings, blocks, tool calls and results, and bodies of any other shape."""
    head, *lines = Drawn(body).lines
    assert head == f"   0  {body.get('role', 'x')}  2025-01-01 00:00"
    assert [line.strip() for line in lines] == expected


def test_long_texts_are_cut_unless_they_are_asked_for() -> None:
    body = {"role": "user", "content": "word " * 1000}
    assert Drawn(body).lines[-1].endswith("… (3,500 more)")
    assert "more" not in Drawn(body, full=True).lines[-1]
    other = {"x": "y" * 1000}
    assert "… (8" in Drawn(other).lines[-1]
    assert sum(map(len, Drawn(other, full=True).lines)) > 1000
