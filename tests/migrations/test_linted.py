"""The SQL of every upgrade on PostgreSQL, read by squawk, which knows what locks a table that others use."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from sessionstore import migrate
from sessionstore.revisions import known

REVISIONS = known()
VERSION_TABLE = "CREATE TABLE sessionstore_alembic_version"
"""Alembic's own, which it makes as it likes."""

ACCEPTED = {
    ("0001", "prefer-bigint-over-smallint"): "the id of the one row of sessionstore_schema, which is always 1",
}

HURTFUL = {
    "CREATE INDEX ix_x ON sessionstore_messages (role);": "require-concurrent-index-creation",
    "ALTER TABLE sessionstore_messages ADD COLUMN x int NOT NULL;": "adding-required-field",
    "ALTER TABLE sessionstore_messages ALTER COLUMN role TYPE varchar(9);": "changing-column-type",
    "ALTER TABLE sessionstore_messages RENAME COLUMN role TO kind;": "renaming-column",
    "ALTER TABLE sessionstore_messages ADD CONSTRAINT c CHECK (role <> '');": "constraint-missing-not-valid",
    "ALTER TABLE sessionstore_messages ALTER COLUMN seed_id SET NOT NULL;": "adding-not-nullable-field",
    "DROP TABLE sessionstore_messages;": "ban-drop-table",
}
"""What it must find, or it would find nothing in ours either."""


def found_in(sql: str) -> list[tuple[str, int]]:
    """What squawk says of a script: rules, and lines from 0."""
    squawk = Path(sysconfig.get_path("scripts")) / ("squawk.exe" if sys.platform == "win32" else "squawk")
    command = [str(squawk), "--pg-version", "14.0", "--reporter", "json", "--stdin-filepath", "script.sql"]
    ended = subprocess.run(command, input=sql, capture_output=True, text=True, check=False)
    found: list[dict[str, Any]] = json.loads(ended.stdout)
    assert (ended.returncode != 0) == bool(found), ended.stderr
    return [(each["rule_name"], each["line"]) for each in found]


def upgrade_to(revision: str) -> str:
    """The script of one revision alone."""
    before = REVISIONS.index(revision)
    return migrate.sql(start=REVISIONS[before - 1] if before else "base", to=revision)


@pytest.mark.parametrize("revision", REVISIONS)
def test_no_upgrade_hurts_a_table_in_use(revision: str) -> None:
    """P9: nothing is found in any, but what has a reason."""
    script = upgrade_to(revision)
    start = script.find(VERSION_TABLE)
    alembics = range(0)
    if start >= 0:
        alembics = range(script.count("\n", 0, start), script.count("\n", 0, script.index(");", start)) + 1)
    left = [rule for rule, line in found_in(script) if line not in alembics]
    assert [rule for rule in left if (revision, rule) not in ACCEPTED] == []
    assert {key for key in ACCEPTED if key[0] == revision} == {(revision, rule) for rule in left}, "accepted in vain"


@pytest.mark.parametrize("sql", HURTFUL)
def test_what_hurts_is_found(sql: str) -> None:
    """P9: each kind, in a transaction with timeouts as in a revision."""
    script = f"BEGIN;\nSET LOCAL lock_timeout = '4s';\nSET LOCAL statement_timeout = '30s';\n{sql}\nCOMMIT;\n"
    assert HURTFUL[sql] in {rule for rule, _ in found_in(script)}


def test_an_upgrade_without_timeouts_is_found() -> None:
    """P9: a foreign environment may run the revisions, so each sets its own."""
    sql = "BEGIN;\nALTER TABLE sessionstore_messages ADD COLUMN x int;\nCOMMIT;\n"
    assert {"require-lock-timeout", "require-statement-timeout"} <= {rule for rule, _ in found_in(sql)}
