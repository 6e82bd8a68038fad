"""Whose key it is, decided a second time and more simply than by the worker: by following every write to Clerk.

A key is managed when our marker lists it, or when our last write set it and it still holds exactly that value. Which
write was applied the worker does not always know, so there are two bounds: what it must manage, and what it may.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.sim import truth

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.sim.reasons import Call
    from tests.sim.truth import Slot
    from tests.sim.world import World

Metadata = dict[str, Any]

OPEN = """
SELECT 1 FROM ledger WHERE subject = ?1 AND (
  state IN ('intended', 'unknown')
  OR (state = 'abandoned' AND id = (SELECT MAX(id) FROM ledger WHERE subject = ?1))
) LIMIT 1
"""
"""While the ledger has such a row, the worker does not know which write was the last: one that somebody else has undone
before it was looked for passes for abandoned, and the one before it for the last.
"""


@dataclass(frozen=True)
class Snapshot:
    """What Clerk holds of a subject from `order` on: the values under our names, and the markers by namespace.

    The keys in `managed` are ours beyond doubt, those in `perhaps_managed` as far as the worker can know.
    """

    order: int
    values: Mapping[Slot, Any]
    managed: frozenset[Slot]
    perhaps_managed: frozenset[Slot]
    markers: Mapping[str | None, Metadata]

    def is_taken(self, namespace: str | None) -> bool:
        """Return whether another installation has a marker in a namespace."""
        return namespace in self.markers and self.markers[namespace]["source"] != truth.SOURCE

    def listed(self, *, own: bool) -> set[Slot]:
        """Return the keys that our markers list, or those of other installations."""
        return listed(m for m in self.markers.values() if (m["source"] == truth.SOURCE) is own)

    def current(self, name: str, namespace: str | None) -> Any:
        """Return the value under a name: in the namespace, or where a managed key still is before a move."""
        places = ((namespace, name), *(slot for slot in self.perhaps_managed if slot[1] == name))
        return next((self.values[slot] for slot in places if slot in self.values), None)


class Ownership:
    """Follows every write to the metadata of every subject."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._written: dict[str, dict[Slot, Any]] = defaultdict(dict)
        self._unanswered: dict[str, dict[Call, dict[Slot, Any]]] = defaultdict(dict)
        self._doubtful: dict[str, list[dict[Slot, Any]]] = defaultdict(list)
        self._all_written: dict[str, list[dict[Slot, Any]]] = defaultdict(list)
        self._of_former: dict[str, list[dict[Slot, Any]]] = defaultdict(list)
        self._snapshots: dict[str, list[Snapshot]] = defaultdict(list)

    def born(self, key: str) -> None:
        """Note somebody new under an id that another had before, which only the simulation does.

        Nothing that they have is ours beyond doubt, but the ledger may say so.
        """
        self._of_former[key] += self._all_written.pop(key, [])
        self._written.pop(key, None)
        self.changed(key)

    def sent(self, call: Call, patch: Metadata) -> None:
        """Note a write of ours that may be applied from now on."""
        self._unanswered[call.key][call] = self._managed_after(call.key, patch)
        self.changed(call.key)

    def answered(self, call: Call, *, well: bool) -> None:
        """Note that a write was answered. What it or others left is in doubt only while the ledger has a write open.

        An answer that the worker cannot read does not tell it whether the write was applied.
        """
        unanswered = self._unanswered[call.key]
        answered = [call, *unanswered] if well else [call]
        self._doubtful[call.key] += [unanswered.pop(one) for one in answered if one in unanswered]

    def applied(self, key: str, patch: Metadata) -> None:
        """Note that Clerk has made a change of ours."""
        self._doubtful[key].append(self._written[key])
        self._written[key] = self._managed_after(key, patch)
        self._all_written[key].append(self._written[key])
        self.changed(key)

    def changed(self, key: str) -> None:
        """Note what Clerk holds of a subject now."""
        record = self._world.clerk.record(key)
        if record is None:
            return
        self._world.watch.order += 1
        if self._doubtful[key] and not self._world.disk.ask(OPEN, (key,)):
            self._doubtful[key].clear()
        values, markers = truth.values_in(record["public_metadata"]), truth.markers_in(record["private_metadata"])
        own = listed(marker for marker in markers.values() if marker["source"] == truth.SOURCE)
        writes = [self._written[key], *self._unanswered[key].values(), *self._doubtful[key], *self._of_former[key]]
        by_write = [
            {slot for slot in left if slot in values and truth.same(left[slot], values[slot])} for left in writes
        ]
        certain = frozenset(slot for slot in values if slot in own or slot in by_write[0])
        self._snapshots[key].append(
            Snapshot(self._world.watch.order, values, certain, certain.union(*by_write), markers)
        )

    def since(self, key: str, order: int) -> list[Snapshot]:
        """Return what Clerk held of a subject since a moment, the oldest first."""
        snapshots = self._snapshots[key]
        first = max((index for index, one in enumerate(snapshots) if one.order <= order), default=0)
        return snapshots[first:]

    def now(self, key: str) -> Snapshot:
        """Return what Clerk holds of a subject."""
        return self._snapshots[key][-1]

    def _managed_after(self, key: str, patch: Metadata) -> dict[Slot, Any]:
        """Return the keys that a write leaves managed, by the marker that it writes, with their values."""
        record = self._world.clerk.record(key)
        values = truth.values_in(record["public_metadata"]) if record is not None else {}
        values |= truth.values_in(patch.get("public_metadata", {}))
        managed = listed(truth.markers_in(patch.get("private_metadata", {})).values())
        return {slot: value for slot, value in values.items() if slot in managed and value is not None}


def listed(markers: Any) -> set[Slot]:
    """Return the keys that markers list."""
    texts = {str(text) for marker in markers for text in marker["keys"]}
    return {(place, name) for place in truth.NAMESPACES for name in truth.MANAGED if _text((place, name)) in texts}


def _text(slot: Slot) -> str:
    """Return how a marker names a key."""
    return slot[1] if slot[0] is None else f"public.{slot[0]}.{slot[1]}"
