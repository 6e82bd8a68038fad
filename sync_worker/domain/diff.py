"""Access and what Clerk holds become a change: exactly the owned keys that differ, and nothing else.

Why it exists: the webhook path and the reconcile must never disagree about what is to be written, so there is one
`diff`. It is pure. It decides what is ours: a subject with our marker is; a subject that merely happens to have a
`plan` is foreign. Sending the patch is `clerk`; deciding who is looked at is `converge`.
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
SOURCES_LISTED = 50
"""Document ids kept in the marker; more would eat the 8 KB that the app's own private keys share."""


def diff(
    desired: Access, observed: Observed, layout: Layout, *, at: str, cause: str = "", witnessed: bool = False
) -> Change:
    """Return the change that makes `observed` hold `desired`; its kind is NONE when nothing must be written.

    `at` is the moment of the change (RFC 3339) for the marker. `witnessed` says that an event told of the end of an
    entitlement of this subject, so that values without our marker are known to be ours too.
    Raises AccessTooLarge when Clerk would refuse the result.
    """
    before = managed_values(observed, layout)
    after = {name: _plain(value) for name, value in desired.values.items()}
    entitled = bool(desired.sources)
    unchanged = Change(observed.subject, ChangeKind.NONE, before, before, desired.sources, cause, desired.refusals)
    if not entitled and observed.marker is None and not (witnessed and before):
        return unchanged
    wanted = {slot: after.get(slot.name) for slot in layout.slots}
    patches = _patches({**dict.fromkeys(_slots(observed, layout)), **wanted}, observed)
    marker_is_due = (observed.marker is None) == bool(after)
    if not (any(patches.values()) or marker_is_due):
        return unchanged
    marker = Marker(desired.sources[:SOURCES_LISTED], fingerprint(after, layout), at, layout.slots) if after else None
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
    """Return the owned keys that Clerk holds, by field name, those of an earlier layout included."""
    held = ((slot.name, _held(observed, slot)) for slot in _slots(observed, layout))
    return {name: value for name, value in held if value is not None}


def fingerprint(values: Mapping[str, object], layout: Layout) -> str:
    """Return a short hash of what was written and where, to tell our values from somebody's edit of them."""
    written = {str(slot): values[slot.name] for slot in layout.slots if slot.name in values}
    return hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()[:16]


def claims_size(values: Mapping[str, object], layout: Layout) -> int:
    """Return the bytes of JSON that the public owned keys take in a session token."""
    public = {f.name for f in layout.fields if f.placement is Placement.PUBLIC}
    return json_size({name: value for name, value in values.items() if name in public})


def json_size(value: object) -> int:
    """Return the bytes of `value` as compact JSON in UTF-8."""
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())


def merge_patch(target: Mapping[str, object], patch: Mapping[str, object]) -> dict[str, object]:
    """Apply `patch` to `target` as Clerk does (RFC 7396): objects merge, null removes, all else replaces."""
    merged = dict(target)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            held = merged.get(key)
            merged[key] = merge_patch(held if isinstance(held, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def marker_json(marker: Marker | None) -> dict[str, object] | None:
    """Return the marker as Clerk stores it; None removes it. The usual slots go without saying."""
    if marker is None:
        return None
    slots = {} if marker.slots == DEFAULT_SLOTS else {"slots": [str(slot) for slot in marker.slots]}
    return {"sources": list(marker.sources), "fingerprint": marker.fingerprint, "at": marker.at, **slots}


def _plain(value: Value) -> object:
    return list(value) if isinstance(value, tuple) else value


def _slots(observed: Observed, layout: Layout) -> tuple[Slot, ...]:
    """Return the slots that are ours for this subject: those we wrote before, then those of the layout."""
    return tuple(dict.fromkeys((*(observed.marker.slots if observed.marker else ()), *layout.slots)))


def _held(observed: Observed, slot: Slot) -> object:
    metadata: object = observed.public if slot.placement is Placement.PUBLIC else observed.private
    if slot.namespace is not None:
        metadata = metadata.get(slot.namespace) if isinstance(metadata, Mapping) else None
    return metadata.get(slot.name) if isinstance(metadata, Mapping) else None


def _patches(wanted: Mapping[Slot, object], observed: Observed) -> dict[Placement, dict[str, object]]:
    patches: dict[Placement, dict[str, object]] = {placement: {} for placement in Placement}
    for slot, value in wanted.items():
        if _held(observed, slot) == value:
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
    held = {Placement.PUBLIC: observed.public, Placement.PRIVATE: observed.private}
    for placement, patch in patches.items():
        before, after = json_size(held[placement]), json_size(merge_patch(held[placement], patch))
        if after > METADATA_LIMIT and after > before:
            raise AccessTooLarge(f"{observed.subject}: {placement} metadata would be {after} bytes")
