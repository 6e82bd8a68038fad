"""Keeps very many small records in little memory: as bytes, about a tenth of what the same takes as Python objects."""

from __future__ import annotations

import json
from array import array
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_END = b"\n"
"""Ends a record. JSON has none inside a text."""


class Packed:
    """Records that JSON can hold, numbered in the order in which they are added, and found by their keys.

    A key may have several. `seal` is called once, after the last `add` and before the first `find`.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._places = array("Q")
        self._hashes = array("q")
        self._first = array("I", [0])
        """By the last bits of a hash, one more than the number of the first record with such a key; 0 for none."""
        self._next = array("I")
        """By the number of a record, the same for the record after it."""

    def add(self, key: str, record: Sequence[Any]) -> None:
        """Add a record under a key."""
        self._hashes.append(hash(key))
        self._places.append(len(self._bytes))
        self._bytes += _encode([key, *record]).encode("utf-8", "surrogatepass") + _END

    def seal(self) -> None:
        """Make the records ready to be found."""
        many = len(self)
        self._first = array("I", bytes(self._first.itemsize << many.bit_length()))
        self._next = array("I", bytes(self._next.itemsize * many))
        last_bits = len(self._first) - 1
        for number in reversed(range(many)):
            bits = self._hashes[number] & last_bits
            self._next[number] = self._first[bits]
            self._first[bits] = number + 1

    def find(self, key: str) -> list[tuple[int, list[Any]]]:
        """Return the records under a key with their numbers, in order."""
        hashed = hash(key)
        found = []
        following = self._first[hashed & (len(self._first) - 1)]
        while following:
            number = following - 1
            following = self._next[number]
            if self._hashes[number] == hashed:
                other, record = self[number]
                if other == key:
                    found.append((number, record))
        return found

    def __getitem__(self, number: int) -> tuple[str, list[Any]]:
        """Return the key and the record with a number."""
        place = self._places[number]
        key, *record = json.loads(self._bytes[place : self._bytes.index(_END, place)])
        return key, record

    def __len__(self) -> int:
        return len(self._places)


class Moments:
    """Pairs of a key and a time (epoch seconds), in the order in which they are added."""

    def __init__(self) -> None:
        self._keys = bytearray()
        self._times = array("d")

    def add(self, key: str, moment: float) -> None:
        """Add a pair."""
        self._keys += key.encode() + _END
        self._times.append(moment)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        place = 0
        for moment in self._times:
            end = self._keys.index(_END, place)
            yield self._keys[place:end].decode(), moment
            place = end + 1

    def __len__(self) -> int:
        return len(self._times)
