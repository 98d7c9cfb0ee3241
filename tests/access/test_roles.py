"""The owner migrates, the service rows, the reader looks; none of them more."""

from __future__ import annotations

from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import make_url

from sessionstore import (
    DocumentRepository,
    InvalidArgumentError,
    NewMessage,
    ReadOnlyStoreError,
    SessionExistsError,
    SessionNotFoundError,
    SessionRepository,
    SessionStoreError,
    StoreSettings,
    VersionConflictError,
    migrate,
)
from sessionstore.backfill import backfill, backfills
from sessionstore.roles import RoleNames, apply_roles, roles_sql
from sessionstore.schema import FACTS_VIEWS, REVISION, TENANT_TABLES, VIEWS
from sessionstore.status import status
from tests.access.members import denied, fetched, run
from tests.cli.conftest import Cli
from tests.docs.markdown import blocks
from tests.points import verbs
from tests.points.behind import behind
from tests.support.invariants import assert_sound

# ruff: noqa: S608  # the names of tables are our own

if TYPE_CHECKING:
    from pathlib import Path

    from tests.access.members import Members

SCHEMA = "chat"


async def set_up(url: str, accounts: Members, schema: str | None = None) -> None:
    """Roles for a migrated database, with their members."""
    await apply_roles(url, schema=schema, names=accounts.names)
    await accounts.join(url)


_RIGHTS = (
    """
    SELECT 'relation', relname::text, relowner::regrole::text, relrowsecurity::text, relforcerowsecurity::text,
    (SELECT array_agg(x::text ORDER BY x::text) FROM unnest(relacl) x)::text
    FROM pg_class WHERE relname LIKE 'sessionstore%'
    """,
    """
    SELECT 'schema', nspname::text, nspowner::regrole::text,
    (SELECT array_agg(x::text ORDER BY x::text) FROM unnest(nspacl) x)::text FROM pg_namespace
    """,
    """
    SELECT 'default', defaclrole::regrole::text, defaclobjtype::text,
    (SELECT array_agg(x::text ORDER BY x::text) FROM unnest(defaclacl) x)::text FROM pg_default_acl
    """,
    "SELECT 'policy', tablename::text, policyname::text, qual, with_check FROM pg_policies",
    "SELECT 'member', roleid::regrole::text, member::regrole::text FROM pg_auth_members",
    "SELECT 'role', rolname::text, rolcanlogin::text FROM pg_roles",
)


async def rights(url: str) -> list[Any]:
    """All that the catalog says about who may do what."""
    return [sorted(await fetched(url, query), key=repr) for query in _RIGHTS]


# --- the owner --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", [None, SCHEMA])
async def test_the_owner_migrates_from_nothing(empty: str, accounts: Members, schema: str | None) -> None:
    """X06, P12: up, down and up again, in `public` and in a schema of its own, which it cannot make itself."""
    await apply_roles(empty, schema=schema, names=accounts.names)
    await accounts.join(empty)
    deploy, settings = accounts.url(empty, accounts.deploy), StoreSettings(schema=schema)
    for _ in range(2):
        assert await migrate.upgrade(deploy, schema=schema) == REVISION
        await migrate.downgrade(deploy, "base", schema=schema)
    assert await migrate.upgrade(deploy, schema=schema) == REVISION
    owners = await fetched(empty, "SELECT relowner::regrole::text FROM pg_class WHERE relname LIKE 'sessionstore%'")
    assert {owner for (owner,) in owners} == {accounts.names.owner}
    with pytest.raises(ReadOnlyStoreError):  # nothing is given before there is something to give
        await SessionRepository.connect(accounts.url(empty, accounts.service), settings=settings).__aenter__()
    await apply_roles(empty, schema=schema, names=accounts.names)
    async with SessionRepository.connect(accounts.url(empty, accounts.service), settings=settings) as sessions:
        await sessions.append("s", {"role": "user"}, create=True)


async def test_the_owner_takes_over(migrated: str, accounts: Members) -> None:
    """X06: tables that somebody else made, and takes them down and up."""
    await set_up(migrated, accounts)
    async with SessionRepository.connect(accounts.url(migrated, accounts.service)) as sessions:
        await sessions.create("s")
    deploy = accounts.url(migrated, accounts.deploy)
    assert await migrate.upgrade(deploy) == REVISION
    assert await migrate.downgrade(deploy, "base") is None
    assert await migrate.upgrade(deploy) == REVISION


async def test_tables_of_later_revisions(migrated: str, accounts: Members) -> None:
    """P9: the service may use them at once, and readers must be given them one by one."""
    await set_up(migrated, accounts)
    await run(accounts.url(migrated, accounts.deploy), "CREATE TABLE sessionstore_later (id int)")
    await run(accounts.url(migrated, accounts.service), "INSERT INTO sessionstore_later VALUES (1)")
    await denied(accounts.url(migrated, accounts.service), "DROP TABLE sessionstore_later")
    await denied(accounts.url(migrated, accounts.looker), "SELECT * FROM sessionstore_later")


async def test_the_accounts_of_the_documentation(migrated: str, accounts: Members) -> None:
    """P12: what operations.md has people copy makes accounts that can do their part."""
    await apply_roles(migrated, names=accounts.names)
    (block,) = (block for block in blocks("sql", "docs/operations.md") if "members" in block.words)
    made = {" chat": f" {accounts.service}", " deploy": f" {accounts.deploy}", "CREATE ROLE": "ALTER ROLE"}
    made |= {"sessionstore_app": accounts.names.app, "sessionstore_owner": accounts.names.owner}
    script = block.code
    for old, new in made.items():
        assert old in script
        script = script.replace(old, new)
    await run(migrated, script)
    deploy, service = (
        make_url(migrated).set(username=name, password="...")  # noqa: S106  # as it is written there
        for name in (accounts.deploy, accounts.service)
    )
    await migrate.downgrade(deploy, "base")
    await migrate.upgrade(deploy)
    await apply_roles(migrated, names=accounts.names)
    async with SessionRepository.connect(service) as sessions:
        await sessions.create("s")


# --- the service ------------------------------------------------------------------------------------------------------


async def test_the_service_runs_every_verb(migrated: str, accounts: Members) -> None:
    """P12: its rights are enough for all there is."""
    await set_up(migrated, accounts)
    async with SessionRepository.connect(accounts.url(migrated, accounts.service)) as sessions:
        await verbs.prepare(sessions)
        tables = await behind(migrated, sessions)
        await tables.save()
        failed = []
        for case in verbs.ALL:
            await tables.begin()
            try:
                await case.answer(sessions)
            except SessionStoreError as error:
                failed.append(type(error))
        await tables.close()
    assert set(failed) <= {SessionExistsError, SessionNotFoundError, VersionConflictError}
    assert len(failed) < len(verbs.ALL) / 4, "those that have something else to complain of"
    await assert_sound(migrated)


@pytest.mark.parametrize("schema", [None, SCHEMA])
async def test_the_service_changes_no_tables(empty: str, accounts: Members, schema: str | None) -> None:
    """P12: also where everybody may make tables in `public`, which PostgreSQL 14 begins with."""
    await run(empty, "GRANT CREATE ON SCHEMA public TO PUBLIC")
    await migrate.upgrade(empty, schema=schema)
    await set_up(empty, accounts, schema)
    service, at = accounts.url(empty, accounts.service), f"{schema or 'public'}."
    for table in (*TENANT_TABLES, "sessionstore_schema", "sessionstore_alembic_version"):
        await denied(
            service,
            f"ALTER TABLE {at}{table} ADD COLUMN x int",
            f"DROP TABLE {at}{table} CASCADE",
            f"TRUNCATE {at}{table} CASCADE",
            f"CREATE INDEX ON {at}{table} (ctid)",
            f"COMMENT ON TABLE {at}{table} IS 'x'",
        )
    await denied(
        service,
        f"CREATE TABLE {at}x (id int)",
        f"CREATE VIEW {at}x AS SELECT 1",
        f"CREATE OR REPLACE VIEW {at}sessionstore_message_texts AS SELECT 1",
        "CREATE SCHEMA x",
        f"UPDATE {at}sessionstore_schema SET revision = '0000'",
        f"DELETE FROM {at}sessionstore_schema",
        f"INSERT INTO {at}sessionstore_schema VALUES (2, '0001', '0001')",
        f"SELECT * FROM {at}sessionstore_alembic_version",
        f"UPDATE {at}sessionstore_alembic_version SET version_num = '0000'",
        f"SET ROLE {accounts.names.owner}",
    )
    with pytest.raises(ReadOnlyStoreError):
        await migrate.downgrade(service, "base", schema=schema)


# --- the reader -------------------------------------------------------------------------------------------------------

SAID = "what was said"


async def _furnish(url: str) -> None:
    async with SessionRepository.connect(url) as sessions:
        await sessions.create("s", user_id="ann", title=SAID, system_message=SAID, metadata={"k": SAID})
        await sessions.append("s", {"role": "user", "content": SAID}, NewMessage({"role": "user"}, message_id="m"))
        await sessions.update("s", summary=SAID)
        await DocumentRepository(sessions._shared.engine).save_markdown("c", "n", text=SAID)


async def test_the_reader_sees_no_contents(migrated: str, accounts: Members) -> None:
    """P11, P12: who talked when and how much, and of bodies, titles, summaries, prompts, values, documents nothing."""
    await set_up(migrated, accounts)
    await _furnish(migrated)
    looker = accounts.url(migrated, accounts.looker)
    seen = []
    for view, count in zip(FACTS_VIEWS, (1, 2), strict=True):
        rows = await fetched(looker, f"SELECT * FROM {view}")
        assert len(rows) == count
        seen += rows
    assert "ann" in repr(seen)
    assert SAID not in repr(seen)
    everything = [
        *TENANT_TABLES,
        *(VIEWS.keys() - set(FACTS_VIEWS)),
        "sessionstore_schema",
        "sessionstore_alembic_version",
    ]
    await denied(looker, *(f"SELECT * FROM {table}" for table in everything))
    await denied(looker, *(f"SELECT tenant_id FROM {table}" for table in TENANT_TABLES))
    await denied(looker, *(f"DELETE FROM {view}" for view in FACTS_VIEWS), "CREATE TABLE x (id int)")


# --- the script -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", [None, SCHEMA])
async def test_twice_changes_nothing(empty: str, accounts: Members, schema: str | None) -> None:
    """P12: neither before there are tables nor after."""
    await apply_roles(empty, schema=schema, names=accounts.names)
    before = await rights(empty)
    await apply_roles(empty, schema=schema, names=accounts.names)
    assert await rights(empty) == before
    await migrate.upgrade(empty, schema=schema)
    await set_up(empty, accounts, schema)
    after = await rights(empty)
    assert after != before
    await apply_roles(empty, schema=schema, names=accounts.names)
    assert await rights(empty) == after
    assert [row[2] for row in after[-1] if row[1] in astuple(accounts.names)] == ["false"] * 3, "they cannot log in"


async def test_no_superuser_is_needed(empty: str, accounts: Members) -> None:
    """P12: the owner of a database who may make roles is enough, as hosting services give one."""
    database = make_url(empty).database
    await run(empty, f'ALTER DATABASE "{database}" OWNER TO {accounts.admin}')
    admin = accounts.url(empty, accounts.admin)
    await migrate.upgrade(admin)
    for _ in range(2):
        await apply_roles(admin, names=accounts.names)
    await accounts.join(empty)
    async with SessionRepository.connect(accounts.url(empty, accounts.service)) as sessions:
        await sessions.create("s")
    assert await migrate.upgrade(accounts.url(empty, accounts.deploy)) == REVISION


async def test_all_or_nothing(migrated: str, accounts: Members) -> None:
    """P12: who may not do all of it has done nothing, and is told so in one clear error."""
    before = await rights(migrated)
    for login in (accounts.service, accounts.admin):
        with pytest.raises(ReadOnlyStoreError, match="may not"):
            await apply_roles(accounts.url(migrated, login), names=accounts.names)
    assert await rights(migrated) == before


@pytest.mark.parametrize("name", ["", "Upper", "a b", 'x"; DROP ROLE y; --', "x'", "pg_x", "public", "none", "a" * 64])
def test_names_that_are_none(name: str) -> None:
    """P12: refused before they stand in any SQL."""
    for names in ({"owner": name}, {"app": name}, {"reader": name}):
        with pytest.raises(InvalidArgumentError):
            RoleNames(**names)


def test_other_refusals() -> None:
    """P12: two roles of one name, and schemas that are none."""
    with pytest.raises(InvalidArgumentError):
        RoleNames(app="one", reader="one")
    with pytest.raises(InvalidArgumentError):
        roles_sql(schema='x"; DROP')


async def test_sqlite_has_no_roles(sqlite_file: Path) -> None:
    """P12: the error says what is instead."""
    with pytest.raises(InvalidArgumentError, match="PostgreSQL"):
        await apply_roles(f"sqlite:///{sqlite_file}")


async def test_a_keyword_is_a_name(empty: str) -> None:
    """P12: names are quoted, also in the comments to copy from."""
    names = RoleNames("table", "select", "grant")
    script = roles_sql(names=names)
    assert '"table"' in script
    await run(empty, script.replace("COMMIT;", "ROLLBACK;"))


def test_the_command(migrated: str, accounts: Members, tmp_path: Path) -> None:
    """P12: it prints the script without a database, and runs it with one."""
    names = accounts.names
    options = ("--owner", names.owner, "--app", names.app, "--reader", names.reader)
    printed = Cli("sqlite:///nowhere.db", tmp_path).run("db", "roles", *options, "--schema", SCHEMA).stdout
    assert printed == roles_sql(schema=SCHEMA, names=names)
    cli = Cli(migrated, tmp_path)
    assert names.app in cli.run("db", "roles", "--apply", *options).stdout
    assert "plain lower-case" in cli.refused("db", "roles", "--apply", "--owner", "Owner")
    assert "PostgreSQL" in Cli("sqlite:///nowhere.db", tmp_path).refused("db", "roles", "--apply")


async def test_tables_of_others_stay_theirs(migrated: str, accounts: Members) -> None:
    """P12: whatever they are called."""
    await run(migrated, "CREATE TABLE sessionstore_audit (id int)")
    await apply_roles(migrated, names=accounts.names)
    owned = await fetched(
        migrated,
        "SELECT relname::text FROM pg_class WHERE relname LIKE 'sessionstore%' AND relkind IN ('r', 'v') "
        f"AND relowner <> '{accounts.names.owner}'::regrole",
    )
    assert owned == [("sessionstore_audit",)]


async def test_the_service_sees_how_far_backfills_are_and_not_where(migrated: str, accounts: Members) -> None:
    """P7: the key of the last row may be any tenant's."""
    async with SessionRepository.connect(migrated) as sessions:
        await backfill(sessions, "message-columns")
    await apply_roles(migrated, names=accounts.names)
    await accounts.join(migrated)
    service = accounts.url(migrated, accounts.service)
    async with SessionRepository.connect(service) as sessions:
        assert [each.job for each in await backfills(sessions)] == ["message-columns"]
        with pytest.raises(ReadOnlyStoreError):
            await backfill(sessions, "message-columns", restart=True)
    await denied(service, "SELECT after_key FROM sessionstore_backfills")


async def test_a_status_says_which_rights_are_missing(migrated: str, accounts: Members) -> None:
    """P12: by table and right; and nothing where none is."""
    await apply_roles(migrated, names=accounts.names)
    await accounts.join(migrated)
    service = accounts.url(migrated, accounts.service)
    async with SessionRepository.connect(service) as sessions:
        assert (await status(sessions)).lacking == ()
        await run(migrated, f"REVOKE INSERT ON sessionstore_messages FROM {accounts.names.app}")
        assert (await status(sessions)).lacking == ("INSERT on sessionstore_messages",)
