"""The one diff: compares access with what Clerk stores and returns exactly the managed keys that differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from sync_worker.domain.entitlements import Change, ChangeKind, Marker, Placement, Refusal
from sync_worker.domain.loss import giving, losses, taking
from sync_worker.domain.ownership import (
    MARKER_DOCUMENTS,
    MARKER_KEY,
    NO_ADOPTION,
    NOTHING_WRITTEN,
    fingerprint,
    managed,
    marker_json,
    same_json,
    stored,
)
from sync_worker.errors import AccessTooLarge, ManagedElsewhere, NamespaceOccupied

if TYPE_CHECKING:
    from collections.abc import Collection

    from sync_worker.domain.entitlements import Access, Layout, Observed, Slot, Value
    from sync_worker.domain.ownership import Adoption, LastWrites, Managed

METADATA_LIMIT = 8192
"""Bytes of JSON in one metadata object, after the merge (Clerk: "limited to 8KB maximum")."""


def diff(
    desired: Access,
    observed: Observed,
    layout: Layout,
    *,
    at: str,
    cause: str = "",
    written: LastWrites = NOTHING_WRITTEN,
    adoption: Adoption = NO_ADOPTION,
) -> Change:
    """Return the change that turns `observed` into `desired`; its kind is NONE when nothing has to be written.

    `at` is the time of the change (RFC 3339) for the marker, `written` what the ledger says we wrote last. Where only a
    part of the change fits into Clerk's metadata, it is the part that takes away, and the rest is among its refusals.
    Raises AccessTooLarge when nothing of it fits, ManagedElsewhere when another installation manages the subject, and
    NamespaceOccupied when the app has a value where the namespace would be.
    """
    own = managed(observed, layout, written, adoption)
    if own.other and desired.sources:
        raise ManagedElsewhere(f"{observed.subject} is managed by {own.other}")
    if desired.sources and layout.namespace is not None:
        for metadata in (observed.public, observed.private):
            if not isinstance(metadata.get(layout.namespace, {}), Mapping):
                raise NamespaceOccupied(f"{observed.subject} has {layout.namespace} in its metadata")
    comparison = _Comparison(desired, observed, layout, at, cause, own)
    if not (desired.sources or own.slots or own.marker):
        return comparison.unchanged()
    return comparison.change()


def managed_values(
    observed: Observed,
    layout: Layout,
    written: LastWrites = NOTHING_WRITTEN,
    adoption: Adoption = NO_ADOPTION,
) -> dict[str, object]:
    """Return the values of the managed keys in Clerk, by field name, including those of an earlier layout."""
    slots = managed(observed, layout, written, adoption).slots
    return _by_name(observed, sorted(slots, key=layout.slots.__contains__))


def values_in_place(observed: Observed, layout: Layout) -> dict[str, object]:
    """Return the values that Clerk holds where our keys stand, managed or not, by field name."""
    return _by_name(observed, layout.slots)


@dataclass(frozen=True, slots=True)
class _Comparison:
    """One subject's desired access, beside what Clerk holds and whose it is."""

    desired: Access
    observed: Observed
    layout: Layout
    at: str
    cause: str
    own: Managed

    def unchanged(self) -> Change:
        """Return the change that writes nothing."""
        values = self._managed_before()
        return Change(
            self.observed.subject,
            ChangeKind.NONE,
            values,
            values,
            self.desired.sources,
            self.cause,
            self.desired.refusals,
            keys=self.own.slots,
            former_documents=self.own.documents,
        )

    def change(self) -> Change:
        """Return the whole change, or the part that takes away where the whole does not fit."""
        given = self._given()
        baseline = {
            f.name: _plain(f.baseline)
            for f in self.layout.fields
            if f.baseline is not None and f.name not in given and self._may_get_baseline(f.name)
        }
        taken_over = self._taken_over(given)
        before, after = {**self._managed_before(), **taken_over}, {**given, **baseline}
        whole = self._written(before, after, given.keys())
        if whole is None:
            return self._reduction(before, after, given.keys(), taken_over)
        lost = losses(before, after, self.layout.fields) if whole.kind is not ChangeKind.NONE else ()
        harmless = self._harmless(before, after, given.keys(), taken_over) if lost and not self.own.other else None
        return replace(whole, taken_over=taken_over, losses=lost, giving=harmless)

    def _given(self) -> dict[str, object]:
        """Return what the rows set. An empty list takes nothing over: no row that counts named a member."""
        if not self.desired.sources:
            return {}
        return {
            slot.name: _plain(self.desired.values[slot.name])
            for slot in self.layout.slots
            if slot.name in self.desired.values
            and not (self.desired.values[slot.name] == () and self._is_unmanaged_value(slot))
        }

    def _may_get_baseline(self, name: str) -> bool:
        slot = next(slot for slot in self.layout.slots if slot.name == name)
        managed_names = {s.name for s in self.own.slots}
        return name in managed_names and not self.own.other and not self._is_unmanaged_value(slot)

    def _is_unmanaged_value(self, slot: Slot) -> bool:
        return slot not in self.own.slots and stored(self.observed, slot) is not None

    def _taken_over(self, given: Mapping[str, object]) -> dict[str, object]:
        """Return the app's own values that the rows replace, or that become ours because they are the same."""
        baselines = {f.name: _plain(f.baseline) for f in self.layout.fields}
        slots = [s for s in self.layout.slots if s.name in given and self._is_unmanaged_value(s)]
        return {s.name: value for s in slots if (value := stored(self.observed, s)) != baselines[s.name]}

    def _managed_before(self) -> dict[str, object]:
        return _by_name(self.observed, sorted(self.own.slots, key=self.layout.slots.__contains__))

    def _harmless(
        self,
        before: Mapping[str, object],
        after: Mapping[str, object],
        given: Collection[str],
        taken_over: Mapping[str, object],
    ) -> Change | None:
        """Return the part of the change that takes nothing; None when that leaves nothing to write.

        What is kept cannot move to where the app has a value of its own; then everything waits.
        """
        here = {slot.name: slot for slot in self.layout.slots}
        elsewhere = [slot.name for slot in self.own.slots if slot.name in here and slot != here[slot.name]]
        if any(self._is_unmanaged_value(here[name]) for name in elsewhere):
            return None
        values = giving(before, after, self.layout.fields)
        lowered = {loss.key for loss in losses(taken_over, after, self.layout.fields)}
        values = {name: value for name, value in values.items() if name not in lowered}
        kept = {slot.name for slot in self.own.slots}
        names = [name for name in values if name in given or name in kept]
        documents = tuple(dict.fromkeys((*self.own.documents, *self.desired.sources)))
        change = self._written(before, values, names, documents)
        if change is None or change.kind is ChangeKind.NONE:
            return None
        return replace(change, taken_over={n: v for n, v in taken_over.items() if n not in lowered})

    def _reduction(
        self,
        before: Mapping[str, object],
        after: Mapping[str, object],
        given: Collection[str],
        taken_over: Mapping[str, object],
    ) -> Change:
        """Return the part of the change that takes away, without a marker where that does not fit either."""
        size = self._too_large(before, after, given)
        values = taking(before, after, self.layout.fields)
        lost = losses(before, values, self.layout.fields)
        if not lost:
            raise AccessTooLarge(f"{self.observed.subject}: {size}")
        kept = {slot.name for slot in self.own.slots}
        names = [name for name in values if name in given or name in kept]
        sources = self.desired.sources
        change = self._written(before, values, names) or self._patched(before, values, names, sources, None)
        if self._oversize(change):
            # A lower value may be longer than the one that it replaces: then nothing replaces it.
            lost_keys = {loss.key for loss in lost}
            values = {n: v for n, v in values.items() if n not in lost_keys or isinstance(v, list)}
            lost = losses(before, values, self.layout.fields)
            names = [name for name in names if name in values]
            change = self._patched(before, values, names, sources, None)
        refused = sorted(name for name, value in after.items() if not same_json(values.get(name), value))
        document = ", ".join(sources[:3])
        refusals = tuple(Refusal(document, name, f"does not fit: {size}") for name in refused)
        replaced = {name: value for name, value in taken_over.items() if name in names}
        return replace(change, losses=lost, refusals=(*change.refusals, *refusals), taken_over=replaced)

    def _written(
        self,
        before: Mapping[str, object],
        values: Mapping[str, object],
        keys: Collection[str],
        documents: tuple[str, ...] | None = None,
    ) -> Change | None:
        """Return the change to these values, with as much of the marker as fits; None when Clerk would refuse it."""
        documents = self.desired.sources if documents is None else documents
        for named in dict.fromkeys((documents[:MARKER_DOCUMENTS], ())):
            change = self._patched(before, values, keys, documents, named)
            if change.kind is ChangeKind.NONE or not self._oversize(change):
                return change
        return None

    def _patched(
        self,
        before: Mapping[str, object],
        values: Mapping[str, object],
        keys: Collection[str],
        documents: tuple[str, ...],
        named: tuple[str, ...] | None,
    ) -> Change:
        """Return the change to these values. The marker names `named` of the `documents`; None leaves it as it is."""
        here = {slot.name: slot for slot in self.layout.slots}
        target: dict[Slot, object] = {
            slot: None for slot in self.own.slots if slot.name in here or slot.name not in values
        }
        target |= {here[name]: value for name, value in values.items() if name in here}
        managed_now = tuple(
            [slot for slot in self.layout.slots if slot.name in keys]
            + [slot for slot in self.own.slots if slot.name not in here and slot.name in keys]
        )
        patches = self._patches(target)
        marker = self.observed.markers.get(self.layout.namespace)
        marked = marker is not None and marker.source == self.layout.source and set(marker.keys) == set(managed_now)
        places = {self.layout.namespace} if managed_now else set()
        if not any(patches.values()) and set(self.own.places) == places and (marked or not managed_now):
            return self.unchanged()
        if named is not None:
            self._mark(patches, managed_now, values, named)
        return Change(
            subject=self.observed.subject,
            kind=self._kind(),
            before=before,
            after=values,
            sources=documents,
            cause=self.cause,
            refusals=self.desired.refusals,
            public=patches[Placement.PUBLIC],
            private=patches[Placement.PRIVATE],
            keys=managed_now,
            former_documents=self.own.documents,
        )

    def _mark(
        self,
        patches: Mapping[Placement, dict[str, object]],
        keys: tuple[Slot, ...],
        values: Mapping[str, object],
        documents: tuple[str, ...],
    ) -> None:
        """Add the marker to the patches, and remove ours from wherever else it stood."""
        private = patches[Placement.PRIVATE]
        for place in self.own.places:
            _inside(private, place)[MARKER_KEY] = None
        if keys:
            print_ = fingerprint({slot: values[slot.name] for slot in keys})
            note: object = marker_json(Marker(self.layout.source, keys, documents, print_, self.at))
            _inside(private, self.layout.namespace)[MARKER_KEY] = note

    def _patches(self, target: Mapping[Slot, object]) -> dict[Placement, dict[str, object]]:
        patches: dict[Placement, dict[str, object]] = {placement: {} for placement in Placement}
        for slot, value in target.items():
            if not same_json(stored(self.observed, slot), value):
                _inside(patches[slot.placement], slot.namespace)[slot.name] = value
        return patches

    def _kind(self) -> ChangeKind:
        if not self.desired.sources:
            return ChangeKind.REVOKE
        return ChangeKind.UPDATE if self._managed_before() else ChangeKind.GRANT

    def _oversize(self, change: Change) -> str:
        """Return what Clerk would refuse, in words; empty when it takes the change."""
        both = {
            Placement.PUBLIC: (self.observed.public, change.public),
            Placement.PRIVATE: (self.observed.private, change.private),
        }
        for placement, (metadata, patch) in both.items():
            before, after = json_size(metadata), json_size(merge_patch(metadata, patch))
            if after > METADATA_LIMIT and after > before:
                return f"{placement} metadata would be {after} bytes, and Clerk stores {METADATA_LIMIT}"
        return ""

    def _too_large(self, before: Mapping[str, object], after: Mapping[str, object], given: Collection[str]) -> str:
        return self._oversize(self._patched(before, after, given, self.desired.sources, ()))


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


def _plain(value: Value | None) -> object:
    return list(value) if isinstance(value, tuple) else value


def _inside(patch: dict[str, object], namespace: str | None) -> dict[str, object]:
    """Return the part of a patch for a namespace."""
    return patch if namespace is None else cast("dict[str, object]", patch.setdefault(namespace, {}))


def _by_name(observed: Observed, slots: Collection[Slot]) -> dict[str, object]:
    values = ((slot.name, stored(observed, slot)) for slot in slots)
    return {name: value for name, value in values if value is not None}
