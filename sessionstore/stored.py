"""A value as it is stored, which somebody may have changed by hand: what it holds, and whether its flag is right."""

from __future__ import annotations

from typing import Any, Final

from sessionstore import codec, limits
from sessionstore.codec import Json

_NUL: Final = b"\\u0000"

_SHORT: Final = 18
"""An integer of so many digits is within 64 bits, whatever they are."""

_DIGITS: Final = bytes(ord("0") if chr(byte) in "0123456789" else ord(" ") for byte in range(256))


class Stored:
    """A stored value, with the flag that says how to read it.

    Attributes:
        readable: it is JSON, though perhaps not to the decoder that the flag names.
    """

    __slots__ = ("_as_flagged", "_flag", "_raw", "readable", "value")

    def __init__(self, raw: bytes, flag: Any) -> None:
        self._raw = raw
        self._flag = flag
        self.value: Json = None
        self.readable = self._as_flagged = self._read(plain=bool(flag))
        if flag and not self._as_flagged:
            self.readable = self._read(plain=False)

    def _read(self, *, plain: bool) -> bool:
        try:
            self.value = codec.decode(self._raw, plain)
        except ValueError:
            return False
        return True

    @property
    def flag_is_right(self) -> bool:
        """Whether the flag is what the encoder would have written."""
        if self._flag not in {True, False} or not self._as_flagged:
            return False
        # What orjson has read is plain but for what it reads without a word: U+0000, and huge integers as floats.
        if self._flag and _NUL not in self._raw and b"0" * (_SHORT + 1) not in self._raw.translate(_DIGITS):
            return True
        return _is_plain(self._raw) == bool(self._flag)

    @property
    def plain(self) -> bool:
        """The flag that the encoder would have written."""
        return bool(self._flag) if self.flag_is_right else _is_plain(self._raw)


def _is_plain(raw: bytes) -> bool:
    try:
        value = codec.decode(raw, False)
        return codec.encode(value, max_bytes=limits.INT64_MAX, max_depth=limits.DEPTH_CEILING).plain
    except ValueError:
        return False
