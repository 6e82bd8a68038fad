"""Explanations as JSON with masked e-mail addresses: the same keys for the commands, the pages and a Studio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sync_worker.diagnostics.explanation import is_waiting
from sync_worker.formatting import masked, rfc3339

if TYPE_CHECKING:
    from sync_worker.clerk.billing import Subscription
    from sync_worker.diagnostics.explain_document import DocumentExplanation
    from sync_worker.diagnostics.explanation import ExplainedKey, Explanation
    from sync_worker.domain.entitlements import Marker
    from sync_worker.storage.ledger import Entry
    from sync_worker.storage.queue_admin import Row


def without_addresses(value: object) -> object:
    """Return a JSON value with every e-mail address in it masked."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return {masked(str(key)): without_addresses(item) for key, item in value.items()}
    return [without_addresses(item) for item in value] if isinstance(value, list | tuple) else value


def entry_json(entry: Entry) -> dict[str, object]:
    """Return one ledger entry."""
    return {
        "at": rfc3339(entry.at),
        "subject": entry.subject,
        "change": entry.kind,
        "before": entry.before,
        "after": entry.after,
        "takenOver": entry.taken_over,
        "documents": list(entry.documents),
        "cause": entry.cause,
        "by": entry.by,
        "delivery": entry.delivery,
        "state": entry.state,
    }


def subject_json(one: Explanation) -> dict[str, object]:
    """Return the explanation of a subject."""
    facts, access = one.facts, one.access
    payload = {
        "subject": str(one.subject),
        "state": one.verdict.state.value,
        "reason": one.verdict.headline,
        "nextStep": one.verdict.next_step,
        "rows": [
            {
                "document": row.document,
                "revision": row.revision,
                "published": rfc3339(row.published),
                "standing": row.status.value,
                "reason": row.reason,
                "values": row.values,
            }
            for row in one.rows
        ],
        "access": {
            "values": access.values,
            "documents": access.sources,
            "changesNext": rfc3339(access.next_transition.timestamp() if access.next_transition else None),
        },
        "clerk": {
            "found": facts.observed is not None,
            "values": one.clerk_values,
            "keys": [_key_json(key) for key in one.keys],
            "marker": _marker_json(one.marker),
            "drift": one.drift.value if one.drift else None,
        },
        "lastApplied": entry_json(one.applied) if one.applied else None,
        "inToken": rfc3339(one.in_token),
        "billing": _billing_json(one.billing),
        "work": _work_json(facts.work, facts.now),
        "held": facts.held,
    }
    return {key: without_addresses(value) for key, value in payload.items()}


def document_json(one: DocumentExplanation) -> dict[str, object]:
    """Return the explanation of a document, with one sentence for each subject."""
    payload = {
        "document": one.facts.id,
        "state": one.verdict.state.value,
        "headline": one.verdict.headline,
        "revision": one.facts.stored.revision if one.facts.stored else None,
        "published": rfc3339(one.facts.published),
        "inClerk": rfc3339(one.in_clerk),
        "inSessionsBy": rfc3339(one.in_sessions_by),
        "inToken": rfc3339(one.in_token),
        "unresolved": one.unresolved,
        "subjects": [
            {"subject": str(subject.subject), "state": one.state(subject).value, "reason": one.reason(subject)}
            for subject in one.subjects
        ],
        "nextStep": one.verdict.next_step,
    }
    return {key: without_addresses(value) for key, value in payload.items()}


def _key_json(key: ExplainedKey) -> dict[str, object]:
    return {
        "key": key.name,
        "value": key.value,
        "managed": key.managed,
        "since": rfc3339(key.since),
        "documents": key.documents,
        "appHad": key.former,
    }


def _marker_json(marker: Marker | None) -> dict[str, object] | None:
    return None if marker is None else {"source": marker.source, "documents": list(marker.documents), "at": marker.at}


def _billing_json(billing: Subscription | None) -> dict[str, object] | None:
    if billing is None:
        return None
    plans = [{"plan": plan, "status": status} for plan, status in billing.plans]
    return {"summary": str(billing), "status": billing.status, "plans": plans}


def _work_json(row: Row | None, now: float) -> dict[str, object] | None:
    if row is None:
        return None
    return {
        "state": work_state(row, now),
        "since": rfc3339(row.enqueued_at),
        "nextAttempt": None if row.dead or row.lease_token else rfc3339(row.visible_at),
        "attempts": row.attempts,
        "code": row.error_code,
        "reason": row.error_detail,
    }


def work_state(row: Row, now: float) -> str:
    """Return in one word what a row of the work queue is doing."""
    if row.dead:
        return "failed"
    if row.lease_token is not None:
        return "running"
    if is_waiting(row, now):
        return "retrying" if row.attempts else "waiting"
    return "idle" if row.visible_at is None else "scheduled"
