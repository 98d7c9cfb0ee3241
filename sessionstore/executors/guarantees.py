"""What the promises rest on in a database, read back at opening.

A database on which a promise cannot hold is refused. One that its operator has made weaker is used, and the logger
`sessionstore.guarantees` is told once. `durability="normal"` is a choice of the caller's and needs no warning.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from typing import Final

from sessionstore.errors import SessionStoreError
from sessionstore.statements.maintenance import EXEMPT, FILTERED, MISSING, NOT_BYTEWISE, UNPROTECTED

_log: Final = logging.getLogger("sessionstore.guarantees")
# Not on the standard error of a program that set up no logging, such as our own command line.
_log.addHandler(logging.NullHandler())

_driver_log: Final = logging.getLogger("aiosqlite")
if _driver_log.level == logging.NOTSET:
    # At DEBUG it writes out the arguments of every statement, bodies included. A level that the application sets
    # itself, before or after, stands.
    _driver_log.setLevel(logging.INFO)

_WEAKER: Final = {
    ("fsync", "off"): "a crash of its machine may damage the database and lose what was acknowledged",
    ("full_page_writes", "off"): "a crash of its machine may leave pages half written",
    ("synchronous_commit", "off"): "a crash of the server may lose what was acknowledged just before",
    ("default_transaction_read_only", "on"): "every call that writes will be refused",
    ("standard_conforming_strings", "off"): "SQL that is written by hand may mean something else",
}
"""What an operator may have chosen on PostgreSQL, and what follows."""

_TWICE: Final = "a retry with the same message ids may store a message twice; `sessionstore status` has the SQL"

_SYNCHRONOUS: Final = {"full": 2, "normal": 1}

_told: Final[set[str]] = set()


def check_database(facts: Mapping[str, str | None], *, row_level_security: bool = False) -> None:
    """Refuse a database that cannot keep the promises; tell once of what weakens them.

    Args:
        row_level_security: each transaction tells its tenant, and relies on it.

    Raises:
        SessionStoreError: what it is, and what is needed.
    """
    encoding = facts.get("server_encoding") or "UTF8"
    if encoding != "UTF8":
        raise SessionStoreError(f"the database is encoded in {encoding}; sessionstore needs UTF8")
    if columns := facts.get(NOT_BYTEWISE):
        raise SessionStoreError(f"columns have not the collation C that they were made with, so pages break: {columns}")
    _check_row_security(facts, wanted=row_level_security)
    for name, value, consequence in weaknesses(facts):
        if name not in _told:
            _told.add(name)
            fields = {"event": "sessionstore.weaker_setting", "setting": name, "value": value}
            _log.warning("the database has %s=%s: %s", name, value, consequence, extra=fields)


def weaknesses(facts: Mapping[str, str | None]) -> list[tuple[str, str, str]]:
    """What of a database weakens a promise: name, value, consequence."""
    missing = facts.get(MISSING)
    found = [(MISSING, missing, _TWICE)] if missing else []
    return found + [(name, value, follows) for (name, value), follows in _WEAKER.items() if facts.get(name) == value]


def _check_row_security(facts: Mapping[str, str | None], *, wanted: bool) -> None:
    if not wanted:
        if tables := facts.get(FILTERED):
            raise SessionStoreError(
                f"row-level security hides rows from this role, so that they would seem to be missing ({tables}); "
                "it needs StoreSettings(row_level_security=True), the command line --row-level-security"
            )
        return
    if role := facts.get(EXEMPT):
        raise SessionStoreError(f"row-level security cannot protect from this role: it is {role}")
    if tables := facts.get(UNPROTECTED):
        raise SessionStoreError(
            "row-level security is not on, not forced, or has other policies than the one that "
            f"`sessionstore db roles --row-level-security` makes: {tables}"
        )


def check_connection(connection: sqlite3.Connection, *, durability: str, writes: bool) -> None:
    """Refuse a SQLite file that cannot keep the promises, or a connection to it on which a setting did not take.

    Raises:
        SessionStoreError: the setting, what it is, and what is needed.
    """
    needed = {"encoding": "UTF-8", "foreign_keys": 1, "synchronous": _SYNCHRONOUS[durability]}
    if writes:
        needed["journal_mode"] = "wal"  # set by the first connection that writes; whoever only reads needs none
    for name, value in needed.items():
        found = connection.execute(f"PRAGMA {name}").fetchone()
        if found != (value,):
            stays = found[0] if found else "unknown"
            raise SessionStoreError(f"the database file has {name}={stays}, and the store's promises need {value}")
