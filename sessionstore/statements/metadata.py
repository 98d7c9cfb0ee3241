"""Statements on the rows of metadata."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Boolean, Text, cast, delete, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from sessionstore.dialects.base import Dialect
from sessionstore.dialects.constructs import TextList, any_of, param
from sessionstore.schema import JsonText
from sessionstore.statements.common import (
    ITS_METADATA,
    METADATA,
    SESSION,
    TENANT,
    d,
    fixed,
    statement,
    text,
)
from sessionstore.statements.messages import incoming

ROW: Final = {"key": Text, "value": Text, "plain": Boolean, "value_key": Text}


@statement("set_metadata", *ROW)
def SET(db: Dialect) -> Any:  # noqa: N802  # a statement, named like the constants beside it
    """Insert keys, or give them new values."""
    rows = incoming(db, ROW)
    values = {
        "tenant_id": TENANT,
        "session_id": SESSION,
        "key": rows.row["key"],
        "value": cast(rows.row["value"], JsonText),
        "plain": rows.row["plain"],
        "value_key": rows.row["value_key"],
    }
    insert_: Any = postgresql.insert if db.modifying_ctes else sqlite.insert
    upsert = rows.put(insert_(METADATA).inline(), values)
    changed = {name: upsert.excluded[name] for name in ("value", "plain", "value_key")}
    return upsert.on_conflict_do_update(index_elements=[d.tenant_id, d.session_id, d.key], set_=changed)


REMOVE: Final = fixed("remove_metadata", delete(METADATA).where(ITS_METADATA, any_of(d.key, param("keys", TextList))))

CLEAR: Final = fixed("clear_metadata", delete(METADATA).where(ITS_METADATA))

COPY: Final = fixed(
    "copy_metadata",
    insert(METADATA)
    .inline()
    .from_select(
        [entry.name for entry in METADATA.c],
        select(TENANT, text("child"), d.key, d.value, d.plain, d.value_key).where(
            d.tenant_id == TENANT, d.session_id == SESSION
        ),
    ),
)
