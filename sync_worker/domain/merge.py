"""Merges the entitlements of a subject into its access: which are active, how values combine, and what changes next.

The result depends on the rows and the time alone, not on the order of the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sync_worker.domain.entitlements import Access, Entitlement, Field, MergeRule, Refusal, Value
from sync_worker.errors import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime


def merge(
    entitlements: Iterable[Entitlement],
    fields: Sequence[Field],
    now: datetime,
    refusals: Iterable[Refusal] = (),
) -> Access:
    """Merge all rows of one subject into its access at `now`.

    A row with a value outside a field's order is refused as a whole, so that its other fields grant nothing either.
    Without an active row the access is the baseline and has no sources.
    """
    refused = set(refusals)
    accepted = []
    for row in entitlements:
        disallowed = tuple(disallowed_values(row, fields))
        refused.update(disallowed)
        if not disallowed:
            accepted.append(row)
    active = sorted((row for row in accepted if is_active(row, now)), key=_newest_first)
    values = {f.name: value for f in fields if (value := _merged(f, active)) is not None}
    return Access(
        values=values if active else baseline(fields),
        sources=tuple(sorted(row.id for row in active)),
        refusals=tuple(sorted(refused)),
        next_transition=min((t for row in accepted for t in _transitions(row) if t > now), default=None),
        unresolved=tuple(sorted(row.unresolved for row in active if row.unresolved is not None)),
    )


def baseline(fields: Sequence[Field]) -> Mapping[str, Value]:
    """Return the values of a subject without an active entitlement."""
    return {f.name: f.baseline for f in fields if f.baseline is not None}


def is_active(row: Entitlement, now: datetime) -> bool:
    """Return whether a row is active at `now`: its status is null or "active", and startsAt ≤ now < endsAt."""
    return (
        row.status in (None, "active")
        and (row.starts_at is None or row.starts_at <= now)
        and (row.ends_at is None or now < row.ends_at)
    )


def disallowed_values(row: Entitlement, fields: Sequence[Field]) -> Iterable[Refusal]:
    """Return a refusal for each value of a row that is outside its field's order."""
    for field in fields:
        value = row.values.get(field.name)
        if field.order and value is not None and value not in field.order:
            yield Refusal(row.id, field.name, f"{quoted(value)} is not one of {', '.join(field.order)}")


def _transitions(row: Entitlement) -> Iterable[datetime]:
    if row.status in (None, "active"):
        yield from (moment for moment in (row.starts_at, row.ends_at) if moment is not None)


def _newest_first(row: Entitlement) -> tuple[float, str]:
    return (-row.updated_at.timestamp(), row.id)


def _merged(field: Field, newest_first: Sequence[Entitlement]) -> Value | None:
    values = [row.values[field.name] for row in newest_first if field.name in row.values]
    if field.rule is MergeRule.UNION:
        return tuple(sorted({item for value in values if isinstance(value, tuple) for item in value}))
    if field.rule is MergeRule.HIGHEST and field.order:
        return max(values, key=lambda value: field.order.index(str(value)), default=None)
    return values[0] if values else None
