"""JSON in and out: what is accepted comes back equal in type, value, key order and sign.

orjson alone would change data in silence (NaN becomes null, tuples and enums become something else), so one walk over
exact types goes before it. What the walk does not know goes the slow way, which copies the value into plain types or
says what is wrong with it, and where.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from enum import Enum
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, TypeAlias, cast

import orjson

from sessionstore import limits

if TYPE_CHECKING:
    from collections.abc import Iterator

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
"""A JSON value as Python has it."""

_INT_MAX: Final = limits.INT64_MAX
_INT_MIN: Final = -limits.INT64_MAX - 1
_INTEGER_END: Final = 10**limits.INTEGER_DIGITS

_BACKSLASH: Final = ord("\\")

_CHUNK_DIGITS: Final = 500
"""Digits converted at once: Python's own limit can be set as low as 640."""

_CHUNK: Final = 10**_CHUNK_DIGITS

_PATH_KEY_CHARS: Final = 64
"""How much of a key an error shows: keys are names, but nothing stops a caller from keeping text in one."""

_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_SURROGATE_PAIR: Final = re.compile(r"[\ud800-\udbff][\udc00-\udfff]")


class InvalidValue(ValueError):  # noqa: N818 - never leaves the package: callers turn it into a public error
    """A value that JSON cannot carry unchanged, or that is over a limit.

    Attributes:
        path: the place of the fault, `$` being the whole value: `$.content[2].x`.
        reason: what is wrong there. It never shows the value.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class Encoded(NamedTuple):
    """An encoded value.

    Attributes:
        raw: compact JSON in UTF-8, without a raw U+0000. The same value always has the same bytes.
        plain: no U+0000, no lone surrogate, no integer beyond 64 bits: orjson and SQL functions read it back exactly.
    """

    raw: bytes
    plain: bool

    @property
    def text(self) -> str:
        """The JSON as a string."""
        return self.raw.decode()

    @property
    def size(self) -> int:
        """Bytes of the JSON."""
        return len(self.raw)


def encode(value: object, *, max_bytes: int, max_depth: int) -> Encoded:
    """Encode a value, or refuse it; nothing is converted but subclasses of the JSON types, which become plain.

    Args:
        value: a dict, list, str, int, float, bool or None, and the same inside.
        max_bytes: largest text in UTF-8 bytes.
        max_depth: deepest nesting, at least 1: a list of scalars has depth 1.

    Raises:
        InvalidValue: for anything else, with path and reason.
    """
    plain = _is_usual(value, max_bytes, max_depth)
    if plain:
        try:
            raw = orjson.dumps(value)
        except TypeError:  # a lone surrogate, which the walk leaves to orjson to find
            plain = False
    if not plain:
        copier = _Copier(max_bytes, max_depth)
        raw = orjson.dumps(copier.copy(value))
        plain = copier.plain
    if len(raw) > max_bytes:
        raise InvalidValue("$", f"{len(raw)} bytes, over the limit of {max_bytes}")
    # A doubled backslash before u0000 is a backslash and five characters, not U+0000.
    if _BACKSLASH in raw and b"\\u0000" in raw and b"\\u0000" in raw.replace(b"\\\\", b""):
        plain = False
    return Encoded(raw, plain)


def encode_object(value: object, *, max_bytes: int, max_depth: int) -> Encoded:
    """Encode a body: as `encode`, but only a dict will do at the top."""
    if not issubclass(type(value), dict):
        raise InvalidValue("$", f"must be a JSON object, not {type(value).__name__}")
    return encode(value, max_bytes=max_bytes, max_depth=max_depth)


def decode(raw: bytes, plain: bool) -> Json:
    """Decode what `encode` wrote.

    Args:
        raw: the stored text as UTF-8.
        plain: as stored beside it; it picks the decoder.

    Raises:
        ValueError: the text is not JSON. The error does not hold the text.
    """
    try:
        return cast("Json", orjson.loads(raw) if plain else _EXACT_DECODER.decode(raw.decode()))
    except (ValueError, RecursionError):  # the decoders' own errors carry the whole text as an attribute
        raise ValueError("not JSON") from None


def scalar_key(encoded: Encoded, value: object) -> str | None:
    """Return what is indexed of a metadata value: the start of an encoded scalar, None for an object or array."""
    return None if isinstance(value, dict | list) else encoded.text[: limits.VALUE_KEY_CHARS]


def _is_usual(value: object, max_bytes: int, max_depth: int) -> bool:  # noqa: C901, PLR0912 - calls would cost more
    """Tell whether orjson would write the value exactly, lone surrogates aside.

    This is the hot path of every append. The loop keeps its own stack, so a value cannot exhaust the interpreter's, and
    goes deep first, so a value that contains itself is found at once. `room` loses the least that the text can have,
    and so ends a value that is small in memory and huge as text because its parts are shared. It starts one byte higher
    because a scalar, in a list of its own here, is counted as two.
    """
    room = max_bytes + 1
    nodes: list[Any] = [value if type(value) is dict or type(value) is list else [value]]
    depths = [1]
    while nodes:
        node = nodes.pop()
        depth = depths.pop()
        room -= 2 * len(node)
        if type(node) is dict:
            for key in node:
                if type(key) is not str:
                    return False
                room -= len(key)
            node = node.values()
        for item in node:
            kind = type(item)
            if kind is str:
                room -= len(item)
            elif kind is dict or kind is list:
                if depth >= max_depth:
                    return False
                nodes.append(item)
                depths.append(depth + 1)
            elif kind is int:
                if not _INT_MIN <= item <= _INT_MAX:
                    return False
            elif kind is float:
                if not isfinite(item):
                    return False
            elif kind is not bool and item is not None:
                return False
        if room < 0:
            raise _too_large(room, max_bytes)
    return True


def _too_large(room: int, max_bytes: int) -> InvalidValue:
    return InvalidValue("$", f"at least {max_bytes - room} bytes, over the limit of {max_bytes}")


class _Frame:
    """A container that is being copied: the items to come, the copy so far, the key or index of the current item."""

    __slots__ = ("copy", "items", "key", "surrogate_keys")

    def __init__(self, items: Iterator[tuple[Any, Any]], copy: dict[str, Any] | list[Any]) -> None:
        self.items = items
        self.copy = copy
        self.key: str | int = 0
        self.surrogate_keys = False

    def put(self, item: object) -> None:
        if isinstance(self.copy, dict):
            self.copy[cast("str", self.key)] = item
        else:
            self.copy.append(item)

    def finish(self) -> object:
        """Return the copy as orjson takes it: keys with lone surrogates it does not, so that object is ready-made."""
        if not self.surrogate_keys:
            return self.copy
        members = cast("dict[str, Any]", self.copy).items()
        pairs = [_surrogate_text(key) + b":" + orjson.dumps(item) for key, item in members]
        return orjson.Fragment(b"{" + b",".join(pairs) + b"}")


class _Copier:
    """Copies a value into what orjson writes exactly, or refuses it with the place of the fault.

    What orjson cannot write (big integers, lone surrogates) becomes ready-made text inside the copy; the rest is still
    written by orjson, so that a number looks the same whatever stands beside it.
    """

    def __init__(self, max_bytes: int, max_depth: int) -> None:
        self.plain = True
        self._max_bytes = max_bytes
        self._max_depth = max_depth
        self._room = max_bytes + 1  # as in _is_usual
        self._frames: list[_Frame] = []

    def copy(self, value: object) -> Any:
        top = _Frame(iter([(0, value)]), [])
        self._spend(2)
        frames = self._frames = [top]
        while frames:
            frame = frames[-1]
            child = self._copy_scalars(frame)
            if child is not None:
                frames.append(child)
                continue
            frames.pop()
            if frames:
                frames[-1].put(frame.finish())
        return cast("list[Any]", top.copy)[0]

    def _copy_scalars(self, frame: _Frame) -> _Frame | None:
        """Copy a container's items up to the first that is a container itself; return that one, opened."""
        for key, item in frame.items:
            frame.key = self._key(frame, key) if isinstance(frame.copy, dict) else key
            kind = type(item)
            if issubclass(kind, Enum):
                self._refuse(f"must be a JSON value, not the enum member {kind.__name__}")
            if issubclass(kind, dict | list):
                return self._open(item)
            frame.put(self._scalar(item))
        return None

    def _open(self, node: Any) -> _Frame:
        if len(self._frames) > self._max_depth:
            self._refuse(f"nested deeper than the limit of {self._max_depth}")
        # The base class's own methods: a subclass may do anything in its overrides.
        if issubclass(type(node), list):
            self._spend(2 * list.__len__(node))
            return _Frame(enumerate(list.__iter__(node)), [])
        self._spend(2 * dict.__len__(node))
        ordered = issubclass(type(node), OrderedDict)  # keeps its order apart from the dict it is
        return _Frame(iter((OrderedDict if ordered else dict).items(node)), {})

    def _key(self, frame: _Frame, key: object) -> str:
        kind = type(key)
        if not issubclass(kind, str) or issubclass(kind, Enum):
            raise InvalidValue(self._path(self._frames[:-1]), f"keys must be strings, not {kind.__name__}")
        plain = str.__str__(cast("str", key))
        frame.key = plain
        if plain in cast("dict[str, Any]", frame.copy):
            self._refuse("two keys are the same text")
        self._spend(len(plain))
        frame.surrogate_keys |= self._has_surrogate(plain)
        return plain

    def _scalar(self, item: Any) -> object:
        kind = type(item)
        if item is None or kind is bool:
            return item
        if issubclass(kind, str):
            text = str.__str__(item)
            self._spend(len(text))
            return orjson.Fragment(_surrogate_text(text)) if self._has_surrogate(text) else text
        if issubclass(kind, int):
            return self._integer(int.__int__(item))
        if issubclass(kind, float):
            number = float.__float__(item)
            return number if isfinite(number) else self._refuse("must be a finite number")
        return self._refuse(f"must be a JSON value, not {kind.__name__}")

    def _integer(self, number: int) -> object:
        if _INT_MIN <= number <= _INT_MAX:
            return number
        if not -_INTEGER_END < number < _INTEGER_END:
            digits = number.bit_length() * 30103 // 100000 + 1
            self._refuse(f"an integer of about {digits} digits, over the limit of {limits.INTEGER_DIGITS}")
        self.plain = False
        text = _integer_text(number)
        self._spend(len(text) - 1)  # one character of every item is spent with its container
        return orjson.Fragment(text)

    def _has_surrogate(self, text: str) -> bool:
        if text.isascii() or not _SURROGATE.search(text):
            return False
        if _SURROGATE_PAIR.search(text):
            self._refuse("a high surrogate directly before a low one, which JSON would join")
        self.plain = False
        return True

    def _spend(self, least: int) -> None:
        self._room -= least
        if self._room < 0:
            raise _too_large(self._room, self._max_bytes)

    def _refuse(self, reason: str) -> NoReturn:
        raise InvalidValue(self._path(self._frames), reason)

    @staticmethod
    def _path(frames: list[_Frame]) -> str:
        return "$" + "".join(_segment(frame.key) for frame in frames[1:])


def _segment(key: str | int) -> str:
    """Write one step of a path, always printable."""
    if isinstance(key, int):
        return f"[{key}]"
    if len(key) > _PATH_KEY_CHARS:
        key = key[:_PATH_KEY_CHARS] + "..."
    return f".{key}" if key.isidentifier() else f"[{json.dumps(key)}]"


def _surrogate_text(text: str) -> bytes:
    r"""Encode a string with lone surrogates, which are all that UTF-8 refuses, as `\udXXX` and the rest as it is."""
    return json.dumps(text, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _integer_text(number: int) -> str:
    high, low = divmod(abs(number), _CHUNK)
    text = f"{high}{low:0{_CHUNK_DIGITS}}" if high else str(low)
    return f"-{text}" if number < 0 else text


def _parse_integer(text: str) -> int:
    if len(text) <= _CHUNK_DIGITS:
        return int(text)
    digits = text.removeprefix("-")
    number = int(digits[:-_CHUNK_DIGITS] or "0") * _CHUNK + int(digits[-_CHUNK_DIGITS:])
    return -number if digits != text else number


def _parse_float(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError("a number beyond the range of floats")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_EXACT_DECODER: Final = json.JSONDecoder(
    parse_int=_parse_integer, parse_float=_parse_float, parse_constant=_refuse_constant
)
"""Reads what orjson cannot: lone surrogates and integers beyond 64 bits."""
