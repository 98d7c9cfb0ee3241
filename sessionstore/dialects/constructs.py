"""SQL that the databases spell differently, as SQLAlchemy constructs."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ARRAY, BigInteger, BindParameter, Boolean, ColumnElement, Text, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import LargeBinary, TypeDecorator, TypeEngine

from sessionstore.dialects.base import PREFIX
from sessionstore.schema import Instant, JsonText


class TextList(TypeDecorator[Any]):
    """A parameter that is a list of texts: an array on PostgreSQL, a JSON array on SQLite."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Any) -> TypeEngine[Any]:
        """Choose the type of a database."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(ARRAY(Text()))  # type: ignore[no-any-return]
        return dialect.type_descriptor(Text())  # type: ignore[no-any-return]


class InstantList(TypeDecorator[Any]):
    """A parameter that is a list of moments, some of them None. PostgreSQL only."""

    impl = ARRAY(Instant())
    cache_ok = True


def param(name: str, type_: TypeEngine[Any] | type[TypeEngine[Any]]) -> BindParameter[Any]:
    """A parameter of a statement."""
    return bindparam(PREFIX + name, type_=type_, required=True)


def _spelled(kind: type[FunctionElement[Any]], **templates: str) -> None:
    """Say how each database spells a function; `{0}` and so on stand for its arguments."""
    for database, template in templates.items():

        def spell(element: Any, compiler: Any, template: str = template, **kw: Any) -> str:
            return template.format(*[compiler.process(clause, **kw) for clause in element.clauses])

        compiles(kind, database)(spell)


class greatest(FunctionElement[Any]):  # noqa: N801  # a function of SQL, named like one
    """The larger of two values, neither of them NULL."""

    inherit_cache = True

    def __init__(self, *clauses: ColumnElement[Any] | BindParameter[Any]) -> None:
        super().__init__(*clauses)
        self.type = clauses[0].type


_spelled(greatest, postgresql="greatest({0}, {1})", sqlite="max({0}, {1})")


class json_bytes(FunctionElement[Any]):  # noqa: N801  # a function of SQL, named like one
    """Encoded JSON as bytes: what the decoder takes, on any engine and past any codec set on a connection."""

    type = LargeBinary()
    inherit_cache = True


_spelled(json_bytes, postgresql="json_send({0})", sqlite="CAST({0} AS BLOB)")


class json_of_bytes(FunctionElement[Any]):  # noqa: N801  # a function of SQL, named like one
    """Encoded JSON from its bytes: neither side has to decode and encode text on the way."""

    type = JsonText
    inherit_cache = True


_spelled(json_of_bytes, postgresql="CAST(convert_from({0}, 'UTF8') AS JSON)", sqlite="CAST({0} AS TEXT)")


class any_of(FunctionElement[Any]):  # noqa: N801  # a function of SQL, named like one
    """Whether a text is one of a list; arguments: the text, a parameter of type `TextList`.

    It has no type: SQLAlchemy would append `= 1` to a boolean one on SQLite, and no index serves that.
    """

    inherit_cache = True


_spelled(any_of, postgresql="{0} = ANY ({1})", sqlite="{0} IN (SELECT value FROM json_each({1}))")


class none_of(FunctionElement[Any]):  # noqa: N801  # a function of SQL, named like one
    """Whether a text is none of a list; arguments as of `any_of`."""

    inherit_cache = True


_spelled(
    none_of,
    postgresql="{0} <> ALL ({1})",
    sqlite="{0} NOT IN (SELECT value FROM json_each({1}))",
)


class database_clock(FunctionElement[Any]):  # noqa: N801  # a function of SQL, named like one
    """The database's own clock, as an `Instant` later by the given microseconds (none by default)."""

    type = Instant()
    inherit_cache = True


@compiles(database_clock, "postgresql")
def _database_clock_postgresql(element: database_clock, compiler: Any, **kw: Any) -> str:
    later = compiler.process(element.clauses, **kw) or "0"
    return f"(clock_timestamp() + {later} * interval '1 microsecond')"


@compiles(database_clock, "sqlite")
def _database_clock_sqlite(element: database_clock, compiler: Any, **kw: Any) -> str:
    # julianday is exact to the millisecond; subtracting before scaling keeps the float exact.
    later = compiler.process(element.clauses, **kw) or "0"
    return f"(CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000 + {later})"


class later(FunctionElement[Any]):  # noqa: N801  # a function of SQL, named like one
    """A moment so many microseconds after another; arguments: the `Instant`, the number."""

    type = Instant()
    inherit_cache = True


_spelled(later, postgresql="({0} + {1} * interval '1 microsecond')", sqlite="({0} + {1})")


class relation_exists(FunctionElement[Any]):  # noqa: N801  # a function of SQL, named like one
    """Whether a table of that (qualified) name is there; argument: a parameter of type Text."""

    type = Boolean()
    inherit_cache = True


_spelled(
    relation_exists,
    postgresql="(to_regclass({0}) IS NOT NULL)",
    sqlite="EXISTS (SELECT 1 FROM sqlite_master WHERE name = {0})",
)


class byte_length(FunctionElement[Any]):  # noqa: N801  # a function of SQL, named like one
    """Bytes of encoded JSON."""

    type = BigInteger()
    inherit_cache = True


_spelled(byte_length, postgresql="octet_length(CAST({0} AS TEXT))", sqlite="length(CAST({0} AS BLOB))")
