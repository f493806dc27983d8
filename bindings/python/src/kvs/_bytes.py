"""What may be a key or a value, and how many of them lie in one piece of memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Final, Protocol, Union, runtime_checkable

Bytes = Union[bytes, bytearray, memoryview]


@runtime_checkable
class Pairs(Protocol):
    """What is not an iterable of pairs but has one: a dictionary of anything bytes-like."""

    def items(self) -> Iterable[tuple[Bytes, Bytes]]:
        """Return the pairs."""


_LENGTH: Final = Struct("<I")
_LENGTHS: Final = Struct("<II")

# In the place of a value's length: there is no value.
_ABSENT: Final = 0xFFFFFFFF


def as_bytes(what: str, data: Bytes) -> bytes:
    """Return ``data`` as ``bytes``; refuse what only looks like it."""
    if isinstance(data, bytes):
        return data
    if isinstance(data, (bytearray, memoryview)):
        # A copy: another thread could resize or change the original during the call.
        return bytes(data)
    if isinstance(data, str):
        raise TypeError(f"{what} must be bytes-like, not str; use .encode()")
    raise TypeError(f"{what} must be bytes, bytearray or memoryview, not {type(data).__name__}")


def pack_keys(keys: Iterable[bytes]) -> bytes:
    """Return ``keys`` as ``kvs_get_many`` takes them."""
    return b"".join(part for key in keys for part in (_LENGTH.pack(len(key)), key))


def unpack_values(packed: bytes) -> Iterator[bytes | None]:
    """Return the values in what ``kvs_get_many`` gives; None for an absent key."""
    at = 0
    while at < len(packed):
        (length,) = _LENGTH.unpack_from(packed, at)
        at += _LENGTH.size
        if length == _ABSENT:
            yield None
        else:
            yield packed[at : at + length]
            at += length


def unpack_records(packed: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Return the keys and values in what ``kvs_iter_next_many`` gives."""
    at = 0
    while at < len(packed):
        key_len, value_len = _LENGTHS.unpack_from(packed, at)
        value_at = at + _LENGTHS.size + key_len
        yield packed[at + _LENGTHS.size : value_at], packed[value_at : value_at + value_len]
        at = value_at + value_len
