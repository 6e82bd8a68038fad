"""What a run would take from how many, in words."""

from __future__ import annotations

from typing import Any

import pytest

from sync_worker.domain.changeset import LossLimit, verdict
from sync_worker.domain.entitlements import CORE_FIELDS, Change, ChangeKind
from sync_worker.domain.loss import losses
from sync_worker.domain.subjects import Subject


def change(before: dict[str, Any], after: dict[str, Any]) -> Change:
    return Change(
        subject=Subject.parse("user:user_1"),
        kind=ChangeKind.UPDATE,
        before=before,
        after=after,
        losses=losses(before, after, CORE_FIELDS),
    )


PRO = change({"plan": "pro", "courseSlugs": []}, {})
FEWER = change({"courseSlugs": ["a", "b", "c"]}, {"courseSlugs": ["b"]})
BOTH = change({"plan": "pro", "courseSlugs": ["a"]}, {})


@pytest.mark.parametrize(
    ("losing", "limit", "text"),
    [
        ([], "0", "Nobody would lose anything."),
        ([PRO] * 31, "10%", "31 would lose plan pro: this would be held by a reconcile, because MAX_REVOCATIONS=10%"),
        ([PRO], "10%", "1 would lose plan pro: a reconcile would not hold this, because MAX_REVOCATIONS=10% allows 5."),
        ([FEWER], "0", "1 would lose courseSlugs a and courseSlugs c: this would be held"),
        ([PRO, BOTH], "0", "2 would lose something (2 plan pro, 1 courseSlugs a): this would be held"),
    ],
)
def test_a_verdict_names_what_how_many_lose_and_whether_it_would_be_held(
    losing: list[Change], limit: str, text: str
) -> None:
    said, held = verdict(losing, LossLimit(limit), managed=0)
    assert said.startswith(text)
    assert held is ("would be held" in text)
