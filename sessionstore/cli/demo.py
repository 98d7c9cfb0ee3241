"""`sessionstore demo`: what the product is, in ten seconds, on a database of its own."""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

from sessionstore import InvalidArgumentError, Message, PrunePolicy, SessionRepository
from sessionstore import operations as ops
from sessionstore.cli import forest, messages
from sessionstore.cli.reading import listing, measures
from sessionstore.cli.running import At, command
from sessionstore.cli.terminal import out, plural
from sessionstore.importers import Import, JsonLines

_QUESTION: Final = {"role": "user", "content": "Book the Graça, and put it in my calendar."}
_BOOK: Final = {"name": "book", "arguments": '{"room": "Graça", "nights": 2}'}
_CALL: Final[dict[str, Any]] = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "call_3", "type": "function", "function": _BOOK}],
}
_RESULT: Final = {"role": "tool", "tool_call_id": "call_3", "name": "book", "content": '{"ok": true, "ref": "LX-204"}'}
_ANSWER: Final = {"role": "assistant", "content": "Booked, LX-204, and it is in your calendar."}
_OTHER: Final = {"role": "user", "content": "Stop, is there anything cheaper, by bus?"}
_OLD: Final = PrunePolicy(max_age=timedelta(days=90), max_sessions=None)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    shared = ("database", "tenant", "schema", "as_json")
    examples = ("sessionstore demo", "sessionstore demo --keep demo.db")
    command(app, "demo", panel="Begin", leave_out=shared, examples=examples)(demo)


async def demo(
    _at: At,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="FILE", help="Keep the database in this new file.")
    ] = None,
) -> None:
    """See in ten seconds what this is, on a SQLite database of its own."""
    began = time.monotonic()
    with _place(keep) as file:
        url = f"sqlite:///{file}"
        async with SessionRepository.connect(url, migrate=True) as sessions:
            await _fill(sessions)
            await _change(sessions)
            await _tidy(sessions)
        async with SessionRepository.connect(url) as sessions:
            await _look_again(sessions)
    console = out()
    console.print(Rule(style="dim"))
    console.print(Text.assemble(f"{time.monotonic() - began:.1f} s. ", ("The same with your own data:", "bold")))
    if keep is None:
        console.print("  sessionstore db upgrade && sessionstore import FILE.jsonl && sessionstore list")
    else:
        console.print(f"  sessionstore --database sqlite:///{keep} tree", soft_wrap=True)


@contextlib.contextmanager
def _place(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        if keep.exists():
            raise InvalidArgumentError(f"{keep} is there already")
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="sessionstore-demo-") as folder:
        yield Path(folder) / "demo.db"


def _step(what: str, code: str) -> None:
    out().print(Text.assemble(("\n● ", "bold cyan"), (what, "bold"), ("   " + code, "dim")), soft_wrap=True)


def _show(*shown: RenderableType) -> None:
    console = out()
    for one in shown:
        console.print(Padding(one, (0, 0, 0, 2), expand=False))


async def _fill(sessions: SessionRepository) -> None:
    _step("Import conversations", "sessionstore import sample.jsonl")
    with as_file(files("sessionstore.cli") / "sample.jsonl") as sample:
        job = Import(sessions)
        await job.run([JsonLines(str(sample))])
    counts = f"{plural(job.report.sessions, 'session')}, {plural(job.report.messages, 'message')}"
    _show(f"{counts}; bodies are kept to the byte, tool calls and all")


async def _change(sessions: SessionRepository) -> None:
    _step("Append a turn, all or none", 'await sessions.append("lisbon", question, call, result, answer)')
    positions = await sessions.append("lisbon", _QUESTION, _CALL, _RESULT, _ANSWER)
    _show(f"positions {positions[0]} to {positions[-1]}, dense and never reused")

    _step("Read the prompt's tail, whole turns", 'await sessions.messages("lisbon", last=3, align="turn")')
    tail: list[Message] = await sessions.messages("lisbon", last=3, align="turn")
    _show(*messages.drawn(await sessions.get("lisbon"), tail, full=False))

    _step("Fork at a message", 'await sessions.fork_at("lisbon", 4, new_id="lisbon-by-bus")')
    fork = await sessions.fork_at("lisbon", 4, new_id="lisbon-by-bus")
    await sessions.update("lisbon-by-bus", title="Lisbon by bus")
    await sessions.append("lisbon-by-bus", _OTHER)
    _show(f"{plural(fork.length, 'message')} copied on the server; from here on the two are apart")


async def _tidy(sessions: SessionRepository) -> None:
    _step("Trim", 'await sessions.trim("gazpacho", 3, align="turn")')
    kept = await sessions.trim("gazpacho", 3, align="turn")
    _show(f"{plural(kept, 'message')} kept: three, and back to the question they answer")

    _step("Prune, a dry run first", "sessionstore prune --max-age 90d --dry-run")
    preview = await sessions.prune(_OLD, dry_run=True)
    _show(f"would go: {', '.join(preview.session_ids)}")
    report = await sessions.prune(_OLD)
    _show(f"{plural(report.total, 'session')} deleted, with nothing left behind")


async def _look_again(sessions: SessionRepository) -> None:
    _step("After a restart, all as it was", "sessionstore tree; sessionstore list; sessionstore stats")
    summaries = await ops.all_sessions(sessions)
    roots = [root for root in ops.grow(summaries) if root.forks]
    _show(*forest.drawn(roots))
    out().print()
    _show(listing(summaries))
    out().print()
    sizes = await ops.sizes(sessions)
    _show(measures(sizes, sizes[0]))
