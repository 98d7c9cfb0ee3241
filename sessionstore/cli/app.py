"""The commands, put together."""

from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sessionstore.cli import changing, databases, demo, keeping, reading, status, transfer, watching
from sessionstore.cli.running import DATABASE_VARIABLE, DEFAULT_DATABASE, ROW_LEVEL_SECURITY_VARIABLE, At
from sessionstore.cli.terminal import without_passwords


class Commands(TyperGroup):
    """The commands; an error about what was typed does not repeat a password that was typed."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse what stands before the command."""
        return _redacted(super().make_context, *args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Parse and run the command."""
        return _redacted(super().invoke, ctx)


def _redacted(step: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return step(*args, **kwargs)
    except Exception as error:
        if hasattr(error, "message") and hasattr(error, "exit_code"):
            error.message = without_passwords(error.message)
        raise


app = typer.Typer(
    name="sessionstore",
    cls=Commands,
    help="The conversations of AI agents, in the SQL database that you already run.",
    epilog="Start with [bold]sessionstore demo[/bold]; then [bold]sessionstore db upgrade[/bold] makes the tables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sessionstore {version('sessionstore')}")
        raise typer.Exit


@app.callback()
def where(
    ctx: typer.Context,
    *,
    database: Annotated[
        str | None,
        typer.Option(
            "--database",
            metavar="URL",
            envvar=DATABASE_VARIABLE,
            show_default=DEFAULT_DATABASE,
            help="sqlite:///file.db or postgresql://user:password@host/name. The variable keeps a password out of "
            "the list of processes.",
        ),
    ] = None,
    tenant: Annotated[
        str | None,
        typer.Option("--tenant", metavar="TENANT", help="Whose sessions; without it those of no tenant in particular."),
    ] = None,
    schema: Annotated[
        str | None, typer.Option("--schema", metavar="NAME", help="PostgreSQL schema that the tables are in.")
    ] = None,
    row_level_security: Annotated[
        bool,
        typer.Option(
            "--row-level-security",
            envvar=ROW_LEVEL_SECURITY_VARIABLE,
            help="PostgreSQL keeps the tenants apart by policies, and has to be told whose rows are wanted.",
        ),
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            min=0.1,
            show_default="15, and 300 where much is read or written",
            help="How long one call to the database may take.",
        ),
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The conversations of AI agents, in the SQL database that you already run."""
    source = ctx.get_parameter_source("database")
    typed = source is not None and source.name == "COMMANDLINE"
    ctx.obj = At(
        database or DEFAULT_DATABASE,
        tenant,
        schema,
        given=typed,
        seconds=timeout,
        row_level_security=row_level_security,
    )


databases.add_to(app)
reading.add_to(app)
watching.add_to(app)
changing.add_to(app)
transfer.add_to(app)
keeping.add_to(app)
status.add_to(app)
demo.add_to(app)
