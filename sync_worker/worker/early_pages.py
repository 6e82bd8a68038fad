"""Keeps pages of Clerk that arrive while Sanity is still being read, compressed."""

from __future__ import annotations

import json
import zlib
from collections import deque
from typing import TYPE_CHECKING, Any

from sync_worker.domain.entitlements import Observed
from sync_worker.domain.ownership import read_markers
from sync_worker.domain.subjects import Kind, Subject

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FAST = 1
"""The level of compression: metadata repeats itself so much that a higher one gains little."""


class EarlyPages:
    """Pages in the order in which they are added."""

    def __init__(self) -> None:
        self._pages: deque[bytes] = deque()

    def add(self, page: Sequence[Observed]) -> None:
        """Keep a page."""
        rows = [
            (
                str(one.subject),
                one.public,
                one.private,
                [str(address) for address in one.addresses],
                one.unreadable,
                None if one.possible_addresses is None else list(map(str, one.possible_addresses)),
            )
            for one in page
        ]
        self._pages.append(zlib.compress(json.dumps(rows).encode(), FAST))

    def __iter__(self) -> Iterator[list[Observed]]:
        """Take the pages out, one after the other."""
        while self._pages:
            yield [_observed(row) for row in json.loads(zlib.decompress(self._pages.popleft()))]


def _observed(row: Sequence[Any]) -> Observed:
    subject, public, private, addresses, unreadable, possible = row
    return Observed(
        _subject(subject),
        public,
        private,
        read_markers(private),
        tuple(map(_subject, addresses)),
        unreadable,
        None if possible is None else tuple(map(_subject, possible)),
    )


def _subject(key: str) -> Subject:
    """Return the subject of a key that was validated before."""
    kind, _, id_ = key.partition(":")
    return Subject(Kind(kind), id_)
