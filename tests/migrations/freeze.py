"""Keep a database of the newest revision, with rows in every table, for the releases to come.

`python -m tests.migrations.freeze` writes `frozen/NNNN.sqlite.sql` and `frozen/NNNN.postgresql.sql` for each revision
that has none. What is there is never written again: it is what databases of that revision look like.
"""

# ruff: noqa: S608 - the names of tables and columns are constants
from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import make_url

from sessionstore import DocumentRepository, NewMessage, SessionRepository, migrate
from sessionstore.backfill import backfill
from sessionstore.revisions import known
from sessionstore.schema import Base
from tests.migrations.databases import bare
from tests.support import templates
from tests.support.postgres import PostgresServer

if TYPE_CHECKING:
    import asyncpg

FOLDER: Final = Path(__file__).parent / "frozen"

PARENTS_FIRST: Final = [table.name for table in Base.metadata.sorted_tables if table.name != "sessionstore_schema"]

ODD: Final[dict[str, Any]] = {
    "role": "tool",
    "content": [{"type": "text", "text": "nul \0 and half \ud800"}],
    "z": 1.0,
    "a": -0.0,
    "big": 2**70,
    "seed_id": "s-1",
    "phase_reached": "3",
    "evaluation_passed": True,
}
"""A body that SQL JSON functions cannot read."""


async def fill(url: str) -> None:
    """Put into a database of the newest revision what its users would."""
    async with SessionRepository.connect(url) as sessions:
        for tenant in ("", "acme"):
            own = sessions.for_tenant(tenant)
            await own.create("talk", user_id="ann", title="A título", metadata={"lang": "de", "n": 1.0, "t": ["\0"]})
            await own.append("talk", *[{"role": "user", "content": f"héllo {at}"} for at in range(7)])
            await own.append("talk", NewMessage(ODD, message_id="m-7"))
            await own.trim("talk", 6)
            await own.fork_at("talk", 3, new_id="fork")
            await own.record_event("talk", "noted", payload=ODD)
            await own.create("empty")
            await own.create("gone")
            await own.delete("gone")
            await own.claim("prune", cooldown_seconds=60)
        await backfill(sessions, "message-columns")
    async with DocumentRepository.connect(url) as documents:
        await documents.save_markdown("notes/de", "plan", text="# Plan\n")
        await documents.save_json("notes/de", "plan", value={"z": 1, "a": "\ud800"})


def load_sqlite(revision: str, file: Path) -> None:
    """Build the frozen SQLite database of a revision."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.executescript((FOLDER / f"{revision}.sqlite.sql").read_text("utf-8"))


async def load_postgresql(revision: str, url: str) -> None:
    """Build the frozen PostgreSQL database of a revision."""
    connection = await bare(url)
    await connection.execute((FOLDER / f"{revision}.postgresql.sql").read_text("utf-8"))
    await connection.close()


async def load(revision: str, url: str) -> None:
    """Make an empty database one that a release of that revision has left."""
    if url.startswith("postgresql"):
        await load_postgresql(revision, url)
    else:
        load_sqlite(revision, Path(str(make_url(url).database)))


def _columns(rows: list[Any]) -> str:
    return ", ".join(str(row[0]) for row in rows)


def _freeze_sqlite(revision: str, filled: Path, folder: Path) -> str:
    """What makes the database of a revision with the rows of the filled one."""
    url = f"sqlite:///{folder / f'{revision}.db'}"
    asyncio.run(migrate.upgrade(url, to=revision))
    with contextlib.closing(sqlite3.connect(folder / f"{revision}.db")) as connection:
        connection.execute("ATTACH DATABASE ? AS filled", (str(filled),))
        for table in PARENTS_FIRST:
            columns = _columns(connection.execute("SELECT name FROM pragma_table_info(?, 'main')", (table,)).fetchall())
            if columns:
                connection.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM filled.{table}")
        connection.commit()
        connection.execute("DETACH DATABASE filled")
        return "\n".join(connection.iterdump()) + "\n"


async def _freeze_postgresql(revision: str, filled: asyncpg.Connection) -> str:
    script = re.sub(r"^--.*\n", "", migrate.sql(to=revision), flags=re.MULTILINE)
    parts = [re.sub(r"\n{2,}", "\n", script)]
    await filled.execute("SET TimeZone = 'UTC'")
    for table in PARENTS_FIRST:
        if f"CREATE TABLE {table} (" not in script:
            continue
        found = await filled.fetch(
            "SELECT quote_ident(attname) FROM pg_attribute "
            "WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            table,
        )
        values = ", ".join(f"quote_nullable({row[0]})" for row in found)
        insert = f"INSERT INTO {table} ({_columns(found)}) VALUES ("
        rows = await filled.fetch(f"SELECT concat_ws(', ', {values}) FROM {table} ORDER BY 1")
        parts += [f"{insert}{row[0]});\n" for row in rows]
    return "".join(parts)


async def _fill_postgresql(url: str, revisions: list[str]) -> dict[str, str]:
    await migrate.upgrade(url)
    await fill(url)
    connection = await bare(url)
    frozen = {revision: await _freeze_postgresql(revision, connection) for revision in revisions}
    await connection.close()
    return frozen


def main() -> None:
    """Write what is missing."""
    FOLDER.mkdir(exist_ok=True)
    missing = [revision for revision in known() if not (FOLDER / f"{revision}.sqlite.sql").exists()]
    with tempfile.TemporaryDirectory() as temporary, PostgresServer() as server:
        folder = Path(temporary)
        filled = folder / "filled.db"
        asyncio.run(migrate.upgrade(f"sqlite:///{filled}"))
        asyncio.run(fill(f"sqlite:///{filled}"))
        with templates.postgres_clone(server, None) as url:
            frozen = asyncio.run(_fill_postgresql(url, missing))
        for revision in missing:
            (FOLDER / f"{revision}.sqlite.sql").write_text(_freeze_sqlite(revision, filled, folder), "utf-8")
            (FOLDER / f"{revision}.postgresql.sql").write_text(frozen[revision], "utf-8")
            sys.stdout.write(f"wrote {revision}\n")


if __name__ == "__main__":
    main()
