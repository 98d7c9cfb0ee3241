"""Other stores, each as it is shipped, where it can do a workload at all.

They are in the extra `peers`, best installed into an environment of their own. None of them is imported before it is
asked for. A peer is a contender with two methods more: `prepare` makes its tables and fills them in bulk, `mark` tells
which message something is that it read.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Final, Protocol, Self

from benchmarks.contenders import Contender
from benchmarks.data import Seeded

_PEERS: Final = (
    ("sqlite", "agents.extensions.memory", "benchmarks.peers.openai_agents", "OpenaiSqlAlchemy"),
    ("sqlite", "agents", "benchmarks.peers.openai_agents", "OpenaiSqlite"),
    ("sqlite", "google.adk.sessions", "benchmarks.peers.google_adk", "GoogleAdk"),
    ("sqlite", "langchain_community.chat_message_histories", "benchmarks.peers.langchain", "Langchain"),
    ("postgresql", "agents.extensions.memory", "benchmarks.peers.openai_agents", "OpenaiSqlAlchemy"),
    ("postgresql", "google.adk.sessions", "benchmarks.peers.google_adk", "GoogleAdk"),
    ("postgresql", "langchain_community.chat_message_histories", "benchmarks.peers.langchain", "Langchain"),
)


class Peer(Contender, Protocol):
    """A contender with tables of its own."""

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect."""

    @classmethod
    async def prepare(cls, url: str, sessions: Sequence[Seeded]) -> None:
        """Make its tables and fill them."""

    def mark(self, message: Any) -> tuple[int, int]:
        """Task and number of a message that was read."""


def installed(kind: str) -> tuple[list[type[Peer]], list[str]]:
    """The peers that can be imported, and a line for each that cannot."""
    found, skipped = [], []
    for database, needed, module, name in _PEERS:
        if database == kind:
            try:
                importlib.import_module(needed)
            except ImportError as error:
                skipped.append(f"skipped {name}: {error}")
            else:
                found.append(getattr(importlib.import_module(module), name))
    return found, skipped
