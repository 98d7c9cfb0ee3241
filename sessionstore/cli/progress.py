"""Progress on standard error, and only where somebody looks at it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from sessionstore.cli.terminal import err, note


class Bar:
    """A progress bar; nothing at all where standard error is no terminal."""

    def __init__(self, verb: str, total: int | None, unit: str) -> None:
        """Name what is done, how much of it there is (None if nobody knows), and in what it is counted."""
        console = err()
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[text]}", style="dim"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(verb, total=total, text="")
        self._unit = unit
        self._count = 0

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove it."""
        self._progress.stop()

    def advance(self, by: int) -> None:
        """So many more are done."""
        self._count += by
        self.show(self._count, f"{self._count:,} {self._unit}")

    def note(self, line: str) -> None:
        """Tell people of something that went wrong, above the bar."""
        note(line, style="red", console=self._console)

    def show(self, done: int, text: str, total: int | None = None) -> None:
        """So much is done."""
        self._progress.update(self._task, completed=done, text=text, total=total)
