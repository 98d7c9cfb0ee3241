"""Rights on PostgreSQL, as a script for a DBA to read and run: who may change tables, who rows, who only looks.

Three roles that cannot log in; whoever can is made a member of one. The script may be run at any time and as often as
one likes, before there are tables and after: it does what is left to do, in one transaction.
"""

from __future__ import annotations

import re
from dataclasses import astuple, dataclass
from typing import Any, Final

from asyncpg import InterfaceError, PostgresError
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from sessionstore.dialects.urls import normalize_url
from sessionstore.errors import InvalidArgumentError
from sessionstore.executors.servers import server_engine
from sessionstore.executors.translate import translated
from sessionstore.schema import (
    FACTS_VIEWS,
    TENANT_CONDITION,
    TENANT_POLICY,
    TENANT_TABLES,
    VERSION_TABLE,
    VIEWS,
    BackfillRow,
    Base,
    SchemaRow,
)
from sessionstore.settings import StoreSettings

__all__ = ["RoleNames", "apply_roles", "roles_sql"]

_NAME: Final = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")
_RESERVED: Final = frozenset({"public", "none"})

PUBLIC: Final = "public"
"""Where tables are that are in no schema of their own."""


@dataclass(frozen=True, slots=True)
class RoleNames:
    """What the roles are called.

    Attributes:
        owner: owns the tables and migrates them.
        app: reads and writes rows: what the service is a member of.
        reader: sees who talked when and how much, and nothing of what was said.
    """

    owner: str = "sessionstore_owner"
    app: str = "sessionstore_app"
    reader: str = "sessionstore_reader"

    def __post_init__(self) -> None:
        """Refuse names that could not be, or that mean something else."""
        names = astuple(self)
        for name in names:
            if not _NAME.fullmatch(str(name)) or name in _RESERVED:
                raise InvalidArgumentError("names of roles must be plain lower-case PostgreSQL names")
        if len(set(names)) < len(names):
            raise InvalidArgumentError("the roles need three names")


_DEFAULT_NAMES: Final = RoleNames()

_HEAD: Final = """\
-- Roles for sessionstore in the schema "{schema}". They cannot log in; make those that can members of them:
--   GRANT "{app}" TO chat;           -- the service
--   GRANT "{reader}" TO ann;         -- somebody who looks
--   GRANT "{owner}" TO deploy;       -- what migrates, and lets the owner own what it makes:
--   ALTER ROLE deploy SET role = '{owner}';
-- Run it again after the first migration: before there are tables, nobody is given any.
BEGIN;
SET LOCAL lock_timeout = '4s';

DO $roles$
DECLARE
  role_name text;
BEGIN
  FOREACH role_name IN ARRAY ARRAY['{owner}', '{app}', '{reader}'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
    END IF;
  END LOOP;
  -- To give something to a role one must be a member of it, or a superuser.
  IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
    EXECUTE format('GRANT %I TO %I', '{owner}', current_user);
  END IF;
END
$roles$;
"""

_IN_PUBLIC: Final = """
-- What PostgreSQL 15 and newer begin with. Others who make tables in "public" need a GRANT CREATE of their own.
REVOKE CREATE ON SCHEMA "{schema}" FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA "{schema}" TO "{owner}";
"""

_IN_ITS_OWN: Final = """
CREATE SCHEMA IF NOT EXISTS "{schema}" AUTHORIZATION "{owner}";
ALTER SCHEMA "{schema}" OWNER TO "{owner}";
"""

_RIGHTS: Final = """\
GRANT USAGE ON SCHEMA "{schema}" TO "{app}", "{reader}";

DO $rights$
DECLARE
  relation regclass;
BEGIN
  FOR relation IN
    SELECT oid FROM pg_class
    WHERE relnamespace = '{schema}'::regnamespace AND relname IN ({ours}) AND relowner <> '{owner}'::regrole
  LOOP
    EXECUTE format('ALTER TABLE %s OWNER TO %I', relation, '{owner}');
  END LOOP;

  FOR relation IN
    SELECT oid FROM pg_class WHERE relnamespace = '{schema}'::regnamespace AND relname IN ({tables})
  LOOP
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO %I', relation, '{app}');
  END LOOP;

  FOR relation IN
    SELECT oid FROM pg_class WHERE relnamespace = '{schema}'::regnamespace AND relname IN ({views})
  LOOP
    EXECUTE format('GRANT SELECT ON %s TO %I', relation, '{reader}');
  END LOOP;

  relation := to_regclass('"{schema}"."{version_table}"');
  IF relation IS NOT NULL THEN
    EXECUTE format('REVOKE ALL ON %s FROM %I', relation, '{app}');
  END IF;
  relation := to_regclass('"{schema}"."{backfills}"');
  IF relation IS NOT NULL THEN
    -- How far they are, but not the key of the last row, which may be any tenant's.
    EXECUTE format('REVOKE ALL ON %s FROM %I', relation, '{app}');
    EXECUTE format('GRANT SELECT ({looked_at}) ON %s TO %I', relation, '{app}');
  END IF;
  relation := to_regclass('"{schema}"."{schema_table}"');
  IF relation IS NOT NULL THEN
    EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON %s FROM %I', relation, '{app}');
    EXECUTE format('GRANT SELECT ON %s TO %I', relation, '{app}');
    -- Tables of later revisions. Not before there are any: these two would be among them.
    ALTER DEFAULT PRIVILEGES FOR ROLE "{owner}" IN SCHEMA "{schema}"
      GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO "{app}";
  END IF;
END
$rights$;
"""

_ROW_LEVEL_SECURITY: Final = """
-- Row-level security: a transaction reaches the rows of the tenant that it has named, and no others. FORCE is for the
-- owner, and so for the views, which read with its rights. Services that name none are refused from here on: stop them
-- before, and start them with row_level_security=True.
DO $security$
DECLARE
  relation regclass;
  condition text := '{condition}';
BEGIN
  FOR relation IN
    SELECT oid FROM pg_class WHERE relnamespace = '{schema}'::regnamespace AND relname IN ({tables})
  LOOP
    IF NOT EXISTS (
      SELECT FROM pg_policy
      WHERE polrelid = relation AND polname = '{policy}' AND polpermissive AND polcmd = '*' AND polroles = '{{0}}'
        AND pg_get_expr(polqual, relation) = '{condition}' AND pg_get_expr(polwithcheck, relation) = '{condition}'
    ) THEN
      EXECUTE format('DROP POLICY IF EXISTS {policy} ON %s', relation);
      EXECUTE format('CREATE POLICY {policy} ON %s USING (%s) WITH CHECK (%s)', relation, condition, condition);
    END IF;
    IF NOT (SELECT relrowsecurity AND relforcerowsecurity FROM pg_class WHERE oid = relation) THEN
      EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', relation);
    END IF;
  END LOOP;
END
$security$;
"""

_LOOKED_AT: Final = ", ".join(
    column.name for column in Base.metadata.tables[BackfillRow.__tablename__].c if column.name != "after_key"
)

_TAIL: Final = """
COMMIT;
"""


def roles_sql(*, schema: str | None = None, names: RoleNames = _DEFAULT_NAMES, row_level_security: bool = False) -> str:
    """The script that makes the roles and gives each what it needs, and no more.

    Args:
        schema: of the tables; None for `public`.
        row_level_security: also let the database keep tenants apart; never takes that back.

    Raises:
        InvalidArgumentError: the schema is no plain name.
    """
    schema = StoreSettings(schema=schema).schema or PUBLIC
    security = (_ROW_LEVEL_SECURITY,) if row_level_security else ()
    parts = (_HEAD, _IN_PUBLIC if schema == PUBLIC else _IN_ITS_OWN, _RIGHTS, *security, _TAIL)
    return "".join(parts).format(
        schema=schema,
        owner=names.owner,
        app=names.app,
        reader=names.reader,
        ours=_listed((*Base.metadata.tables, *VIEWS, VERSION_TABLE)),
        tables=_listed(TENANT_TABLES),
        backfills=BackfillRow.__tablename__,
        looked_at=_LOOKED_AT,
        condition=TENANT_CONDITION.replace("'", "''"),
        views=_listed(FACTS_VIEWS),
        version_table=VERSION_TABLE,
        schema_table=SchemaRow.__tablename__,
        policy=TENANT_POLICY,
    )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"'{name}'" for name in names)


async def apply_roles(
    database: str | URL,
    *,
    schema: str | None = None,
    names: RoleNames = _DEFAULT_NAMES,
    row_level_security: bool = False,
) -> None:
    """Run the script of `roles_sql`, all of it or nothing.

    Args:
        database: the URL of a role that may: a superuser, or the owner of the database with CREATEROLE.

    Raises:
        InvalidArgumentError: a SQLite database, which knows no roles.
        ReadOnlyStoreError: the role may not.
        StoreBusyError: somebody kept a table locked for 4 seconds.
        StoreUnavailableError: no connection.
    """
    script = roles_sql(schema=schema, names=names, row_level_security=row_level_security)
    url = normalize_url(database)
    if url.get_backend_name() == "sqlite":
        raise InvalidArgumentError("roles are for PostgreSQL; a SQLite file has the rights of its file system")
    engine = server_engine(url, "sessionstore-roles")
    try:
        await _run(engine, script)
    finally:
        await engine.dispose()


async def _run(engine: AsyncEngine, script: str) -> None:
    try:
        async with engine.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            await driver.execute(script)  # by the simple protocol, which takes a script
    except (DBAPIError, PostgresError, InterfaceError, OSError) as error:
        raise translated(error, "roles") from None
