"""What a change takes away: the one definition of a loss. Pure.

A plan or role that is removed or lowered in its order is a loss. Changed where there is no order, it is a rename, but
not to the baseline, which is what remains when nothing sets the key. A union with fewer members than before is a loss;
a renamed member is not. Any other key is lost when it is removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sync_worker.domain.entitlements import MergeRule
from sync_worker.domain.ownership import same_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sync_worker.domain.entitlements import Field

    Values = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Loss:
    """One key that a change takes away or lowers. `after` is None where it is removed."""

    key: str
    before: object
    after: object = None


def losses(before: Values, after: Values, fields: Sequence[Field]) -> tuple[Loss, ...]:
    """Return what is lost on the way from `before` to `after`, in the order of `before`."""
    by_name = {field.name: field for field in fields}
    return tuple(
        Loss(name, value, after.get(name))
        for name, value in before.items()
        if _is_loss(value, after.get(name), by_name.get(name))
    )


def giving(before: Values, after: Values, fields: Sequence[Field]) -> dict[str, object]:
    """Return the values with only that part of a change applied that takes nothing."""
    lost = {loss.key: loss for loss in losses(before, after, fields)}
    kept = {name: _joined(loss.before, loss.after) for name, loss in lost.items()}
    return {**{name: value for name, value in after.items() if name not in lost}, **kept}


def taking(before: Values, after: Values, fields: Sequence[Field]) -> dict[str, object]:
    """Return the values with only that part of a change applied that takes something."""
    values = dict(before)
    for loss in losses(before, after, fields):
        if loss.after is None:
            del values[loss.key]
        else:
            values[loss.key] = _common(loss.before, loss.after)
    return values


def _is_loss(before: object, after: object, field: Field | None) -> bool:
    if after is None or field is None:
        return after is None
    if field.rule is MergeRule.UNION:
        return (
            isinstance(before, list)
            and isinstance(after, list)
            and len(set(map(str, after))) < len(set(map(str, before)))
        )
    order = [str(value) for value in field.order]
    if str(before) not in order or str(after) not in order:
        return same_json(after, field.baseline) and not same_json(before, field.baseline)
    return order.index(str(after)) < order.index(str(before))


def _joined(before: object, after: object) -> object:
    if isinstance(before, list) and isinstance(after, list):
        return sorted({*map(str, before), *map(str, after)})
    return before


def _common(before: object, after: object) -> object:
    if isinstance(before, list) and isinstance(after, list):
        return [member for member in after if member in before]
    return after
