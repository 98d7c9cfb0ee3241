"""Telling PostgreSQL whose rows a transaction may see, where row-level security is on."""

from __future__ import annotations

from typing import Any, Final

from sessionstore.dialects.base import Call
from sessionstore.errors import InvalidArgumentError
from sessionstore.schema import TENANT_SETTING
from sessionstore.units.unit import Unit

TELL: Final = f"SELECT set_config('{TENANT_SETTING}', $1, true)"
"""Until the transaction ends, and no longer: the next one on the connection may be anybody's."""


def tenant_of(unit: Unit[Any], call: Call) -> str | None:
    """The tenant of a unit, by its first statement; None if it looks at nothing of a tenant.

    All statements of a unit name one tenant. Should one name another, the database shows it nothing.

    Raises:
        InvalidArgumentError: it is about every tenant, and there would seem to be none; or about the empty one.
    """
    if unit.tenantless:
        return None
    tenant = call.params.get("tenant")
    # The empty one could not be told from none: a connection has it left over from the last transaction.
    if not isinstance(tenant, str) or not tenant:
        raise InvalidArgumentError(
            "row-level security shows one tenant at a time, and the empty one is none: what is about all of them needs "
            "a role that it does not apply to, and a repository without row_level_security"
        )
    return tenant


def telling(tenant: str) -> str:
    """The same as `TELL` with its argument, for the protocol that takes several statements at once but no arguments."""
    return TELL.replace("$1", quoted(tenant))


def quoted(text: str) -> str:
    """A text as a constant of SQL, whatever `standard_conforming_strings` says."""
    doubled = text.replace("'", "''")
    return "E'" + doubled.replace("\\", "\\\\") + "'" if "\\" in text else f"'{doubled}'"
