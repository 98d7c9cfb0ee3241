"""`sessionstore db`: the tables."""

import asyncio
from importlib import import_module
from typing import Annotated, Any, Final

import typer

from sessionstore.cli import roles
from sessionstore.cli.running import At, command
from sessionstore.cli.terminal import out, print_json, print_raw

_db: Final = typer.Typer(help="Make the tables, and see how they are.", no_args_is_help=True)


def _migrate() -> Any:
    """The migrations, loaded late: Alembic takes as long to load as all the rest."""
    return import_module("sessionstore.migrate")


To = Annotated[str, typer.Option("--to", metavar="REVISION", help="A revision, or head for the newest.")]


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
    wait: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", help="How long to wait for others that migrate.", min=0.1)
    ] = 60.0,
) -> None:
    """Bring the tables to the newest revision; make them, and the file of SQLite, where there are none.

    Any number of replicas may do so at once, and be killed at any moment:
    running it again finishes.
    """
    reached = await _migrate().upgrade(at.database, to=to, schema=at.schema, timeout_seconds=wait)
    if at.as_json:
        print_json({"revision": reached})
    else:
        out().print(f"the database is at revision {reached}")


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


@command(_db, "sql", leave_out=("database", "tenant", "as_json"), examples=("sessionstore db sql > sessionstore.sql",))
async def sql(at: At, to: To = "head") -> None:
    """Print the SQL script that makes the tables in an empty PostgreSQL database, for a DBA to review and run."""
    script = await asyncio.to_thread(_migrate().sql, to=to, schema=at.schema)
    print_raw(script.encode())
