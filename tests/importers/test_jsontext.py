from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionstore import InvalidArgumentError
from sessionstore.importers.jsontext import decode, encode

PRIVATE = "do not repeat this"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18446744073709551616", 2**64),
        ("-9223372036854775809", -(2**63) - 1),
        ("1" + "0" * 400, 10**400),
        ('"\\ud800"', "\ud800"),
        ('{"a": "\\u0000", "b": 1.0}', {"a": "\0", "b": 1.0}),
        ("-0.0", -0.0),
        ("0.1234567890123456789012", 0.1234567890123456789012),
        ('"1234567890123456789012"', "1234567890123456789012"),
    ],
)
def test_no_value_is_changed(text: str, value: Any) -> None:
    """X07: what an import reads is what the file says, also beyond 64 bits and with lone surrogates."""
    decoded = decode(text.encode())
    assert decoded == value
    assert type(decoded) is type(value)
    if isinstance(value, float):
        assert math.copysign(1, decoded) == math.copysign(1, value)  # type: ignore[arg-type]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=9))
def test_there_and_back(value: Any) -> None:
    assert decode(encode(value)) == value


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"a": ' + PRIVATE.encode(), "not JSON at character 6: Expecting value"),
        (b'{"a": "' + PRIVATE.encode() + b'\xff"}', "not UTF-8 at byte 25"),
        (b'{"a": NaN, "b": "' + PRIVATE.encode() + b'"}', "not JSON: NaN and Infinity"),
        (b'{"a": 1e999, "b": "' + PRIVATE.encode() + b'"}', "not JSON: a number beyond the range of floats"),
        (b"1" * 5000, "not JSON: an integer has too many digits"),
        (b"[" * 100_000, "not JSON: nested too deeply"),
        (b"", "not JSON at character 0: Expecting value"),
    ],
)
def test_an_error_says_where_and_shows_nothing(raw: bytes, reason: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        decode(raw)
    assert caught.value.message == reason
    assert caught.value.__cause__ is None
