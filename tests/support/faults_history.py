"""What a run was told of its appends, and whether the tables agree: nothing lost, nothing twice, nothing torn."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sessionstore import NewMessage, StoreBusyError, StoreTimeoutError, StoreUnavailableError
from tests.support.invariants import assert_sound, batch_faults

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sessionstore import SessionRepository
    from tests.support.invariants import Stored, StoredMessage

__all__ = ["SHARED", "History", "Writer", "messages_of"]

SHARED = "shared"
"""The session that everybody appends to. Nothing is ever dropped from it, so positions stay what they were."""


@dataclass
class History:
    """What callers know of the batches they appended.

    Attributes:
        acknowledged: the positions that were returned, by batch.
        unknown: batches whose append ended with `maybe_committed`, or with the caller's death.
        errors: the names of the errors that callers saw, in order.
        longest: seconds of the longest call.
    """

    acknowledged: dict[str, list[int]] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)
    longest: float = 0.0

    def lost(self, messages: Sequence[StoredMessage]) -> list[str]:
        """The acknowledged batches that are not where they were said to be."""
        stored = {(message.body["batch"], message.body["at"]): message.position for message in messages}
        return [
            batch
            for batch, positions in self.acknowledged.items()
            if [stored.get((batch, at)) for at in range(len(positions))] != positions
        ]

    def faults(self, messages: Sequence[StoredMessage]) -> list[str]:
        """Whatever is wrong with a session that was only appended to, by these callers."""
        found = [f"batch {batch} was acknowledged and is lost" for batch in self.lost(messages)]
        found += batch_faults([message.body for message in messages])
        stored = {message.body["batch"] for message in messages}
        found += [f"batch {batch} is of nobody" for batch in stored - self.acknowledged.keys() - self.unknown]
        return found

    async def check(self, url: str, repository: SessionRepository | None = None) -> Stored:
        """Check all tables, and the shared session against this history."""
        stored = await assert_sound(url, repository)
        found = self.faults(stored.messages["", SHARED])
        assert not found, found[:20]
        return stored


def messages_of(batch: str, size: int, *, with_ids: bool = False, filler: str = "") -> list[Any]:
    """Messages that say which batch they are of, and where in it."""
    bodies = [{"role": "user", "batch": batch, "at": at, "of": size, "filler": filler} for at in range(size)]
    if not with_ids:
        return bodies
    return [NewMessage(body, message_id=f"{batch}:{body['at']}") for body in bodies]


class Writer:
    """A caller that appends batch after batch to the shared session, and tries again as the errors allow it.

    With message ids it repeats an append whatever happened; without, only where the error says that nothing has.

    Args:
        told: called with each acknowledged batch and its positions.
    """

    def __init__(
        self,
        repository: SessionRepository,
        history: History,
        name: str,
        *,
        with_ids: bool,
        filler: str = "",
        told: Callable[[str, list[int]], None] | None = None,
    ) -> None:
        self.history = history
        self.done = 0
        self._repository = repository
        self._name = name
        self._with_ids = with_ids
        self._filler = filler
        self._told = told
        self._number = 0

    async def append(self) -> bool:
        """Append one more batch; whether it was acknowledged."""
        batch = f"{self._name}-{self._number}"
        messages = messages_of(batch, 1 + self._number % 4, with_ids=self._with_ids, filler=self._filler)
        self._number += 1
        # Whatever becomes of us in the middle of it: until it is acknowledged, nobody knows.
        self.history.unknown.add(batch)
        while True:
            started = time.monotonic()
            try:
                positions = await self._repository.append(SHARED, *messages)
            except (StoreBusyError, StoreTimeoutError, StoreUnavailableError) as error:
                self.history.errors.append(type(error).__name__)
                if error.maybe_committed and not self._with_ids:
                    return False
            else:
                self.history.unknown.remove(batch)
                self.history.acknowledged[batch] = positions
                self.done += 1
                if self._told is not None:
                    self._told(batch, positions)
                return True
            finally:
                self.history.longest = max(self.history.longest, time.monotonic() - started)

    async def until(self, enough: Callable[[], bool]) -> None:
        """Append until there is enough."""
        while not enough():
            await self.append()
