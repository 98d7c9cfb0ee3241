"""Messages: appended in order, all or none, kept verbatim."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import (
    InvalidArgumentError,
    InvalidMessageError,
    NewMessage,
    SessionNotFoundError,
    SessionRepository,
    StoreSettings,
    VersionConflictError,
)
from tests.support.repositories import bodies, contents, positions, row_counts, say, stored, talk

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


# --- append ---------------------------------------------------------------------------------------


async def test_append_keeps_the_order(every_way: SessionRepository) -> None:
    """F03: positions are dense and in argument order, over batches of any length."""
    await every_way.create("s")

    assert await every_way.append("s", *talk(3)) == [0, 1, 2]
    assert await every_way.append("s", say("user", "one more")) == [3]
    assert await every_way.append("s", *talk(2)) == [4, 5]

    messages = await every_way.messages("s")
    assert positions(messages) == [0, 1, 2, 3, 4, 5]
    assert bodies(messages) == [*talk(3), say("user", "one more"), *talk(2)]
    session = await every_way.get("s")
    assert (session.first_position, session.next_position, session.length) == (0, 6, 6)


async def test_append_keeps_all_keys_and_any_role(every_way: SessionRepository) -> None:
    """H28: at the end, extra keys verbatim, any role that is not empty."""
    await every_way.create("s")
    await every_way.append("s", *talk(2))
    injected = [
        {"role": role, "zeta": [{"b": None, "a": 1.50}], "content": "x", "alpha": {"z": 1, "a": 2}}
        for role in ("user", "developer", "Tool", " ", "роль", "r" * 255, "🚢" * 128)
    ]
    await every_way.append("s", *injected)

    messages = await every_way.messages("s", after=1)
    assert [list(message.body) for message in messages] == [["role", "zeta", "content", "alpha"]] * len(injected)
    assert bodies(messages) == injected
    assert [message.role for message in messages] == [body["role"] for body in injected]


REFUSED: dict[str, Any] = {
    "must be a JSON object": ["text", None, 7, ["role", "user"], [say("user", "x")], b"{}"],
    "is required": [{}, {"content": "x"}, {"role": None}],
    "must be a string": [{"role": 1}, {"role": ["user"]}, {"role": {}}, {"role": True}],
    "must not be empty": [{"role": ""}],
    "is too long": [{"role": "r" * 256}, {"role": "🚢" * 129}],
    "U+0000": [{"role": "a\0"}],
    "surrogate": [{"role": "\ud800"}],
}


async def test_append_refuses_what_is_no_message(every_way: SessionRepository) -> None:
    """H29: each with a clear text of its own and its place in the batch; nothing is stored."""
    before = await every_way.create("s")

    for reason, messages in REFUSED.items():
        for bad in messages:
            with pytest.raises(InvalidMessageError) as error:
                await every_way.append("s", say("user", "good"), bad)
            assert reason in error.value.reason.replace("\\u0000", "U+0000"), error.value
            assert error.value.reason in str(error.value)
            assert "message 1" in str(error.value)
            assert error.value.path == ("$" if reason == "must be a JSON object" else "$.role")
            assert isinstance(error.value, ValueError)

    assert await every_way.get("s") == before
    assert await every_way.messages("s") == []


async def test_one_bad_message_refuses_its_batch(sessions: SessionRepository) -> None:
    """H29, F05: the error names the place in the batch and in the body; none of ten is stored."""
    before = await sessions.create("s")
    batch = talk(10)
    batch[7]["content"] = [{"type": "text"}, {"type": "text"}, {"x": {1}}]

    with pytest.raises(InvalidMessageError) as error:
        await sessions.append("s", *batch)

    assert error.value.path == "$.content[2].x"
    assert "message 7" in str(error.value)
    assert "$.content[2].x" in str(error.value)
    assert await sessions.get("s") == before


BAD_VALUES: list[Any] = [
    float("nan"),
    float("inf"),
    float("-inf"),
    (1, 2),
    {1, 2},
    frozenset(),
    b"bytes",
    bytearray(b"x"),
    datetime(2024, 1, 1, tzinfo=UTC),
    {1: "x"},
    {None: "x"},
    {1.5: "x"},
    object(),
    10**1000,
    "\ud83d\udea2",
]


async def test_nothing_is_converted_in_silence(sessions: SessionRepository) -> None:
    """F05: what JSON cannot carry unchanged is refused with its path, without its value."""
    before = await sessions.create("s")
    for value in BAD_VALUES:
        with pytest.raises(InvalidMessageError) as error:
            await sessions.append("s", {"role": "user", "content": {"secret": value}})
        assert error.value.path.startswith("$.content.secret")
    assert await sessions.get("s") == before


async def test_an_empty_append(every_way: SessionRepository) -> None:
    """H29: gives no position and stores nothing."""
    await every_way.create("s")
    await every_way.append("s", *talk(2))

    assert await every_way.append("s") == []
    assert await stored(every_way, "s") == talk(2)


async def test_append_within_the_limits_of_the_settings(engine: AsyncEngine) -> None:
    """F13: a batch, a body and a call at the limit are stored, over it refused naming the limit."""
    settings = StoreSettings(max_batch=3, max_body_bytes=40, max_call_bytes=100, max_depth=3)
    sessions = SessionRepository(engine, settings=settings)
    await sessions.create("s")
    body = {"role": "user", "content": "x" * 12}  # 40 bytes
    assert len(json.dumps(body, separators=(",", ":"))) == 40
    deep = {"role": "user", "c": [[]]}

    await sessions.append("s", *[{"role": "a"}] * 3)
    await sessions.append("s", body, body, {"role": "x" * 9})  # 100 bytes: this one has 20
    await sessions.append("s", deep)

    with pytest.raises(InvalidArgumentError, match="3"):
        await sessions.append("s", *[{"role": "a"}] * 4)
    with pytest.raises(InvalidMessageError, match="40"):
        await sessions.append("s", {"role": "user", "content": "x" * 13})
    with pytest.raises(InvalidArgumentError, match="100"):
        await sessions.append("s", body, body, {"role": "x" * 10})
    with pytest.raises(InvalidMessageError, match="3"):
        await sessions.append("s", {"role": "user", "c": [[[]]]})
    assert await sessions.length("s") == 7


# --- expected_length and create -------------------------------------------------------------------


async def test_an_expected_length(every_way: SessionRepository) -> None:
    """X03: appends if nobody else did, or raises with both numbers and stores nothing; trimmed ones do not count."""
    await every_way.create("s")
    assert await every_way.append("s", *talk(5), expected_length=0) == [0, 1, 2, 3, 4]
    await every_way.trim("s", 3)
    assert await every_way.append("s", say("user", "x"), expected_length=3) == [5]

    before = await every_way.get("s")
    for stale in (0, 3, 5, 2**63 - 1):
        for batch in (talk(2), [NewMessage(say("user", "x"), message_id="m")], []):
            with pytest.raises(VersionConflictError) as error:
                await every_way.append("s", *batch, expected_length=stale)
            assert (error.value.session_id, error.value.expected, error.value.actual) == ("s", stale, 4)
    after = await every_way.get("s")
    assert (after.version, after.next_position) == (before.version, before.next_position)


async def test_an_expected_length_is_a_count(sessions: SessionRepository) -> None:
    """X03: and nothing else."""
    await sessions.create("s")
    bad: list[Any] = [-1, 1.5, True, "7", 2**63]
    for length in bad:
        with pytest.raises(InvalidArgumentError):
            await sessions.append("s", *talk(1), expected_length=length)
    assert await sessions.length("s") == 0


async def test_append_creates_a_missing_session(every_way: SessionRepository) -> None:
    """H28: only where that is asked for, and then as `open` would."""
    with pytest.raises(SessionNotFoundError):
        await every_way.append("s", *talk(2))

    assert await every_way.append("s", *talk(2), create=True) == [0, 1]
    assert await every_way.append("s", *talk(2), create=True) == [2, 3]
    assert await every_way.append("t", NewMessage(say("user", "x"), message_id="m"), create=True) == [0]
    assert await every_way.append("u", create=True) == []
    assert await every_way.append("v", *talk(1), create=True, expected_length=0) == [0]

    assert [await every_way.length(name) for name in "stuv"] == [4, 1, 0, 1]
    session = await every_way.get("t")
    assert (session.version, session.user_id, session.metadata, session.parent_id) == (1, "", {}, None)


async def test_an_append_that_fails_creates_nothing(every_way: SessionRepository) -> None:
    """H29: opening and appending happen together or not at all."""
    with pytest.raises(VersionConflictError) as error:
        await every_way.append("s", *talk(2), create=True, expected_length=3)
    assert (error.value.expected, error.value.actual) == (3, 0)
    with pytest.raises(InvalidMessageError):
        await every_way.append("s", {}, create=True)
    assert set((await row_counts(every_way)).values()) == {0}


async def test_an_empty_append_that_fails_creates_nothing(sessions: SessionRepository) -> None:
    """H29: a session that is missing has not the expected length either."""
    with pytest.raises(VersionConflictError) as error:
        await sessions.append("s", create=True, expected_length=3)
    assert (error.value.expected, error.value.actual) == (3, 0)
    assert not await sessions.exists("s")


# --- bodies ---------------------------------------------------------------------------------------

BODIES: list[dict[str, Any]] = [
    {"role": "user", "content": "hello"},
    {"content": "role last", "z": 1, "a": 2, "m": 3, "role": "user"},
    {"role": "assistant", "content": None},
    {"role": "user", "content": []},
    {"role": "user", "content": {}},
    {"role": "user", "content": ""},
    {"role": "user", "n": [0, -1, 1.0, 1, True, False, None, -0.0, 0.1, 1e16, 1e22, 5e-324, 1.7976931348623157e308]},
    {"role": "user", "n": [2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**64, -(2**64), 10**400, 10**1000 - 1]},
    {"role": "user", "nul": "a\0b", "ke\0y": "\0"},
    {"role": "user", "lone": ["\ud800", "\udfff", "x\udc00y"], "\ud800": 1},
    {"role": "user", "escapes": '\\u0000 \\ " / \b\f\n\r\t \x7f \u2028\u2029 </script>'},
    {"role": "user", "forms": ["é", "e\u0301", "ﬁ", "İ", "\ufeff", "\uffff", "\U0010ffff", "🏳️‍🌈"]},
    {"role": "user", "": "empty key", " ": 1, 'a"b': 2, "a.b": 3, "$": 4},
    {"role": "user", "__proto__": 1, "constructor": {"prototype": None}},
    {"role": "user", "seed_id": "s-1", "phase_reached": "p", "evaluation_passed": True},
    {"role": "user", "seed_id": 7, "phase_reached": None, "evaluation_passed": "yes"},
    {"role": "user", "seed_id": "a\0b", "phase_reached": "\ud800", "evaluation_passed": 1},
    {"role": "user", "position": 7, "message_id": "x", "created_at": "never", "body": {}},
]


async def test_bodies_round_trip(every_way: SessionRepository) -> None:
    """F08, F13, X07: equal in type, value, key order and sign."""
    await every_way.create("s")
    await every_way.append("s", *BODIES)

    messages = await every_way.messages("s")
    assert [repr(message.body) for message in messages] == [repr(body) for body in BODIES]
    assert bodies(messages) == BODIES


async def test_blocks_round_trip(every_way: SessionRepository) -> None:
    """F15: content as a list of blocks comes back verbatim."""
    await every_way.create("s")
    history = [
        say(
            "user",
            [
                {"type": "text", "text": "What is in this picture?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
            ],
        ),
        say("assistant", [{"type": "tool_use", "id": "t1", "name": "look", "input": {"zoom": 1.0, "at": [0, -0.0]}}]),
        say("user", [{"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "A ship."}]}]),
        say("assistant", [{"type": "text", "text": "A ship."}], stop_reason="end_turn", usage={"in": 7, "out": 3}),
    ]
    await every_way.append("s", *history)

    assert [repr(body) for body in await stored(every_way, "s")] == [repr(body) for body in history]


async def test_all_of_unicode_round_trips(sessions: SessionRepository) -> None:
    """F08: every code point in one text, as value and in keys."""
    await sessions.create("s")
    everything = "".join(chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF)
    await sessions.append("s", say("user", everything), {"role": "user", everything[:5000]: 1})

    [first, second] = await sessions.messages("s")
    assert first.body["content"] == everything
    assert second.body == {"role": "user", everything[:5000]: 1}


async def test_large_and_deep_bodies_round_trip(sessions: SessionRepository) -> None:
    """F08: 256 KiB of text, and 200 levels."""
    await sessions.create("s")
    deep: Any = "bottom"
    for level in range(199):
        deep = [deep] if level % 2 else {"in": deep}
    history = [say("user", "ü" * 128 * 1024), say("assistant", deep)]
    await sessions.append("s", *history)
    assert await stored(sessions, "s") == history

    with pytest.raises(InvalidMessageError, match="200"):
        await sessions.append("s", say("assistant", [deep]))


async def test_equal_values_of_different_type_stay_different(sessions: SessionRepository) -> None:
    """F08: subclasses are stored as the plain value they are."""

    class Text(str):
        __slots__ = ()

    class Object(dict[str, Any]):
        pass

    await sessions.create("s")
    await sessions.append("s", Object(role=Text("user"), n=[1, 1.0, True, Text("x")], content=Object(a=1)))

    [message] = await sessions.messages("s")
    assert repr(message.body) == "{'role': 'user', 'n': [1, 1.0, True, 'x'], 'content': {'a': 1}}"
    assert {type(message.role), type(message.body["role"])} == {str}


async def test_messages_json_is_the_bodies_in_order(every_way: SessionRepository) -> None:
    """H30, H38: a JSON array of them, ready to be the prefix of the next call of a model."""
    await every_way.create("s")
    assert await every_way.messages_json("s") == b"[]"
    await every_way.append("s", *BODIES)

    raw = await every_way.messages_json("s")
    assert isinstance(raw, bytes)
    assert [repr(body) for body in json.loads(raw)] == [repr(body) for body in BODIES]
    assert json.loads(await every_way.messages_json("s", last=2)) == BODIES[-2:]
    messages = await every_way.messages("s")
    assert raw == b"[" + b",".join(message.body_json for message in messages) + b"]"


# --- NewMessage -----------------------------------------------------------------------------------


async def test_a_role_beside_the_body(every_way: SessionRepository) -> None:
    """H28: stated where the body has none; the body stays as it is."""
    await every_way.create("s")
    await every_way.append("s", NewMessage({"text": "hi"}, role="customer"), NewMessage({"role": "bot", "text": "ho"}))

    messages = await every_way.messages("s")
    assert bodies(messages) == [{"text": "hi"}, {"role": "bot", "text": "ho"}]
    assert [message.role for message in messages] == ["customer", "bot"]
    assert contents(await every_way.messages("s", roles=["user"])) == []
    assert positions(await every_way.messages("s", roles=["customer"])) == [0]


async def test_what_is_no_role_is_refused_beside_the_body(sessions: SessionRepository) -> None:
    """H29: like one in the body."""
    await sessions.create("s")
    bad: list[Any] = ["", 7, "r" * 256, "a\0", "\ud800", b"user"]
    for role in bad:
        with pytest.raises((InvalidMessageError, InvalidArgumentError), match="role"):
            await sessions.append("s", NewMessage({"text": "hi"}, role=role))
    assert await sessions.length("s") == 0


MOMENTS = (
    datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC),
    datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=timezone(timedelta(hours=-5, minutes=-30))),
    datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999998, tzinfo=UTC),
)


async def test_the_time_of_a_message(every_way: SessionRepository) -> None:
    """F08: a stated one is kept as an instant to the microsecond, in UTC; otherwise it is the time of the append."""
    await every_way.create("s")
    before = datetime.now(UTC)
    await every_way.append("s", *[NewMessage(say("user", "x"), created_at=moment) for moment in MOMENTS])
    await every_way.append("s", say("user", "now"))
    after = datetime.now(UTC)

    times = [message.created_at for message in await every_way.messages("s")]
    assert tuple(times[:-1]) == MOMENTS
    assert {moment.utcoffset() for moment in times} == {timedelta(0)}
    assert before <= times[-1] <= after


@pytest.mark.parametrize("moment", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
async def test_the_first_and_the_last_moment(sessions: SessionRepository, moment: datetime) -> None:
    """F08: they come back as they were, although PostgreSQL keeps them as its infinities."""
    await sessions.create("s")
    await sessions.append("s", NewMessage(say("user", "x"), created_at=moment))

    [message] = await sessions.messages("s")
    assert message.created_at == moment


async def test_a_time_without_a_zone_is_refused(sessions: SessionRepository) -> None:
    """F08: as is what is no datetime."""
    await sessions.create("s")
    bad: list[Any] = [datetime(2024, 1, 1), "2024-01-01T00:00:00Z", 1704067200]  # noqa: DTZ001
    for moment in bad:
        with pytest.raises((InvalidArgumentError, InvalidMessageError), match="created_at"):
            await sessions.append("s", NewMessage(say("user", "x"), created_at=moment))
    assert await sessions.length("s") == 0


async def test_messages_of_one_session_go_to_another(sessions: SessionRepository) -> None:
    """F04: what was read can be written: role, id and time go along, positions are assigned anew."""
    await sessions.create("s")
    moment = MOMENTS[0]
    await sessions.append("s", say("user", "a"), NewMessage({"t": 1}, role="bot", message_id="m", created_at=moment))
    await sessions.create("t")
    read = await sessions.messages("s")
    await sessions.replace_messages("t", reversed(read))

    [first, second] = await sessions.messages("t")
    assert (first.position, first.role, first.body, first.message_id, first.created_at) == (
        *(0, "bot", {"t": 1}, "m"),
        moment,
    )
    assert (second.position, second.body, second.message_id) == (1, say("user", "a"), None)
