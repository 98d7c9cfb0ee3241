"""What operators need beside the verbs of an application: measures, the tree of forks, a prune that can be watched."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from sessionstore import arguments, retention
from sessionstore.dialects.base import Row
from sessionstore.errors import SessionExistsError
from sessionstore.limits import PAGE_MAX, PRUNE_BATCH
from sessionstore.repository import SessionRepository
from sessionstore.statements.listing import PROJECT_KEY
from sessionstore.units import store
from sessionstore.units.removal import Removed
from sessionstore.units.store import TenantSize
from sessionstore.units.transcripts import Save
from sessionstore.units.unit import Steps, Unit
from sessionstore.values import PrunePolicy, PruneReport, Session, SessionSummary, Transcript

# ruff: noqa: SLF001  # these functions are verbs of the repository that applications do not need


async def sizes(repository: SessionRepository, *, all_tenants: bool = False) -> list[TenantSize]:
    """Measure what the repository's tenant stores, or every tenant of the database. Reads every body."""
    return await repository._run(store.sizes(None if all_tenants else repository.tenant))


async def save_new(repository: SessionRepository, transcript: Transcript) -> Session:
    """Save a transcript unless there is a session of its id, in one transaction.

    Raises:
        SessionExistsError: there is one; it is left as it is.
        InvalidMessageError, InvalidArgumentError: as for `save`.
    """
    save = arguments.save(repository.tenant, transcript, None, repository.settings)
    new = _SaveNew(**{entry.name: getattr(save, entry.name) for entry in fields(save)})
    return (await repository._run(new.unit())).session


@dataclass(frozen=True, slots=True)
class _SaveNew(Save):
    """A save that finds nothing to overwrite, or fails."""

    def _overwrite(self, row: Row) -> Steps[None]:
        raise SessionExistsError(row[0])


async def prune(
    repository: SessionRepository, policy: PrunePolicy, *, on_progress: Callable[[int], None]
) -> PruneReport:
    """Prune as the repository does, telling after each batch how many sessions it deleted."""

    async def run(unit: Unit[Any]) -> Any:
        result = await repository._run(unit)
        if isinstance(result, Removed):
            on_progress(result.gone)
        return result

    return await retention.prune(run, repository.tenant, policy, batch_size=PRUNE_BATCH, dry_run=False)


@dataclass(slots=True, eq=False)
class Branch:
    """A session among its forks.

    Attributes:
        summary: of the session; None for a parent that is gone.
        forks: the branches that grow from it, oldest first.
        comes_round: its parents form a circle, and this is where it was cut.
    """

    id: str
    summary: SessionSummary | None = None
    forks: list[Branch] = field(default_factory=list)
    comes_round: bool = False


async def all_sessions(
    repository: SessionRepository, *, user_id: str | None = None, parent_id: str | None = None
) -> list[SessionSummary]:
    """List every session, page by page."""
    found: list[SessionSummary] = []
    cursor: str | None = None
    while True:
        page = await repository.list_sessions(user_id=user_id, parent_id=parent_id, limit=PAGE_MAX, cursor=cursor)
        found += page.rows
        cursor = page.cursor
        if cursor is None:
            return found


async def family(repository: SessionRepository, session_id: str) -> list[SessionSummary]:
    """List a session with all it descends from and all that descend from it or them.

    Raises:
        SessionNotFoundError: there is no such session.
    """
    root = await repository.get((await repository.lineage(session_id)).root_id)
    found = {root.id: _summary(root)}
    waiting = [root.id]
    while waiting:
        for child in await all_sessions(repository, parent_id=waiting.pop()):
            if child.id not in found:
                found[child.id] = child
                waiting.append(child.id)
    return list(found.values())


def _summary(session: Session) -> SessionSummary:
    project = session.metadata.get(PROJECT_KEY)
    return SessionSummary(
        id=session.id,
        user_id=session.user_id,
        title=session.title,
        parent_id=session.parent_id,
        message_count=session.length,
        active_seed_id=session.active_seed_id,
        project_id=project if isinstance(project, str) else None,
        created_at=session.created_at,
        updated_at=session.updated_at,
    )


def grow(summaries: Iterable[SessionSummary]) -> list[Branch]:
    """Arrange sessions as the trees of their forks.

    A parent that is gone is the root of those it left. Parents that form a circle, as an import can make them, are cut
    open at the smallest id of it.
    """
    branches = {summary.id: Branch(summary.id, summary) for summary in sorted(summaries, key=_age)}
    roots: dict[str, Branch] = {}
    for branch in list(branches.values()):
        parent_id = branch.summary.parent_id if branch.summary else None
        if parent_id is None:
            roots[branch.id] = branch
        elif parent_id in branches:
            branches[parent_id].forks.append(branch)
        else:
            roots.setdefault(parent_id, Branch(parent_id)).forks.append(branch)
    reached = _reach(roots.values())
    for branch_id in sorted(branches.keys() - reached):
        if branch_id not in reached:
            top = _circle_of(branches, branch_id)
            _cut(branches, top)
            roots[top.id] = top
            reached |= _reach([top])
    return list(roots.values())


def _age(summary: SessionSummary) -> tuple[Any, str]:
    return summary.created_at, summary.id


def _reach(roots: Iterable[Branch]) -> set[str]:
    reached: set[str] = set()
    waiting = list(roots)
    while waiting:
        branch = waiting.pop()
        reached.add(branch.id)
        waiting += branch.forks
    return reached


def _parent(branches: dict[str, Branch], branch_id: str) -> str:
    summary = branches[branch_id].summary
    return (summary.parent_id if summary else None) or branch_id


def _circle_of(branches: dict[str, Branch], branch_id: str) -> Branch:
    """The smallest id of the circle that the parents of a session end in."""
    seen: dict[str, None] = {}
    while branch_id not in seen:
        seen[branch_id] = None
        branch_id = _parent(branches, branch_id)
    path = list(seen)
    return branches[min(path[path.index(branch_id) :])]


def _cut(branches: dict[str, Branch], top: Branch) -> None:
    top.comes_round = True
    branches[_parent(branches, top.id)].forks.remove(top)
