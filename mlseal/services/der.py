"""DER, as much as RFC 3161 needs: strict to read, exact to write (ITU-T X.690).

A timestamp is a dozen nested values around one signature. Writing them directly costs microseconds, where a general
ASN.1 library costs tens of milliseconds (measured: asn1crypto 39 ms for one response). Reading refuses everything that
BER would allow and DER does not: indefinite and non-minimal lengths, padded integers, bytes after the end.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlseal.errors import Misuse

BOOLEAN, INTEGER, OCTET_STRING, NULL, OID = 0x01, 0x02, 0x04, 0x05, 0x06
UTF8_STRING, UTC_TIME, GENERALIZED_TIME = 0x0C, 0x17, 0x18
SEQUENCE, SET = 0x30, 0x31

_MAX_LENGTH_BYTES = 4
_LONG_FORM = 0x80
_MULTI_BYTE_TAG = 0x1F


def value(tag: int, *contents: bytes) -> bytes:
    """One tag-length-value with `contents` joined."""
    content = b"".join(contents)
    size = len(content)
    if size < _LONG_FORM:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, _LONG_FORM | len(length)]) + length + content


def integer(number: int) -> bytes:
    """INTEGER, in the fewest bytes that keep its sign."""
    size = (number.bit_length() if number >= 0 else (number + 1).bit_length()) // 8 + 1
    return value(INTEGER, number.to_bytes(size, "big", signed=True))


def oid(dotted: str) -> bytes:
    """OBJECT IDENTIFIER from dotted decimals."""
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    return value(OID, b"".join(_base128(arc) for arc in (first * 40 + second, *rest)))


def set_of(*members: bytes) -> bytes:
    """SET OF, members in the order that DER demands (X.690, 11.6)."""
    return value(SET, *sorted(members))


def _base128(arc: int) -> bytes:
    digits = [arc & 0x7F]
    while arc := arc >> 7:
        digits.append(_LONG_FORM | (arc & 0x7F))
    return bytes(reversed(digits))


@dataclass
class Reader:
    """Reads consecutive values from `data`; every departure from DER raises `Misuse` naming `what`."""

    data: bytes
    what: str
    position: int = 0

    @property
    def finished(self) -> bool:
        """Whether nothing is left."""
        return self.position == len(self.data)

    def peek(self) -> int | None:
        """The next tag, or None at the end."""
        return None if self.finished else self.data[self.position]

    def take(self, tag: int) -> bytes:
        """The content of the next value, which must have `tag`."""
        start, end = self._bounds(tag)
        self.position = end
        return self.data[start:end]

    def take_whole(self, tag: int) -> bytes:
        """Tag, length and content of the next value, which must have `tag`."""
        begin = self.position
        _, self.position = self._bounds(tag)
        return self.data[begin : self.position]

    def enter(self, tag: int) -> Reader:
        """A reader of the next value's content."""
        return Reader(self.take(tag), self.what)

    def take_integer(self) -> int:
        """The next INTEGER."""
        content = self.take(INTEGER)
        padded = len(content) > 1 and (
            (content[0] == 0 and content[1] < _LONG_FORM) or (content[0] == 0xFF and content[1] >= _LONG_FORM)
        )
        if not content or padded:
            raise self._wrong("an INTEGER is empty or padded")
        return int.from_bytes(content, "big", signed=True)

    def finish(self) -> None:
        """Raise unless everything was read."""
        if not self.finished:
            raise self._wrong(f"{len(self.data) - self.position} bytes are left over")

    def _bounds(self, tag: int) -> tuple[int, int]:
        data, at = self.data, self.position
        if len(data) - at < 2:
            raise self._wrong("it ends too early")
        if data[at] != tag or tag & _MULTI_BYTE_TAG == _MULTI_BYTE_TAG:
            raise self._wrong(f"tag 0x{data[at]:02x} where 0x{tag:02x} belongs")
        size, start = data[at + 1], at + 2
        if size >= _LONG_FORM:
            count = size & 0x7F
            digits = data[start : start + count]
            if not 0 < count <= _MAX_LENGTH_BYTES or len(digits) != count or digits[0] == 0:
                raise self._wrong("a length is indefinite, too long or padded")
            size, start = int.from_bytes(digits, "big"), start + count
            if size < _LONG_FORM:
                raise self._wrong("a length is not in its shortest form")
        if start + size > len(data):
            raise self._wrong("it ends too early")
        return start, start + size

    def _wrong(self, detail: str) -> Misuse:
        return Misuse(f"{self.what} is not DER", got=detail)
