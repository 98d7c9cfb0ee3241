"""`import` and `export`."""

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from sessionstore.cli.progress import Bar
from sessionstore.cli.running import At, command
from sessionstore.cli.terminal import note, out, plural, print_json
from sessionstore.importers import (
    Export,
    ExportReport,
    Fault,
    FilesTarget,
    Import,
    ImportReport,
    JsonLines,
    LinesTarget,
    Reading,
    SessionFiles,
    Source,
    StoppedError,
)
from sessionstore.importers.jsonl import KNOWN
from sessionstore.importers.sources import STANDARD_INPUT
from sessionstore.importers.targets import check_target, folder, gzipped, new_file

_PANEL: Final = "Move"
_STANDARD: Final = STANDARD_INPUT
_FAULTS: Final = 100
"""Faults that --json repeats; standard error has them all."""

Format = Literal["jsonl", "state-store"]
OnError = Literal["stop", "continue"]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    import_examples = (
        "sessionstore import sessions.jsonl.gz",
        "sessionstore import dialogues.jsonl --role-key speaker --metadata-key meta",
        "zstd -dc old.jsonl.zst | sessionstore import -",
        "sessionstore import ~/.state-store/sessions --on-conflict replace",
    )
    command(app, "import", panel=_PANEL, examples=import_examples)(import_)
    export_examples = (
        "sessionstore export sessions.jsonl.gz",
        "sessionstore export - trip-1 | jq .messages",
        "sessionstore export state --format state-store",
    )
    command(app, "export", panel=_PANEL, examples=export_examples)(export)


async def import_(
    at: At,
    *,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH", help="JSON Lines, plain or gzipped; - for standard input; or a folder."),
    ],
    on_conflict: Annotated[
        Literal["skip", "replace", "error"], typer.Option("--on-conflict", help="If a session is stored already.")
    ] = "skip",
    on_error: Annotated[
        OnError, typer.Option("--on-error", help="At a line that cannot be imported, stop, or go on with the others.")
    ] = "stop",
    role_key: Annotated[
        str | None, typer.Option("--role-key", metavar="KEY", help="Who speaks, in messages without a role.")
    ] = None,
    default_role: Annotated[
        str | None, typer.Option("--default-role", metavar="ROLE", help="Role of messages that do not say who speaks.")
    ] = None,
    metadata_key: Annotated[
        list[str] | None,
        typer.Option("--metadata-key", metavar="KEY", help="Keep another key of the session as metadata."),
    ] = None,
    format_: Annotated[
        Format | None, typer.Option("--format", show_default="state-store for a folder, jsonl for a file")
    ] = None,
    migrate: Annotated[
        bool, typer.Option("--migrate", help="First bring the tables to the newest revision, or make them.")
    ] = False,
) -> None:
    """Import sessions, each whole or not at all.

    A line is {"id": ..., "messages": [...]} and, where there is something to
    say, "user_id", "title", "metadata", "created_at", "updated_at". Bodies are
    kept as they are. Running it again finishes what was interrupted.

    A folder holds the session files of a state store: one JSON object a file,
    with "user_messages" and "agent_responses", which become one list by their
    timestamps.
    """
    keys = tuple(metadata_key or ())
    if taken := KNOWN & set(keys):
        raise typer.BadParameter(f"{min(taken)} is imported anyway", param_hint="--metadata-key")
    sources = _sources(paths, format_)
    faults: list[Fault] = []

    bar = Bar("importing", None, "sessions")

    def refused(fault: Fault) -> None:
        bar.note(f"{fault.place}: {fault.reason}")
        if len(faults) < _FAULTS:
            faults.append(fault)

    async with at.store(long=True, migrate=migrate) as sessions:
        job = Import(
            sessions,
            reading=Reading(role_key=role_key, default_role=default_role, metadata_keys=keys),
            on_conflict=on_conflict,
            on_error=on_error,
            on_fault=refused,
            on_progress=lambda report: bar.show(report.done, _rate(report), report.total),
        )
        with _told(at, job, faults), bar:
            await job.run(sources)


def _sources(paths: list[str], format_: Format | None) -> list[Source]:
    if len(paths) > 1 and paths.count(_STANDARD):
        raise typer.BadParameter("- stands alone", param_hint="PATH")
    sources: list[Source] = []
    for path in paths:
        is_folder = path != _STANDARD and Path(path).is_dir()
        if format_ == "state-store" or (format_ is None and is_folder):
            if path == _STANDARD:
                raise typer.BadParameter("session files are read from a folder", param_hint="--format")
            sources.append(SessionFiles(Path(path)))
        else:
            sources.append(JsonLines(path, name=path if len(paths) > 1 else ""))
    return sources


@contextlib.contextmanager
def _told(at: At, job: Import, faults: list[Fault]) -> Iterator[None]:
    """Report what an import did, however it ends."""
    stopped = False
    try:
        yield
    except StoppedError:
        stopped = True
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError):
            note("interrupted")
        if job.report.sessions:
            note(f"{_summary(job.report)}; running it again finishes it")
        raise
    _report_import(at, job.report, faults)
    if stopped:
        note("stopped there; --on-error continue goes on with the others", style="dim")
    if job.report.failed:
        raise typer.Exit(1)


def _report_import(at: At, report: ImportReport, faults: list[Fault]) -> None:
    if report.ignored:
        keys = ", ".join(f"{key} (first at {place})" for key, place in report.ignored.items())
        note(f"keys that were ignored: {keys}; --metadata-key keeps one as metadata", style="dim")
    if any(fault.no_role for fault in faults):
        note("--role-key or --default-role says who speaks where messages have no role", style="dim")
    if at.as_json:
        print_json(
            {
                "created": report.created,
                "replaced": report.replaced,
                "skipped": report.skipped,
                "failed": report.failed,
                "messages": report.messages,
                "bytes": report.bytes,
                "seconds": round(report.seconds, 3),
                "ignored_keys": list(report.ignored),
                "faults": [{"place": fault.place, "reason": fault.reason} for fault in faults],
            }
        )
        return
    out().print(f"{_summary(report)} in {_seconds(report)}")


def _summary(report: ImportReport) -> str:
    parts = [f"{plural(report.sessions, 'session')} imported"]
    parts += [f"{report.replaced:,} of them replaced"] if report.replaced else []
    parts += [f"{report.skipped:,} there already"] if report.skipped else []
    parts += [f"{report.failed:,} failed"] if report.failed else []
    return f"{', '.join(parts)}; {plural(report.messages, 'message')}"


def _seconds(report: ImportReport | ExportReport) -> str:
    seconds = max(report.seconds, 0.001)
    rate = f"{report.sessions / seconds:,.0f} sessions, {report.messages / seconds:,.0f} messages"
    return f"{seconds:.1f} s ({rate}, {report.bytes / seconds / 1e6:.1f} MB a second)"


def _rate(report: ImportReport | ExportReport) -> str:
    return f"{report.sessions:,} sessions, {report.messages:,} messages"


async def export(
    at: At,
    *,
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A new file, gzipped if it ends in .gz; - for standard output.")
    ],
    session_ids: Annotated[
        list[str] | None, typer.Argument(metavar="SESSION", help="Only these; otherwise all.", show_default=False)
    ] = None,
    user: Annotated[str | None, typer.Option("--user", metavar="ID", help="Only this user's.")] = None,
    format_: Annotated[
        Format, typer.Option("--format", help="state-store writes a folder of session files.")
    ] = "jsonl",
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
    on_error: Annotated[
        OnError, typer.Option("--on-error", help="At a session that cannot be written, stop, or go on with the others.")
    ] = "stop",
) -> None:
    """Export sessions: what `import` reads, bodies as they are stored.

    A file appears when it is complete. JSON Lines hold all there is. Session
    files of the state store hold what users and assistants said, and neither
    positions nor message ids.
    """
    if session_ids and user is not None:
        raise typer.BadParameter("it excludes naming sessions", param_hint="--user")
    if path == _STANDARD and (at.as_json or format_ == "state-store"):
        raise typer.BadParameter("- takes JSON Lines and nothing else", param_hint="PATH")

    bar = Bar("exporting", None, "sessions")
    async with at.store(long=True) as sessions:
        with bar, _target(path, format_, force=force) as target:
            job = Export(
                sessions,
                target,
                on_error=on_error,
                on_fault=lambda fault: bar.note(f"{fault.place}: {fault.reason}"),
                on_progress=lambda report: bar.show(report.sessions, _rate(report), report.total),
            )
            await job.run(session_ids or (), user_id=user)
    report = job.report
    if at.as_json:
        facts = {"sessions": report.sessions, "failed": report.failed, "messages": report.messages}
        print_json({**facts, "bytes": report.bytes, "seconds": round(report.seconds, 3)})
    elif path != _STANDARD:
        out().print(
            f"{plural(report.sessions, 'session')} exported; {plural(report.messages, 'message')} in {_seconds(report)}"
        )
    if report.failed:
        raise typer.Exit(1)


@contextlib.contextmanager
def _target(path: str, format_: Format, *, force: bool) -> Iterator[LinesTarget | FilesTarget]:
    if path == _STANDARD:
        sys.stdout.flush()
        yield LinesTarget(sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    place = Path(path)
    if format_ == "state-store":
        yield FilesTarget(folder(place), force=force)
        return
    check_target(place, force=force)
    with new_file(place, force=force) as file:
        if place.suffix != ".gz":
            yield LinesTarget(file)
            return
        with gzipped(file) as compressed:
            yield LinesTarget(compressed)
