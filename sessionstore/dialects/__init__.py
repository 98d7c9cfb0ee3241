"""What differs between the databases, by capability. Nothing outside this package asks for a database's name."""

from __future__ import annotations

from sessionstore.dialects.base import Dialect, Statement
from sessionstore.dialects.registry import dialect_of

__all__ = ["Dialect", "Statement", "dialect_of"]
