"""Revisions that exist in one test only."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sessionstore import revisions
from sessionstore.schema import REVISION

if TYPE_CHECKING:
    from pathlib import Path

NEXT = f"{int(REVISION) + 1:04}"
"""The id of the first of them."""

TEMPLATE = """
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"


def upgrade():
{body}
    op.execute("UPDATE sessionstore_schema SET revision = '{revision}'")


def downgrade():
    op.execute("UPDATE sessionstore_schema SET revision = '{before}'")
"""


@dataclass(frozen=True)
class Revisions:
    """A folder of migrations that only this test sees."""

    folder: Path

    def add(self, revision: str, before: str, body: str) -> None:
        """Write a revision, and make the library look again."""
        indented = textwrap.indent(textwrap.dedent(body).strip(), "    ")
        written = TEMPLATE.format(revision=revision, before=before, body=indented)
        (self.folder / "versions" / f"{revision}_test.py").write_text(written)
        revisions.known.cache_clear()
