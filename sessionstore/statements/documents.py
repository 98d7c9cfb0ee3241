"""Statements on documents."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Boolean, Text, and_, cast, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from sessionstore.dialects.base import Dialect
from sessionstore.dialects.constructs import greatest, json_bytes, param
from sessionstore.schema import Base, DocumentRow, JsonText
from sessionstore.statements.common import NOW, TENANT, fixed, statement, text

DOCUMENTS: Final = Base.metadata.tables[DocumentRow.__tablename__]
c: Final = DOCUMENTS.c

_THIS: Final = and_(
    c.tenant_id == TENANT, c.category == text("category"), c.name == text("name"), c.format == text("format")
)


@statement("save_document")
def SAVE(db: Dialect) -> Any:  # noqa: N802  # a statement, named like the constants beside it
    """Insert a document, or give it a new body."""
    insert: Any = postgresql.insert if db.array_rows else sqlite.insert
    upsert = (
        insert(DOCUMENTS)
        .inline()
        .values(
            tenant_id=TENANT,
            category=text("category"),
            name=text("name"),
            format=text("format"),
            body=cast(param("body", Text), JsonText),
            plain=param("plain", Boolean),
            created_at=NOW,
            updated_at=NOW,
        )
    )
    return upsert.on_conflict_do_update(
        index_elements=[c.tenant_id, c.category, c.name, c.format],
        set_={
            "body": upsert.excluded.body,
            "plain": upsert.excluded.plain,
            "updated_at": greatest(c.updated_at, upsert.excluded.updated_at),
        },
    )


FIND: Final = fixed("find_document", select(json_bytes(c.body), c.plain).where(_THIS))

LIST: Final = fixed(
    "list_documents",
    select(c.name).where(c.tenant_id == TENANT, c.category == text("category")).order_by(c.name, c.format),
)

DELETE: Final = fixed("delete_document", delete(DOCUMENTS).where(_THIS).returning(c.name))
