"""Commands that change sessions: `fork`, `trim`, `prune`, `delete`."""

import re
from datetime import timedelta
from typing import Annotated, Final, Literal

import typer

from sessionstore import PrunePolicy, PruneReport, SessionNotFoundError, SessionRepository
from sessionstore import operations as ops
from sessionstore.cli.progress import Bar
from sessionstore.cli.running import At, command, confirm
from sessionstore.cli.terminal import note, one_line, out, plural, print_json, table

_PANEL: Final = "Change"
_NAMED: Final = 10
"""Sessions that a prune names before it asks; --json names all."""

_KEPT: Final = "nothing was deleted"

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    fork_examples = ("sessionstore fork trip-1", "sessionstore fork trip-1 --at 4 --new-id trip-1b")
    command(app, "fork", panel=_PANEL, examples=fork_examples)(fork)
    command(app, "trim", panel=_PANEL, examples=("sessionstore trim trip-1 --keep-last 50 --align turn",))(trim)
    prune_examples = (
        "sessionstore prune --max-age 30d --dry-run",
        "sessionstore prune --max-age 30d --max-sessions 100 --per-user --yes",
    )
    command(app, "prune", panel=_PANEL, examples=prune_examples)(prune)
    delete_examples = ("sessionstore delete trip-1 trip-2", "sessionstore delete --user ada")
    command(app, "delete", panel=_PANEL, examples=delete_examples)(delete)


async def fork(
    at: At,
    session_id: Annotated[str, typer.Argument(metavar="SESSION", help="The session to copy.")],
    keep_first: Annotated[
        int | None, typer.Option("--at", metavar="N", help="Only its first N messages.", min=0)
    ] = None,
    new_id: Annotated[
        str | None, typer.Option("--new-id", metavar="ID", help="Id of the fork; otherwise a new one is made.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite the history of --new-id.")] = False,
) -> None:
    """Copy a session, or its beginning, into a new one; prints the new id."""
    async with at.store() as sessions:
        if keep_first is None:
            child = await sessions.fork(session_id, new_id=new_id, replace=replace)
        else:
            child = await sessions.fork_at(session_id, keep_first, new_id=new_id, replace=replace)
    if at.as_json:
        print_json({"id": child.id, "parent_id": child.parent_id, "length": child.length})
    else:
        out().print(one_line(child.id), soft_wrap=True)
        note(f"{plural(child.length, 'message')}", style="dim")


async def trim(
    at: At,
    session_id: Annotated[str, typer.Argument(metavar="SESSION")],
    keep_last: Annotated[int, typer.Option("--keep-last", metavar="N", help="Keep the newest N.", min=0)],
    align: Annotated[
        Literal["message", "turn"],
        typer.Option("--align", help="turn: keep back to a user message, so that no tool result loses its call."),
    ] = "message",
) -> None:
    """Drop the oldest messages of a session."""
    async with at.store() as sessions:
        kept = await sessions.trim(session_id, keep_last, align=align)
    if at.as_json:
        print_json({"id": session_id, "kept": kept})
    else:
        out().print(f"{plural(kept, 'message')} kept")


def duration(text: str) -> timedelta:
    """Read `30d`, `12h`, `90m`, `45s` or `2w`."""
    found = re.fullmatch(r"(\d+)([smhdw])", text, re.ASCII)
    if not found:
        raise typer.BadParameter(f"{text!r} is not a time like 30d, 12h or 2w")
    try:
        return timedelta(**{_UNITS[found[2]]: int(found[1])})
    except (OverflowError, ValueError):
        return timedelta.max


_AGE: Final = {"metavar": "TIME", "parser": duration}


async def prune(
    at: At,
    *,
    max_age: Annotated[
        timedelta | None, typer.Option("--max-age", help="Sessions not changed for longer go: 30d, 12h, 2w.", **_AGE)
    ] = None,
    max_sessions: Annotated[
        int | None, typer.Option("--max-sessions", metavar="N", help="Of the others, the newest N stay.", min=1)
    ] = None,
    max_idle: Annotated[
        timedelta | None, typer.Option("--max-idle", help="Sessions not accessed for longer go.", **_AGE)
    ] = None,
    per_user: Annotated[bool, typer.Option("--per-user", help="Count --max-sessions for each user.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete old, idle and surplus sessions of a tenant.

    It needs at least one limit, prints what would go, and asks. A session that
    is used meanwhile survives. Interrupted, it is resumed by running it again.
    """
    if max_age is None and max_sessions is None and max_idle is None:
        raise typer.BadParameter("name at least one limit", param_hint="--max-age, --max-sessions, --max-idle")
    if at.as_json and not (dry_run or yes):
        raise typer.BadParameter("there is nobody to ask: add --yes or --dry-run", param_hint="--json")
    if any(limit is not None and not limit for limit in (max_age, max_idle)):
        raise typer.BadParameter("must be longer than nothing", param_hint="--max-age, --max-idle")
    policy = PrunePolicy(max_age=max_age, max_sessions=max_sessions, max_idle=max_idle, per_user=per_user)
    async with at.store(long=True) as sessions:
        preview = await sessions.prune(policy, dry_run=True)
        if dry_run:
            _report(at, preview, "would go", dry_run=True)
            return
        if not yes:
            _ask(preview)
        with Bar("pruning", preview.total, "sessions") as bar:
            done = await ops.prune(sessions, policy, on_progress=bar.advance)
        _report(at, done, "deleted", dry_run=False)


def _report(at: At, report: PruneReport, verb: str, *, dry_run: bool) -> None:
    counts = {name: getattr(report, f"by_{name}") for name in ("age", "idle", "number")}
    if at.as_json:
        named = {"session_ids": report.session_ids} if dry_run else {}
        print_json({"dry_run": dry_run, "total": report.total, **counts, **named})
        return
    rows = [(name, f"{count:,}") for name, count in counts.items() if count]
    console = out()
    if len(rows) > 1:
        console.print(table(("by", verb), rows, right=(verb,)))
    reason = f" by {rows[0][0]}" if len(rows) == 1 else ""
    console.print(f"{plural(report.total, 'session')} {verb}{reason}")
    if dry_run:
        _name(report)


def _name(report: PruneReport) -> None:
    for session_id in report.session_ids[:_NAMED]:
        note(f"  {session_id}", style="dim")
    if report.total > _NAMED:
        note(f"  … and {report.total - _NAMED:,} more (--dry-run --json names them)", style="dim")


def _ask(preview: PruneReport) -> None:
    """Say what would go, and ask.

    Raises:
        typer.Exit: no, or there is nobody to ask.
    """
    if not preview.total:
        return
    note(f"{plural(preview.total, 'session')} would go:")
    _name(preview)
    confirm(f"delete {plural(preview.total, 'session')} for good?", otherwise=_KEPT)


async def delete(
    at: At,
    session_ids: Annotated[list[str] | None, typer.Argument(metavar="SESSION...", help="Their ids.")] = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="ID", help="Every session of this user; asks first.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete sessions with all that belongs to them."""
    if bool(session_ids) == (user is not None):
        raise typer.BadParameter("name sessions or a --user", param_hint="SESSION... or --user")
    if user is not None and at.as_json and not yes:
        raise typer.BadParameter("there is nobody to ask: add --yes", param_hint="--json")
    async with at.store(long=True) as sessions:
        if user is not None:
            if not yes:
                confirm(f"delete every session of user {one_line(user)!r} for good?", otherwise=_KEPT)
            count = await sessions.delete_user(user)
            missing: list[str] = []
        else:
            missing = await _delete(sessions, list(dict.fromkeys(session_ids or ())))
            count = len(set(session_ids or ())) - len(missing)
    if at.as_json:
        print_json({"deleted": count, "missing": missing})
    else:
        out().print(f"{plural(count, 'session')} deleted")
    if len(missing) > 1:
        note(f"error: there are no sessions {', '.join(repr(session_id) for session_id in missing)}", style="bold red")
        raise typer.Exit(1)
    if missing:
        raise SessionNotFoundError(missing[0])


async def _delete(sessions: SessionRepository, session_ids: list[str]) -> list[str]:
    """Delete one by one; which were not there."""
    return [session_id for session_id in session_ids if not await sessions.delete(session_id)]
