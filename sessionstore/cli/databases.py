"""`sessionstore db`: the tables."""

import asyncio
from importlib import import_module
from typing import Annotated, Any, Final

import typer

from sessionstore import backfill as backfilling
from sessionstore.backfill import Backfill
from sessionstore.cli import roles
from sessionstore.cli.progress import Bar
from sessionstore.cli.running import DEFAULT_DATABASE, At, command, confirm
from sessionstore.cli.terminal import how_far, note, one_line, out, plural, print_json, print_raw, table
from sessionstore.limits import BACKFILL_BATCH, BACKFILL_BATCH_MAX

_db: Final = typer.Typer(help="Make the tables, and see how they are.", no_args_is_help=True)


def _migrate() -> Any:
    """The migrations, loaded late: Alembic takes as long to load as all the rest."""
    return import_module("sessionstore.migrate")


To = Annotated[str, typer.Option("--to", metavar="REVISION", help="A revision, or head for the newest.")]
Patience = Annotated[
    float,
    typer.Option(
        "--timeout", metavar="SECONDS", help="How long to wait for others that migrate or hold locks.", min=0.1
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    roles.add_to(_db)
    app.add_typer(_db, name="db", rich_help_panel="Database")


@command(
    _db,
    "upgrade",
    leave_out=("tenant",),
    examples=(
        "sessionstore db upgrade",
        "SESSIONSTORE_DATABASE_URL=postgresql://app@db/chat sessionstore db upgrade --schema chat",
    ),
)
async def upgrade(
    at: At,
    to: To = "head",
    patience: Patience = 60.0,
) -> None:
    """Bring the tables to the newest revision; make them, and the file of SQLite, where there are none.

    Any number of replicas may do so at once, and be killed at any moment:
    running it again finishes.
    """
    if at.database == DEFAULT_DATABASE and not at.given:
        note(f"no database was named, so it is {DEFAULT_DATABASE} in this folder", style="dim")
    reached = await _migrate().upgrade(at.database, to=to, schema=at.schema, timeout_seconds=patience)
    if at.as_json:
        print_json({"revision": reached})
    else:
        past = ", which is past the one asked for: nothing was done" if to not in {"head", reached} else ""
        out().print(f"the database is at revision {reached}{past}")


@command(
    _db,
    "downgrade",
    leave_out=("tenant",),
    examples=("sessionstore db downgrade --to 0002", "sessionstore db downgrade --to base --yes"),
)
async def downgrade(
    at: At,
    to: Annotated[
        str, typer.Option("--to", metavar="REVISION", help="A revision; base drops every table with its rows.")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    patience: Patience = 60.0,
) -> None:
    """Take the tables back to an older revision.

    Do so after the service was taken back to the older code, not before.
    """
    migrate = _migrate()
    if not yes:
        if at.as_json:
            raise typer.BadParameter("there is nobody to ask: add --yes", param_hint="--json")
        _ask(migrate.history(), await migrate.current(at.database, schema=at.schema), to)
    reached = await migrate.downgrade(at.database, to, schema=at.schema, timeout_seconds=patience)
    if at.as_json:
        print_json({"revision": reached})
    else:
        out().print("there are no sessionstore tables" if reached is None else f"the database is at revision {reached}")


def _ask(known: list[Any], found: str | None, to: str) -> None:
    """Say what would be undone, and ask."""
    kept = "" if to == "base" else to
    undone = [each for each in reversed(known) if kept < each.revision <= (found or "")]
    for each in undone:
        note(f"{each.revision}: {each.goes_back}")
    if undone:
        confirm("go back?", otherwise="nothing was changed")


@command(_db, "history", leave_out=("tenant",), examples=("sessionstore db history", "sessionstore db history --json"))
async def history(at: At) -> None:
    """List the revisions that this code knows, and tell which one the tables are at."""
    migrate = _migrate()
    found = await migrate.current(at.database, schema=at.schema)
    known = migrate.history()
    if at.as_json:
        print_json({"current": found, "revisions": [each._asdict() for each in known]})
        return
    for each in known:
        mark = "*" if each.revision == found else " "
        out().print(f"{mark} {each.revision}  {each.phase:8}  {one_line(each.title)}", soft_wrap=True)
    if found is None:
        note("there are no sessionstore tables", style="dim")
    elif found not in [each.revision for each in known]:
        note(f"the tables are at {found}, which is newer than this code", style="dim")


@command(_db, "current", leave_out=("tenant",), examples=("sessionstore db current --json",))
async def current(at: At) -> None:
    """Print the revision that the tables are at."""
    revision = await _migrate().current(at.database, schema=at.schema)
    if at.as_json:
        print_json({"revision": revision})
    else:
        out().print("there are no sessionstore tables" if revision is None else revision)


@command(_db, "check", leave_out=("tenant",), examples=("sessionstore db check && systemctl start chat",))
async def check(at: At) -> None:
    """Succeed only if the tables are at the newest revision; otherwise name the command to run."""
    await _migrate().check(at.database, schema=at.schema)
    if at.as_json:
        print_json({"ok": True})
    else:
        out().print("the tables are at the newest revision")


@command(
    _db,
    "sql",
    leave_out=("database", "tenant", "as_json"),
    examples=(
        "sessionstore db sql > sessionstore.sql",
        "sessionstore db sql --from 0002 > up.sql",
        "sessionstore db sql --from head --to 0002 > down.sql",
    ),
)
async def sql(
    at: At,
    start: Annotated[
        str, typer.Option("--from", metavar="REVISION", help="Where the database is; base if it is empty.")
    ] = "base",
    to: To = "head",
) -> None:
    """Print the SQL script from one revision to another, up or down, for a DBA to review and run on PostgreSQL."""
    script = await asyncio.to_thread(_migrate().sql, start=start, to=to, schema=at.schema)
    print_raw(script.encode())


@command(
    _db,
    "backfill",
    leave_out=("tenant",),
    examples=(
        "sessionstore db backfill",
        "sessionstore db backfill message-columns",
        "sessionstore db backfill metadata-columns --restart --pause 0.1",
    ),
)
async def backfill(
    at: At,
    job: Annotated[
        str | None,
        typer.Argument(metavar="JOB", help="message-columns or metadata-columns; without it, how far they are."),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Look at every row again.")] = False,
    batch: Annotated[
        int, typer.Option("--batch", metavar="N", help="Most rows of a transaction.", min=1, max=BACKFILL_BATCH_MAX)
    ] = BACKFILL_BATCH,
    pause: Annotated[
        float, typer.Option("--pause", metavar="SECONDS", help="Rest after each batch.", min=0.0, max=3599.0)
    ] = 0.0,
) -> None:
    """Bring columns up to date that follow from stored values, for all tenants, beside the running service.

    In small transactions; killed at any moment, it goes on where it was. Several
    processes may work on one job at once.
    """
    async with at.store(long=True) as sessions:
        if job is None:
            _list(at, {each.job: each for each in await backfilling.backfills(sessions)})
            return
        with Bar(job, None, "rows") as bar:
            done = await backfilling.backfill(
                sessions,
                job,
                batch_rows=batch,
                pause_seconds=pause,
                restart=restart,
                on_progress=lambda so_far: bar.show(so_far.seen, f"{so_far.seen:,} rows", so_far.total),
            )
    if at.as_json:
        print_json(done)
    else:
        out().print(f"{plural(done.seen, 'row')} seen, {done.changed:,} changed")
    if done.unreadable:
        note(f"{plural(done.unreadable, 'row')} could not be read: sessionstore verify --all-tenants", style="red")
        raise typer.Exit(1)


def _list(at: At, begun: dict[str, Backfill]) -> None:
    if at.as_json:
        print_json({"backfills": list(begun.values()), "jobs": backfilling.JOBS})
        return
    rows = [(name, _state(begun.get(name)), what) for name, what in backfilling.JOBS.items()]
    out().print(table(("job", "state", "brings up to date"), rows))


def _state(found: Backfill | None) -> str:
    return "not begun" if found is None else how_far(found)
