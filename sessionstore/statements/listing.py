"""Pages of sessions, newest change first."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from sqlalchemy import Text, and_, cast, exists, or_, select

from sessionstore.dialects.base import Statement
from sessionstore.dialects.constructs import json_bytes, param
from sessionstore.schema import Instant
from sessionstore.statements.common import METADATA, TENANT, fixed, number, s, text

PROJECT_KEY: Final = "project_ids"


def _after_cursor() -> Any:
    """The rows after a cursor. The bare range on the indexed column, at top level, is what the index can serve."""
    bucket, updated, last = number("after_bucket"), param("after_updated", Instant), text("after_id")
    later = or_(s.activity_bucket < bucket, s.updated_at < updated, and_(s.updated_at == updated, s.id > last))
    return and_(s.activity_bucket <= bucket, later)


@cache
def page(*, user: bool, parent: bool, filters: int, after: bool) -> Statement:
    """Build the listing for the conditions that are asked for; `filters` counts metadata conditions."""
    conditions: list[Any] = [s.tenant_id == TENANT]
    if user:
        conditions.append(s.user_id == text("user"))
    if parent:
        conditions.append(s.parent_id == text("parent"))
    for at in range(filters):
        f = METADATA.alias(f"filter_{at}").c
        conditions.append(
            exists().where(
                f.tenant_id == TENANT,
                f.key == text(f"key_{at}"),
                f.value_key == text(f"value_key_{at}"),
                f.session_id == s.id,
                cast(f.value, Text) == text(f"value_{at}"),
            )
        )
    if after:
        conditions.append(_after_cursor())
    chosen = (
        select(
            *(s.id, s.user_id, s.title, s.parent_id, (s.next_position - s.first_position).label("length")),
            *(s.active_seed_id, s.created_at, s.updated_at, s.activity_bucket),
        )
        .where(*conditions)
        .order_by(s.activity_bucket.desc(), s.updated_at.desc(), s.id)
        .limit(number("limit"))
        .subquery("chosen")
    )
    projects = METADATA.alias("project")
    project = projects.c
    joined = chosen.outerjoin(
        projects,
        and_(project.tenant_id == TENANT, project.session_id == chosen.c.id, project.key == PROJECT_KEY),
    )
    return fixed(
        "page",
        select(chosen, json_bytes(project.value), project.plain)
        .select_from(joined)
        .order_by(chosen.c.activity_bucket.desc(), chosen.c.updated_at.desc(), chosen.c.id),
    )
