"""Messages for people: who speaks, when, and what, tool calls and other blocks in short."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from sessionstore import Message, Session, Transcript
from sessionstore.cli.terminal import one_line, safe, when
from sessionstore.importers.jsontext import encode

_COLOURS: Final = {"user": "cyan", "assistant": "green", "system": "magenta", "developer": "magenta", "tool": "yellow"}
_TEXT_CHARS: Final = 1500
_CALL_CHARS: Final = 160
_CALLS: Final = frozenset({"tool_use", "tool_call", "toolCall", "function_call"})


def drawn(session: Session, messages: list[Message], *, full: bool) -> Iterator[RenderableType]:
    """Draw messages one by one."""
    events = Transcript(session, tuple(messages)).derived_events
    for message, event in zip(messages, events, strict=True):
        head = Text.assemble(
            (f"{message.position:>4}  ", "dim"),
            (one_line(message.role), f"bold {_COLOURS.get(message.role, 'blue')}"),
            (f"  {when(message.created_at)}", "dim"),
        )
        lines = [Text(_cut(safe(event.text), None if full else _TEXT_CHARS))] if event.text else []
        lines += [Text(line, style="yellow") for line in _extras(message.body, full=full)]
        if not lines:
            lines = [Text(_short(message.body, None if full else _CALL_CHARS), style="dim")]
        yield Group(head, Padding(Group(*lines), (0, 0, 0, 6), expand=False))


def _extras(body: dict[str, Any], *, full: bool) -> Iterator[str]:
    """What a message has beside its text: calls of tools, images, and so on."""
    limit = None if full else _CALL_CHARS
    calls = body.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function") if isinstance(call, dict) else None
        shown = function if isinstance(function, dict) else call
        yield _call(shown, limit) if isinstance(shown, dict) else _short(shown, limit)
    content = body.get("content")
    for block in content if isinstance(content, list) else []:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind in _CALLS:
            yield _call(block, limit)
        elif kind not in {None, "text", "tool_result"}:
            yield f"[{one_line(str(kind))}]"


def _call(call: dict[str, Any], limit: int | None) -> str:
    arguments = call.get("arguments", call.get("input", {}))
    text = one_line(arguments) if isinstance(arguments, str) else _short(arguments, None)
    return _cut(f"→ {one_line(str(call.get('name', '?')))}({text})", limit)


def _short(value: Any, limit: int | None) -> str:
    return _cut(one_line(encode(value).decode()), limit)


def _cut(text: str, limit: int | None) -> str:
    if limit is None or len(text) <= limit:
        return text
    return f"{text[:limit]}… ({len(text) - limit:,} more)"
