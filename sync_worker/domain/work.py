"""What leads to work, by the prefix of its cause; what follows the prefix is a document, or an event of Clerk."""

from __future__ import annotations

WEBHOOK = "webhook:"
"""Somebody published a document. Such a cause stays with its item until a run has served it, whatever else enqueues the
subject meanwhile: neither the poll nor an event of Clerk may pass for the reason of an editor's change."""

POLL = "poll:"
"""The poll found a document that was published a while ago."""

FAN_OUT = "document:"
"""A document changed that leads to many subjects: a plan, a course, a cohort."""

CLERK = "clerk:"
"""Something changed in Clerk: a sign-up, an address, a member."""

REFERENCE_DEPTH = 3
"""Levels of references that are followed: course, then plan or cohort, then entitlement; one more for other models."""
