"""The one diff: compares access with what Clerk stores and returns exactly the managed keys that differ.

A subject is managed when it has our marker. One that merely happens to have a `plan` is not, and stays as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from sync_worker.domain.entitlements import CORE_FIELDS, Change, ChangeKind, Layout, Marker, Placement, Slot
from sync_worker.errors import AccessTooLarge

if TYPE_CHECKING:
    from sync_worker.domain.entitlements import Access, Observed, Value

MARKER_KEY = "entitlementSync"
DEFAULT_SLOTS = Layout(CORE_FIELDS).slots
METADATA_LIMIT = 8192
"""Bytes of JSON in one metadata object, after the merge (Clerk: "limited to 8KB maximum")."""
MARKER_SOURCES = 50
"""Document ids kept in the marker. It shares 8 KB with the app's own private keys."""


def diff(
    desired: Access, observed: Observed, layout: Layout, *, at: str, cause: str = "", witnessed: bool = False
) -> Change:
    """Return the change that turns `observed` into `desired`; its kind is NONE when nothing has to be written.

    `at` is the time of the change (RFC 3339) for the marker. With `witnessed`, keys without a marker count as managed:
    an event reported that an entitlement of this subject ended, or an operator adopts them.
    Raises AccessTooLarge when Clerk would reject the result.
    """
    before = managed_values(observed, layout)
    after = {name: _plain(value) for name, value in desired.values.items()}
    entitled = bool(desired.sources)
    unchanged = Change(observed.subject, ChangeKind.NONE, before, before, desired.sources, cause, desired.refusals)
    if not entitled and observed.marker is None and not (witnessed and before):
        return unchanged
    target = {slot: after.get(slot.name) for slot in layout.slots}
    patches = _patches({**dict.fromkeys(_slots(observed, layout)), **target}, observed)
    marker_differs = (observed.marker is None) == bool(after)
    if not (any(patches.values()) or marker_differs):
        return unchanged
    marker = Marker(desired.sources[:MARKER_SOURCES], fingerprint(after, layout), at, layout.slots) if after else None
    patches[Placement.PRIVATE][MARKER_KEY] = marker_json(marker)
    _refuse_oversize(observed, patches)
    return Change(
        subject=observed.subject,
        kind=_kind(entitled=entitled, was_entitled=bool(before)),
        before=before,
        after=after,
        sources=desired.sources,
        cause=cause,
        refusals=desired.refusals,
        public=patches[Placement.PUBLIC],
        private=patches[Placement.PRIVATE],
    )


def managed_values(observed: Observed, layout: Layout) -> dict[str, object]:
    """Return the managed keys stored in Clerk, by field name, including those of an earlier layout."""
    stored = ((slot.name, _stored(observed, slot)) for slot in _slots(observed, layout))
    return {name: value for name, value in stored if value is not None}


def fingerprint(values: Mapping[str, object], layout: Layout) -> str:
    """Return a short hash of the values and where they are written, to detect that somebody edited them."""
    written = {str(slot): values[slot.name] for slot in layout.slots if slot.name in values}
    return hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()[:16]


def claims_size(values: Mapping[str, object], layout: Layout) -> int:
    """Return the size of the public managed keys in a session token, in bytes of JSON."""
    public = {f.name for f in layout.fields if f.placement is Placement.PUBLIC}
    return json_size({name: value for name, value in values.items() if name in public})


def json_size(value: object) -> int:
    """Return the size of `value` as compact JSON in UTF-8, in bytes."""
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())


def merge_patch(target: Mapping[str, object], patch: Mapping[str, object]) -> dict[str, object]:
    """Apply `patch` to `target` as Clerk does (RFC 7396): objects merge, null removes, anything else replaces."""
    merged = dict(target)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            existing = merged.get(key)
            merged[key] = merge_patch(existing if isinstance(existing, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def marker_json(marker: Marker | None) -> dict[str, object] | None:
    """Return the marker as stored in Clerk; None removes it. The default slots are left out."""
    if marker is None:
        return None
    slots = {} if marker.slots == DEFAULT_SLOTS else {"slots": [str(slot) for slot in marker.slots]}
    return {"sources": list(marker.sources), "fingerprint": marker.fingerprint, "at": marker.at, **slots}


def _plain(value: Value) -> object:
    return list(value) if isinstance(value, tuple) else value


def _slots(observed: Observed, layout: Layout) -> tuple[Slot, ...]:
    """Return the managed slots of this subject: those written before, then those of the layout."""
    return tuple(dict.fromkeys((*(observed.marker.slots if observed.marker else ()), *layout.slots)))


def _stored(observed: Observed, slot: Slot) -> object:
    metadata: object = observed.public if slot.placement is Placement.PUBLIC else observed.private
    if slot.namespace is not None:
        metadata = metadata.get(slot.namespace) if isinstance(metadata, Mapping) else None
    return metadata.get(slot.name) if isinstance(metadata, Mapping) else None


def _patches(target: Mapping[Slot, object], observed: Observed) -> dict[Placement, dict[str, object]]:
    patches: dict[Placement, dict[str, object]] = {placement: {} for placement in Placement}
    for slot, value in target.items():
        if _stored(observed, slot) == value:
            continue
        patch = patches[slot.placement]
        if slot.namespace is not None:
            patch = cast("dict[str, object]", patch.setdefault(slot.namespace, {}))
        patch[slot.name] = value
    return patches


def _kind(*, entitled: bool, was_entitled: bool) -> ChangeKind:
    if not entitled:
        return ChangeKind.REVOKE
    return ChangeKind.UPDATE if was_entitled else ChangeKind.GRANT


def _refuse_oversize(observed: Observed, patches: Mapping[Placement, Mapping[str, object]]) -> None:
    stored = {Placement.PUBLIC: observed.public, Placement.PRIVATE: observed.private}
    for placement, patch in patches.items():
        before, after = json_size(stored[placement]), json_size(merge_patch(stored[placement], patch))
        if after > METADATA_LIMIT and after > before:
            raise AccessTooLarge(f"{observed.subject}: {placement} metadata would be {after} bytes")
