"""JSON of files: decoded exactly, and written without decoding what is stored encoded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, NoReturn

import orjson

from sessionstore import codec, limits
from sessionstore.codec import Json
from sessionstore.errors import InvalidArgumentError

_DIGITS: Final = bytes.maketrans(b"123456789", b"000000000")
_BIG: Final = b"0" * 19
"""An integer beyond 64 bits has at least nineteen digits."""


def decode(raw: bytes) -> Json:
    """Decode JSON without changing any value.

    orjson is three times as fast, but reads integers beyond 64 bits as floats, and refuses lone surrogates.

    Raises:
        InvalidArgumentError: it is not JSON; the error tells where, and shows nothing of it.
    """
    if _BIG not in raw.translate(_DIGITS):
        try:
            return orjson.loads(raw)  # type: ignore[no-any-return]
        except orjson.JSONDecodeError:
            pass  # what the exact decoder says of it counts
    try:
        return codec.decode(raw, plain=False)
    except ValueError:
        raise InvalidArgumentError(_reason(raw)) from None


def _reason(raw: bytes) -> str:
    try:
        json.loads(raw.decode(), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        return f"not UTF-8 at byte {error.start}"
    except json.JSONDecodeError as error:
        return f"not JSON at character {error.pos}: {error.msg}"
    except RecursionError:
        return "not JSON: nested too deeply"
    except ValueError as error:
        return f"not JSON: {error}" if error.args[0] == _CONSTANT else "not JSON: an integer has too many digits"
    return "not JSON: a number beyond the range of floats"


_CONSTANT: Final = "NaN and Infinity"


def _no_constant(_name: str) -> NoReturn:
    raise ValueError(_CONSTANT)


def encode(value: Json | Mapping[str, Json]) -> bytes:
    """Encode a value as the store encodes metadata and bodies."""
    return codec.encode(value, max_bytes=limits.INT64_MAX, max_depth=limits.DEPTH_CEILING).raw


def encode_members(members: Mapping[str, Json]) -> list[bytes]:
    """Encode the members of an object, each as `"key":value`."""
    return [encode(key) + b":" + encode(value) for key, value in members.items()]
