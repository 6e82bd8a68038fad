"""Takes a real token from Clerk to see its claims, in a session that never outlives the check.

The session is noted in the database before it is created, so that the next run ends what a killed one left behind.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sync_worker.storage.ledger import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sync_worker.clerk.tokens import Tokens
    from sync_worker.domain.subjects import Subject
    from sync_worker.storage.ledger import Ledger
    from sync_worker.storage.queue_admin import QueueAdmin

NOTE = "claims_session:"
"""The prefix of the names in `state` that note a session of ours: whose it is, what was active before, and its id."""
WINDOW_MS = 60_000
"""A session whose id was never noted is ours if it is new and was created this close to the note."""


MEASURED = "claims_measured:"
"""The prefix of the names in `state` that keep when a real token showed what Clerk has for a subject."""


async def remember_measured(notes: QueueAdmin, ledger: Ledger, subject: Subject, at: float) -> None:
    """Keep that a token signed after `at` (epoch seconds) showed it, unless one did so since the last write."""
    latest = await ledger.latest([str(subject)])
    written = max((entry.settled_at or 0.0 for entry in latest if entry.state is State.APPLIED), default=0.0)
    known = await measured_at(notes, subject)
    if known is None or known < written:
        await notes.remember(f"{MEASURED}{subject}", repr(at))


async def measured_at(notes: QueueAdmin, subject: Subject) -> float | None:
    """Return since when (epoch seconds) a real token has shown what Clerk has for the subject, if that was measured."""
    kept = await notes.recall(f"{MEASURED}{subject}")
    return float(kept[0]) if kept else None


async def token_claims(
    tokens: Tokens, notes: QueueAdmin, user_id: str, organization_id: str = "", template: str = ""
) -> Mapping[str, Any] | None:
    """Return the claims of a real token; None if the instance's keys do not verify it.

    Raises ConfigurationError unless the instance is a development instance.
    """
    await tokens.require_development()
    name = NOTE + user_id
    before = sorted(await tokens.active_sessions(user_id))
    note: dict[str, Any] = {"user": user_id, "before": before}
    await notes.remember(name, json.dumps(note))
    try:
        session = await tokens.create_session(user_id, organization_id)
        await notes.remember(name, json.dumps({**note, "session": session}))
        return await tokens.signed_claims(session, template)
    finally:
        await end_session(tokens, notes, name)


async def end_left_sessions(tokens: Tokens, notes: QueueAdmin) -> int:
    """End the sessions that killed runs left behind, and return how many runs these were."""
    left = await notes.recall_all(NOTE)
    for name in left:
        await end_session(tokens, notes, name)
    return len(left)


async def end_session(tokens: Tokens, notes: QueueAdmin, name: str) -> None:
    """End the session that a note is about, and drop the note."""
    noted = await notes.recall(name)
    if noted is None:
        return
    value, at = noted
    note = json.loads(value)
    for session in {*await _created_since(tokens, note, at), *filter(None, [note.get("session")])}:
        await tokens.revoke_session(session)
    await notes.forget(name, at)


async def _created_since(tokens: Tokens, note: Mapping[str, Any], at: float) -> list[str]:
    """Return the sessions that appeared around the time of a note: a request without a response may have made one."""
    active = await tokens.active_sessions(note["user"])
    return [
        session
        for session, created in active.items()
        if session not in note["before"] and abs(created - at * 1000) < WINDOW_MS
    ]
