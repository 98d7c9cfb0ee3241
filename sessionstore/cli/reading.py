"""Commands that only read: `list`, `show`, `tree`, `stats`."""

from dataclasses import asdict
from typing import Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from sessionstore import Message, Session, SessionRepository, SessionSummary
from sessionstore import operations as ops
from sessionstore.cli import forest, messages
from sessionstore.cli.running import At, command
from sessionstore.cli.terminal import (
    brief,
    json_of,
    note,
    one_line,
    out,
    plural,
    print_json,
    print_raw,
    safe,
    size,
    table,
    when,
)
from sessionstore.importers.jsontext import decode, encode
from sessionstore.units.store import TenantSize

_PANEL: Final = "Look"
_SHOWN_MESSAGES: Final = 20


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    list_examples = (
        "sessionstore list --user ada",
        "sessionstore list --metadata lang=ja --json | jq -r '.sessions[].id'",
    )
    command(app, "list", panel=_PANEL, examples=list_examples)(list_)
    show_examples = ("sessionstore show trip-1", "sessionstore show trip-1 --json | jq .messages[-1].body")
    command(app, "show", panel=_PANEL, examples=show_examples)(show)
    command(app, "tree", panel=_PANEL, examples=("sessionstore tree", "sessionstore tree trip-1"))(tree)
    stats_examples = ("sessionstore stats", "sessionstore stats --tenant acme --json")
    command(app, "stats", panel=_PANEL, examples=stats_examples)(stats)


async def list_(
    at: At,
    *,
    user: Annotated[str | None, typer.Option("--user", metavar="ID", help="Only this user's.")] = None,
    parent: Annotated[str | None, typer.Option("--parent", metavar="ID", help="Only forks of this session.")] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option("--metadata", metavar="KEY=VALUE", help="Only with this metadata; VALUE is JSON, or else text."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", help="How many; at most 1,000.", min=1)] = 50,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Go on where a page ended.")] = None,
) -> None:
    """List sessions, the newest change first."""
    wanted = dict(_condition(text) for text in metadata or ())
    async with at.store() as sessions:
        page = await sessions.list_sessions(
            user_id=user, parent_id=parent, metadata=wanted or None, limit=limit, cursor=cursor
        )
    if at.as_json:
        print_json({"sessions": page.rows, "cursor": page.cursor})
        return
    out().print(listing(page.rows) if page.rows else "there are no sessions")
    if page.cursor:
        note(f"there are more: --cursor {page.cursor}", style="dim")


def _condition(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--metadata")
    try:
        return key, decode(value.encode("utf-8", "surrogateescape"))
    except ValueError:
        return key, value


def listing(rows: list[SessionSummary]) -> Table:
    """A table of sessions."""
    return table(
        ("id", "title", "user", "messages", "parent", "updated (UTC)"),
        [
            (
                Text(one_line(row.id), style="bold"),
                brief(row.title or ""),
                row.user_id,
                f"{row.message_count:,}",
                row.parent_id or "",
                when(row.updated_at),
            )
            for row in rows
        ],
        right=("messages",),
    )


async def show(
    at: At,
    session_id: Annotated[str, typer.Argument(metavar="SESSION", help="Its id.")],
    last: Annotated[
        int | None, typer.Option("--last", metavar="N", help="Only the newest N messages.", min=0, show_default="20")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All messages; the default with --json.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Long texts in full.")] = False,
) -> None:
    """Show a session and its messages."""
    if last is not None and everything:
        raise typer.BadParameter("it excludes --last", param_hint="--all")
    newest = None if everything or (at.as_json and last is None) else _SHOWN_MESSAGES if last is None else last
    async with at.store(long=True) as sessions:
        session, shown = await _read(sessions, session_id, newest)
    if at.as_json:
        print_raw(_json_of(session, shown))
        return
    console = out()
    console.print(_head(session))
    hidden = session.length - len(shown)
    if hidden > 0:
        console.print(Text(f"      {plural(hidden, 'earlier message')} (--all shows them)", style="dim"))
    for drawn in messages.drawn(session, shown, full=full):
        console.print(drawn)


async def _read(sessions: SessionRepository, session_id: str, newest: int | None) -> tuple[Session, list[Message]]:
    if newest is None:
        transcript = await sessions.snapshot(session_id)
        return transcript.session, [entry for entry in transcript.messages if isinstance(entry, Message)]
    return await sessions.get(session_id), await sessions.messages(session_id, last=newest)


def _head(session: Session) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    facts: dict[str, str | None] = {
        "session": session.id,
        "title": session.title,
        "user": session.user_id,
        "model": session.model,
        "forked from": session.parent_id
        and f"{session.parent_id}{'' if session.fork_position is None else f' at {session.fork_position}'}",
        "system": session.system_message,
        "summary": session.summary,
        "messages": f"{session.length:,} (positions {session.first_position} to {session.next_position - 1})"
        if session.length
        else "0",
        "created": f"{when(session.created_at)} UTC",
        "updated": f"{when(session.updated_at)} UTC",
        **{f"  {key}": encode(value).decode() for key, value in session.metadata.items()},
    }
    for name, fact in facts.items():
        if fact:
            grid.add_row(one_line(name), Text(safe(fact)))
    return grid


def _json_of(session: Session, shown: list[Message]) -> bytes:
    """The session as JSON, bodies as they are stored."""
    entries = map(messages.json_of_message, shown)
    columns = json_of({**asdict(session), "length": session.length})
    return b'{"session":' + columns + b',"messages":[' + b",".join(entries) + b"]}\n"


async def tree(
    at: At,
    session_id: Annotated[str | None, typer.Argument(metavar="[SESSION]", help="Only its family.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also sessions that have no forks.")] = False,
) -> None:
    """Draw the forks as a tree.

    A parent that was deleted is shown as gone.
    """
    async with at.store(long=True) as sessions:
        found = await (ops.all_sessions(sessions) if session_id is None else ops.family(sessions, session_id))
    roots = ops.grow(found)
    all_of_them = everything or session_id is not None
    shown = [root for root in roots if all_of_them or root.forks or root.comes_round]
    if at.as_json:
        print_json({"sessions": forest.listed(shown)})
        return
    console = out()
    for line in forest.drawn(shown, marked=session_id):
        console.print(line, soft_wrap=True)
    alone = len(roots) - len(shown)
    if alone:
        note(f"{plural(alone, 'session')} without forks (--all shows them)", style="dim")
    elif not roots:
        note("there are no sessions", style="dim")


async def stats(at: At) -> None:
    """Count sessions, messages and bytes by tenant; this reads every message.

    Without --tenant, of every tenant of the database.
    """
    async with at.store(long=True) as sessions:
        sizes = await ops.sizes(sessions, all_tenants=at.tenant is None)
    total = TenantSize(
        tenant="",
        sessions=sum(row.sessions for row in sizes),
        messages=sum(row.messages for row in sizes),
        body_bytes=sum(row.body_bytes for row in sizes),
    )
    if at.as_json:
        counts = {"sessions": total.sessions, "messages": total.messages, "body_bytes": total.body_bytes}
        print_json({"tenants": sizes, "total": counts})
        return
    out().print(measures(sizes, total))


def measures(sizes: list[TenantSize], total: TenantSize) -> Table:
    """A table of what tenants store."""
    numbers = ("sessions", "messages", "bytes")
    rows = [_measure(row, Text(one_line(row.tenant)) if row.tenant else Text("(none)", style="dim")) for row in sizes]
    if len(sizes) != 1:
        rows.append(_measure(total, Text("total", style="bold")))
    return table(("tenant", *numbers), rows, right=numbers)


def _measure(row: TenantSize, name: Text) -> tuple[str | Text, ...]:
    return name, f"{row.sessions:,}", f"{row.messages:,}", size(row.body_bytes)
