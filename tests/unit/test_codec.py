"""What the codec accepts comes back equal in type, value, key order and sign; the rest is refused with its place."""

from __future__ import annotations

import inspect
import pickle
import sys
from collections import Counter, OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum, IntFlag, StrEnum
from fractions import Fraction
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock
from uuid import UUID

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessionstore import codec, limits

if TYPE_CHECKING:
    from collections.abc import Iterator

HIGH = "\ud83d"
LOW = "\ude00"


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "overridden"

    def __len__(self) -> int:
        return 0


class Number(int):
    def __int__(self) -> int:
        return -1

    def __repr__(self) -> str:
        return "overridden"


class Real(float):
    def __float__(self) -> float:
        return -1.0

    def __repr__(self) -> str:
        return "overridden"


class Items(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(["overridden"])

    def __len__(self) -> int:
        return 0


class Fields(dict[str, Any]):
    def items(self) -> Any:
        return {"overridden": 1}.items()

    def __len__(self) -> int:
        return 0


class OrderedFields(OrderedDict[str, Any]):
    def items(self) -> Any:
        return {"overridden": 1}.items()


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Flags(IntFlag):
    ON = 1


class Role(StrEnum):
    USER = "user"


@dataclass
class Point:
    x: int = 1


Pair = namedtuple("Pair", "a b")  # noqa: PYI024 - the untyped kind is the point


def encode(
    value: object, *, max_bytes: int = limits.BODY_BYTES, max_depth: int = limits.DEPTH_CEILING
) -> codec.Encoded:
    return codec.encode(value, max_bytes=max_bytes, max_depth=max_depth)


def refusal(value: object, **limit: int) -> codec.InvalidValue:
    with pytest.raises(codec.InvalidValue) as caught:
        encode(value, **limit)
    return caught.value


def back(value: object) -> codec.Json:
    encoded = encode(value)
    return codec.decode(encoded.raw, encoded.plain)


def assert_same(actual: object, expected: object) -> None:
    """Compare by repr as well: it differs where the type, the sign of a zero or the order of keys does."""
    assert actual == expected
    assert repr(actual) == repr(expected)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def _joins(text: str) -> bool:
    return any("\ud800" <= a <= "\udbff" and "\udc00" <= b <= "\udfff" for a, b in pairwise(text))


characters = st.one_of(st.characters(), st.sampled_from('\0\\u0"/\x1f\x7f\u2028\ufffe\U0001f600' + HIGH + LOW))
texts = st.text(characters, max_size=20).filter(lambda text: not _joins(text))
integers = st.one_of(
    st.integers(),
    st.integers(-(2**65), 2**65),
    st.builds(lambda digits, add: 10**digits + add, st.integers(1, 999), st.integers(-(10**9), 10**9)).filter(
        lambda number: number < 10**1000
    ),
)
floats = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.one_of(st.none(), st.booleans(), integers, floats, texts)
values = st.recursive(scalars, lambda inner: st.one_of(st.lists(inner), st.dictionaries(texts, inner)), max_leaves=30)


class TestRoundTrip:
    @given(values)
    @settings(deadline=None)
    def test_any_value(self, value: Any) -> None:
        assert_same(back(value), value)

    @given(values)
    @settings(deadline=None)
    def test_the_text_is_compact_utf8_and_equal_for_equal_values(self, value: Any) -> None:
        encoded = encode(value)
        assert (encoded.size, encoded.text) == (len(encoded.raw), encoded.raw.decode())
        assert "\0" not in encoded.text
        assert encode(back(value)) == encoded
        if encoded.plain:
            assert encoded.raw == orjson.dumps(value)

    @given(values)
    @settings(deadline=None)
    def test_plain_says_what_every_reader_may_rely_on(self, value: Any) -> None:
        encoded = encode(value)
        strings: list[str] = []
        numbers: list[int] = []
        _collect(value, strings, numbers)
        expected = (
            not any("\0" in text for text in strings)
            and not any("\ud800" <= c <= "\udfff" for text in strings for c in text)
            and all(-(2**63) <= number < 2**63 for number in numbers)
        )
        assert encoded.plain is expected
        assert_same(codec.decode(encoded.raw, plain=False), value)

    @pytest.mark.parametrize(
        "value",
        [
            pytest.param(-0.0, id="bad-input-27-negative-zero"),
            pytest.param(0.0, id="bad-input-27-zero"),
            pytest.param(1.0, id="bad-input-28-float"),
            pytest.param(1, id="bad-input-28-int"),
            pytest.param(1e16, id="bad-input-29-1e16"),
            pytest.param(1e22, id="bad-input-29-1e22"),
            pytest.param(5e-324, id="smallest-float"),
            pytest.param(sys.float_info.max, id="largest-float"),
            pytest.param(2**53 + 1, id="bad-input-30"),
            pytest.param(2**63 - 1, id="largest-int64"),
            pytest.param(-(2**63), id="smallest-int64"),
            pytest.param(True, id="bad-input-45-true"),
            pytest.param(False, id="bad-input-45-false"),
            pytest.param(None, id="null"),
            pytest.param([[], {}, "", [{}]], id="bad-input-46-empty"),
            pytest.param([True, 1, 1.0, False, 0, 0.0, -0.0], id="bad-input-45-side-by-side"),
            pytest.param({"z": 1, "a": 2, "m": {"y": 1, "b": 2}}, id="bad-input-44-key-order"),
            pytest.param("\uffff\U0010ffff\r\ne\u0301\u0301é\u2028\x7f", id="bad-input-50-text"),
            pytest.param("\\u0000", id="backslash-u0000-is-no-nul"),
            pytest.param("\\\\u0000", id="two-backslashes-u0000"),
            pytest.param({"\\u0000": "\\ud800"}, id="escapes-spelled-out"),
        ],
    )
    def test_plain_values(self, value: Any) -> None:
        assert encode({"x": value}).plain
        assert_same(back({"x": value}), {"x": value})
        assert_same(back(value), value)

    @pytest.mark.parametrize(
        "value",
        [
            pytest.param("a\0b", id="bad-input-20-nul"),
            pytest.param("\\\0", id="bad-input-20-backslash-nul"),
            pytest.param("\\u0000\0", id="bad-input-20-both"),
            pytest.param({"a\0": 1}, id="bad-input-21-nul-key"),
            pytest.param("a\ud800", id="bad-input-22-high"),
            pytest.param("\udfff\\é\0", id="bad-input-22-low"),
            pytest.param(LOW + HIGH, id="bad-input-22-wrong-way-round"),
            pytest.param([HIGH, LOW], id="bad-input-22-neighbours-in-a-list"),
            pytest.param({"\ud800": 1, "a": [HIGH, 1e16], "b\udfff": {}}, id="bad-input-23-keys"),
            pytest.param({"\ud800": {"\ud801": [{"\ud802": 10**400}]}}, id="bad-input-23-nested-keys"),
            pytest.param(2**63, id="bad-input-31-2**63"),
            pytest.param(2**64 - 1, id="bad-input-31-largest-uint64"),
            pytest.param(2**64, id="bad-input-31-2**64"),
            pytest.param(-(2**63) - 1, id="below-int64"),
            pytest.param(10**400, id="bad-input-32-10**400"),
            pytest.param(10**999 + 1, id="1000-digits"),
            pytest.param(-(10**1000 - 1), id="1000-digits-negative"),
            pytest.param([10**500, 10**500 - 1, 10**501, -(10**500)], id="where-digits-are-split"),
        ],
    )
    def test_values_that_are_not_plain(self, value: Any) -> None:
        assert not encode({"x": value, "y": -0.0}).plain
        assert_same(back({"x": value, "y": -0.0}), {"x": value, "y": -0.0})
        assert_same(back(value), value)

    def test_lone_surrogates_are_escaped_and_nothing_else_is(self) -> None:
        assert encode({"é\ud800": "ж\udfff\n", "n": 1e16}).text == r'{"é\ud800":"ж\udfff\n","n":1e+16}'

    def test_a_number_looks_the_same_whatever_stands_beside_it(self) -> None:
        alone = encode([1e16, 1e-7, 0.1, -0.0]).text
        assert encode([1e16, 1e-7, 0.1, -0.0, 2**70]).text == f"{alone[:-1]},{2**70}]"

    @pytest.mark.parametrize("digits", [640, 4300])
    def test_big_integers_do_not_depend_on_the_interpreter_s_limit(self, digits: int) -> None:
        value = [10**999 + 7, -(10**999) - 7, 10**700]
        before = sys.get_int_max_str_digits()
        sys.set_int_max_str_digits(digits)
        try:
            assert back(value) == value
        finally:
            sys.set_int_max_str_digits(before)


def _collect(value: Any, strings: list[str], numbers: list[int]) -> None:
    if isinstance(value, str):
        strings.append(value)
    elif isinstance(value, int):
        numbers.append(value)
    elif isinstance(value, list):
        for item in value:
            _collect(item, strings, numbers)
    elif isinstance(value, dict):
        for key, item in value.items():
            strings.append(key)
            _collect(item, strings, numbers)


class TestSubclasses:
    """Bad input 51: subclasses become plain, without a look at what they override."""

    @pytest.mark.parametrize(
        ("value", "plain"),
        [
            pytest.param(Text("abc"), "abc", id="str"),
            pytest.param(Text("a\ud800"), "a\ud800", id="str-with-surrogate"),
            pytest.param(Number(7), 7, id="int"),
            pytest.param(Number(2**70), 2**70, id="big-int"),
            pytest.param(Real(1.5), 1.5, id="float"),
            pytest.param(Items([1, Items([2])]), [1, [2]], id="list"),
            pytest.param(Fields(a=1, b=Fields(c=2)), {"a": 1, "b": {"c": 2}}, id="dict"),
            pytest.param(OrderedFields(a=1, b=2), {"a": 1, "b": 2}, id="ordered-dict-with-overrides"),
            pytest.param({Text("k"): Text("v")}, {"k": "v"}, id="key"),
            pytest.param(defaultdict(list, a=[1]), {"a": [1]}, id="defaultdict"),
            pytest.param(Counter("aab"), {"a": 2, "b": 1}, id="counter"),
        ],
    )
    def test_become_plain(self, value: object, plain: object) -> None:
        assert_same(back(value), plain)
        assert encode(value) == encode(plain)
        assert_same(back([{"x": value}]), [{"x": plain}])

    def test_an_ordered_dict_keeps_its_own_order(self) -> None:
        value = OrderedDict(a=1, b=2, c=3)
        value.move_to_end("a")
        assert_same(back({"x": value}), {"x": {"b": 2, "c": 3, "a": 1}})

    def test_keys_that_become_the_same_text_are_refused(self) -> None:
        class Apart(str):
            __slots__ = ()

            def __eq__(self, other: object) -> bool:
                return self is other

            def __hash__(self) -> int:
                return id(self)

        error = refusal({"a": {Apart("k"): 1, Apart("k"): 2}})
        assert (error.path, error.reason) == ("$.a.k", "two keys are the same text")

    @pytest.mark.parametrize(
        "value", [Colour.RED, Level.LOW, Flags.ON, Role.USER], ids=lambda value: type(value).__name__
    )
    def test_enum_members_are_refused(self, value: object) -> None:
        for place, whole in [("$", value), ("$[0].x", [{"x": value}])]:
            error = refusal(whole)
            assert (error.path, error.reason) == (
                place,
                f"must be a JSON value, not the enum member {type(value).__name__}",
            )

    def test_enum_members_are_refused_as_keys(self) -> None:
        error = refusal({"a": {Role.USER: 1}})
        assert (error.path, error.reason) == ("$.a", "keys must be strings, not Role")


class TestRefusals:
    @pytest.mark.parametrize(
        ("value", "kind"),
        [
            pytest.param((1, 2), "tuple", id="bad-input-37-tuple"),
            pytest.param(Pair(1, 2), "Pair", id="bad-input-37-namedtuple"),
            pytest.param({1}, "set", id="bad-input-38-set"),
            pytest.param(frozenset(), "frozenset", id="bad-input-38-frozenset"),
            pytest.param(b"x", "bytes", id="bad-input-39-bytes"),
            pytest.param(bytearray(b"x"), "bytearray", id="bad-input-39-bytearray"),
            pytest.param(datetime.now(UTC), "datetime", id="bad-input-40-datetime"),
            pytest.param(date(2024, 1, 1), "date", id="bad-input-40-date"),
            pytest.param(Decimal(1), "Decimal", id="bad-input-40-decimal"),
            pytest.param(UUID(int=0), "UUID", id="bad-input-40-uuid"),
            pytest.param(Point(), "Point", id="bad-input-40-object"),
            pytest.param(Fraction(1, 2), "Fraction", id="fraction"),
            pytest.param(1j, "complex", id="complex"),
            pytest.param(MappingProxyType({}), "mappingproxy", id="mapping-that-is-no-dict"),
            pytest.param({}.keys(), "dict_keys", id="view"),
            pytest.param(range(2), "range", id="range"),
            pytest.param(int, "type", id="class"),
            pytest.param(orjson.Fragment(b"{"), "Fragment", id="ready-made-json"),
            pytest.param(MagicMock(spec=dict), "MagicMock", id="something-that-claims-to-be-a-dict"),
        ],
    )
    def test_types(self, value: object, kind: str) -> None:
        error = refusal({"content": [0, 1, {"x": value}]})
        assert (error.path, error.reason) == ("$.content[2].x", f"must be a JSON value, not {kind}")
        assert refusal(value).path == "$"

    @pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf"), Real("nan")])
    def test_bad_input_24_to_26_numbers_that_are_not_finite(self, number: float) -> None:
        error = refusal({"a": [1.5, {"b": number}]})
        assert (error.path, error.reason) == ("$.a[1].b", "must be a finite number")

    @pytest.mark.parametrize("digits", [1001, 5000, 100_000])
    @pytest.mark.parametrize("sign", [1, -1])
    def test_bad_input_33_integers_of_too_many_digits(self, digits: int, sign: int) -> None:
        error = refusal({"n": sign * 10 ** (digits - 1)})
        assert error.path == "$.n"
        assert error.reason == f"an integer of about {digits} digits, over the limit of 1000"

    @pytest.mark.parametrize(
        ("key", "kind"),
        [
            pytest.param(1, "int", id="bad-input-41"),
            pytest.param(1.5, "float", id="bad-input-42"),
            pytest.param(None, "NoneType", id="bad-input-43"),
            pytest.param(True, "bool", id="bool"),
            pytest.param((), "tuple", id="tuple"),
            pytest.param(b"a", "bytes", id="bytes"),
        ],
    )
    def test_bad_input_41_to_43_keys(self, key: object, kind: str) -> None:
        error = refusal({"a": [{"1": 0, key: 0}]})
        assert (error.path, error.reason) == ("$.a[0]", f"keys must be strings, not {kind}")
        assert refusal({key: 0}).path == "$"

    @pytest.mark.parametrize("value", [HIGH + LOW, f"a\0{HIGH}{LOW}b", Text(HIGH + LOW)])
    def test_two_code_units_that_json_would_join(self, value: str) -> None:
        error = refusal({"a": value})
        assert error.path == "$.a"
        assert "high surrogate directly before a low one" in error.reason
        assert refusal({"a": {value: 1}}).reason == error.reason

    @pytest.mark.parametrize(
        ("key", "step"),
        [
            ("x", ".x"),
            ("ключ", ".ключ"),
            ("a b", '["a b"]'),
            ("", '[""]'),
            ("1", '["1"]'),
            ("a.b", '["a.b"]'),
            ('"', r'["\""]'),
            ("\ud800", r'["\ud800"]'),
            ("a\nb\0", r'["a\nb\u0000"]'),
            ("\u202eb", r'["\u202eb"]'),
            ("k" * 100, f'["{"k" * 64}..."]'),
        ],
    )
    def test_paths_are_exact_and_printable(self, key: str, step: str) -> None:
        error = refusal({"before": {}, key: ["a", {key: {1}}]})
        assert error.path == f"${step}[1]{step}"
        str(error).encode()

    def test_the_path_forgets_what_was_left(self) -> None:
        assert refusal({"a": {"b": [[], {"c": 1}]}, "d": [[], ()]}).path == "$.d[1]"

    def test_the_error_never_shows_the_value(self) -> None:
        for value in ({"k": {"secret"}}, {"k": Decimal(4711)}, {"k": [HIGH + LOW + "secret"]}, {"k": "secret" * 9}):
            error = refusal(value, max_bytes=40)
            for word in ("secret", "4711"):
                assert word not in str(error)
                assert word not in repr(error)

    def test_the_error_survives_pickle(self) -> None:
        error = pickle.loads(pickle.dumps(refusal({"a": ()})))  # noqa: S301 - our own bytes
        assert (error.path, error.reason, str(error)) == ("$.a", error.reason, f"$.a: {error.reason}")


class TestDepth:
    """Bad input 34-36 and 51."""

    @pytest.mark.parametrize("wrap", [list, Items], ids=["usual", "slow"])
    @pytest.mark.parametrize("limit", [1, 2, limits.DEPTH, limits.DEPTH_CEILING])
    def test_the_limit_is_exact(self, limit: int, wrap: Any) -> None:
        assert encode(wrap(nested(limit)), max_depth=limit).text == "[" * limit + "]" * limit
        error = refusal(wrap(nested(limit + 1)), max_depth=limit)
        assert (error.path, error.reason) == ("$" + "[0]" * limit, f"nested deeper than the limit of {limit}")

    def test_scalars_have_no_depth(self) -> None:
        assert encode([1, "a", None], max_depth=1).text == '[1,"a",null]'

    @pytest.mark.parametrize("leaf", [1, "\ud800", 2**70], ids=["plain", "surrogate", "big-integer"])
    def test_the_deepest_value_is_read_back(self, leaf: Any) -> None:
        value = leaf
        for level in range(limits.DEPTH_CEILING):
            value = {"k": value} if level % 2 else [value]
        assert_same(back(value), value)

    @pytest.mark.parametrize("depth", [201, 5_000, 200_000])
    def test_too_deep_is_refused_without_exhausting_the_stack(self, depth: int) -> None:
        assert "limit of 200" in refusal({"content": nested(depth)}, max_depth=200).reason

    def test_too_deep_is_refused_where_the_stack_is_nearly_used_up(self) -> None:
        def call(frames: int) -> codec.InvalidValue | None:
            return call(frames - 1) if frames else _refused(nested(5_000))

        free = sys.getrecursionlimit() - len(inspect.stack(0))
        assert call(free - 60) is not None

    def test_values_that_contain_themselves(self) -> None:
        items: list[Any] = []
        items.extend([items, items])
        fields: dict[str, Any] = {"content": ["text"]}
        fields["content"].append(fields)
        slow = Items([{"a": 1}])
        slow.append(slow)
        for value in (items, fields, slow):
            assert "nested deeper" in refusal(value).reason

    def test_a_value_shared_is_no_cycle(self) -> None:
        part = {"x": [1]}
        assert_same(back([part, part]), [{"x": [1]}, {"x": [1]}])


def _refused(value: object) -> codec.InvalidValue | None:
    try:
        encode(value)
    except codec.InvalidValue as error:
        return error
    return None


class TestSize:
    """Bad input 47-49."""

    @pytest.mark.parametrize(
        "value",
        ["", "a", "é", "\n", "\0", "\ud800", 7, 2**70, 1.5, None, [], {}, [1], [[]], {"": 1}, {"é": ["\x01", 2**64]}],
        ids=repr,
    )
    def test_the_limit_is_exact(self, value: object) -> None:
        size = encode(value).size
        assert encode(value, max_bytes=size).size == size
        error = refusal(value, max_bytes=size - 1)
        assert error.path == "$"
        assert f"over the limit of {size - 1}" in error.reason

    @given(values)
    @settings(deadline=None)
    def test_the_limit_is_exact_for_any_value(self, value: Any) -> None:
        size = encode(value).size
        assert encode(value, max_bytes=size).size == size
        assert refusal(value, max_bytes=size - 1).path == "$"

    def test_the_default_limit(self) -> None:
        empty = encode({"content": ""}).size
        fits = {"content": "x" * (limits.BODY_BYTES - empty)}
        assert encode(fits).size == limits.BODY_BYTES
        error = refusal({"content": fits["content"] + "x"})
        assert error.reason == f"{limits.BODY_BYTES + 1} bytes, over the limit of {limits.BODY_BYTES}"

    @pytest.mark.parametrize("wrap", [dict, Fields], ids=["usual", "slow"])
    def test_a_huge_text_is_refused_before_it_is_encoded(self, wrap: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        text = "x" * 10_000
        monkeypatch.setattr(orjson, "dumps", lambda _: pytest.fail("encoded"))
        for value in (wrap(content=text), wrap({text: 1}), wrap(content=[text[:600]] * 2), wrap(content=[0] * 600)):
            error = refusal(value, max_bytes=1_000)
            assert error.path == "$"
            assert error.reason.startswith("at least ")
            assert error.reason.endswith("over the limit of 1000")

    @pytest.mark.parametrize("wrap", [list, Items], ids=["usual", "slow"])
    def test_small_in_memory_and_huge_as_text(self, wrap: Any) -> None:
        value = wrap(["x"])
        for _ in range(60):
            value = wrap([value] * 10)
        assert "over the limit of 100000" in refusal(value, max_bytes=100_000).reason


class TestEncodeObject:
    """Checklist H29: not an object."""

    @pytest.mark.parametrize("value", [{}, {"role": "user"}, Fields(a=1), OrderedDict(a=1)])
    def test_dicts(self, value: Any) -> None:
        assert codec.encode_object(value, max_bytes=100, max_depth=9) == encode(value)

    @pytest.mark.parametrize(
        "value", [[], "text", 1, None, True, (), MappingProxyType({}), Point()], ids=lambda value: type(value).__name__
    )
    def test_anything_else(self, value: object) -> None:
        with pytest.raises(codec.InvalidValue) as caught:
            codec.encode_object(value, max_bytes=100, max_depth=9)
        assert str(caught.value) == f"$: must be a JSON object, not {type(value).__name__}"

    def test_limits_hold(self) -> None:
        with pytest.raises(codec.InvalidValue, match="limit of 10"):
            codec.encode_object({"content": "x" * 20}, max_bytes=10, max_depth=9)


class TestDecode:
    @pytest.mark.parametrize("plain", [True, False])
    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"{",
            b'{"secret":}',
            b"NaN",
            b"[Infinity]",
            b"-Infinity",
            b"1e999",
            b"\xff",
            b'"\xed\xa0\x80"',
            b"\xef\xbb\xbf{}",
            b'"a\0b"',
            b"{} {}",
            b"[" * 100_000 + b"]" * 100_000,
            '"a"'.encode("utf-16"),
        ],
        ids=lambda raw: repr(raw[:12]),
    )
    def test_what_is_not_json(self, raw: bytes, plain: bool) -> None:
        with pytest.raises(ValueError, match=r"^not JSON$") as caught:
            codec.decode(raw, plain)
        assert type(caught.value) is ValueError
        assert caught.value.__suppress_context__

    @pytest.mark.parametrize("plain", [True, False])
    def test_both_decoders_agree(self, plain: bool) -> None:
        raw = b' {"b": [1, 1.0, -0.0, true, null, "\\ud83d\\ude00\\n"], "a": {"": 1e16}} '
        assert_same(codec.decode(raw, plain), {"b": [1, 1.0, -0.0, True, None, "\U0001f600\n"], "a": {"": 1e16}})


class TestScalarKey:
    @pytest.mark.parametrize(
        ("value", "key"),
        [
            ("red", '"red"'),
            (1, "1"),
            (1.0, "1.0"),
            (True, "true"),
            (None, "null"),
            ("a\0", r'"a\u0000"'),
            ("\ud800", r'"\ud800"'),
            ("[", '"["'),
            ("x" * 200, '"' + "x" * 127),
            (10**300, "1" + "0" * 127),
            (Text("red"), '"red"'),
            ([], None),
            ({}, None),
            (["red"], None),
            (Items([1]), None),
        ],
        ids=lambda value: repr(value)[:12],
    )
    def test_first_characters_of_a_scalar(self, value: object, key: str | None) -> None:
        assert codec.scalar_key(encode(value), value) == key
