"""Notes: what is wrong in Sanity, kept on a row of the work queue until it is repaired, and listed by `failed`.

What is wrong with a subject's own documents is noted on its row; of a document that is for nobody, on the document's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sync_worker.domain.entitlements import UNRESOLVED_FIELD, Refusal
from sync_worker.errors import error_named
from sync_worker.sync.address_resolution import AMBIGUOUS_ADDRESS, AMBIGUOUS_REASON, REFUSED, UNRESOLVED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sync_worker.domain.entitlements import Access


def remarks(access: Access | None) -> tuple[Refusal, ...]:
    """Return what is wrong with the rows of an access: what is refused, and references that lead nowhere."""
    if access is None:
        return ()
    return (*access.refusals, *(one.remark for one in access.unresolved))


def code_of(remark: Refusal) -> str:
    """Return the code of one remark. Where an error refused the whole subject, its code stands for the field."""
    if remark.field == UNRESOLVED_FIELD:
        return UNRESOLVED
    if remark.reason == AMBIGUOUS_REASON:
        return AMBIGUOUS_ADDRESS
    return REFUSED if error_named(remark.field) is None else remark.field


def note_of(found: Sequence[Refusal]) -> tuple[str, str]:
    """Return the code and the detail of a note, one remark a line; both are empty where nothing is wrong."""
    codes = [code_of(one) for one in found]
    code = next((code for code in (AMBIGUOUS_ADDRESS, REFUSED) if code in codes), "")
    code = code or next((code for code in codes if code != UNRESOLVED), UNRESOLVED if codes else "")
    return code, "\n".join(map(str, found))
