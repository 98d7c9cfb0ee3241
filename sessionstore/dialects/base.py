"""Statements compiled once a database, and what a database can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import ClauseElement, Index
from sqlalchemy.engine import Dialect as EngineDialect
from sqlalchemy.schema import CreateIndex

Row: TypeAlias = Sequence[Any]
Rows: TypeAlias = Sequence[Row]
Adapter: TypeAlias = Callable[[Any], Any]


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """A named statement of the store.

    `build` makes the SQLAlchemy construct for a database; it is called once for each. `columns` names the entries of
    the rows of a bulk statement: arrays on PostgreSQL, one execution a row on SQLite.
    """

    name: str
    build: Callable[[Dialect], ClauseElement]
    columns: tuple[str, ...] = ()

    def __call__(self, rows: Rows | None = None, /, **params: Any) -> Call:
        """Pair the statement with its parameters."""
        return Call(self, params, rows)


class Call(NamedTuple):
    """A statement with its parameters: what a unit yields."""

    statement: Statement
    params: dict[str, Any]
    rows: Rows | None = None


class Bound(NamedTuple):
    """SQL and its arguments, as a driver takes them. With `many`, `args` is a list of argument tuples."""

    sql: str
    args: Any
    many: bool = False


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A statement for the driver.

    Attributes:
        names: of the parameters, in order.
        adapters: by the place of the parameter.
        constants: parameters that the statement itself brings.
        same: of a bulk statement, the parameters that are the same for every row.
        choose: picks the arguments of a row from the values of `same` and the row behind them.
    """

    sql: str
    names: tuple[str, ...]
    adapters: tuple[tuple[int, Adapter], ...]
    constants: Mapping[str, Any]
    same: tuple[str, ...]
    choose: Callable[[tuple[Any, ...]], tuple[Any, ...]]

    def arguments(self, params: Mapping[str, Any]) -> tuple[Any, ...]:
        values = [params[name] for name in self.names]
        for place, adapt in self.adapters:
            values[place] = adapt(values[place])
        return tuple(values)


PREFIX = "p_"
"""Of every bound parameter: SQLAlchemy reserves the bare names of columns in INSERT and UPDATE."""


CONSTANT = "="
"""Before the name of a constant among the parameters."""


@dataclass(frozen=True, eq=False)
class Dialect:
    """A database as the units and executors see it.

    Attributes:
        engine_dialect: SQLAlchemy's dialect, used to compile.
        schema: schema of the tables, or None.
        one_writer: transactions that write run one after the other, so nothing changes between their statements.
        modifying_ctes: one statement may change several tables.
        array_rows: the rows of a bulk statement, if there are several, travel as one array a column.
        optimistic_ids: an append may insert message ids first and look for stored ones only if that fails.
        joined: units run inside a transaction of the caller, which may stay open for long.
        snapshots: a unit that reads in several statements sees one moment.
        row_level_security: rows can only be reached by a transaction that has told the database their tenant.
        adapters: how a parameter of a type is handed to the driver, by the name of the type.
    """

    name: str
    engine_dialect: EngineDialect
    schema: str | None = None
    one_writer: bool = False
    modifying_ctes: bool = False
    array_rows: bool = False
    optimistic_ids: bool = False
    snapshots: bool = True
    joined: bool = False
    row_level_security: bool = False
    adapters: Mapping[str, Adapter] = field(default_factory=dict)
    _compiled: dict[Statement, _Compiled] = field(default_factory=dict, repr=False)

    def bind(self, call: Call) -> Bound:
        """Turn a call into what the driver executes."""
        statement, params, rows = call
        if self.array_rows and rows is not None and len(rows) == 1:
            return self._row_by_row.bind(call)
        compiled = self._compiled.get(statement)
        if compiled is None:
            compiled = self._compiled.setdefault(statement, self.compile(statement))
        if compiled.constants:
            params = {**compiled.constants, **params}
        if rows is None:
            return Bound(compiled.sql, compiled.arguments(params))
        # Rows may have more entries than the statement has columns.
        if len(rows) == 1:
            given = zip(statement.columns, rows[0], strict=False)
        elif self.array_rows:
            given = zip(statement.columns, zip(*rows, strict=True), strict=False)
        else:
            same, choose = tuple([params[name] for name in compiled.same]), compiled.choose
            return Bound(compiled.sql, [choose((*same, *row)) for row in rows], many=True)
        return Bound(compiled.sql, compiled.arguments({**params, **dict(given)}))

    @cached_property
    def _row_by_row(self) -> Dialect:
        """The same database, with statements for a single row: arrays of one entry cost a tenth of an append."""
        return replace(self, array_rows=False, _compiled={})

    def qualified(self, table: str) -> str:
        """A table's or index's name with its schema, whatever that is called."""
        return f'"{self.schema}".{table}' if self.schema else table

    def index_sql(self, index: Index) -> str:
        """The SQL that makes an index beside a running service."""
        made = CreateIndex(index).compile(
            dialect=self.engine_dialect,
            schema_translate_map={None: self.schema} if self.schema else None,
            render_schema_translate=bool(self.schema),
        )
        concurrently = "" if self.one_writer else " CONCURRENTLY"
        return " ".join(str(made).split()).replace(" INDEX", f" INDEX{concurrently}", 1) + ";"

    def compile(self, statement: Statement) -> _Compiled:
        """Compile a statement to SQL with ordered parameters."""
        construct = statement.build(self)
        compiled: Any = construct.compile(
            dialect=self.engine_dialect,
            schema_translate_map={None: self.schema} if self.schema else None,
            render_schema_translate=bool(self.schema),
        )
        names, adapters, constants = [], [], {}
        for place, name in enumerate(compiled.positiontup or ()):
            bind = compiled.binds[name]
            # A construct's constants are parameters too; SQLAlchemy's names for them must not meet ours.
            known = name.removeprefix(PREFIX) if bind.required else CONSTANT + name
            names.append(known)
            if adapt := self.adapters.get(type(bind.type).__name__):
                adapters.append((place, adapt))
            if not bind.required:
                constants[known] = bind.value
        same = tuple(dict.fromkeys(name for name in names if name not in statement.columns))
        place_of = {name: place for place, name in enumerate((*same, *statement.columns))}
        choose: Any = itemgetter(*[place_of[name] for name in names]) if statement.columns else tuple
        return _Compiled(str(compiled), tuple(names), tuple(adapters), constants, same, choose)
