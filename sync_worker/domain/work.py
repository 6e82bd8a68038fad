"""The causes of work, as prefixes. A document id or the id of a Clerk event follows the prefix."""

from __future__ import annotations

WEBHOOK = "webhook:"
"""A document was published. The item keeps this cause until a run completes it, whatever else enqueues the subject in
between, so that an editor's change is never attributed to the poll or to a Clerk event."""

POLL = "poll:"
"""A poll found published documents; the time of the poll follows."""

FAN_OUT = "document:"
"""A document that many subjects depend on changed: a plan, a course or a cohort."""

CLERK = "clerk:"
"""Something changed in Clerk: a sign-up, an address or a membership."""

OPERATOR = "sync"
"""An operator asked for this subject."""

REFERENCE_DEPTH = 3
"""How many levels of references are followed: course to plan or cohort, to entitlement, and one spare."""
