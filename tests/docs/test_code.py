"""The Python of README.md and docs/operations.md runs as it stands, and gives what its comments say."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import AsyncIterator, Callable
from inspect import CO_COROUTINE
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sessionstore import MessageIdConflictError, NewMessage, SessionNotFoundError, SessionRepository
from tests.docs.markdown import Block, blocks
from tests.support.templates import sqlite_url

_RESULT = re.compile(r"^(?P<indent> *)(?P<code>.+?)  # -> (?P<result>.+)$", re.MULTILINE)


async def run(block: Block, names: dict[str, Any]) -> None:
    """Run a block, `await` at its top included, and compare what stands behind `# ->`."""

    def check(found: object, expected: str) -> None:
        assert repr(found) == expected, block.label

    code = _RESULT.sub(lambda match: f"{match['indent']}_check({match['code']}, {match['result']!r})", block.code)
    compiled = compile(code, block.label, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names["_check"] = check
    pending = eval(compiled, names)  # noqa: S307  # of our own pages
    if compiled.co_flags & CO_COROUTINE:
        await pending


@pytest.fixture(params=["sqlite_file", "postgres_database"])
def url(request: pytest.FixtureRequest) -> str:
    """A migrated database on disk: a database in memory would be another one for each engine."""
    database = request.getfixturevalue(request.param)
    return sqlite_url(database) if request.param == "sqlite_file" else str(database)


@pytest.fixture
async def names(url: str) -> AsyncIterator[dict[str, Any]]:
    """What the examples take for granted: a repository, a database, the table of a service."""
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.exec_driver_sql("CREATE TABLE orders (chat TEXT)")
    await engine.dispose()
    async with SessionRepository.connect(url) as sessions:
        given: dict[str, Any] = {"DATABASE_URL": url, "sessions": sessions}
        given |= {"NewMessage": NewMessage, "SessionRepository": SessionRepository}
        try:
            yield given
        finally:
            made = given.get("engine")
            if isinstance(made, AsyncEngine):
                await made.dispose()


async def test_the_readme(names: dict[str, Any]) -> None:
    examples = [block for block in blocks("python", "README.md") if not block.words]
    assert len(examples) >= 9
    for block in examples:
        await run(block, names)
    assert sum(block.code.count("# ->") for block in examples) >= 9
    assert names["report"].total == 0
    assert await names["acme"].length("chat-2") == 2


async def test_operations(names: dict[str, Any]) -> None:
    for block in blocks("python", "docs/operations.md"):
        if "walkthrough" in block.words:
            continue  # a file that test_walkthrough.py runs
        if "hide_parameters" not in block.code and "security" not in block.words:  # those are about PostgreSQL alone
            await run(block, dict(names))


async def test_a_new_engine_of_the_callers_waits_for_locks_as_documented(postgres_database: str) -> None:
    (block,) = (block for block in blocks("python", "docs/operations.md") if "lock_timeout" in block.code)
    names: dict[str, Any] = {"DATABASE_URL": postgres_database}
    await run(block, names)
    async with names["engine"].connect() as connection:
        assert (await connection.exec_driver_sql("SHOW lock_timeout")).scalar_one() == "3s"
    await names["engine"].dispose()


class FastAPI:
    """As much of the framework as the example uses. The real one is no dependency of ours, not even of the tests."""

    def __init__(self, *, lifespan: Callable[[Any], Any]) -> None:
        self.lifespan = lifespan
        self.state = SimpleNamespace()
        self.routes: dict[tuple[str, str], Callable[..., Any]] = {}

    def __getattr__(self, method: str) -> Callable[[str], Any]:
        return lambda path: lambda function: self.routes.setdefault((method, path), function)


def framework() -> ModuleType:
    """A module to be imported as `fastapi`."""
    module = ModuleType("fastapi")
    parts = {"FastAPI": FastAPI, "Header": lambda default: default, "Response": SimpleNamespace}
    parts["Response"] = lambda content, media_type: SimpleNamespace(content=content, media_type=media_type)
    vars(module).update(parts)
    return module


async def test_the_service_of_the_readme(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", framework())
    (block,) = (block for block in blocks("python", "README.md") if "fastapi" in block.words)
    assert '"sqlite:///chats.db"' in block.code
    names: dict[str, Any] = {}
    await run(block._replace(code=block.code.replace("sqlite:///chats.db", database_url)), names)
    app = names["app"]
    say, history = app.routes["post", "/chats/{chat_id}/messages"], app.routes["get", "/chats/{chat_id}/messages"]
    async with app.lifespan(app):
        hello = {"role": "user", "content": "hello"}
        assert await say("c", hello, idempotency_key="k-1") == [0]
        assert await say("c", hello, idempotency_key="k-1") == [0]
        assert await say("c", {"role": "tool", "content": "42"}, idempotency_key=None) == [1]
        with pytest.raises(MessageIdConflictError):
            await say("c", {"role": "user", "content": "other"}, idempotency_key="k-1")
        answer = await history("c", last=1)
        assert answer.media_type == "application/json"
        assert json.loads(answer.content) == [hello, {"role": "tool", "content": "42"}]
        with pytest.raises(SessionNotFoundError):
            await history("unknown")
