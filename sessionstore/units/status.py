"""Units that look at how a database is. Each part is a transaction of its own, so that none takes others with it."""

from __future__ import annotations

from typing import NamedTuple

from sessionstore.dialects.base import Dialect, Rows, Statement
from sessionstore.errors import SessionStoreError, StoreUnavailableError
from sessionstore.limits import STATUS_LOCK_SECONDS, STATUS_STATEMENT_SECONDS
from sessionstore.statements import status
from sessionstore.units.unit import Kind, Steps, Unit


class Unseen(NamedTuple):
    """Why a part could not be seen."""

    why: str


def tables() -> Unit[Rows]:
    """Which tables of ours there are. What stands in its way stands in the way of everything."""

    def steps(_db: Dialect) -> Steps[Rows]:
        return (yield status.TABLES())

    return Unit("status", Kind.READ, steps, tenantless=True)


def part(statement: Statement) -> Unit[Rows | Unseen]:
    """Send a statement that may be refused, for lack of rights or of what it reads, and that waits for nobody long."""

    def steps(db: Dialect) -> Steps[Rows | Unseen]:
        if not db.one_writer:
            yield status.PATIENCE(
                lock_timeout=_millis(STATUS_LOCK_SECONDS), statement_timeout=_millis(STATUS_STATEMENT_SECONDS)
            )
        try:
            return (yield statement())
        except StoreUnavailableError:
            raise
        except SessionStoreError as error:
            return Unseen(error.message)

    return Unit(statement.name, Kind.SNAPSHOT, steps, tenantless=True)


def _millis(seconds: float) -> str:
    return str(int(seconds * 1000))
