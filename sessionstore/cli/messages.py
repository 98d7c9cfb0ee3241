"""Messages for people: who speaks, when, and what, tool calls and other blocks in short."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from sessionstore import Json, Message, Session, Transcript
from sessionstore.cli.terminal import json_of, one_line, safe, when
from sessionstore.importers.jsontext import encode

COLOURS: Final = {"user": "cyan", "assistant": "green", "system": "magenta", "developer": "magenta", "tool": "yellow"}
_TEXT_CHARS: Final = 1500
_CALL_CHARS: Final = 160
_CALLS: Final = frozenset({"tool_use", "tool_call", "toolCall", "function_call"})


def drawn(session: Session, messages: list[Message], *, full: bool) -> Iterator[RenderableType]:
    """Draw messages one by one."""
    events = Transcript(session, tuple(messages)).derived_events
    for message, event in zip(messages, events, strict=True):
        head = Text.assemble(
            (f"{message.position:>4}  ", "dim"),
            (one_line(message.role), f"bold {COLOURS.get(message.role, 'blue')}"),
            (f"  {when(message.created_at)}", "dim"),
        )
        lines = [Text(_cut(safe(event.text), None if full else _TEXT_CHARS))] if event.text else []
        lines += [Text(line, style="yellow") for line in _extras(message.body, full=full)]
        if not lines:
            lines = [Text(short(message.body, None if full else _CALL_CHARS), style="dim")]
        yield Group(head, Padding(Group(*lines), (0, 0, 0, 6), expand=False))


def said(session_id: str, messages: tuple[Message, ...]) -> Iterator[str]:
    """One line for each message: the beginning of what it says, or else of what it holds."""
    events = Transcript.of(session_id, messages).derived_events
    for message, event in zip(messages, events, strict=True):
        parts = [one_line(event.text)] if event.text else []
        parts += _extras(message.body, full=False)
        yield _cut(" ".join(parts), _CALL_CHARS) if parts else short(message.body)


def json_of_message(message: Message) -> bytes:
    """A message as JSON in one line, its body as it is stored."""
    facts = {
        "position": message.position,
        "role": message.role,
        "message_id": message.message_id,
        "created_at": message.created_at,
    }
    return json_of(facts)[:-1] + b',"body":' + message.body_json.replace(b"\n", b" ") + b"}"


def _extras(body: dict[str, Any], *, full: bool) -> Iterator[str]:
    """What a message has beside its text: calls of tools, images, and so on."""
    limit = None if full else _CALL_CHARS
    calls = body.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function") if isinstance(call, dict) else None
        shown = function if isinstance(function, dict) else call
        yield _call(shown, limit) if isinstance(shown, dict) else short(shown, limit)
    content = body.get("content")
    for block in content if isinstance(content, list) else []:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind in _CALLS:
            yield _call(block, limit)
        elif kind not in {None, "text", "tool_result"}:
            yield f"[{one_line(str(kind))}]"


def _call(call: dict[str, Any], limit: int | None) -> str:
    arguments = call.get("arguments", call.get("input", {}))
    text = one_line(arguments) if isinstance(arguments, str) else short(arguments, None)
    return _cut(f"→ {one_line(str(call.get('name', '?')))}({text})", limit)


def short(value: Json, limit: int | None = _CALL_CHARS) -> str:
    """The beginning of a value's JSON, in one line."""
    return _cut(one_line(encode(value).decode()), limit)


def _cut(text: str, limit: int | None) -> str:
    if limit is None or len(text) <= limit:
        return text
    return f"{text[:limit]}… ({len(text) - limit:,} more)"
