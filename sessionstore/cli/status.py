"""`sessionstore status`: how the database is."""

from collections.abc import Iterable
from datetime import datetime

import typer
from rich.table import Table
from rich.text import Text

from sessionstore.cli.running import At, command
from sessionstore.cli.terminal import how_far, note, one_line, out, plural, print_json, size, table, when
from sessionstore.status import File, Status, Tenant, Transaction
from sessionstore.status import status as look


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    examples = ("sessionstore status", "sessionstore status --json | jq .weaknesses")
    command(app, "status", panel="Keep", leave_out=("tenant",), examples=examples)(status)


async def status(at: At) -> None:
    """Tell how the database is, for all tenants: when something is wrong, begin here.

    Revision, sizes, dead rows, invalid indexes, busiest tenants, connections, the
    oldest transaction, and settings that weaken a promise. It works where tables
    and code do not fit, and needs no more rights than a service has: what it may
    not see is unknown.

    It reads the catalog, statistics and the table of sessions, never a message;
    on SQLite every page of a file of up to 256 MiB. On PostgreSQL no part waits
    longer than 1 s for a lock, or runs longer than 5 s.
    """
    async with at.unopened() as sessions:
        found = await look(sessions)
        # Before it is closed: a part that was given up goes on in SQLite's thread until it is done.
        _told(at, found)


def _told(at: At, found: Status) -> None:
    if at.as_json:
        print_json(found)
        return
    if found.refused is not None:
        refused = at.with_command(found.refused, found.command) if found.command else found.refused
        note(refused, style="bold red", console=out())
    _print_facts(_facts(found))
    _print_tables(found)
    _print_tenants(found)
    _print_connections(found)
    for unknown in found.unknown:
        note(f"unknown: {unknown.what}: {unknown.why}", style="yellow", console=out())


def _facts(found: Status) -> Iterable[tuple[str, str]]:
    where = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[found.database]
    yield "database", f"{where} {found.version or '?'}" + (", a replica" if found.replica else "")
    revision = f"{found.revision or '?'}, for code from {found.compatible_from or '?'}"
    yield "revision", f"{revision}; this code has {found.code_revision}"
    if found.file is not None:
        yield from _of_file(found.file)
    for weak in found.weaknesses:
        yield "weaker", f"{weak.setting}={weak.value}: {weak.consequence}"
    for repair in found.repairs:
        yield "index", f"{repair.index} {repair.what}; mend it: {repair.sql}"
    if found.lacking:
        yield "rights", f"this role may not {', '.join(found.lacking)}: see sessionstore db roles"
    if found.sessions is not None:
        of_all = found.sessions
        counts = (plural(of_all.count, "session"), plural(of_all.messages, "message"), plural(of_all.tenants, "tenant"))
        yield "sessions", ", ".join(counts)
        yield "created (UTC)", _span(of_all.oldest_created_at, of_all.newest_created_at)
        yield "updated (UTC)", _span(of_all.oldest_updated_at, of_all.newest_updated_at)
    for each in found.backfills:
        if each.finished_at is None:
            yield "backfill", f"{each.job}: {how_far(each)}"
    if found.oldest_transaction is not None:
        yield "oldest transaction", _transaction(found.oldest_transaction)


def _of_file(file: File) -> Iterable[tuple[str, str]]:
    yield "file", f"{size(file.bytes)}: {file.pages:,} pages of {file.page_size:,} B, {file.free_pages:,} free"
    log = "" if file.wal_bytes is None else f", log {size(file.wal_bytes)}"
    yield "journal", f"{file.journal_mode}, synchronous {file.synchronous}{log}"


def _span(first: datetime | None, last: datetime | None) -> str:
    return "never" if first is None or last is None else f"{when(first)} to {when(last)}"


def _transaction(found: Transaction) -> str:
    who = found.application_name or found.process or "?"
    return f"{found.seconds:,} s, {found.state or 'state unknown'}, {who}, process {found.pid}"


def _print_facts(facts: Iterable[tuple[str, str]]) -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for name, fact in facts:
        grid.add_row(name, Text(one_line(fact)))
    out().print(grid)


def _print_tables(found: Status) -> None:
    columns = ("table", "rows", "size", "indexes", "dead", "HOT", "last autovacuum (UTC)")
    rows = [
        (
            *(each.name, _count(each.rows), _size(each.bytes), _size(each.index_bytes), _count(each.dead_rows)),
            "" if each.hot_ratio is None else f"{each.hot_ratio:.0%}",
            "" if each.last_autovacuum is None else when(each.last_autovacuum),
        )
        for each in found.tables
    ]
    width = len(columns) if found.file is None else 4
    out().print()
    out().print(table(columns[:width], [row[:width] for row in rows], right=columns[1:6]))


def _print_tenants(found: Status) -> None:
    if found.sessions is None or found.sessions.tenants <= 1:
        return
    of_all = found.sessions
    for title, tenants in (("most sessions", of_all.most_sessions), ("most messages", of_all.most_messages)):
        columns = (f"tenant ({title})", "sessions", "messages")
        out().print()
        out().print(table(columns, [_of_tenant(each) for each in tenants], right=columns[1:]))


def _of_tenant(found: Tenant) -> tuple[str, str, str]:
    return found.tenant or "(none)", _count(found.sessions), _count(found.messages)


def _print_connections(found: Status) -> None:
    columns = ("application name", "connections", "active", "in transaction")
    rows = [
        (one_line(each.application_name) or "(none)", *map(_count, (each.count, each.active, each.in_transaction)))
        for each in found.connections
    ]
    if rows:
        out().print()
        out().print(table(columns, rows, right=columns[1:]))


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def _size(number: int | None) -> str:
    return "?" if number is None else size(number)
