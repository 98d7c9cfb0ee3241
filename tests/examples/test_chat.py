"""The chat of examples/ by its interface: what it stores, what it refuses, and what it tells those who follow."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import re
from typing import TYPE_CHECKING, Any, Final, cast

import fastapi.routing
import pytest
import pytest_asyncio

from examples.chat import app as chat
from sessionstore import SessionRepository, StoreClosedError, feeds
from tests.examples.service import Reader, Service, Told, following, positions, watchers
from tests.support.repositories import contents, talk
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    import httpx

NO_CURSORS: Final = ("x", "1.2", "@17", "1.2.3.4", "-1.0.0", "1.2.-3", "1" * 19 + ".0.0")


async def create(client: httpx.AsyncClient, chat_id: str = "c") -> None:
    answer = await client.post("/chats", json={"id": chat_id})
    assert (answer.status_code, answer.json()) == (201, {"id": chat_id})


async def say(client: httpx.AsyncClient, content: str, *, key: str | None = None) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await client.post("/chats/c/messages", json={"content": content}, headers=headers)


async def take(told: AsyncIterator[Told], until_position: int) -> list[Told]:
    """What is told up to and with the message of a position."""
    taken: list[Told] = []
    while max(positions(taken), default=-1) < until_position:
        taken.append(await anext(told))
    return taken


# --- what is stored -----------------------------------------------------------------------------


async def test_a_question_is_answered(client: httpx.AsyncClient) -> None:
    """A message and its answer are stored, and the history says where they are."""
    await create(client)
    assert (await say(client, "one")).json() == {"position": 0}
    assert (await say(client, "two")).json() == {"position": 2}
    history = (await client.get("/chats/c")).json()
    said = [(message["role"], message["content"]) for message in history["messages"]]
    assert said[2:] == [("user", "two"), ("assistant", "You said: two")]
    assert (history["id"], history["parent_id"], history["first_position"], len(said)) == ("c", None, 0, 4)


async def test_the_history_is_sent_as_it_is_stored(client: httpx.AsyncClient, elsewhere: SessionRepository) -> None:
    """Bodies are not decoded on their way, neither of the history nor of the changes."""
    body = {"role": "user", "z": 1.0, "a": 12345678901234567890123, "lone": "\ud800"}
    await elsewhere.append("c", body, create=True)
    (stored,) = await elsewhere.messages("c")
    assert stored.body_json.decode() in (await client.get("/chats/c")).text
    async with client.stream("GET", "/chats/c/changes") as answer:
        async for line in answer.aiter_lines():
            if stored.body_json.decode() in line:
                break


async def test_the_newest_of_a_long_history(client: httpx.AsyncClient, elsewhere: SessionRepository) -> None:
    """Of a long chat the newest messages are shown, at their positions."""
    await elsewhere.append("c", *talk(chat.SHOWN + 5), create=True)
    history = (await client.get("/chats/c")).json()
    assert (history["first_position"], len(history["messages"])) == (5, chat.SHOWN)
    assert history["messages"][0]["content"] == "message 5"


async def test_a_question_asked_again_is_stored_once(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repeated call stores nothing twice, even if the agent answers otherwise the second time."""
    words = iter("ab")

    async def agent(prompt: bytes) -> dict[str, Any]:
        assert json.loads(prompt)[-1]["content"] == "hello"
        return {"role": "assistant", "content": next(words)}

    monkeypatch.setattr(chat, "agent", agent)
    await create(client)
    tries = [await say(client, "hello", key="k-1") for _ in range(2)]
    assert [(one.status_code, one.json()) for one in tries] == [(201, {"position": 0})] * 2
    assert [message["content"] for message in (await client.get("/chats/c")).json()["messages"]] == ["hello", "a"]


async def test_the_agent_answers_the_question_and_not_what_came_after(
    client: httpx.AsyncClient, elsewhere: SessionRepository
) -> None:
    """A question asked again after others is answered for itself."""
    await create(client)
    await elsewhere.append("c", *talk(3))
    assert (await say(client, "mine", key="k-1")).json() == {"position": 3}
    await elsewhere.truncate("c", 4)
    await elsewhere.append("c", {"role": "user", "content": "theirs"})
    await say(client, "mine", key="k-1")
    assert contents(await elsewhere.messages("c"))[3:] == ["mine", "theirs", "You said: mine"]


async def test_a_fork_holds_what_came_before(client: httpx.AsyncClient, elsewhere: SessionRepository) -> None:
    """A fork ends with the message it was asked for, also where the oldest are gone."""
    await elsewhere.append("c", *talk(6), create=True)
    await elsewhere.trim("c", 4)
    forked = (await client.post("/chats/c/forks", json={"position": 3})).json()["id"]
    history = (await client.get(f"/chats/{forked}")).json()
    assert (history["parent_id"], history["first_position"]) == ("c", 2)
    assert [message["content"] for message in history["messages"]] == ["message 2", "message 3"]
    assert await elsewhere.length("c") == 4


async def test_a_fork_of_what_is_being_trimmed(
    client: httpx.AsyncClient, elsewhere: SessionRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trim between the look at the chat and the fork cannot make another fork than was asked for."""
    fork_at = SessionRepository.fork_at

    async def later(self: SessionRepository, session_id: str, keep: int, **given: Any) -> Any:
        await self.trim("c", 4)
        return await fork_at(self, session_id, keep, **given)

    await elsewhere.append("c", *talk(6), create=True)
    monkeypatch.setattr(SessionRepository, "fork_at", later)
    answer = await client.post("/chats/c/forks", json={"position": 2, "id": "f"})
    assert answer.status_code == 409
    assert not await elsewhere.exists("f")


# --- what is refused ----------------------------------------------------------------------------


REFUSED: Final = (
    (404, "GET", "/chats/none", None),
    (404, "POST", "/chats/none/messages", {"content": "secret"}),
    (404, "POST", "/chats/none/forks", {"position": 0}),
    (404, "GET", "/chats/none/changes", None),
    (404, "POST", "/chats/c/forks", {"position": 2}),
    (409, "POST", "/chats", {"id": "c"}),
    (409, "POST", "/chats/c/forks", {"position": 0, "id": "c2"}),
    (422, "POST", "/chats", {"id": " c"}),
    (422, "GET", "/chats/a%00b", None),
    (422, "POST", "/chats/c/forks", {"position": -1}),
    (422, "POST", "/chats/c/forks", {"position": 0, "id": "c"}),
    (422, "POST", "/chats/c/messages", {"content": ""}),
    (422, "POST", "/chats/c/messages", {"content": {"secret": "\ud800"}}),
    (422, "POST", "/chats/c/messages", {"content": "secret \ud800"}),
    *((422, "GET", f"/chats/c/changes?after={text}", None) for text in NO_CURSORS),
)


async def test_what_is_refused(client: httpx.AsyncClient) -> None:
    """Errors of the store have their status, and an answer never repeats what was said."""
    await create(client)
    await create(client, "c2")
    await say(client, "hello")
    before = (await client.get("/chats/c")).json()
    for status, method, path, body in REFUSED:
        content = None if body is None else json.dumps(body)
        answer = await client.request(method, path, content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, (method, path, body)
        assert isinstance(answer.json()["detail"], str), path
        assert "secret" not in answer.text
    assert (await client.get("/chats/c")).json() == before


async def test_a_key_with_another_message(client: httpx.AsyncClient) -> None:
    """A key that was used for another message is a conflict."""
    await create(client)
    await say(client, "one", key="k-1")
    answer = await say(client, "two", key="k-1")
    assert answer.status_code == 409
    assert len((await client.get("/chats/c")).json()["messages"]) == 2


async def test_a_header_that_is_no_cursor(client: httpx.AsyncClient) -> None:
    """It is refused before the stream begins, also where the address holds a good one."""
    await create(client)
    good = {"after": (await client.get("/chats/c")).json()["cursor"]}
    for text in NO_CURSORS:
        answer = await client.get("/chats/c/changes", params=good, headers={"Last-Event-ID": text})
        assert answer.status_code == 422, text


# --- what is told -------------------------------------------------------------------------------


async def test_a_follower_hears_what_is_said(client: httpx.AsyncClient) -> None:
    """What there is, then everything that is said, once and in order."""
    await create(client)
    await say(client, "one")
    async with following(client, "c") as told:
        taken = await take(told, 1)
        await say(client, "two")
        taken += await take(told, 3)
    assert (taken[0].kind, {one.kind for one in taken[1:]}) == ("created", {"messages"})
    assert positions(taken) == [0, 1, 2, 3]
    assert taken[-1].messages[-1]["body"] == {"role": "assistant", "content": "You said: two"}


async def test_the_history_leads_to_the_changes(client: httpx.AsyncClient) -> None:
    """Followed from its cursor on, a history misses nothing and hears nothing again."""
    await create(client)
    await say(client, "one")
    cursor = (await client.get("/chats/c")).json()["cursor"]
    await say(client, "two")
    async with following(client, "c", after=cursor) as told:
        assert positions(await take(told, 3)) == [2, 3]


async def test_nothing_is_missed_and_nothing_told_twice_over_cuts(
    service: Service, client: httpx.AsyncClient, elsewhere: SessionRepository
) -> None:
    """Connections are cut while others write; who comes back with the last id hears all of it, each once."""
    await create(client)
    start = (await client.get("/chats/c")).json()["cursor"]
    taken: list[Told] = []

    async def write() -> None:
        for _ in range(4):
            await elsewhere.append("c", *talk(2))

    async def follow(until_position: int) -> None:
        seen = taken[-1].id if taken else None
        async with following(client, "c", after=start, seen=seen) as told:
            taken.extend(await take(told, until_position))
            service.cut()

    for _ in range(10):
        writer = asyncio.create_task(write())
        await follow(len(positions(taken)))
        await writer
    if len(positions(taken)) < 80:
        await follow(79)
    assert positions(taken) == list(range(80))


async def test_the_header_wins(client: httpx.AsyncClient) -> None:
    """A browser comes back to its old address: what it has seen since is in the header."""
    await create(client)
    old = (await client.get("/chats/c")).json()["cursor"]
    await say(client, "one")
    new = (await client.get("/chats/c")).json()["cursor"]
    await say(client, "two")
    async with following(client, "c", after=old, seen=new) as told:
        assert positions(await take(told, 3)) == [2, 3]


async def test_a_rewritten_history_is_told_as_that(client: httpx.AsyncClient, elsewhere: SessionRepository) -> None:
    """A truncation made by another process is told, with a later generation, and what is said after it."""
    await create(client)
    await say(client, "one")
    before = (await client.get("/chats/c")).json()
    async with following(client, "c", after=before["cursor"]) as told:
        await elsewhere.truncate("c", 1)
        rewritten = await anext(told)
        assert (rewritten.kind, rewritten.messages) == ("rewritten", [])
        assert rewritten.generation > before["generation"]
        assert (await client.get("/chats/c")).json()["generation"] == rewritten.generation
        await say(client, "two")
        assert positions(await take(told, 2)) == [1, 2]


async def test_events_and_the_end_are_told(client: httpx.AsyncClient, elsewhere: SessionRepository) -> None:
    """Also the caller's own events, a trim, and that a chat was deleted; a new one of its name begins anew."""
    await create(client)
    await say(client, "one")
    cursor = (await client.get("/chats/c")).json()["cursor"]
    async with following(client, "c", after=cursor) as told:
        await elsewhere.record_event("c", "typing", payload="secret")
        await elsewhere.trim("c", 1)
        assert [(await anext(told)).kind for _ in range(2)] == ["typing", "trimmed"]
        await elsewhere.delete("c")
        gone = await anext(told)
        assert gone.kind == "deleted"
        assert (await client.get("/chats/c")).status_code == 404
    async with following(client, "c", seen=gone.id) as told:
        await create(client)
        await say(client, "anew")
        taken = await take(told, 1)
    assert (taken[0].kind, positions(taken)) == ("created", [0, 1])


async def test_there_is_a_heartbeat(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing happens, comments keep the connection open."""
    monkeypatch.setattr(fastapi.routing, "_PING_INTERVAL", 0.01)
    await create(client)
    async with client.stream("GET", "/chats/c/changes") as answer:
        beats = 0
        async for line in answer.aiter_lines():
            beats += line.startswith(":")
            if beats == 3:
                return


# --- how it ends --------------------------------------------------------------------------------


async def test_who_leaves_watches_no_more(service: Service, client: httpx.AsyncClient) -> None:
    """A client that has gone leaves no watcher behind, though nothing happens that would show that it has gone."""
    await create(client)
    async with following(client, "c") as told, following(client, "c") as other:
        await anext(told)
        await anext(other)
        assert watchers(service.sessions) == 2
    await until(lambda: watchers(service.sessions) == 0)


class Client:
    """A client of the application that reads only when it is told to, and knows when it leaves.

    Attributes:
        sent: what it has taken, all in all.
    """

    def __init__(self, cursor: str) -> None:
        self.sent = bytearray()
        self.reading = asyncio.Event()
        self.left = asyncio.Event()
        scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/chats/c/changes", "headers": []}
        scope["query_string"] = f"after={cursor}".encode()
        self.stream = asyncio.create_task(chat.app(scope, self._receive, self._send))

    async def _send(self, message: Any) -> None:
        if self.sent:
            await self.reading.wait()
        self.sent.extend(message.get("body", b""))

    async def _receive(self) -> Any:
        await self.left.wait()
        return {"type": "http.disconnect"}


async def fall_behind(sessions: SessionRepository) -> int:
    """Append until more waits for somebody than may; how many messages that took."""
    written = 0
    while not any(follower._error for follower in _followers(sessions)):
        written += len(await sessions.append("c", *talk(1)))
        await asyncio.sleep(0)
    return written


@pytest_asyncio.fixture
async def sessions(shared_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SessionRepository]:
    """The repository of the application, which runs without a server; three changes may wait for a client."""
    monkeypatch.setenv("SESSIONSTORE_DATABASE_URL", shared_url)
    monkeypatch.setattr(feeds, "LAG_CHANGES", 3)
    async with chat.lifespan(chat.app):
        yield chat.app.state.sessions


async def test_who_reads_too_slowly_comes_back(sessions: SessionRepository) -> None:
    """The stream of a client that does not read ends without an error, and goes on after the last that was read."""
    client = Client((await sessions.create("c")).cursor)
    await until(lambda: bool(client.sent))
    written = await fall_behind(sessions)
    client.reading.set()
    await client.stream
    reader = Reader()
    told = [one for line in client.sent.decode().split("\n") if (one := reader.read(line))]
    assert 0 < len(positions(told)) < written
    async for change in sessions.watch("c", after=told[-1].id):
        assert [message.position for message in change.messages] == list(range(len(positions(told)), written))
        break


async def test_who_leaves_without_having_read_watches_no_more(sessions: SessionRepository) -> None:
    """Nor does a client leave a watcher that goes while the stream waits for it to read."""
    gc.disable()  # what is left to it comes late
    try:
        client = Client((await sessions.create("c")).cursor)
        await until(lambda: bool(client.sent))
        await fall_behind(sessions)
        client.left.set()
        with contextlib.suppress(ExceptionGroup):  # FastAPI's own: it closes the way of what it still sends there
            await client.stream
        await until(lambda: watchers(sessions) == 0)
    finally:
        gc.enable()


def _followers(sessions: SessionRepository) -> list[feeds.Follower]:
    hubs = cast("Iterable[feeds.Hub]", sessions._executor.listeners.values())
    return [follower for hub in hubs for topic in hub._topics.values() for follower in topic.followers]


async def test_the_repository_is_closed_with_the_service(service: Service) -> None:
    """The lifespan opens the repository and closes it."""
    sessions = service.sessions
    service.__exit__()
    with pytest.raises(StoreClosedError):
        await sessions.exists("c")


async def test_the_page_asks_nobody_else(client: httpx.AsyncClient) -> None:
    """It is one file, loads nothing, and never takes a text for HTML."""
    page = (await client.get("/")).text
    assert page == chat.PAGE.read_text()
    assert re.findall(r"https?:|src=|@import|innerHTML|outerHTML|insertAdjacentHTML|document\.write", page) == []
