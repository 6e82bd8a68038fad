"""Runs a verb of a program with two bugs: each ends with an exception that repeats what the program had in hand.

Why it exists: a trace is where data goes that nobody thought of. The program has no such bugs to show, and no hooks for
tests, so they are planted here, before the verb runs.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NoReturn

from sync_worker import attempt, cli, converge, receiver, worker
from sync_worker.model import Subject

if TYPE_CHECKING:
    from collections.abc import Collection

BUGGY_USER, BUGGY_BODY = Subject.parse("user:user_bug"), b"bug"
desire, parse = converge.desire, receiver.parse


def tell_all(*had: object) -> NoReturn:
    raise RuntimeError(f"{had} {dict(os.environ)}")


def buggy_desire(subjects: Collection[Subject], reading: Any, *rest: Any) -> Any:
    if BUGGY_USER in subjects:
        tell_all(reading, *rest)
    return desire(subjects, reading, *rest)


def buggy_parse(body: bytes) -> Any:
    if BUGGY_BODY in body:
        tell_all(body)
    return parse(body)


if __name__ == "__main__":
    converge.desire = buggy_desire  # type: ignore[assignment]  # its types are of no account here
    receiver.parse = buggy_parse
    attempt.PROBE_AFTER = worker.PROBE_AFTER = 0.2  # type: ignore[attr-defined]  # a key is refused many times here
    cli.main()
