"""A chat service whose tabs stay in step: no tab misses a change, whatever cuts its connection.

Run it with `python app.py` and open http://127.0.0.1:8000 in two tabs. README.md says what each part shows.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Final, cast

import orjson
import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field

from sessionstore import (
    Change,
    InvalidArgumentError,
    InvalidMessageError,
    MessageIdConflictError,
    NewMessage,
    SessionExistsError,
    SessionNotFoundError,
    SessionRepository,
    StoreBusyError,
    StoreClosedError,
    StoreTimeoutError,
    StoreUnavailableError,
    WatchLagError,
    WatchLimitError,
)

PAGE: Final = Path(__file__).with_name("page.html")
SHOWN: Final = 200
"""Messages that the page shows: the newest."""
PROMPT: Final = 20
"""Messages that the agent is given: the newest, back to a user's."""
CURSOR: Final = r"^\d{1,18}\.(-1|\d{1,18})\.\d{1,18}$"
"""What a cursor looks like, so that anything else is refused before a stream begins."""


# --- the service --------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the repository with the service, and close it with the service."""
    url = os.environ.get("SESSIONSTORE_DATABASE_URL", "sqlite:///chat.db")
    async with SessionRepository.connect(url, migrate=True) as app.state.sessions:
        yield


# No pages of documentation: FastAPI's come from a CDN.
app = FastAPI(title="Chat", lifespan=lifespan, docs_url=None, redoc_url=None)


async def repository(request: Request) -> SessionRepository:
    """The repository. A service of several customers would give each its own: `sessions.for_tenant(customer)`."""
    return cast("SessionRepository", request.app.state.sessions)


Sessions = Annotated[SessionRepository, Depends(repository)]

STATUS: Final[dict[type[Exception], int]] = {
    SessionNotFoundError: 404,
    SessionExistsError: 409,
    MessageIdConflictError: 409,
    InvalidArgumentError: 422,
    InvalidMessageError: 422,
    StoreBusyError: 503,
    StoreTimeoutError: 503,
    StoreUnavailableError: 503,
    WatchLimitError: 503,
}


async def refused(_request: Request, error: Exception) -> Response:
    """Answer with the status of an error of the store. Its text names no content and no password."""
    return JSONResponse({"detail": str(error)}, STATUS[type(error)])


for kind in STATUS:
    app.add_exception_handler(kind, refused)


@app.exception_handler(RequestValidationError)
async def misunderstood(_request: Request, error: RequestValidationError) -> Response:
    """Say what is wrong, and do not repeat what was sent, as FastAPI would: it is content."""
    wrong = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
    return JSONResponse({"detail": "; ".join(wrong)}, 422)


@app.get("/", include_in_schema=False)
async def page() -> Response:
    """The page."""
    return FileResponse(PAGE)


# --- chats --------------------------------------------------------------------------------------


class NewChat(BaseModel):
    """A chat to be created; without an id it gets one."""

    id: str | None = None


class Said(BaseModel):
    """What a user says."""

    content: str = Field(min_length=1, max_length=10_000)


class Fork(NewChat):
    """A chat that begins as another one, up to and with the message of a position."""

    position: int = Field(ge=0)


@app.post("/chats", status_code=201)
async def create(new: NewChat, sessions: Sessions) -> NewChat:
    """Create a chat."""
    return NewChat(id=(await sessions.create(new.id)).id)


@app.get("/chats/{chat_id}")
async def history(chat_id: str, sessions: Sessions) -> Response:
    """The newest messages of a chat, never decoded, and the cursor from where on to watch it.

    The cursor is read first: what happens before the messages are read, the changes tell once more.
    """
    chat = await sessions.get(chat_id)
    first = max(chat.first_position, chat.next_position - SHOWN)
    messages = orjson.Fragment(await sessions.messages_json(chat_id, after=first - 1 if first else None))
    place = {"generation": chat.generation, "first_position": first, "cursor": chat.cursor}
    answer = {"id": chat.id, "parent_id": chat.parent_id, **place, "messages": messages}
    return Response(orjson.dumps(answer), media_type="application/json")


@app.post("/chats/{chat_id}/messages", status_code=201)
async def say(
    chat_id: str,
    said: Said,
    sessions: Sessions,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=100)] = None,
) -> dict[str, int]:
    """Append what a user says, then what the agent answers; gives the position of the question.

    Both have ids, so that a client may repeat the call with the same key until it hears that it was done.
    """
    key = idempotency_key or str(uuid.uuid4())
    question = NewMessage({"role": "user", "content": said.content}, message_id=key)
    (position,) = await sessions.append(chat_id, question)
    prompt = await sessions.messages_json(chat_id, before=position + 1, last=PROMPT, align="turn")
    answer = NewMessage(await agent(prompt), message_id=f"{key}/answer")
    with contextlib.suppress(MessageIdConflictError):  # answered by an earlier try, in other words
        await sessions.append(chat_id, answer)
    return {"position": position}


async def agent(prompt: bytes) -> dict[str, Any]:
    """Stand where a model would be called: takes the messages as they are stored, gives the next one."""
    said = [message["content"] for message in orjson.loads(prompt) if message["role"] == "user"]
    return {"role": "assistant", "content": f"You said: {said[-1]}" if said else "I am listening."}


@app.post("/chats/{chat_id}/forks", status_code=201)
async def fork(chat_id: str, at: Fork, sessions: Sessions) -> NewChat:
    """Fork a chat after one of its messages."""
    chat = await sessions.get(chat_id)
    if not chat.first_position <= at.position < chat.next_position:
        raise HTTPException(404, f"there is no message {at.position}")
    forked = await sessions.fork_at(chat_id, at.position + 1 - chat.first_position, new_id=at.id)
    if forked.next_position != at.position + 1:  # trimmed since we looked
        await sessions.delete(forked.id)
        raise HTTPException(409, "the chat has just changed")
    return NewChat(id=forked.id)


# --- changes ------------------------------------------------------------------------------------


async def watch(
    chat_id: str,
    sessions: Sessions,
    after: Annotated[str | None, Query(pattern=CURSOR)] = None,
    last_event_id: Annotated[str | None, Header(pattern=CURSOR)] = None,
) -> AsyncIterator[AsyncIterator[Change]]:
    """Watch a chat from where the client is, as long as it stays.

    A browser that comes back repeats the old address, and tells in the header what it has seen since: that wins.
    """
    seen = last_event_id or after
    if seen is None:
        await sessions.get(chat_id)  # a chat that is not there is refused before the stream begins
    changes = cast("AsyncGenerator[Change]", sessions.watch(chat_id, after=seen))
    async with contextlib.aclosing(changes):  # when the client leaves, not when memory is cleaned up
        yield changes


@app.get("/chats/{chat_id}/changes", response_class=EventSourceResponse)
async def follow(changes: Annotated[AsyncIterator[Change], Depends(watch)]) -> AsyncIterator[ServerSentEvent]:
    """The changes of a chat as server-sent events, each with its cursor as the id. FastAPI adds the heartbeat.

    To one who reads too slowly the stream ends, and to all when the service does. As after any cut, a browser comes
    back and misses nothing.
    """
    yield ServerSentEvent(retry=1000)
    with contextlib.suppress(WatchLagError, StoreClosedError):
        async for change in changes:
            yield ServerSentEvent(id=change.cursor, raw_data=told(change))


def told(change: Change) -> str:
    """What a client has to know of a change: where messages belong, and when to read the chat again. As JSON."""
    messages = [
        {"position": message.position, "body": orjson.Fragment(message.body_json)} for message in change.messages
    ]
    return orjson.dumps({"kind": change.kind, "generation": change.generation, "messages": messages}).decode()


if __name__ == "__main__":
    # Streams have no end of their own: at Ctrl+C they get a second.
    uvicorn.run(app, timeout_graceful_shutdown=1)
