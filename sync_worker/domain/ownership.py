"""Whose key it is: which keys of a subject this installation manages. Pure.

A key is managed when our marker lists it, or when our last write set it and Clerk still holds exactly that value, so
that an app that wipes the marker keeps nobody's access. Every other key is unmanaged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sync_worker.domain.entitlements import Marker, Placement, Slot

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sync_worker.domain.entitlements import Layout, Observed

MARKER_KEY = "entitlementSync"
MARKER_DOCUMENTS = 50
"""Document ids kept in the marker. It shares 8 KB with the app's own private keys."""


@dataclass(frozen=True, slots=True)
class LastWrites:
    """What the ledger says we wrote last: the values that each key may hold by it, and the documents that gave them.

    A key has several values where it is unknown which of our writes Clerk applied.
    """

    values: Mapping[Slot, Sequence[object]] = field(default_factory=dict)
    documents: tuple[str, ...] = ()


NOTHING_WRITTEN = LastWrites()


@dataclass(frozen=True, slots=True)
class Adoption:
    """What an operator lets a reconcile take over beside what is managed.

    `unmarked`: existing values of our keys that nobody's marker lists. `source`: the keys of another installation.
    """

    unmarked: bool = False
    source: str = ""


NO_ADOPTION = Adoption()


@dataclass(frozen=True, slots=True)
class Managed:
    """The managed keys of one subject, and the documents that gave their values.

    `marker` is ours, and `places` are the namespaces it is in; without it the ledger proves the keys. `other` is
    another installation whose marker is where ours would be.
    """

    slots: tuple[Slot, ...] = ()
    documents: tuple[str, ...] = ()
    marker: Marker | None = None
    places: tuple[str | None, ...] = ()
    other: str = ""


def managed(
    observed: Observed, layout: Layout, written: LastWrites = NOTHING_WRITTEN, adoption: Adoption = NO_ADOPTION
) -> Managed:
    """Return which keys of `observed` are managed, wherever they are; never one that another installation lists."""
    sources = {layout.source, adoption.source} if adoption.source else {layout.source}
    own = {place: marker for place, marker in observed.markers.items() if marker.source in sources}
    here = observed.markers.get(layout.namespace)
    listed = [slot for marker in own.values() for slot in marker.keys]
    proven = [
        slot for slot, values in written.values.items() if any(same_json(stored(observed, slot), v) for v in values)
    ]
    theirs = {slot for marker in observed.markers.values() if marker.source not in sources for slot in marker.keys}
    adopted = [slot for slot in layout.slots if adoption.unmarked and stored(observed, slot) is not None]
    marker = own.get(layout.namespace) or next(iter(own.values()), None)
    return Managed(
        slots=tuple(dict.fromkeys(slot for slot in (*listed, *proven, *adopted) if slot not in theirs)),
        documents=(_all_documents(marker) or written.documents or (marker.documents if marker is not None else ())),
        marker=marker,
        places=tuple(own),
        other=here.source if here is not None and here.source not in sources else "",
    )


def own_marker(observed: Observed, layout: Layout) -> Marker | None:
    """Return our marker, wherever it is."""
    return managed(observed, layout).marker


def _all_documents(marker: Marker | None) -> tuple[str, ...]:
    """Return the documents of a marker; none when it was shortened, so that only the ledger has all of them."""
    return marker.documents if marker is not None and len(marker.documents) < MARKER_DOCUMENTS else ()


def needs_ledger(observed: Observed, layout: Layout) -> bool:
    """Return whether Clerk holds what our marker does not account for, so that only the ledger can tell."""
    marker = own_marker(observed, layout)
    if marker is None:
        return bool(observed.public or observed.private)
    unlisted = (slot for slot in layout.slots if slot not in marker.keys)
    return not _all_documents(marker) or any(stored(observed, slot) is not None for slot in unlisted)


def stored(observed: Observed, slot: Slot) -> object:
    """Return the value that Clerk holds in a slot; None when there is none."""
    metadata: object = observed.public if slot.placement is Placement.PUBLIC else observed.private
    if slot.namespace is not None:
        metadata = metadata.get(slot.namespace) if isinstance(metadata, Mapping) else None
    return metadata.get(slot.name) if isinstance(metadata, Mapping) else None


def same_json(one: object, other: object) -> bool:
    """Return whether two values are the same JSON: `1` is 1.0, but not `true`."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same_json(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same_json, one, other))
    return isinstance(one, bool) is isinstance(other, bool) and one == other


def fingerprint(values: Mapping[Slot, object]) -> str:
    """Return a short hash of managed values and where they are, to detect that somebody edited them."""
    written = {str(slot): value for slot, value in values.items()}
    return hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()[:16]


def is_untouched(observed: Observed, marker: Marker) -> bool:
    """Return whether Clerk holds what was last written with this marker."""
    return fingerprint({slot: stored(observed, slot) for slot in marker.keys}) == marker.fingerprint


def read_markers(private: Mapping[str, object]) -> dict[str | None, Marker]:
    """Return the markers in private metadata by their namespace; None for the top level.

    A marker without a source or keys counts as none: then the ledger decides what is ours.
    """
    places: dict[str | None, Mapping[str, object]] = {None: private}
    places |= {name: value for name, value in private.items() if isinstance(value, Mapping) and name != MARKER_KEY}
    found = {place: _read(metadata.get(MARKER_KEY)) for place, metadata in places.items()}
    return {place: marker for place, marker in found.items() if marker is not None}


def marker_json(marker: Marker) -> dict[str, object]:
    """Return the marker as stored in Clerk."""
    return {
        "source": marker.source,
        "keys": [str(slot) for slot in marker.keys],
        "documents": list(marker.documents),
        "fingerprint": marker.fingerprint,
        "at": marker.at,
    }


def _read(raw: object) -> Marker | None:
    if not isinstance(raw, Mapping) or not isinstance(raw.get("source"), str) or not isinstance(raw.get("keys"), list):
        return None
    documents = raw.get("documents")
    return Marker(
        source=raw["source"],
        keys=tuple(_slots(raw["keys"])),
        documents=tuple(map(str, documents)) if isinstance(documents, list) else (),
        fingerprint=str(raw.get("fingerprint", "")),
        at=str(raw.get("at", "")),
    )


def _slots(texts: Iterable[object]) -> Iterable[Slot]:
    for text in texts:
        try:
            yield Slot.parse(str(text))
        except ValueError:
            continue
