"""Two bugs to plant, each of which raises an exception that repeats the data at hand.

Tracebacks may leak data. The program has no such bugs and no hooks for tests, so they are planted here.
"""

from __future__ import annotations

import os
from typing import Any, NoReturn

from sync_worker.domain.subjects import Subject
from sync_worker.sync import document_events, plan
from sync_worker.webhooks import receiver

BUGGY_USER, BUGGY_BODY = Subject.parse("user:user_bug"), b"bug"
by_owner, parse = plan.by_owner, document_events.parse


def tell_all(*had: object) -> NoReturn:
    raise RuntimeError(f"{had} {dict(os.environ)}")


def buggy_by_owner(reading: Any, layout: Any) -> Any:
    rows = by_owner(reading, layout)
    if BUGGY_USER in rows:
        tell_all(reading, layout)
    return rows


def buggy_parse(body: bytes) -> Any:
    if BUGGY_BODY in body:
        tell_all(body)
    return parse(body)


def plant_bugs() -> None:
    plan.by_owner = buggy_by_owner
    vars(receiver)["parse"] = buggy_parse
