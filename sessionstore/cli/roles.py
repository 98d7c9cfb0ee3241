"""`sessionstore db roles`: who may do what, on PostgreSQL."""

from typing import Annotated

import typer

from sessionstore.cli.running import At, command
from sessionstore.cli.terminal import out, print_raw
from sessionstore.roles import RoleNames, apply_roles, roles_sql

_DEFAULTS = RoleNames()


def _named(what: str, whose: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(what, metavar="NAME", help=f"The role that {whose}.")
    return option


def add_to(db: typer.Typer) -> None:
    """Add the command to the group `db`."""
    command(
        db,
        "roles",
        leave_out=("tenant", "as_json"),
        examples=(
            "sessionstore db roles > roles.sql",
            "SESSIONSTORE_DATABASE_URL=postgresql://postgres@db/chat sessionstore db roles --apply",
        ),
    )(roles)


async def roles(
    at: At,
    *,
    owner: Annotated[str, _named("--owner", "owns the tables and migrates")] = _DEFAULTS.owner,
    app: Annotated[str, _named("--app", "reads and writes rows: the service")] = _DEFAULTS.app,
    reader: Annotated[str, _named("--reader", "sees the views without contents")] = _DEFAULTS.reader,
    row_level_security: Annotated[
        bool, typer.Option("--row-level-security", help="Let the database itself keep the tenants apart.")
    ] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Run the script instead of printing it.")] = False,
) -> None:
    """Print the SQL script that makes roles on PostgreSQL and gives them their rights, for a DBA to review and run.

    It may be run again at any time: it does what is left to do. With --apply it
    is run, by a superuser or by the database's owner with CREATEROLE.
    """
    names = RoleNames(owner, app, reader)
    if not apply:
        print_raw(roles_sql(schema=at.schema, names=names, row_level_security=row_level_security).encode())
        return
    await apply_roles(at.database, schema=at.schema, names=names, row_level_security=row_level_security)
    out().print(f"the rights of {owner}, {app} and {reader} are as they should be")
