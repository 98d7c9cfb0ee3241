"""Arguments are refused before any I/O, by a named error that never shows the value."""

from __future__ import annotations

import unicodedata
import uuid
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import pytest
import uuid_utils
from hypothesis import given, settings
from hypothesis import strategies as st

from sessionstore import checks, limits
from sessionstore.codec import InvalidValue
from sessionstore.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "overridden"

    def __len__(self) -> int:
        return 5


class Role(StrEnum):
    USER = "user"


class Number(int):
    pass


class EndOfSummer(tzinfo):
    """Clocks go back: the first 2:30 is summer time, the second is not."""

    def utcoffset(self, when: datetime | None) -> timedelta:
        return timedelta(hours=1 if when and when.fold else 2)

    def dst(self, when: datetime | None) -> timedelta | None:
        return None

    def tzname(self, when: datetime | None) -> str | None:
        return None


ID_CHECKS: list[Callable[[object], str]] = [
    checks.check_id,
    checks.check_tenant,
    checks.check_user_id,
    checks.check_document_category,
    checks.check_document_name,
]

UNSAFE = [
    pytest.param("\0", "U+0000", id="bad-input-5-nul"),
    pytest.param("\n", "U+000A", id="bad-input-6-newline"),
    pytest.param("\t", "U+0009", id="bad-input-6-tab"),
    pytest.param("\x1b", "U+001B", id="bad-input-6-escape"),
    pytest.param("\x7f", "U+007F", id="bad-input-6-delete"),
    pytest.param("\x85", "U+0085", id="bad-input-6-next-line"),
    pytest.param("\u2028", "U+2028", id="bad-input-6-line-separator"),
    pytest.param("\ud800", "U+D800", id="bad-input-7-high-surrogate"),
    pytest.param("\udfff", "U+DFFF", id="bad-input-7-low-surrogate"),
    pytest.param("\u061c", "U+061C", id="bad-input-18-arabic-letter-mark"),
    pytest.param("\u200b", "U+200B", id="bad-input-18-zero-width-space"),
    pytest.param("\u200c", "U+200C", id="bad-input-18-non-joiner"),
    pytest.param("\u200d", "U+200D", id="bad-input-18-joiner"),
    pytest.param("\u200e", "U+200E", id="bad-input-18-left-to-right"),
    pytest.param("\u200f", "U+200F", id="bad-input-18-right-to-left"),
    pytest.param("\u202e", "U+202E", id="bad-input-18-override"),
    pytest.param("\u2060", "U+2060", id="bad-input-18-word-joiner"),
    pytest.param("\u2066", "U+2066", id="bad-input-18-isolate"),
    pytest.param("\u206f", "U+206F", id="bad-input-18-old-format"),
    pytest.param("\u00ad", "U+00AD", id="bad-input-18-soft-hyphen"),
    pytest.param("\ufeff", "U+FEFF", id="bad-input-18-byte-order-mark"),
    pytest.param("\U000e0061", "U+E0061", id="bad-input-18-tag"),
]


def refusal(check: Callable[..., object], *args: Any, **kwargs: Any) -> str:
    with pytest.raises(InvalidArgumentError) as caught:
        check(*args, **kwargs)
    assert isinstance(caught.value, ValueError)
    str(caught.value).encode()
    return str(caught.value)


class TestIds:
    @pytest.mark.parametrize(
        "value",
        [
            pytest.param("a", id="one-character"),
            pytest.param("x" * 255, id="bad-input-4-longest"),
            pytest.param("é" * 255, id="bad-input-4-longest-two-byte"),
            pytest.param("語" * 170, id="bad-input-4-510-bytes"),
            pytest.param("\U0001f600" * 128, id="bad-input-4-512-bytes"),
            pytest.param("é", id="bad-input-8-nfc"),
            pytest.param("e\u0301", id="bad-input-8-nfd"),
            pytest.param("A", id="bad-input-9"),
            pytest.param("İıßﬁ", id="bad-input-10"),
            pytest.param("../x", id="bad-input-11-parent"),
            pytest.param("a/b", id="bad-input-11-slash"),
            pytest.param("%2e%2e", id="bad-input-11-percent"),
            pytest.param("'; drop table x; --", id="bad-input-12"),
            pytest.param("%_\\", id="bad-input-13"),
            pytest.param("two words", id="blank-inside"),
            pytest.param("語\u00a0語", id="no-break-space-inside"),
            pytest.param("\U0001f600", id="bad-input-17-emoji"),
            pytest.param("\u2764\ufe0f", id="bad-input-17-emoji-with-variation-selector"),
            pytest.param("שלום", id="right-to-left-text"),
            pytest.param("\uffff", id="bad-input-50-noncharacter"),
        ],
    )
    def test_accepted_as_they_are(self, value: str) -> None:
        assert checks.check_id(value) == value
        assert checks.check_tenant(value) == value
        assert checks.check_user_id(value) == value

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            pytest.param("", "must not be empty", id="bad-input-1"),
            pytest.param("   ", "must not be blank", id="bad-input-2"),
            pytest.param("\u3000", "must not be blank", id="bad-input-2-ideographic"),
            pytest.param(" a", "must not begin or end with the blank U+0020", id="bad-input-3-leading"),
            pytest.param("a ", "must not begin or end with the blank U+0020", id="bad-input-3-trailing"),
            pytest.param("a\u00a0", "must not begin or end with the blank U+00A0", id="bad-input-3-no-break-space"),
            pytest.param("\u2003a", "must not begin or end with the blank U+2003", id="bad-input-3-em-space"),
            pytest.param("x" * 256, "is too long: 256 characters, the limit is 255", id="bad-input-4-256"),
            pytest.param("語" * 171, "is too long: 513 bytes, the limit is 512", id="bad-input-4-513-bytes"),
            pytest.param("x" * 100_000, "is too long: 100000 characters, the limit is 255", id="bad-input-19"),
            pytest.param(None, "is required", id="bad-input-14-none"),
            pytest.param(7, "must be a string, not int", id="bad-input-15-int"),
            pytest.param(True, "must be a string, not bool", id="bad-input-15-bool"),
            pytest.param(b"abc", "must be a string, not bytes", id="bad-input-16-bytes"),
            pytest.param(["a"], "must be a string, not list", id="list"),
            pytest.param(Role.USER, "must be a string, not Role", id="bad-input-51-enum"),
        ],
    )
    def test_refused(self, value: object, reason: str) -> None:
        assert refusal(checks.check_id, value) == f"session id {reason}"
        assert refusal(checks.check_id, value, "message id") == f"message id {reason}"
        assert refusal(checks.check_document_name, value) == f"document name {reason}"
        if value != "":
            assert refusal(checks.check_tenant, value) == f"tenant {reason}"
            assert refusal(checks.check_user_id, value) == f"user id {reason}"

    @pytest.mark.parametrize(("character", "name"), UNSAFE)
    @pytest.mark.parametrize("check", ID_CHECKS)
    @pytest.mark.parametrize("shape", ["{}", "a{}", "{}a", "a{}b", "é{}é"])
    def test_characters_that_cannot_be_seen(
        self, check: Callable[[object], str], shape: str, character: str, name: str
    ) -> None:
        assert refusal(check, shape.format(character)).endswith(f"must not hold the character {name}")

    def test_bad_input_18_every_character_that_is_never_drawn(self) -> None:
        """Every Cc, Cs and Cf but the signs among them: Arabic number signs, hieroglyph joiners and their like."""
        drawn = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
        for code in range(0x110000):
            character = chr(code)
            category = unicodedata.category(character)
            hidden = category in {"Cc", "Cs"} or (
                category == "Cf" and character not in drawn and not 0x13430 <= code <= 0x1345F
            )
            if hidden:
                assert refusal(checks.check_id, f"a{character}b").endswith(f"U+{code:04X}")

    @pytest.mark.parametrize("kind", [uuid.UUID, uuid_utils.UUID])
    def test_bad_input_16_a_uuid_counts_as_its_text(self, kind: Any) -> None:
        text = "0190f3c4-7c0e-7c3c-8b1a-0123456789ab"
        assert checks.check_id(kind(text)) == text

    @pytest.mark.parametrize("check", ID_CHECKS)
    @pytest.mark.parametrize("value", ["abc", "äbc"])
    def test_bad_input_51_a_subclass_counts_as_its_plain_text(self, check: Callable[[object], str], value: str) -> None:
        assert check(Text(value)) == value
        assert type(check(Text(value))) is str

    @pytest.mark.parametrize("check", [checks.check_tenant, checks.check_user_id])
    @pytest.mark.parametrize("value", ["", Text("")])
    def test_tenant_and_user_may_be_empty(self, check: Callable[[object], str], value: str) -> None:
        assert check(value) == ""
        assert type(check(value)) is str

    def test_bad_input_8_to_10_look_alikes_stay_distinct(self) -> None:
        values = ["é", "e\u0301", "A", "a", "İ", "\u0131", "I", "i", "ß", "ss", "ﬁ", "fi"]
        assert [checks.check_id(value) for value in values] == values

    @given(st.text(max_size=600))
    @settings(deadline=None)
    def test_any_text_is_returned_as_it_is_or_refused(self, value: str) -> None:
        try:
            assert checks.check_id(value) == value
        except InvalidArgumentError as error:
            assert len(value) < 2 or value not in str(error)  # noqa: PT017 - either outcome is right
        else:
            assert value == value.strip()
            assert len(value.encode()) <= limits.ID_BYTES
            assert 1 <= len(value) <= limits.ID_CHARS

    @given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=260))
    @settings(deadline=None)
    def test_the_fast_way_and_the_careful_way_agree(self, value: str) -> None:
        """A subclass always goes the careful way."""
        verdicts = []
        for argument in (value, Text(value)):
            try:
                verdicts.append(checks.check_id(argument))
            except InvalidArgumentError as error:
                verdicts.append(str(error))
        assert verdicts[0] == verdicts[1]

    def test_minted_ids_are_ascending_uuids_of_version_7(self) -> None:
        minted = [checks.mint_id() for _ in range(1000)]
        assert sorted(set(minted)) == minted
        assert {uuid.UUID(value).version for value in minted} == {7}
        assert [checks.check_id(value) for value in minted] == minted


class TestTexts:
    @pytest.mark.parametrize(
        "value", ["", " ", "a\nb\t", "\u202e\u200b", "\uffff\U0010ffff", "e\u0301", "\\u0000", "é" * 50]
    )
    def test_accepted_as_they_are(self, value: str) -> None:
        assert checks.check_text(value, "title", max_bytes=100) == value
        assert checks.check_optional_text(value, "title", max_bytes=100) == value

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (None, "is required"),
            (1, "must be a string, not int"),
            (b"a", "must be a string, not bytes"),
            (Role.USER, "must be a string, not Role"),
            ("a\0", "must not hold the character U+0000"),
            ("é\0", "must not hold the character U+0000"),
            ("a\ud800", "must not hold the lone surrogate U+D800"),
            ("\ud83d\ude00", "must not hold the lone surrogate U+D83D"),
            ("x" * 11, "has 11 bytes, over the limit of 10"),
            ("é" * 6, "has 12 bytes, over the limit of 10"),
            ("é" * 11, "has at least 11 bytes, over the limit of 10"),
        ],
    )
    def test_refused(self, value: object, reason: str) -> None:
        assert refusal(checks.check_text, value, "title", max_bytes=10) == f"title {reason}"
        if value is not None:
            assert refusal(checks.check_optional_text, value, "title", max_bytes=10) == f"title {reason}"

    def test_the_limit_is_exact(self) -> None:
        for value in ("x" * 10, "é" * 5):
            assert checks.check_text(value, "title", max_bytes=10) == value

    def test_none_where_it_is_optional(self) -> None:
        assert checks.check_optional_text(None, "title", max_bytes=10) is None

    def test_a_subclass_counts_as_its_plain_text(self) -> None:
        text = checks.check_text(Text("abc"), "title", max_bytes=10)
        assert (text, type(text)) == ("abc", str)


class TestRoles:
    """Checklist H28 and H29."""

    @pytest.mark.parametrize("value", ["user", "tool_result", "роль", " ", "a\nb", "x" * 255, "\u200b"])
    def test_any_text_that_is_not_empty(self, value: str) -> None:
        assert checks.check_role(value) == value
        assert type(checks.check_role(Text(value))) is str

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (None, "is required"),
            ("", "must not be empty"),
            (1, "must be a string, not int"),
            (["user"], "must be a string, not list"),
            (b"user", "must be a string, not bytes"),
            (Role.USER, "must be a string, not Role"),
            ("a\0", "must not hold the character U+0000"),
            ("\ud800", "must not hold the lone surrogate U+D800"),
            ("x" * 256, "is too long: 256 characters, the limit is 255"),
            ("\U0001f600" * 129, "is too long: 516 bytes, the limit is 512"),
        ],
    )
    def test_refused(self, value: object, reason: str) -> None:
        with pytest.raises(InvalidValue) as caught:
            checks.check_role(value)
        assert (caught.value.path, caught.value.reason) == ("$.role", reason)


class TestNumbers:
    @pytest.mark.parametrize("value", [0, 1, 2**63 - 1])
    def test_counts(self, value: int) -> None:
        assert checks.check_count(value, "limit") == value

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            pytest.param(-1, "must be at least 0", id="bad-input-59"),
            pytest.param(1.5, "must be an integer, not float", id="bad-input-60"),
            pytest.param(1.0, "must be an integer, not float", id="bad-input-60-whole"),
            pytest.param(True, "must be an integer, not bool", id="bad-input-61"),
            pytest.param("7", "must be an integer, not str", id="bad-input-62"),
            pytest.param(2**63, f"must be at most {2**63 - 1}", id="bad-input-63"),
            pytest.param(-(2**70), "must be at least 0", id="very-negative"),
            pytest.param(None, "is required", id="none"),
            pytest.param(Decimal(1), "must be an integer, not Decimal", id="decimal"),
            pytest.param(Number(1), "must be an integer, not Number", id="subclass"),
        ],
    )
    def test_counts_refused(self, value: object, reason: str) -> None:
        assert refusal(checks.check_count, value, "limit") == f"limit {reason}"

    def test_counts_within_bounds(self) -> None:
        assert checks.check_count(3, "cap", minimum=3, maximum=3) == 3
        assert refusal(checks.check_count, 2, "cap", minimum=3) == "cap must be at least 3"
        assert refusal(checks.check_count, 4, "cap", maximum=3) == "cap must be at most 3"

    @pytest.mark.parametrize("value", [0, 0.0, 1, 0.5, 1e9])
    def test_seconds(self, value: float) -> None:
        seconds = checks.check_seconds(value, "cooldown_seconds")
        assert (seconds, type(seconds)) == (value, float)

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (-1, "must not be negative"),
            (-0.001, "must not be negative"),
            (float("nan"), "must be finite"),
            (float("inf"), "must be finite"),
            (float("-inf"), "must be finite"),
            (10**400, "must be finite"),
            (True, "must be a number of seconds, not bool"),
            ("1", "must be a number of seconds, not str"),
            (timedelta(seconds=1), "must be a number of seconds, not timedelta"),
            (Decimal(1), "must be a number of seconds, not Decimal"),
            (None, "is required"),
        ],
        ids=lambda value: repr(value)[:20],
    )
    def test_seconds_refused(self, value: object, reason: str) -> None:
        assert refusal(checks.check_seconds, value, "cooldown_seconds") == f"cooldown_seconds {reason}"


class TestInstants:
    @pytest.mark.parametrize(
        ("value", "micros"),
        [
            pytest.param(datetime(1970, 1, 1, tzinfo=UTC), 0, id="epoch"),
            pytest.param(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), -1, id="before-the-epoch"),
            pytest.param(
                datetime(1970, 1, 1, 5, 30, tzinfo=timezone(timedelta(hours=5, minutes=30))), 0, id="bad-input-73"
            ),
            pytest.param(
                datetime(2024, 10, 27, 2, 30, tzinfo=EndOfSummer(), fold=0),
                1_729_989_000_000_000,
                id="fold-0",
            ),
            pytest.param(
                datetime(2024, 10, 27, 2, 30, tzinfo=EndOfSummer(), fold=1),
                1_729_992_600_000_000,
                id="fold-1",
            ),
            pytest.param(datetime.max.replace(tzinfo=UTC), 253_402_300_799_999_999, id="bad-input-74-last"),
            pytest.param(datetime.min.replace(tzinfo=UTC), -62_135_596_800_000_000, id="bad-input-74-first"),
        ],
    )
    def test_become_microseconds_and_the_same_instant_again(self, value: datetime, micros: int) -> None:
        assert checks.check_instant(value, "created_at") == micros
        again = checks.to_datetime(micros)
        assert again == value.astimezone(UTC)
        assert again.tzinfo is UTC

    @pytest.mark.parametrize("seconds", [0, 2**20, 1_700_000_000, 2**31, 2**32, 2**34, 2**37])
    def test_the_shorter_way_is_as_exact(self, seconds: int) -> None:
        for micros in range(seconds * 1_000_000 - 2_000, seconds * 1_000_000 + 2_000):
            assert checks.to_datetime(micros) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)

    @given(st.datetimes(timezones=st.just(UTC)))
    @settings(deadline=None)
    def test_any_instant_exact_to_the_microsecond(self, value: datetime) -> None:
        again = checks.to_datetime(checks.check_instant(value, "created_at"))
        assert again.replace(tzinfo=None) == value.replace(tzinfo=None)

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            pytest.param(datetime(2024, 1, 1), "must have a time zone", id="bad-input-72"),  # noqa: DTZ001 - the point
            pytest.param(
                datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
                "must be within the years 1 to 9999 in UTC",
                id="bad-input-74-past-the-last",
            ),
            pytest.param(
                datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
                "must be within the years 1 to 9999 in UTC",
                id="bad-input-74-before-the-first",
            ),
            pytest.param(datetime(2024, 1, 1, tzinfo=UTC).date(), "must be a datetime, not date", id="date"),
            pytest.param(1_700_000_000, "must be a datetime, not int", id="timestamp"),
            pytest.param("2024-01-01T00:00:00Z", "must be a datetime, not str", id="text"),
            pytest.param(None, "is required", id="none"),
        ],
    )
    def test_refused(self, value: object, reason: str) -> None:
        assert refusal(checks.check_instant, value, "created_at") == f"created_at {reason}"


class TestDocuments:
    """Checklist O24, bad input 81-82."""

    @pytest.mark.parametrize(
        "value", ["memory", "memory/facts", "a/b/c", "..a/b..", "a.b", ".", "con", "C:", "dot.", "два слова"]
    )
    def test_categories(self, value: str) -> None:
        assert checks.check_document_category(value) == value

    @pytest.mark.parametrize(
        "value",
        ["../etc", "..", "a/..", "a/../b", "foo\\bar", "C:\\", "", "/", "/foo", "foo/", "foo//bar", "x" * 256, None, 1],
    )
    def test_categories_refused(self, value: object) -> None:
        message = refusal(checks.check_document_category, value)
        assert message.startswith("document category ")
        assert "etc" not in message
        assert "foo" not in message

    @pytest.mark.parametrize("value", ["facts", "facts.json", "con", "dot.", "...", ".", "C:", "%2e%2e"])
    def test_names(self, value: str) -> None:
        assert checks.check_document_name(value) == value

    @pytest.mark.parametrize(
        "value", ["../shadow", "..", "a/b", "/", "/a", "a/", "a\\b", "C:\\", "", "x" * 256, None, 1]
    )
    def test_names_refused(self, value: object) -> None:
        message = refusal(checks.check_document_name, value)
        assert message.startswith("document name ")
        assert "shadow" not in message
