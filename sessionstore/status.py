"""How a database is, for whoever is called in the night: nothing is changed, and no conversation is read.

It works on a database that this code would refuse to open, and with the rights of a service. What a role may not see,
or what others keep locked, is unknown, and said to be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sessionstore import limits
from sessionstore.backfill import Backfill, backfill_of
from sessionstore.checks import stored_instant
from sessionstore.dialects.base import Row, Rows, Statement
from sessionstore.dialects.urls import sqlite_file
from sessionstore.errors import SessionStoreError, StoreTimeoutError
from sessionstore.executors.guarantees import check_database, weaknesses
from sessionstore.repository import SessionRepository
from sessionstore.schema import REVISION, BackfillRow, Base, SchemaRow, SessionRow
from sessionstore.statements import maintenance
from sessionstore.statements import status as statements
from sessionstore.statements.backfill import ALL as BACKFILLS
from sessionstore.units import status as units
from sessionstore.units.status import Unseen
from sessionstore.units.store import misfit

__all__ = [
    "Connections",
    "File",
    "Index",
    "Repair",
    "Sessions",
    "Status",
    "Table",
    "Tenant",
    "Transaction",
    "Unknown",
    "Weakness",
    "status",
]

# ruff: noqa: SLF001  # a verb of the repository that applications do not need


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One of our tables. What nobody has counted yet, or SQLite does not count, is None.

    Attributes:
        rows: as estimated by PostgreSQL's statistics; counted on SQLite, where the file is small enough.
        bytes: with what PostgreSQL keeps beside the table, without indexes.
        index_bytes: of all its indexes.
        dead_rows: that a vacuum has yet to clear away.
        hot_ratio: share of the updates, since statistics were reset, that no index had to follow.
    """

    name: str
    rows: int | None = None
    bytes: int | None = None
    index_bytes: int | None = None
    dead_rows: int | None = None
    hot_ratio: float | None = None
    last_vacuum: datetime | None = None
    last_autovacuum: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index of one of our tables. One that is not valid costs writes and serves no query."""

    table: str
    name: str
    bytes: int | None = None
    valid: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """Something about an index that is there no more, or was never finished, and the SQL that mends it."""

    index: str
    what: str
    sql: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A tenant, by the counters of its sessions."""

    tenant: str
    sessions: int
    messages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """All sessions of all tenants.

    Attributes:
        messages: that are kept.
        most_sessions: the busiest tenants by sessions, at most ten.
        most_messages: the busiest by messages.
    """

    count: int = 0
    messages: int = 0
    tenants: int = 0
    oldest_created_at: datetime | None = None
    newest_created_at: datetime | None = None
    oldest_updated_at: datetime | None = None
    newest_updated_at: datetime | None = None
    most_sessions: tuple[Tenant, ...] = ()
    most_messages: tuple[Tenant, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """The connections of clients to the database that go by one name.

    Attributes:
        hidden: how many of them the role may not look into: other roles', unless it has `pg_read_all_stats`.
    """

    application_name: str
    count: int
    active: int
    in_transaction: int
    hidden: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """A transaction that is open on PostgreSQL."""

    pid: int
    application_name: str
    state: str | None
    process: str | None
    seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A SQLite database; `synchronous` as the store's connections have it. In memory there is no log."""

    journal_mode: str
    synchronous: str
    page_size: int
    pages: int
    free_pages: int
    wal_bytes: int | None = None

    @property
    def bytes(self) -> int:
        """Of the file, without its log."""
        return self.page_size * self.pages


@dataclass(frozen=True, slots=True, kw_only=True)
class Weakness:
    """A setting that weakens a promise, and what follows."""

    setting: str
    value: str
    consequence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """A part that could not be seen, and why."""

    what: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How a database is.

    Attributes:
        replica: it only follows another server.
        revision: of the tables; None if unknown.
        compatible_from: the oldest code, named by its revision, that may use them.
        code_revision: of this code.
        refused: why this code does not open the database; None if it does, or if that is unknown.
        command: what to run about it, where that helps.
        sessions: None if unknown.
        oldest_transaction: of those the role may see; None if there is none.
        file: on SQLite.
        repairs: of indexes that are missing or invalid.
        lacking: rights that a service needs and this role has not, such as "INSERT on sessionstore_messages".
        backfills: that were ever begun, finished ones included.
    """

    database: str
    version: str | None = None
    replica: bool = False
    revision: str | None = None
    compatible_from: str | None = None
    code_revision: str = REVISION
    refused: str | None = None
    command: str | None = None
    tables: tuple[Table, ...] = ()
    indexes: tuple[Index, ...] = ()
    sessions: Sessions | None = None
    connections: tuple[Connections, ...] = ()
    oldest_transaction: Transaction | None = None
    file: File | None = None
    weaknesses: tuple[Weakness, ...] = ()
    repairs: tuple[Repair, ...] = ()
    lacking: tuple[str, ...] = ()
    backfills: tuple[Backfill, ...] = ()
    unknown: tuple[Unknown, ...] = ()

    @property
    def invalid_indexes(self) -> tuple[Index, ...]:
        """The indexes that are there and serve no query."""
        return tuple(index for index in self.indexes if not index.valid)


async def status(sessions: SessionRepository) -> Status:
    """Look at the database of a repository, for all tenants. The repository need not be open, nor fit its tables.

    Reads the catalog, statistics, settings and the table of sessions once; on SQLite every page of a file of up to
    256 MiB. Never a body. Changes nothing; on PostgreSQL no part of it waits longer than 1 s for a lock, or takes
    longer than 5 s. What has not been seen within the deadline of a call is unknown.

    Raises:
        SchemaOutOfDateError: there are no tables at all.
        StoreUnavailableError, StoreTimeoutError: the database could not be reached.
    """
    sessions._refuse_within("status")
    return await _Look(sessions).at_everything()


_MOST: Final = limits.STATUS_TENANTS
_SYNCHRONOUS: Final = ("off", "normal", "full", "extra")

_WEAK_FILE: Final = {
    "journal_mode": "readers and writers wait for each other; the next connection of the store that writes sets wal",
    "synchronous": "a power cut may lose the newest commits",
}


class _Look:
    """One look at a database; it notes what it could not see."""

    def __init__(self, sessions: SessionRepository) -> None:
        self._sessions = sessions
        self._dialect = sessions._executor.dialect
        self._deadline = sessions._deadline()
        self._unknown: dict[str, str] = {}

    async def at_everything(self) -> Status:
        rows = await self._sessions._executor.look(units.tables(), self._deadline)
        if not rows and (none := misfit((), self._dialect.schema)) is not None:
            raise none
        found: dict[str, Any] = await self._revision(rows)
        # What stands in the way of the tables comes before what stands in the way of their settings.
        found = await (self._file() if self._dialect.one_writer else self._server()) | found
        indexes = await self._part("indexes", statements.INDEXES)
        found["sessions"] = await self._all_sessions(rows)
        found["backfills"] = await self._backfills(rows)
        sizes = await self._sizes(found.get("file"))
        return Status(
            database=self._dialect.name,
            tables=tuple(_table(row, sizes, indexes) for row in rows),
            indexes=tuple(_index(row, sizes) for row in indexes),
            repairs=() if "indexes" in self._unknown else tuple(self._repairs(rows, indexes)),
            lacking=tuple(f"{right} on {name}" for name, right in await self._rights()),
            unknown=tuple(Unknown(what=what, why=why) for what, why in self._unknown.items()),
            **found,
        )

    def _repairs(self, tables: Rows, indexes: Rows) -> Iterator[Repair]:
        there = {row[1] for row in indexes}
        for of, name, serves in indexes:
            if not serves:
                made = f"REINDEX INDEX CONCURRENTLY {self._dialect.qualified(name)};"
                yield Repair(index=name, what=f"on {of}: invalid", sql=made)
        for row in tables:
            for index in sorted(Base.metadata.tables[row[0]].indexes, key=lambda each: str(each.name)):
                if index.name not in there:
                    made = self._dialect.index_sql(index)
                    yield Repair(index=str(index.name), what=f"on {row[0]}: missing", sql=made)

    async def _rights(self) -> Rows:
        return () if self._dialect.one_writer else await self._part("rights", statements.LACKING)

    async def _part(self, what: str, statement: Statement) -> Rows:
        try:
            rows = await self._sessions._executor.look(units.part(statement), self._deadline)
        except StoreTimeoutError as error:
            rows = Unseen(error.message)  # what is known by now is worth more than an error
        if isinstance(rows, Unseen):
            self._unknown[what] = rows.why
            return ()
        return rows

    async def _revision(self, tables: Rows) -> dict[str, Any]:
        rows: Rows = ()
        if any(row[0] == SchemaRow.__tablename__ for row in tables):
            rows = await self._part("revision", maintenance.SCHEMA)
            if "revision" in self._unknown:
                return {}
        revision, compatible_from = rows[0] if rows else (None, None)
        refusal = misfit(rows, self._dialect.schema)
        found = {"revision": revision, "compatible_from": compatible_from}
        return found if refusal is None else found | {"refused": refusal.message, "command": refusal.command}

    async def _all_sessions(self, tables: Rows) -> Sessions | None:
        if any(row[0] == SessionRow.__tablename__ and row[7] for row in tables):
            self._unknown["sessions"] = "row-level security shows this role one tenant at a time"
            return None
        rows = await self._part("sessions", statements.TENANTS)
        return None if "sessions" in self._unknown else _sessions(rows)

    async def _backfills(self, tables: Rows) -> tuple[Backfill, ...]:
        there = any(row[0] == BackfillRow.__tablename__ for row in tables)
        return tuple(map(backfill_of, await self._part("backfills", BACKFILLS))) if there else ()

    async def _sizes(self, file: File | None) -> dict[str, Row]:
        if file is not None and (file.bytes > limits.STATUS_DBSTAT_BYTES or "sizes" in self._unknown):
            self._unknown.setdefault("sizes", "every page of the file would be visited, and it is large")
            return {}
        return {row[0]: row[1:] for row in await self._part("sizes", statements.SIZES)}

    async def _file(self) -> dict[str, Any]:
        rows = await self._part("file", statements.FILE)
        if not rows:
            return {}
        [(version, journal, synchronous, page_size, pages, free, measures)] = rows
        if not measures:
            self._unknown["sizes"] = "this SQLite was built without dbstat"
        path = sqlite_file(self._sessions._shared.engine.url)
        log = None if path is None else path.with_name(path.name + "-wal")
        weak = {"journal_mode": journal} if path is not None and journal != "wal" else {}
        if synchronous < _SYNCHRONOUS.index("full"):
            weak["synchronous"] = _SYNCHRONOUS[synchronous]
        return {
            "version": version,
            "file": File(
                journal_mode=journal,
                synchronous=_SYNCHRONOUS[synchronous],
                page_size=page_size,
                pages=pages,
                free_pages=free,
                wal_bytes=None if log is None else log.stat().st_size if log.exists() else 0,
            ),
            "weaknesses": tuple(
                Weakness(setting=name, value=value, consequence=_WEAK_FILE[name]) for name, value in weak.items()
            ),
        }

    async def _server(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for version, replica in await self._part("version", statements.SERVER):
            found |= {"version": version, "replica": replica}
        names = ("application_name", "count", "active", "in_transaction", "hidden")
        rows = await self._part("connections", statements.CONNECTIONS)
        found["connections"] = tuple(Connections(**dict(zip(names, row, strict=True))) for row in rows)
        if hidden := sum(each.hidden for each in found["connections"]):
            self._unknown["transactions"] = f"of {hidden} connections of other roles: grant pg_read_all_stats"
        for row in await self._part("transactions", statements.OLDEST_TRANSACTION):
            names = ("pid", "application_name", "state", "process", "seconds")
            found["oldest_transaction"] = Transaction(**dict(zip(names, row, strict=True)))
        return found | await self._settings()

    async def _settings(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for row in await self._part("settings", maintenance.GUARANTEES):
            facts = dict(zip(maintenance.FACTS, row, strict=True))
            weak = [Weakness(setting=name, value=value, consequence=text) for name, value, text in weaknesses(facts)]
            found["weaknesses"] = tuple(weak)
            try:
                check_database(facts, row_level_security=self._dialect.row_level_security)
            except SessionStoreError as error:
                found["refused"] = error.message
        return found


def _table(row: Row, sizes: dict[str, Row], indexes: Rows) -> Table:
    name, rows, dead, updates, hot, vacuum, autovacuum, _ = row
    size, counted = sizes.get(name, (None, None))
    of_indexes = [sizes[index][0] for table, index, _ in indexes if table == name and index in sizes]
    return Table(
        name=name,
        rows=rows if counted is None else counted,
        bytes=size,
        index_bytes=None if size is None else sum(of_indexes),
        dead_rows=dead,
        hot_ratio=hot / updates if updates else None,
        last_vacuum=vacuum,
        last_autovacuum=autovacuum,
    )


def _index(row: Row, sizes: dict[str, Row]) -> Index:
    table, name, valid = row
    return Index(table=table, name=name, bytes=sizes.get(name, (None,))[0], valid=bool(valid))


def _sessions(rows: Rows) -> Sessions:
    if not rows:
        return Sessions()
    tenants = [Tenant(tenant=row[0], sessions=row[1], messages=row[2]) for row in rows]
    by_sessions, by_messages = (
        tuple(each for row, each in sorted(zip(rows, tenants, strict=True), key=_rank(place)) if row[place] <= _MOST)
        for place in (3, 4)
    )
    count, messages, created, newest, updated, last = rows[0][6:]
    return Sessions(
        count=count,
        messages=messages,
        tenants=rows[0][5],
        oldest_created_at=_moment(created),
        newest_created_at=_moment(newest),
        oldest_updated_at=_moment(updated),
        newest_updated_at=_moment(last),
        most_sessions=by_sessions,
        most_messages=by_messages,
    )


def _rank(place: int) -> Callable[[tuple[Row, Tenant]], int]:
    return lambda pair: pair[0][place]


def _moment(raw: Any) -> datetime | None:
    return None if raw is None else stored_instant(raw)
