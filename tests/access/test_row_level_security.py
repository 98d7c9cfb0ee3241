"""Without the library's own filter the database alone keeps the tenants apart; what it cannot protect is refused."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from sessionstore import (
    InvalidArgumentError,
    ReadOnlyStoreError,
    SessionNotFoundError,
    SessionRepository,
    SessionStoreError,
    StoreSettings,
    migrate,
    operations,
    verification,
)
from sessionstore.dialects.base import Dialect
from sessionstore.executors import postgresql, tenants
from sessionstore.roles import apply_roles
from sessionstore.schema import FACTS_VIEWS, TENANT_POLICY, TENANT_SETTING, TENANT_TABLES
from tests.access.members import denied, fetched, run
from tests.access.test_roles import rights
from tests.cli.conftest import Cli
from tests.concurrency.verbs import ID
from tests.contract._verbs import SESSION_VERBS
from tests.docs.markdown import blocks
from tests.points import verbs
from tests.points.behind import READ
from tests.support.invariants import assert_sound, connect_postgres
from tests.support.pgbouncer import PgBouncer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.access.members import Members
    from tests.support.postgres import Postgres

# ruff: noqa: S608  # the names of tables are our own

ON = StoreSettings(row_level_security=True)
OUTSIDE = {"append_and_prune", "iter_messages"}
"""Verbs that do not work inside a transaction of the caller."""


@pytest.fixture
def protected(migrated: str, accounts: Members) -> str:
    """The URL of a database with row-level security, as a superuser."""

    async def protect() -> None:
        await apply_roles(migrated, names=accounts.names, row_level_security=True)
        await accounts.join(migrated)

    asyncio.run(protect())
    return migrated


@pytest.fixture
def service(protected: str, accounts: Members) -> str:
    """The URL of the same database, as the service."""
    return accounts.url(protected, accounts.service)


async def _answers(url: str, tenant: str, settings: StoreSettings) -> list[Any]:
    """What each verb gives, one after the other."""
    found = []
    async with SessionRepository.connect(url, tenant=tenant, settings=settings) as repository:
        for case in verbs.ALL:
            try:
                answer = await case.answer(repository)
            except SessionStoreError as error:
                answer = verbs.plain(error)
            found.append((case.name, answer))
    return found


async def _furnish(url: str, tenant: str, settings: StoreSettings = ON) -> None:
    async with SessionRepository.connect(url, tenant=tenant, settings=settings) as sessions:
        await verbs.prepare(sessions)


async def _rows(url: str, tenant: str) -> list[Any]:
    """All that a tenant has, seen by a superuser."""
    return [await fetched(url, f"{query} WHERE tenant_id = '{tenant}' ORDER BY 1, 2, 3") for query in READ]


# --- with the filter --------------------------------------------------------------------------------------------------


async def test_every_verb_is_as_without(service: str, protected: str) -> None:
    """P7: each gives and leaves the same, for three tenants side by side, with tenants as odd as they may be."""
    strange = "o'brien \\ %s $1 {x} \u00e9\u4e16"
    expected = []
    for tenant in ("plain", strange):
        await _furnish(service, tenant)
        expected.append(await _answers(service, tenant, ON))
    await _furnish(protected, "without", StoreSettings())
    assert expected == [await _answers(protected, "without", StoreSettings())] * 2
    await assert_sound(protected)


@pytest.fixture
def pooled(pooler: PgBouncer, postgres_server: Postgres, accounts: Members, service: str) -> Iterator[str]:
    """The service's URL through a pooler in transaction mode."""
    with PgBouncer(postgres_server, roles=[accounts.service]) as running:
        yield running.url(service)


async def test_behind_a_pooler(pooled: str, service: str, protected: str) -> None:
    """P7: with two connections for many tenants at once, each finds its own rows and no others."""

    async def converse(number: int) -> None:
        async with SessionRepository.connect(pooled, tenant=f"t{number}", settings=ON) as sessions:
            for at in range(6):
                await sessions.append("s", {"role": "user", "n": number}, create=True)
                assert [message.body["n"] for message in await sessions.messages("s")] == [number] * (at + 1)
                assert len((await sessions.list_sessions()).rows) == 1
            assert await sessions.delete_all() == 1

    await asyncio.gather(*(converse(number) for number in range(8)))
    await _furnish(service, "direct")
    await _furnish(pooled, "pooled")
    assert await _answers(pooled, "pooled", ON) == await _answers(service, "direct", ON)
    await assert_sound(protected)


async def test_appends_that_leave_together(service: str, protected: str) -> None:
    """P2, P7: those that wait for one session are of one tenant, and are told as one."""
    async with SessionRepository.connect(service, tenant="t", settings=ON) as sessions:
        await sessions.create("s")
        other = sessions.for_tenant("u")
        await other.create("s")
        calls = [(sessions, other)[at % 2].append("s", {"role": "user", "at": at}) for at in range(40)]
        assert sorted(place for [place] in await asyncio.gather(*calls)) == sorted([*range(20)] * 2)
        for each, rest in ((sessions, 0), (other, 1)):
            assert {message.body["at"] % 2 for message in await each.messages("s")} == {rest}
    await assert_sound(protected)


async def test_round_trips(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P10: two more for each call of one statement, none for the others."""
    sent: list[str] = []

    async def counted(run: Any, sending: Any, name: str, **options: Any) -> Any:
        sent.append(name)
        return await real(run, sending, name, **options)

    async with SessionRepository.connect(service, tenant="t", settings=ON) as sessions:
        await sessions.append("s", {"role": "user"}, create=True)
        real = postgresql._Run._send
        monkeypatch.setattr(postgresql._Run, "_send", counted)
        await sessions.append("s", {"role": "user"})
        await sessions.get("s")
        await sessions.trim("s", 1)
    trimming = ["begin", "access", "trim", "delete_range", "commit"]
    assert sent == ["begin", "append", "commit", "begin", "get", "commit", *trimming]


# --- without the filter -----------------------------------------------------------------------------------------------

_FILTER = re.compile(r"\b\w+\.tenant_id = (\$\d+)(?:::\w+)?")


@pytest.fixture
def unfiltered(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Statements that reach the rows of every tenant; the SQL of each."""
    sent: list[str] = []
    compiling = Dialect.compile

    def without(dialect: Dialect, statement: Any) -> Any:
        compiled = compiling(dialect, statement)
        sql = _FILTER.sub(r"\1::text IS NOT NULL", compiled.sql)
        sent.append(sql)
        return replace(compiled, sql=sql)

    monkeypatch.setattr(Dialect, "compile", without)
    yield sent
    assert not any("tenant_id = $" in sql for sql in sent)


async def test_without_its_filter_the_library_is_blind(protected: str, unfiltered: list[str]) -> None:
    """P7: this test can fail: where the database does not help, all tenants are one."""
    await _furnish(protected, "theirs", StoreSettings())
    async with SessionRepository.connect(protected, tenant="ours") as sessions:
        assert (await sessions.get(ID)).length > 0
        assert await sessions.delete_all() == 2
    assert not any((await _rows(protected, "theirs"))[:3])
    assert any("IS NOT NULL" in sql for sql in unfiltered)


async def test_the_database_alone(service: str, protected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P7: every verb answers a tenant that has nothing as if there were nothing, and changes nothing of the other's."""
    await _furnish(service, "theirs")
    before = await _rows(protected, "theirs")
    expected = await _answers(service, "filtered", ON)
    monkeypatch.setattr(Dialect, "compile", _unfiltered(Dialect.compile))
    assert await _answers(service, "alone", ON) == expected
    assert await _rows(protected, "theirs") == before
    assert sum(map(len, before)) > 8


def _unfiltered(compiling: Any) -> Any:
    def without(dialect: Dialect, statement: Any) -> Any:
        compiled = compiling(dialect, statement)
        return replace(compiled, sql=_FILTER.sub(r"\1::text IS NOT NULL", compiled.sql))

    return without


@contextlib.asynccontextmanager
async def _joined(url: str, way: str, tenant: str) -> AsyncIterator[SessionRepository]:
    """A repository within a transaction of the caller, which commits."""
    engine = create_async_engine(url)
    try:
        async with AsyncSession(engine) if way == "session" else engine.connect() as transaction:
            yield SessionRepository(engine, tenant=tenant, settings=ON).within(transaction)
            await transaction.commit()
    finally:
        await engine.dispose()


@pytest.mark.parametrize("way", ["connection", "session"])
async def test_the_database_alone_within(
    service: str, protected: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: the same inside transactions of the caller."""
    await _furnish(service, "theirs")
    before = await _rows(protected, "theirs")

    async def answers(tenant: str) -> list[Any]:
        found = []
        for name in SESSION_VERBS.keys() - OUTSIDE:
            async with _joined(service, way, f"{tenant} by {name}") as sessions:
                try:
                    answer = verbs.plain(await SESSION_VERBS[name](sessions, ID))
                except SessionStoreError as error:
                    answer = verbs.plain(error)
                found.append((name, answer))
        return found

    expected = await answers("filtered")
    monkeypatch.setattr(Dialect, "compile", _unfiltered(Dialect.compile))
    assert await answers("alone") == expected
    assert await _rows(protected, "theirs") == before


async def test_statements_that_name_another(service: str, protected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P7: a statement for another tenant than the one that was told finds nothing and stores nothing."""
    await _furnish(service, "theirs")
    before = await _rows(protected, "theirs")
    monkeypatch.setattr(postgresql, "telling", lambda _: tenants.telling("ours"))
    answers = dict(await _answers(service, "theirs", ON))
    assert await _rows(protected, "theirs") == before
    assert not any(await _rows(protected, "ours"))
    of_errors = {name: answer[0] for name, answer in answers.items() if isinstance(answer, tuple)}
    refused = {name for name, error in of_errors.items() if error is ReadOnlyStoreError}
    assert refused >= {"create another", "append to another", "save another", "documents: save_json", "all: claim"}
    for name in verbs.READS & answers.keys():
        answer = answers[name]
        missing = of_errors.get(name) is SessionNotFoundError
        assert missing or answer in (None, False, []) or answer["rows"] == [], (name, answer)


async def test_nothing_is_left_on_a_connection(service: str, protected: str) -> None:
    """P7: the next transaction on it has told nothing, and reaches nothing; not even rows of the empty tenant."""
    await _furnish(protected, "", StoreSettings())
    async with SessionRepository.connect(service, tenant="t", settings=ON) as sessions:
        await verbs.prepare(sessions)
        await asyncio.gather(*(sessions.append(ID, {"role": "user"}) for _ in range(5)))
        executor: Any = sessions._executor
        for held in executor._idle:
            assert await held.driver.fetchval(f"SELECT current_setting('{TENANT_SETTING}', true)") in {None, ""}
            for table in TENANT_TABLES:
                assert await held.driver.fetch(f"SELECT * FROM {table}") == []
        assert executor._idle


async def test_views_are_no_way_around(service: str, protected: str, accounts: Members) -> None:
    """P7: they read with the rights of their owner, for whom the policies count too."""
    await _furnish(service, "theirs")
    looker = accounts.url(protected, accounts.looker)
    await run(protected, f"GRANT SELECT ON sessionstore_message_texts TO {accounts.names.app}")
    assert await fetched(service, "SELECT * FROM sessionstore_message_texts") == []
    for view in FACTS_VIEWS:
        assert await fetched(looker, f"SELECT * FROM {view}") == []
        connection = await connect_postgres(looker)
        await connection.execute(f"SET {TENANT_SETTING} = 'theirs'")
        assert await connection.fetchval(f"SELECT count(*) FROM {view}") > 0
        await connection.close()
    await denied(service, "ALTER TABLE sessionstore_messages DISABLE ROW LEVEL SECURITY")
    await denied(service, f"DROP POLICY {TENANT_POLICY} ON sessionstore_messages")


@pytest.mark.parametrize(
    "tenant", ["o'brien", "back\\slash", "\\'; DROP TABLE x; --", "$1 %s {x}", "\u00e9\u2603", "''"]
)
async def test_tenants_as_constants(postgres_database: str, tenant: str) -> None:
    """P7: a name ends no constant of SQL, whatever the server takes a backslash for."""
    connection = await connect_postgres(postgres_database)
    for conforming in ("on", "off"):
        await connection.execute(f"SET standard_conforming_strings = {conforming}; SET escape_string_warning = off")
        await connection.execute(f"BEGIN; {tenants.telling(tenant)}")
        assert await connection.fetchval(f"SELECT current_setting('{TENANT_SETTING}')") == tenant
        await connection.execute("COMMIT")
    await connection.close()


# --- who is refused ---------------------------------------------------------------------------------------------------


async def _refused(url: str, settings: StoreSettings = ON) -> str:
    """The text with which each way to open a database is refused, and nothing else."""
    texts = set()
    with pytest.raises(SessionStoreError) as caught:
        await SessionRepository.connect(url, tenant="t", settings=settings).__aenter__()
    texts.add(str(caught.value))
    engine = create_async_engine(url)
    try:
        with pytest.raises(SessionStoreError) as caught:
            await SessionRepository(engine, tenant="t", settings=settings).exists("s")
        texts.add(str(caught.value))
        async with engine.connect() as connection:
            with pytest.raises(SessionStoreError) as caught:
                await SessionRepository(engine, tenant="t", settings=settings).within(connection).exists("s")
            texts.add(str(caught.value))
    finally:
        await engine.dispose()
    (text,) = texts
    return text


async def test_roles_that_policies_do_not_count_for(protected: str, service: str, accounts: Members) -> None:
    """P7, P12: a superuser, a role with BYPASSRLS, the owner of the tables and its members."""
    assert "a superuser" in await _refused(protected)
    assert "the owner" in await _refused(accounts.url(protected, accounts.deploy))
    await run(protected, f"GRANT {accounts.names.owner} TO {accounts.service}")
    assert "the owner" in await _refused(service)
    await run(protected, f"REVOKE {accounts.names.owner} FROM {accounts.service}")
    await run(protected, f"ALTER ROLE {accounts.service} BYPASSRLS")
    assert "BYPASSRLS" in await _refused(service)
    await run(protected, f"ALTER ROLE {accounts.service} NOBYPASSRLS")
    async with SessionRepository.connect(service, tenant="t", settings=ON) as sessions:
        assert not await sessions.exists("s")


@pytest.mark.parametrize(
    "undone",
    [
        "ALTER TABLE {0} DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE {0} NO FORCE ROW LEVEL SECURITY",
        f"DROP POLICY {TENANT_POLICY} ON {{0}}",
        f"ALTER POLICY {TENANT_POLICY} ON {{0}} USING (true)",
        f"ALTER POLICY {TENANT_POLICY} ON {{0}} WITH CHECK (true)",
        f"ALTER POLICY {TENANT_POLICY} ON {{0}} TO {{role}}",
        "CREATE POLICY everybody ON {0} USING (true)",
        "CREATE POLICY ours ON {0} FOR SELECT TO {role} USING (true)",
    ],
)
async def test_tables_that_are_not_protected(protected: str, service: str, accounts: Members, undone: str) -> None:
    """P7, P12: on any of the tables; the error names it."""
    for table in TENANT_TABLES:
        before = await rights(protected)
        await run(protected, undone.format(table, role=accounts.names.app))
        assert await _refused(service) != ""
        assert table in await _refused(service)
        await run(
            protected,
            *(f"DROP POLICY IF EXISTS {name} ON {table}" for name in (TENANT_POLICY, "everybody", "ours")),
        )
        await apply_roles(protected, names=accounts.names, row_level_security=True)
        assert await rights(protected) == before


async def test_the_example_of_the_documentation(service: str) -> None:
    """P7: as operations.md has people write it."""
    (block,) = (block for block in blocks("python", "docs/operations.md") if "security" in block.words)
    names: dict[str, Any] = {"DATABASE_URL": service}
    exec(block.code, names)  # noqa: S102  # of our own documentation
    async with names["sessions"] as sessions:
        assert (await sessions.create("s")).id == "s"
        assert sessions.settings == ON


async def test_policies_that_do_not_matter(protected: str, service: str, accounts: Members) -> None:
    """P7: one more that only forbids, and one for others."""
    await run(
        protected,
        "CREATE POLICY less ON sessionstore_messages AS RESTRICTIVE USING (role <> 'secret')",
        f"CREATE POLICY analyst ON sessionstore_messages FOR SELECT TO {accounts.names.reader} USING (true)",
    )
    await _furnish(service, "t")


async def test_a_database_without_policies(migrated: str, accounts: Members) -> None:
    """P7, P12: the setting alone protects nothing, and says so."""
    await apply_roles(migrated, names=accounts.names)
    await accounts.join(migrated)
    text = await _refused(accounts.url(migrated, accounts.service))
    assert all(table in text for table in TENANT_TABLES)
    assert "--row-level-security" in text


async def test_policies_without_the_setting(protected: str, service: str, accounts: Members) -> None:
    """P7, P12: everything would look empty, and a verification would find nothing wrong."""
    for url in (service, accounts.url(protected, accounts.deploy)):
        assert "row_level_security=True" in await _refused(url, StoreSettings())
    async with SessionRepository.connect(protected) as sessions:
        await sessions.create("a superuser sees everything, and may look after it")


async def test_what_is_about_all_tenants(service: str) -> None:
    """P7, P12: refused by name, where an answer would be about nobody; and so is the empty tenant."""
    async with SessionRepository.connect(service, tenant="t", settings=ON) as sessions:
        await verbs.prepare(sessions)
        assert [size.tenant for size in await operations.sizes(sessions)] == ["t"]
        assert [finding async for finding in verification.verify(sessions)] == []
        with pytest.raises(InvalidArgumentError, match="one tenant at a time"):
            await operations.sizes(sessions, all_tenants=True)
        with pytest.raises(InvalidArgumentError, match="one tenant at a time"):
            [finding async for finding in verification.verify(sessions, all_tenants=True)]
        with pytest.raises(InvalidArgumentError, match="one tenant at a time"):
            await sessions.for_tenant("").exists("s")
        assert await sessions.exists(ID)
    async with _joined(service, "connection", "") as joined:
        with pytest.raises(InvalidArgumentError, match="one tenant at a time"):
            await joined.exists("s")


def test_sqlite_has_none(sqlite_file: Path) -> None:
    """P12: refused before any I/O, as is a setting that is none."""
    for url in ("sqlite://", f"sqlite:///{sqlite_file}"):
        with pytest.raises(InvalidArgumentError, match="PostgreSQL"):
            SessionRepository.connect(url, settings=ON)
    wrong: Any = "yes"
    with pytest.raises(InvalidArgumentError, match="row_level_security"):
        StoreSettings(row_level_security=wrong)


async def test_in_a_schema(empty: str, accounts: Members) -> None:
    """P7: the tables of the store are looked at, not those of the same names elsewhere."""
    settings = StoreSettings(schema="chat", row_level_security=True)
    await migrate.upgrade(empty)
    await migrate.upgrade(empty, schema="chat")
    await apply_roles(empty, schema="chat", names=accounts.names, row_level_security=True)
    await accounts.join(empty)
    service = accounts.url(empty, accounts.service)
    await _furnish(service, "t", settings)
    await _furnish(service, "u", settings)
    async with SessionRepository.connect(service, tenant="u", settings=settings) as sessions:
        assert await sessions.delete_all() == 2
    await run(empty, "ALTER TABLE chat.sessionstore_documents NO FORCE ROW LEVEL SECURITY")
    assert "sessionstore_documents" in await _refused(service, settings)


# --- migrations and the command line ----------------------------------------------------------------------------------


async def test_the_owner_still_migrates(protected: str, accounts: Members) -> None:
    """X06: down and up again; policies go with their tables."""
    deploy = accounts.url(protected, accounts.deploy)
    assert await migrate.downgrade(deploy, "base") is None
    await migrate.upgrade(deploy)


async def test_the_script_twice(protected: str, accounts: Members) -> None:
    """P12: running it again changes nothing, and without the option it takes nothing back."""
    before = await rights(protected)
    for again in (True, False):
        await apply_roles(protected, names=accounts.names, row_level_security=again)
        assert await rights(protected) == before
    assert len(before[3]) == len(TENANT_TABLES)


def test_the_command_line(service: str, protected: str, tmp_path: Path) -> None:
    """P7, P12: with the option or the variable it works for one tenant; without, it says what is missing."""
    cli = Cli(service, tmp_path)
    on = ("--row-level-security", "--tenant", "t")
    lines = cli.lines({"id": "s", "messages": [{"role": "user", "content": "hello"}]})
    cli.run(*on, "import", lines)
    assert "hello" in cli.run(*on, "show", "s").stdout
    assert "hello" in cli.run("show", "s", "--tenant", "t", SESSIONSTORE_ROW_LEVEL_SECURITY="1").stdout
    assert "--row-level-security" in cli.refused("--tenant", "t", "list")
    assert "one tenant at a time" in cli.refused("--row-level-security", "verify", "--all-tenants")
    assert "one tenant at a time" in cli.refused("--row-level-security", "list")
    assert "superuser" in Cli(protected, tmp_path).refused(*on, "list")
    assert "CREATE POLICY" in cli.run("db", "roles", "--row-level-security").stdout


async def test_switched_on_beside_a_running_service(migrated: str, accounts: Members) -> None:
    """P7, P12: what is open without the setting is refused from then on; nothing seems to be missing."""
    await apply_roles(migrated, names=accounts.names)
    await accounts.join(migrated)
    async with SessionRepository.connect(accounts.url(migrated, accounts.service), tenant="acme") as sessions:
        await sessions.append("s", {"role": "user"}, create=True)
        await apply_roles(migrated, names=accounts.names, row_level_security=True)
        for call in (
            sessions.find("s"),
            sessions.exists("s"),
            sessions.list_sessions(),
            sessions.delete("s"),
            sessions.append("s", {"role": "user"}),
            sessions.append("t", {"role": "user"}, create=True),
        ):
            with pytest.raises(ReadOnlyStoreError, match="lacks a right"):
                await call


async def test_a_policy_that_was_changed_is_made_anew(protected: str, service: str, accounts: Members) -> None:
    """P12: by the command that the error names."""
    await run(protected, f"ALTER POLICY {TENANT_POLICY} ON sessionstore_messages USING (true)")
    with pytest.raises(SessionStoreError, match="sessionstore db roles --row-level-security"):
        await SessionRepository.connect(service, tenant="acme", settings=ON).__aenter__()
    await apply_roles(protected, names=accounts.names, row_level_security=True)
    async with SessionRepository.connect(service, tenant="acme", settings=ON) as sessions:
        assert not await sessions.exists("s")


async def test_a_member_of_an_exempt_role(protected: str, service: str, accounts: Members) -> None:
    """P12: it could become that role with one statement."""
    name = accounts.service
    await run(protected, f"CREATE ROLE {name}_exempt BYPASSRLS", f"GRANT {name}_exempt TO {name}")
    try:
        with pytest.raises(SessionStoreError, match="a member of a superuser"):
            await SessionRepository.connect(service, tenant="acme", settings=ON).__aenter__()
    finally:
        await run(protected, f"DROP ROLE {name}_exempt")
