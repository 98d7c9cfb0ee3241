"""What happens to sessions: `events`, and `watch` as it happens."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Annotated, Any, Final, cast

import typer
from rich.console import Console
from rich.text import Text

from sessionstore import Change, InvalidArgumentError, SessionEvent, SessionRepository, WatchLagError
from sessionstore.changes import DELETED, REWRITTEN, Cursor, parse_tenant_cursor, tenant_cursor
from sessionstore.cli.messages import COLOURS, json_of_message, said, short
from sessionstore.cli.running import At, command
from sessionstore.cli.terminal import json_of, note, one_line, out, print_raw, table, when_exactly
from sessionstore.importers.jsontext import encode
from sessionstore.limits import EVENTS_PAGE

_PANEL: Final = "Look"
_LEAST_CELLS: Final = 20
"""What is left to a text however narrow the terminal is."""

_CELL_CHARS: Final = 100
"""Of a payload in a table: it stays one line where the output is no terminal."""

CursorOption = Annotated[
    str | None,
    typer.Option("--cursor", metavar="CURSOR", help="Go on after the change that --json printed with this cursor."),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    events_examples = (
        "sessionstore events trip-1",
        "sessionstore events trip-1 --json | jq 'select(.kind == \"tool_started\").payload'",
        "sessionstore events trip-1 --follow",
        "sessionstore events trip-1 --follow --json --cursor 1.12.4",
    )
    command(app, "events", panel=_PANEL, examples=events_examples)(events)
    watch_examples = (
        "sessionstore watch --tenant acme",
        "sessionstore watch --json | jq -r 'select(.kind == \"messages\").messages[].body.content'",
        "sessionstore watch --json --cursor @1767225600000000",
    )
    command(app, "watch", panel=_PANEL, examples=watch_examples)(watch)


# --- the commands -----------------------------------------------------------------------------
async def events(
    at: At,
    *,
    session_id: Annotated[str, typer.Argument(metavar="SESSION", help="Its id.")],
    after: Annotated[
        int | None, typer.Option("--after", metavar="NUMBER", help="Only events with a greater number.", min=0)
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help="At most so many.", min=1, show_default="all")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Messages too, and go on with what happens until it is deleted.")
    ] = False,
    cursor: CursorOption = None,
) -> None:
    """Show what happened to a session beside its messages, in order.

    With --follow its messages too, and everything that happens to it from then
    on: until Ctrl-C, or until the session is deleted.

    With --json one object a line: an event with its payload as it was recorded;
    with --follow a change, with the cursor after which --cursor goes on.
    """
    if follow and (after is not None or limit is not None):
        raise typer.BadParameter("it excludes --after and --limit; --cursor says where to begin", param_hint="--follow")
    if cursor is not None and not follow:
        raise typer.BadParameter("it goes with --follow; --after skips events", param_hint="--cursor")
    _check_cursor(cursor, Cursor.parse, "events --follow --json")
    async with at.store() as sessions:
        if not follow:
            await _list(at, _all_events(sessions, session_id, after=after, limit=limit))
            return
        if cursor is None:
            await sessions.get(session_id)  # that it is missing is said before anything else is
        begin = "from its beginning" if cursor is None else f"after {cursor}"
        await _follow(at, sessions, session_id, cursor, f"session {session_id!r} {begin}")


async def watch(at: At, *, cursor: CursorOption = None) -> None:
    """Show what happens to all sessions of the tenant, as it happens, until Ctrl-C.

    A line for each message and each event: when, in which session, at which
    position or under which number, and how it begins. Changes come within a
    second; one that was committed long after it was made may come five minutes
    late.

    With --json one change a line, with the cursor after which --cursor goes on.
    That tells again of every session that was changed shortly before: nothing
    is missed, and some of it comes twice.
    """
    _check_cursor(cursor, parse_tenant_cursor, "watch --json")
    whose = f"of tenant {at.tenant!r}" if at.tenant else "of no tenant in particular"
    async with at.store() as sessions:
        begin = "from now on" if cursor is None else f"after {cursor}"
        await _follow(at, sessions, None, cursor, f"all sessions {whose} {begin}")


def _check_cursor(cursor: str | None, parse: Callable[[object], Any], printed_by: str) -> None:
    try:
        if cursor is not None:
            parse(cursor)
    except InvalidArgumentError:
        raise typer.BadParameter(f"{cursor!r} is not a cursor of {printed_by}", param_hint="--cursor") from None


# --- events that happened ---------------------------------------------------------------------
async def _all_events(
    sessions: SessionRepository, session_id: str, *, after: int | None, limit: int | None
) -> AsyncIterator[SessionEvent]:
    left = limit
    while left is None or left > 0:
        most = EVENTS_PAGE if left is None else min(left, EVENTS_PAGE)
        page = await sessions.events(session_id, after=after, limit=most)
        for event in page:
            yield event
        if len(page) < most:
            return
        after = page[-1].number
        left = None if left is None else left - most


async def _list(at: At, found: AsyncIterator[SessionEvent]) -> None:
    if at.as_json:
        async for event in found:
            print_raw(json_of_event(event) + b"\n")
        return
    rows = [
        (
            *(f"{event.number:,}", when_exactly(event.created_at), Text(one_line(event.kind), style="bold")),
            *(f"{event.next_position:,}", "" if event.payload is None else short(event.payload, _CELL_CHARS)),
        )
        async for event in found
    ]
    columns = ("number", "time (UTC)", "kind", "before message", "payload")
    out().print(table(columns, rows, right=("number", "before message")) if rows else "there are no events")


def json_of_event(event: SessionEvent) -> bytes:
    """An event as JSON in one line, its payload as it was recorded."""
    names = ("session_id", "number", "kind", "generation", "first_position", "next_position", "created_at")
    facts = {name: getattr(event, name) for name in names}
    return json_of(facts)[:-1] + b',"payload":' + encode(event.payload) + b"}"


# --- changes as they happen -------------------------------------------------------------------
async def _follow(at: At, sessions: SessionRepository, session_id: str | None, cursor: str | None, what: str) -> None:
    """Show changes, until they end or somebody ends it."""
    last = cursor
    if not at.as_json:
        note(f"watching {what}; times are UTC; Ctrl-C stops", style="dim")
    try:
        async with aclosing(_changes(sessions, session_id, cursor)) as changes:
            async for change in changes:
                _show(at, change, named=session_id is None)
                last = change.cursor
                if session_id is not None and change.kind == DELETED:
                    return
    except BaseException as error:
        if last is not None and not at.as_json and not isinstance(error, OSError | SystemExit):
            note(f"stopped; --cursor {last} goes on there", style="dim")
        raise


async def _changes(sessions: SessionRepository, session_id: str | None, cursor: str | None) -> AsyncGenerator[Change]:
    """What is told, gone on with by itself where it came faster than it could be shown."""
    begun = tenant_cursor(time.time_ns() // 1000) if session_id is None else None
    while True:
        try:
            told = cast("AsyncGenerator[Change]", sessions.watch(session_id, after=cursor))
            async with aclosing(told):
                async for change in told:
                    cursor = change.cursor
                    yield change
        except WatchLagError:
            cursor = cursor or begun
            note("more happened than could be shown; going on where it was, some may come twice", style="yellow")
        else:
            return


def _show(at: At, change: Change, *, named: bool) -> None:
    if at.as_json:
        print_raw(json_of_change(change) + b"\n")
        return
    console = out()
    for line in lines(change, console, named=named):
        console.print(line, soft_wrap=True)


def json_of_change(change: Change) -> bytes:
    """A change as JSON in one line."""
    head = json_of({"session_id": change.session_id, "kind": change.kind, "generation": change.generation})
    messages = b",".join(map(json_of_message, change.messages))
    event = b"null" if change.event is None else json_of_event(change.event)
    tail = b'],"event":' + event + b',"cursor":' + encode(change.cursor) + b"}"
    return head[:-1] + b',"messages":[' + messages + tail


def lines(change: Change, console: Console, *, named: bool) -> Iterator[Text]:
    """A line for each message, or for the event."""
    session = f"{one_line(change.session_id)}  " if named else ""
    for message, text in zip(change.messages, said(change.session_id, change.messages), strict=True):
        what = (one_line(message.role), COLOURS.get(message.role, "blue"))
        head = _head(when_exactly(message.created_at), session, f"{message.position:,}", what)
        yield _fitted(head, text, console)
    if not change.messages:
        event = change.event
        moment = "" if event is None else when_exactly(event.created_at)
        number = "" if event is None else f"#{event.number:,}"
        head = _head(moment, session, number, (one_line(change.kind), "bold magenta"))
        yield _fitted(head, _about(change), console)


def _head(moment: str, session: str, place: str, what: tuple[str, str]) -> Text:
    return Text.assemble((f"{moment:19}  ", "dim"), (session, "bold"), (f"{place:>6}  ", "dim"), what)


def _about(change: Change) -> str:
    event = change.event
    parts = []
    if change.kind == REWRITTEN:
        parts.append("what was shown may be no longer so")
    if event is not None and event.kind != change.kind:
        parts.append(f"({one_line(event.kind)})")
    if event is not None and event.payload is not None:
        parts.append(short(event.payload))
    return " ".join(parts)


def _fitted(head: Text, text: str, console: Console) -> Text:
    """A line with as much of a text as a terminal has room for."""
    if not text:
        return head
    rest = Text(text)
    if console.is_terminal:
        rest.truncate(max(console.width - head.cell_len - 2, _LEAST_CELLS), overflow="ellipsis")
    return head.append("  ").append_text(rest)
