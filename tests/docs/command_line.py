"""Write the reference in docs/command-line.md from the commands: `python -m tests.docs.command_line`."""

from __future__ import annotations

import re
import sys
import textwrap
import typing
from collections.abc import Iterator
from typing import Any, Final

from typer.main import get_command

from sessionstore.cli import app
from tests.docs.markdown import ROOT

PAGE: Final = ROOT / "docs" / "command-line.md"

_GENERATED: Final = re.compile(r"(?<=<!-- commands -->\n).*?(?=<!-- end -->\n)", re.DOTALL)
_SHARED: Final = ("--database", "--tenant", "--schema", "--json")


def page() -> str:
    """The page as it should be."""
    return _GENERATED.sub(lambda _: reference(), PAGE.read_text())


def reference() -> str:
    """What is generated."""
    parts = [f"## {name}\n\n{_described(command)}" for name, command in commands()]
    return "\n" + "\n".join(parts) + "\n"


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its full name, groups left out."""
    waiting: list[tuple[str, Any]] = [("sessionstore", get_command(app))]
    while waiting:
        name, command = waiting.pop(0)
        inner = getattr(command, "commands", None)
        if inner is None:
            yield name, command
        else:
            waiting += [(f"{name} {each}", found) for each, found in inner.items() if not found.hidden]


def _described(command: Any) -> str:
    first, *more = (textwrap.fill(paragraph, 120) for paragraph in (command.help or "").split("\n\n"))
    lines = [first, *(f"\n{paragraph}" for paragraph in more)]
    own = [entry for entry in command.params if entry.opts[0] not in _SHARED]
    if own:
        lines += ["\n| argument or option | what it does |", "|---|---|"]
        lines += [f"| {_name(entry)} | {_meaning(entry)} |" for entry in own]
    shared = [f"`{name}`" for name in _SHARED if any(name in entry.opts for entry in command.params)]
    if shared:
        lines.append(f"\nAlso {', '.join(shared)}.")
    examples = [line.strip() for line in (command.epilog or "").splitlines() if line.startswith("  ")]
    if examples:
        lines += ["\n```console", *(f"$ {example}" for example in examples), "```"]
    return "\n".join(lines) + "\n"


def _name(entry: Any) -> str:
    if not entry.opts[0].startswith("-"):
        name = re.sub(r"[\[\]{}.]", "", entry.metavar or entry.name.upper()) + ("..." if entry.nargs == -1 else "")
        return f"`{name}`" if entry.required else f"`[{name}]`"
    value = _value(entry)
    return ", ".join(f"`{option}{' ' + value if value else ''}`" for option in entry.opts)


def _value(entry: Any) -> str:
    choices = typing.get_args(entry.type_descriptor.annotation)
    if entry.is_flag:
        return ""
    if choices and all(isinstance(choice, str) for choice in choices):
        return "\\|".join(choices)
    return str(entry.metavar or {int: "N", float: "SECONDS"}.get(entry.type_descriptor.annotation, "TEXT"))


def _meaning(entry: Any) -> str:
    text = entry.help or ""
    if getattr(entry, "required", False):
        text += " Required."
    if getattr(entry, "multiple", False):
        text += " May be repeated."
    if isinstance(entry.show_default, str):
        text += f" Default: {entry.show_default}."
    elif entry.show_default and entry.default is not None and not getattr(entry, "is_flag", False):
        text += f" Default: `{entry.default}`."
    return text.strip().replace("|", "\\|")


if __name__ == "__main__":
    written = page()
    if PAGE.read_text() == written:
        sys.exit(0)
    PAGE.write_text(written)
    print(f"wrote {PAGE.relative_to(ROOT)}")  # noqa: T201  # it is a program
