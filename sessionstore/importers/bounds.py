"""Every number of importing and exporting, each with its reason."""

from __future__ import annotations

from typing import Final

LINE_BYTES: Final = 1024 * 1024 * 1024
"""Longest line or session file: a session is held in memory whole, and one beyond this is more likely no session."""

FLIGHT_SESSIONS: Final = 64
"""Most sessions read ahead or being stored: as many as share one commit on SQLite."""

FLIGHT_BYTES: Final = 16 * 1024 * 1024
"""Most bytes of them. Decoded they take some six times that; one session alone may be larger."""

SNAPSHOTS: Final = 8
"""Most sessions read at once for an export: enough to hide the round trips of a server."""

SNAPSHOT_MESSAGES: Final = 20_000
"""Most messages of them (or one session): about 10 MB at the usual size of a message."""

LISTING_PAGE: Final = 500
"""Sessions of one page of the listing that an export follows."""

CLOCK_SKEW_SECONDS: Final = 3600
"""How far the clocks of other writers may be behind ours, when an export looks for what changed while it ran."""

EXPORT_PASSES: Final = 10
"""How often an export looks again for sessions that changed meanwhile, before it gives up on a store that busy."""

IGNORED_KEYS: Final = 100
"""Most unknown keys that are reported by name: a file whose keys are data would fill the report."""

FILE_NAME_CHARS: Final = 200
"""Longest stem of an exported file: file systems take 255 bytes, and a suffix has to fit."""
