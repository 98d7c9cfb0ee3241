"""What all commands share: where the database is, how a command is run, and what becomes of its errors."""

import asyncio
import contextlib
import functools
import inspect
import os
import shlex
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final

import typer
from sqlalchemy import make_url

from sessionstore import SchemaOutOfDateError, SessionRepository, SessionStoreError, StoreSettings
from sessionstore.cli.terminal import err, note, without_passwords

DEFAULT_DATABASE: Final = "sqlite:///sessionstore.db"
DATABASE_VARIABLE: Final = "SESSIONSTORE_DATABASE_URL"
ROW_LEVEL_SECURITY_VARIABLE: Final = "SESSIONSTORE_ROW_LEVEL_SECURITY"
DEBUG_VARIABLE: Final = "SESSIONSTORE_DEBUG"

LONG_SECONDS: Final = 300.0
"""Deadline of one session of an import, one batch of a prune, one measurement: they may be large, and people wait."""

_SHARED: Final = "Where"


@dataclass(frozen=True, slots=True)
class At:
    """Where a command works, and for whom it writes.

    Attributes:
        database: a URL, which may hold a password.
        tenant: None where none was named.
        given: the database was named on the command line.
        seconds: deadline of each call to the database; None for what suits the command.
        as_json: for a program.
        row_level_security: each transaction tells PostgreSQL its tenant.
    """

    database: str = DEFAULT_DATABASE
    tenant: str | None = None
    schema: str | None = None
    given: bool = False
    seconds: float | None = None
    as_json: bool = False
    row_level_security: bool = False

    @contextlib.asynccontextmanager
    async def store(self, *, long: bool = False, migrate: bool = False) -> AsyncIterator[SessionRepository]:
        """Open the repository. It never creates a file unless it migrates.

        Args:
            long: calls may take longer than in a service. That the database can be reached is found out before.
            migrate: bring the tables to the newest revision, or make them.
        """
        async with self._connected(self.seconds, migrate=migrate) as sessions:
            if not long or self.seconds is not None:
                yield sessions
                return
        async with self._connected(LONG_SECONDS) as sessions:
            yield sessions

    @contextlib.asynccontextmanager
    async def unopened(self) -> AsyncIterator[SessionRepository]:
        """The repository without opening it, which would refuse tables of another revision."""
        sessions = self._connected(self.seconds)
        try:
            yield sessions
        finally:
            await sessions.aclose()

    def _connected(self, seconds: float | None, *, migrate: bool = False) -> SessionRepository:
        settings = StoreSettings(schema=self.schema, row_level_security=self.row_level_security)
        if seconds is not None:
            settings = replace(settings, operation_timeout_seconds=seconds)
        return SessionRepository.connect(self.database, tenant=self.tenant or "", settings=settings, migrate=migrate)

    @property
    def upgrade_command(self) -> str:
        """The command that makes the tables there, to be copied; without a URL that has a password."""
        words = ["sessionstore"]
        if self.given and _is_public(self.database):
            words += ["--database", self.database]
        if self.schema:
            words += ["--schema", self.schema]
        return shlex.join([*words, "db", "upgrade"])

    def with_command(self, text: str, command: str) -> str:
        """A text that names what to run, with where to run it."""
        return text.replace(command, self.upgrade_command if command.startswith("sessionstore ") else command)


def _is_public(url: str) -> bool:
    """Whether a URL may be shown: nothing in it can be a password."""
    parsed = make_url(url)
    return parsed.password is None and parsed.query.keys() <= {"pooler", "ssl", "sslmode", "uri", "mode"}


DatabaseOption = Annotated[
    str | None,
    typer.Option("--database", metavar="URL", help="As in sessionstore --help.", rich_help_panel=_SHARED),
]
TenantOption = Annotated[
    str | None, typer.Option("--tenant", metavar="TENANT", help="As in sessionstore --help.", rich_help_panel=_SHARED)
]
SchemaOption = Annotated[
    str | None, typer.Option("--schema", metavar="NAME", help="As in sessionstore --help.", rich_help_panel=_SHARED)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.", rich_help_panel=_SHARED)]

_OPTIONS: Final = {"database": DatabaseOption, "tenant": TenantOption, "schema": SchemaOption, "as_json": JsonOption}
_NOTHING: Final = {"database": None, "tenant": None, "schema": None, "as_json": False}

Command = Callable[..., Awaitable[None]]


def command(
    app: typer.Typer,
    name: str,
    *,
    examples: tuple[str, ...] = (),
    panel: str | None = None,
    leave_out: tuple[str, ...] = (),
) -> Callable[[Command], Command]:
    """Make a command of a coroutine function whose first parameter is an `At`.

    The options that say where are added to its own, so that they can stand before the command or behind it.
    """

    def decorate(function: Command) -> Command:
        shared = {key: option for key, option in _OPTIONS.items() if key not in leave_out}

        @functools.wraps(function)
        def run_it(ctx: typer.Context, **options: Any) -> None:
            given = {**_NOTHING, **{key: options.pop(key) for key in shared}}
            at = _at(ctx.obj, **given)
            run(function(at, **options), at)  # type: ignore[arg-type]  # it is a coroutine function

        _, *own = inspect.signature(function, eval_str=True).parameters.values()
        context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        added = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=_NOTHING[key], annotation=option)
            for key, option in shared.items()
        ]
        parameters = [context, *(entry.replace(kind=inspect.Parameter.KEYWORD_ONLY) for entry in own), *added]
        run_it.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run_it.__annotations__ = {entry.name: entry.annotation for entry in parameters}
        app.command(name, epilog=_epilog(examples), rich_help_panel=panel)(run_it)
        return function

    return decorate


def _epilog(examples: tuple[str, ...]) -> str | None:
    return "Examples:\n\n\b\n" + "\n".join(f"  {example}" for example in examples) if examples else None


def _at(before: At, *, database: str | None, tenant: str | None, schema: str | None, as_json: bool) -> At:
    """What stands behind the command counts more than what stands before it."""
    return At(
        database=before.database if database is None else database,
        tenant=before.tenant if tenant is None else tenant,
        schema=before.schema if schema is None else schema,
        given=before.given or database is not None,
        seconds=before.seconds,
        as_json=as_json,
        row_level_security=before.row_level_security,
    )


def run(work: Coroutine[Any, Any, None], at: At) -> None:
    """Run a command to its end; an error becomes one line and exit code 1.

    Raises:
        typer.Exit: with code 1.
    """
    try:
        asyncio.run(work)
    except SchemaOutOfDateError as error:
        fail(at.with_command(error.message, error.command))
    except SessionStoreError as error:
        fail(error.message)
    except BrokenPipeError:
        raise  # whoever read our output has seen enough
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or type(error).__name__)
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        # Not its text, which may quote what somebody said.
        fail(f"internal error ({type(error).__name__}); {DEBUG_VARIABLE}=1 shows where")


def confirm(question: str, *, otherwise: str) -> None:
    """Ask before something is done for good.

    Raises:
        typer.Exit: no, or there is nobody to ask; people are told `otherwise`.
    """
    try:
        agreed = typer.confirm(question, err=True)
    except typer.Abort:
        err().print()
        if not sys.stdin.isatty():
            note("nobody answered; --yes does not ask")
        agreed = False
    if not agreed:
        note(otherwise)
        raise typer.Exit(1)


def fail(reason: str) -> None:
    """End with one clear line.

    Raises:
        typer.Exit: with code 1.
    """
    note(f"error: {without_passwords(reason)}", style="bold red")
    raise typer.Exit(1)
