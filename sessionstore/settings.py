"""The settings of a store, in one place; every default is the safe choice."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, fields
from typing import Final, Literal

from sessionstore import limits
from sessionstore.errors import InvalidArgumentError

_SCHEMA_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Settings of a repository and of every handle made from it.

    Attributes:
        operation_timeout_seconds: every call ends within this time, lock waits and retries included.
        durability: SQLite's `synchronous`. `"normal"` may lose the newest commits at a power cut, never at a crash.
            PostgreSQL's own setting is only checked.
        schema: the PostgreSQL schema of the tables; None leaves it to the connection's search path.
        row_level_security: each transaction tells PostgreSQL its tenant, for policies that `sessionstore db roles
            --row-level-security` makes. Refused where they could not protect, and needed where they are.
        session_cap: sessions a tenant may keep; a new one over it evicts the least recently accessed. None: no cap.
        max_body_bytes: largest encoded body.
        max_call_bytes: largest sum of encoded bodies in one append.
        max_batch: most messages in one append.
        max_depth: deepest nesting of a body.
        max_watchers: most watchers and subscribed sessions of one database in this process.
        event_log_dir: where what happens to the sessions that this process works on is logged as JSON lines, with
            their contents; the environment's `SESSIONSTORE_EVENT_LOG_DIR` by default. None and nothing there: no log.
    """

    operation_timeout_seconds: float = limits.OPERATION_TIMEOUT_SECONDS
    durability: Literal["full", "normal"] = "full"
    schema: str | None = None
    row_level_security: bool = False
    session_cap: int | None = None
    max_body_bytes: int = limits.BODY_BYTES
    max_call_bytes: int = limits.CALL_BYTES
    max_batch: int = limits.BATCH
    max_depth: int = limits.DEPTH
    max_watchers: int = limits.WATCHERS
    event_log_dir: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        """Refuse settings that could not work, so that no call has to."""
        timeout = self.operation_timeout_seconds
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
            raise InvalidArgumentError("operation_timeout_seconds must be a number")
        if not math.isfinite(timeout) or timeout <= 0:
            raise InvalidArgumentError("operation_timeout_seconds must be positive and finite")
        if self.durability not in {"full", "normal"}:
            raise InvalidArgumentError("durability must be 'full' or 'normal'")
        if self.schema is not None and not _SCHEMA_NAME.fullmatch(str(self.schema)):
            raise InvalidArgumentError("schema must be a plain lower-case PostgreSQL name")
        if not isinstance(self.row_level_security, bool):
            raise InvalidArgumentError("row_level_security must be True or False")
        if self.event_log_dir is not None and not isinstance(self.event_log_dir, (str, os.PathLike)):
            raise InvalidArgumentError("event_log_dir must be a path or None")
        ceilings = {"session_cap": limits.SESSION_CAP_MAX, "max_depth": limits.DEPTH_CEILING}
        for field in fields(self):
            if field.name.startswith("max_") or (field.name == "session_cap" and self.session_cap is not None):
                value = getattr(self, field.name)
                ceiling = ceilings.get(field.name, limits.INT64_MAX)
                if type(value) is not int or not 1 <= value <= ceiling:
                    raise InvalidArgumentError(f"{field.name} must be an integer from 1 to {ceiling}")
