"""Commands that keep a database in order: `verify`, `backup`, `maintain`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from sessionstore import upkeep, verification
from sessionstore.cli.progress import Bar
from sessionstore.cli.running import At, command
from sessionstore.cli.terminal import json_of, one_line, out, plural, print_json, print_raw, size
from sessionstore.verification import Checked, Finding

_PANEL: Final = "Keep"


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    verify_examples = ("sessionstore verify --all-tenants", "sessionstore verify --tenant acme --json | jq .findings")
    command(app, "verify", panel=_PANEL, examples=verify_examples)(verify)
    backup_examples = ("sessionstore backup /backups/chats.db", "sessionstore backup --force /backups/latest.db")
    command(app, "backup", panel=_PANEL, leave_out=("tenant", "schema"), examples=backup_examples)(backup)
    command(app, "maintain", panel=_PANEL, leave_out=("tenant",), examples=("sessionstore maintain",))(maintain)


async def verify(
    at: At,
    all_tenants: Annotated[bool, typer.Option("--all-tenants", help="Everything in the database.")] = False,
) -> None:
    """Look at everything that a tenant stores, and tell what is wrong; this reads every message.

    One line each where something is wrong, and then exit code 1. Nothing is
    changed or locked, and what others do meanwhile is not taken for damage.
    """
    if all_tenants and at.tenant is not None:
        raise typer.BadParameter("it excludes --tenant", param_hint="--all-tenants")
    checked, found = Checked(), 0
    told = _told_as_json if at.as_json else _told
    async with at.store(long=True) as sessions:
        with Bar("verifying", None, "rows") as bar:

            def progress(so_far: Checked) -> None:
                nonlocal checked
                bar.advance(so_far.total - checked.total)
                checked = so_far

            if at.as_json:
                print_raw(b'{"findings":[')
            async for finding in verification.verify(sessions, all_tenants=all_tenants, on_progress=progress):
                told(finding, first=not found)
                found += 1
    if at.as_json:
        print_raw(b"]," + json_of({"ok": not found, "checked": checked})[1:] + b"\n")
    else:
        out().print(_counts(checked) + (f": {plural(found, 'finding')}" if found else ": nothing is wrong"))
    if found:
        raise typer.Exit(1)


def _told(finding: Finding, *, first: bool) -> None:
    del first
    out().print(one_line(str(finding)), soft_wrap=True)


def _told_as_json(finding: Finding, *, first: bool) -> None:
    # At once, as one that has gone wrong all over would fill the memory.
    facts: dict[str, Any] = {name: value for name, value in asdict(finding).items() if value is not None}
    facts["fault"] = finding.fault.value
    print_raw((b"" if first else b",") + json_of(facts))


def _counts(checked: Checked) -> str:
    parts = (
        plural(checked.sessions, "session"),
        plural(checked.messages, "message"),
        plural(checked.metadata, "metadata value"),
        plural(checked.events, "event"),
        plural(checked.documents, "document"),
    )
    return ", ".join(parts)


async def backup(
    at: At,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to.")],
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.")] = False,
) -> None:
    """Copy a SQLite database as of one moment, while others read and write it.

    The copy can be read by its owner only. FILE appears when it is complete. On
    PostgreSQL, use pg_dump.
    """
    async with at.store(long=True) as sessions:
        with Bar("copying", None, "") as bar:
            copied = await upkeep.backup(
                sessions, file, force=force, on_progress=lambda done, total: bar.show(done, size(done), total)
            )
    if at.as_json:
        print_json({"file": str(file), "bytes": copied})
    else:
        out().print(f"{one_line(str(file))}: {size(copied)}", soft_wrap=True)


async def maintain(at: At) -> None:
    """Give back the room of what was deleted, and leave nothing of it in the files.

    On SQLite the file is written anew and its log is emptied; writers wait. On
    PostgreSQL the tables are vacuumed beside them. For all tenants.
    """
    limit = {} if at.seconds is None else {"timeout_seconds": at.seconds}
    async with at.store(long=True) as sessions:
        with Bar("maintaining", None, "") as bar:
            found = await upkeep.maintain(sessions, **limit, on_progress=lambda what: bar.show(0, what))
    if at.as_json:
        print_json(found)
    else:
        out().print(f"from {size(found.before)} to {size(found.after)}")
