"""Every statement that the package can send."""

from __future__ import annotations

import importlib
import inspect
import itertools
import pkgutil
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sessionstore import limits, statements
from sessionstore.dialects import dialect_of
from sessionstore.dialects.base import Statement
from sessionstore.statements.removal import Victims

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

DIALECTS: Final = (dialect_of("sqlite", "aiosqlite"), dialect_of("postgresql", "asyncpg"))

POSTGRESQL_ONLY: Final = {
    *("append", "guarantees"),
    *("status_patience", "status_server", "status_connections", "status_oldest_transaction"),
    "status_lacking_rights",
}
"""And the statements that delete victims together with their children."""

SQLITE_ONLY: Final = {"status_file"}

OF_THE_SERVER: Final = {
    *("status_patience", "status_server", "status_connections", "status_oldest_transaction", "status_file"),
    *("status_tables", "status_indexes", "status_sizes", "status_lacking_rights", "missing_indexes"),
}
"""What they give is not of the store: it differs between databases, and from one moment to the next."""

MAKERS: Final = {"fixed", "recorded"}
"""Functions that make a statement of any construct: not statements themselves."""


class Sent(NamedTuple):
    """A statement, where it was found, and whether only PostgreSQL is ever sent it."""

    where: str
    statement: Statement
    postgresql_only: bool = False

    @property
    def databases(self) -> tuple[str, ...]:
        """The databases that are sent it."""
        if self.statement.name in SQLITE_ONLY:
            return ("sqlite",)
        return ("postgresql",) if self.postgresql_only else ("sqlite", "postgresql")


def modules() -> list[ModuleType]:
    """The modules of the package's statements."""
    names = [found.name for found in pkgutil.walk_packages(statements.__path__, f"{statements.__name__}.")]
    return [importlib.import_module(name) for name in names]


def every_statement() -> list[Sent]:
    """All of them, each variant of those that are built on demand included, each once."""
    found: dict[int, Sent] = {}
    for module in modules():
        for name, value in vars(module).items():
            for sent in _statements(f"{module.__name__.rpartition('.')[2]}.{name}", value):
                found.setdefault(id(sent.statement), sent)
    return list(found.values())


def _statements(where: str, value: Any) -> Iterator[Sent]:
    if isinstance(value, Statement):
        yield Sent(where, value, value.name in POSTGRESQL_ONLY)
    elif isinstance(value, Victims):
        yield Sent(f"{where}.choose", value.choose)
        yield Sent(f"{where}.remove", value.remove, postgresql_only=True)
    elif isinstance(value, (tuple, list, set, frozenset)):
        for item in value:
            yield from _statements(where, item)
    elif isinstance(value, dict):
        yield from _statements(where, list(value.values()))
    elif is_builder(value):
        for arguments in combinations(value):
            yield from _statements(f"{where}({arguments})", value(**arguments))


def is_builder(value: Any) -> bool:
    """Whether this is a function that gives a statement, or victims."""
    if not callable(value) or not getattr(value, "__module__", "").startswith(statements.__name__):
        return False
    if inspect.isclass(value) or value.__name__ in MAKERS or value.__name__.startswith("_"):
        return False
    return inspect.signature(value).return_annotation in {"Statement", "Victims"}


def combinations(builder: Callable[..., Any]) -> Iterator[dict[str, Any]]:
    """Every way to call a builder."""
    values = {"bool": (False, True), "int": (0, 1, 2, limits.METADATA_FILTERS)}
    parameters = inspect.signature(builder).parameters.values()
    choices = [values[str(parameter.annotation)] for parameter in parameters]
    for chosen in itertools.product(*choices):
        yield dict(zip((parameter.name for parameter in parameters), chosen, strict=True))
