"""Output: tables and text for people, JSON for programs; nothing of a conversation can command the terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sessionstore.backfill import Backfill
from sessionstore.importers.jsontext import encode
from sessionstore.importers.times import format_time

_TITLE_CELLS: Final = 28
"""A title is to recognise a session by; an id and a time have to stand beside it on a narrow terminal."""

_WIDE: Final = 200
"""Columns where the output is no terminal: a pipe has no width, and an id that was cut is no id."""

_UNSAFE: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, ESC among them
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what reorders the text around it
    r"\ud800-\udfff]"  # lone surrogates
)

_PASSWORD: Final = re.compile(r"(://[^:/@\s]*):\S*@")
_PASSWORD_OPTION: Final = re.compile(r"(\bpassword=)[^&\s'\"]+")


def out() -> Console:
    """Standard output."""
    return _console(stderr=False)


def err() -> Console:
    """Standard error."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _WIDE
    return console


def note(line: str, *, style: str = "", console: Console | None = None) -> None:
    """Tell people something beside the result, on the console that draws something else if there is one."""
    (console or err()).print(Text(one_line(line), style=style), soft_wrap=True)


def safe(text: str) -> str:
    """Show what a terminal would obey, or could not show, as its code."""
    return _UNSAFE.sub(_code, text.replace("\r\n", "\n"))


def _code(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number <= 0xFF else f"\\u{number:04x}"  # noqa: PLR2004  # a byte


def one_line(text: str) -> str:
    """As `safe`, without line breaks."""
    return safe(text).replace("\n", " ").replace("\t", " ")


def without_passwords(text: str) -> str:
    """Hide the password of anything that looks like a URL."""
    return _PASSWORD_OPTION.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text))


def how_far(found: Backfill) -> str:
    """How far a backfill is."""
    if found.finished_at is not None:
        return f"finished {when(found.finished_at)}, {found.changed:,} of {found.seen:,} changed"
    total = "" if found.total is None else f" of {found.total:,}"
    return f"{found.seen:,}{total} rows, last batch {when(found.updated_at)}"


def when(moment: datetime) -> str:
    """A time for people: UTC, to the minute."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"


def when_exactly(moment: datetime) -> str:
    """A time for people who look on: UTC, to the second."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def brief(text: str) -> str:
    """As much of a title as a table has room for."""
    line = Text(one_line(text))
    line.truncate(_TITLE_CELLS, overflow="ellipsis")
    return line.plain


_STEP: Final = 1000
_ONE_DECIMAL: Final = 10


def size(count: int) -> str:
    """Bytes for people."""
    if count < _STEP:
        return f"{count} B"
    number, units = count / _STEP, ["kB", "MB", "GB"]
    while number >= _STEP and len(units) > 1:
        number /= _STEP
        del units[0]
    return f"{number:.1f} {units[0]}" if number < _ONE_DECIMAL else f"{number:,.0f} {units[0]}"


def plural(count: int, noun: str) -> str:
    """A number of things."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, right: Sequence[str] = ()) -> Table:
    """A table; the columns in `right` are numbers. Ids are folded over lines where there is no room, never cut."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    for name in columns:
        fixed = name in right or name == "updated (UTC)"
        made.add_column(name, justify="right" if name in right else "left", no_wrap=fixed, overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(one_line(cell)) for cell in row))
    return made


def json_of(value: Any) -> bytes:
    """Encode plain values, dataclasses, named tuples and times."""
    return encode(_plain(value))


def print_json(value: Any) -> None:
    """Write a value as one line of JSON, and nothing else."""
    print_raw(json_of(value) + b"\n")


def print_raw(text: bytes) -> None:
    """Write bytes: JSON is UTF-8 whatever the locale says."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        fields = getattr(value, "_fields", None)
        return _plain(dict(zip(fields, value, strict=True))) if fields else [_plain(entry) for entry in value]
    return format_time(value) if isinstance(value, datetime) else value
