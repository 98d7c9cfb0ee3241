"""Units on documents."""

from __future__ import annotations

from typing import Any

from sessionstore.codec import Encoded, Json
from sessionstore.dialects.base import Dialect
from sessionstore.statements import documents, mapping
from sessionstore.units.unit import Kind, Stamp, Steps, Unit

JSON = "json"
MARKDOWN = "markdown"


def save(tenant: str, category: str, name: str, format_: str, body: Encoded) -> Unit[None]:
    """Store a document, or its new text."""

    def steps(_db: Dialect) -> Steps[None]:
        key = _key(tenant, category, name, format_)
        yield documents.SAVE(**key, body=body.text, plain=body.plain, now=Stamp.of_now().now)

    return Unit("save_document", Kind.WRITE, steps, repeatable=True, size=body.size)


def find(tenant: str, category: str, name: str, format_: str) -> Unit[tuple[Json] | None]:
    """Read a document; its value may be None itself."""

    def steps(_db: Dialect) -> Steps[tuple[Json] | None]:
        rows = yield documents.FIND(**_key(tenant, category, name, format_))
        if not rows:
            return None
        body, plain = rows[0]
        return (mapping.json_value(body, plain, f"document {category}/{name}"),)

    return Unit("find_document", Kind.READ, steps)


def list_category(tenant: str, category: str) -> Unit[list[str]]:
    """List the names of a category, one twice where both formats exist."""

    def steps(_db: Dialect) -> Steps[list[str]]:
        rows = yield documents.LIST(tenant=tenant, category=category)
        return [row[0] for row in rows]

    return Unit("list_category", Kind.READ, steps)


def delete(tenant: str, category: str, name: str) -> Unit[bool]:
    """Delete the JSON document of that name, or else the markdown one."""

    def steps(_db: Dialect) -> Steps[bool]:
        for format_ in (JSON, MARKDOWN):
            if (yield documents.DELETE(**_key(tenant, category, name, format_))):
                return True
        return False

    return Unit("delete_document", Kind.WRITE, steps)


def _key(tenant: str, category: str, name: str, format_: str) -> dict[str, Any]:
    return {"tenant": tenant, "category": category, "name": name, "format": format_}
