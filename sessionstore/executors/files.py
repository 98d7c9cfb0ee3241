"""The file of a SQLite database, before SQLite would create it."""

from __future__ import annotations

import contextlib
import os

from sqlalchemy import URL

from sessionstore.dialects.urls import sqlite_file


def make_private(url: URL) -> None:
    """Create the file, if it is missing, for its owner alone: SQLite makes it as readable as the umask allows."""
    file = sqlite_file(url)
    if file is not None and not url.query.get("uri"):
        with contextlib.suppress(OSError):  # which SQLite will meet too, and say so by code
            os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
