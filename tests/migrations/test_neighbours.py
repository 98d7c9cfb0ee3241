"""The store shares a database with a service, its Alembic history, and other stores in schemas of their own."""

# ruff: noqa: S608 - the names of tables are constants
from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from sessionstore import SessionRepository, StoreSettings, migrate
from sessionstore.errors import InvalidArgumentError, SchemaOutOfDateError, SessionStoreError
from sessionstore.schema import REVISION, VIEWS
from sessionstore.status import status
from sessionstore.upkeep import maintain
from tests.migrations.databases import VERSION_TABLE, catalog, execute, fetch

SERVICE = [
    "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)",
    "INSERT INTO alembic_version VALUES ('5e41ce')",
    "CREATE TABLE sessions (id INTEGER PRIMARY KEY)",
    "INSERT INTO sessions VALUES (7)",
]


async def test_the_service_and_its_history_are_left_alone(empty_url: str) -> None:
    await execute(empty_url, *SERVICE)
    await migrate.upgrade(empty_url)
    await migrate.downgrade(empty_url, "base")
    await migrate.upgrade(empty_url)
    assert await fetch(empty_url, "SELECT * FROM alembic_version") == [("5e41ce",)]
    assert await fetch(empty_url, "SELECT * FROM sessions") == [(7,)]
    assert await fetch(empty_url, f"SELECT * FROM {VERSION_TABLE}") == [(REVISION,)]


async def test_tables_of_another_history_are_not_migrated_by_ours(revisions: object, empty_url: str) -> None:
    await migrate.upgrade(empty_url)
    await execute(empty_url, f"DROP TABLE {VERSION_TABLE}")
    assert await migrate.upgrade(empty_url) == REVISION
    with pytest.raises(SessionStoreError, match="another Alembic history"):
        await migrate.downgrade(empty_url, "base")


async def test_several_stores_in_one_database(postgres_empty: str) -> None:
    await migrate.upgrade(postgres_empty)
    for schema in ("one", "two"):
        with pytest.raises(SchemaOutOfDateError, match=f"sessionstore db upgrade --schema {schema}"):
            await migrate.check(postgres_empty, schema=schema)
        assert await migrate.upgrade(postgres_empty, schema=schema) == REVISION
    unqualified = [(name, view.replace("two.", "")) for name, view in (await catalog(postgres_empty, "two"))["views"]]
    one, two, public = [await catalog(postgres_empty, schema) for schema in ("one", "two", "public")]
    for what in ("relations", "columns", "indexes"):
        assert one[what] == two[what] == public[what]
    assert len(one["constraints"]) == len(public["constraints"])
    assert [name for name, _ in unqualified] == sorted(VIEWS)

    assert await migrate.downgrade(postgres_empty, "base", schema="one") is None
    assert await migrate.current(postgres_empty, schema="one") is None
    assert await migrate.current(postgres_empty, schema="two") == REVISION
    assert await catalog(postgres_empty) == public
    # What the view reads is in its own schema, whatever the search path of the reader.
    await execute(postgres_empty, "DROP TABLE sessionstore_messages CASCADE")
    assert await fetch(postgres_empty, "SELECT * FROM two.sessionstore_message_texts") == []


async def test_a_schema_that_exists_needs_no_right_to_create_one(postgres_empty: str) -> None:
    role = "sessionstore_test_owner"
    await execute(
        postgres_empty,
        f"DROP ROLE IF EXISTS {role}",
        f"CREATE ROLE {role}",
        f"CREATE SCHEMA given AUTHORIZATION {role}",
    )
    engine = create_async_engine(postgres_empty, connect_args={"server_settings": {"role": role}})
    assert await migrate.upgrade(engine, schema="given") == REVISION
    with pytest.raises(SessionStoreError, match="may not do that"):
        await migrate.upgrade(engine, schema="missing")
    await engine.dispose()
    await execute(postgres_empty, "DROP SCHEMA given CASCADE", f"DROP ROLE {role}")


async def test_a_connection_of_the_callers_pool_gets_its_settings_back(postgres_empty: str) -> None:
    engine = create_async_engine(postgres_empty, pool_size=2, max_overflow=0)
    names = ("search_path", "lock_timeout", "statement_timeout", "idle_session_timeout")
    async with engine.connect() as one, engine.connect() as other:
        for connection in (one, other):
            await connection.exec_driver_sql("SET lock_timeout = '123ms'")
            await connection.commit()
    await migrate.upgrade(engine, schema="elsewhere")
    async with engine.connect() as one, engine.connect() as other:
        for connection in (one, other):
            found = [(await connection.exec_driver_sql(f"SHOW {name}")).scalar() for name in names]
            assert found == ['"$user", public', "123ms", "0", "0"]
            locks = await connection.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
            assert locks.scalar() == 0
    await engine.dispose()


@pytest.mark.parametrize("schema", ["order", "user", "select"])
async def test_schemas_with_the_names_of_keywords(postgres_empty: str, schema: str) -> None:
    await migrate.upgrade(postgres_empty, schema=schema)
    async with SessionRepository.connect(postgres_empty, settings=StoreSettings(schema=schema)) as sessions:
        await sessions.append("s", {"role": "user"}, create=True)
        await maintain(sessions)
        assert (await status(sessions)).repairs == ()


@pytest.mark.parametrize("schema", ["", "Upper", 'a"b', "a; DROP TABLE x", "pg" + "x" * 62])
async def test_schema_names_are_plain(postgres_empty: str, schema: str) -> None:
    with pytest.raises(InvalidArgumentError, match="schema must be"):
        await migrate.upgrade(postgres_empty, schema=schema)
    with pytest.raises(InvalidArgumentError, match="schema must be"):
        migrate.sql(schema=schema)
