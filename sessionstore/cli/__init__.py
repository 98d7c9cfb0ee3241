"""The command line: parses arguments, calls the library, renders what comes back."""

from __future__ import annotations

import sys

from sessionstore.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; the entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        # A title in Japanese must not end in a traceback because somebody's terminal is set to ASCII.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="sessionstore")
