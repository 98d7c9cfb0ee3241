"""What the store calls what happens to a session."""

from __future__ import annotations

from typing import Final

REWRITING: Final = frozenset({"truncated", "replaced", "compacted", "reset"})
"""Kinds of events after which history is no longer what a reader may have seen."""

STORE_KINDS: Final = REWRITING | {
    *("created", "forked", "trimmed", "updated", "metadata_changed", "deleted", "evicted"),
    *("messages", "rewritten"),
}
"""Kinds of events and changes that are the store's: a caller's own event has another one."""
