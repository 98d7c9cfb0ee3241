"""How often a fault is repeated: a few times in `make test`, in full in `make test-long`. The test is the same."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

__all__ = ["FULL", "figure", "rounds"]

VARIABLE = "SESSIONSTORE_TEST_ROUNDS"
FULL = os.environ.get(VARIABLE, "short") == "full"
"""Whether this run repeats faults in full."""


def rounds(short: int, full: int) -> int:
    """How often to do something in this run."""
    return full if FULL else short


def figure(request: pytest.FixtureRequest, **counts: object) -> None:
    """Note what a test measured; `--junitxml` shows it."""
    for name, count in counts.items():
        request.node.user_properties.append((name, count))
