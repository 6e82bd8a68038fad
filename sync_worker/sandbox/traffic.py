"""The log of the requests that a stand-in received.

Why it exists: tests assert exact numbers of calls, and that no two writes of one subject overlap in time. Requests that
a fault answered, dropped or held are logged too, with the status that the caller saw (0: none).
"""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import asdict, dataclass
from itertools import pairwise
from operator import attrgetter
from typing import Any

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})

_SUBJECT = re.compile(r"/v1/(?:users/(user_\w+)|organizations/(org_\w+)(?:/memberships/(user_\w+))?)(?:/metadata)?")


def subject_of(path: str) -> str:
    """Return whom a Clerk path stands for: `user_…`, `org_…`, `org_…/user_…`, or nothing."""
    match = _SUBJECT.fullmatch(path)
    return "/".join(part for part in match.groups() if part) if match else ""


@dataclass(slots=True)
class Request:
    """One request. Times are monotonic seconds; `fault` names what was made to go wrong with it."""

    method: str
    path: str
    query: tuple[str, ...]
    started: float
    ended: float = 0.0
    status: int = 0
    fault: str = ""

    @property
    def written(self) -> str:
        """The subject that the request writes, or nothing."""
        return subject_of(self.path) if self.method in WRITES else ""


class Traffic:
    """All requests since the last `clear`, oldest first."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def start(self, method: str, path: str, query: tuple[str, ...]) -> Request:
        """Log a request that just came in; its end and status are filled in later."""
        request = Request(method, path, query, time.monotonic())
        self.requests.append(request)
        return request

    def finish(self, request: Request) -> None:
        """Note that the request is over."""
        request.ended = time.monotonic()

    def clear(self) -> None:
        """Forget all requests."""
        self.requests.clear()

    def select(self, method: str | None = None, path_prefix: str | None = None) -> list[Request]:
        """Return the requests with this method and a path that starts so."""
        return [
            request
            for request in self.requests
            if method in (None, request.method) and request.path.startswith(path_prefix or "")
        ]

    def count(self, method: str | None = None, path_prefix: str | None = None) -> int:
        """Return how many requests have this method and a path that starts so."""
        return len(self.select(method, path_prefix))

    @property
    def writes(self) -> list[Request]:
        """The requests that write a Clerk subject."""
        return [request for request in self.requests if request.written]

    def overlaps(self) -> list[tuple[Request, Request]]:
        """Return each two writes of one subject of which the second began before the first was answered."""
        by_subject: dict[str, list[Request]] = {}
        for request in sorted(self.writes, key=attrgetter("started")):
            by_subject.setdefault(request.written, []).append(request)
        return [
            (first, second)
            for requests in by_subject.values()
            for first, second in pairwise(requests)
            if not first.ended or second.started < first.ended
        ]

    def summary(self) -> dict[str, Any]:
        """Return counts by method, by status and in all, and the number of overlapping writes."""
        return {
            "total": len(self.requests),
            "by_method": dict(Counter(request.method for request in self.requests)),
            "by_status": {str(k): v for k, v in Counter(request.status for request in self.requests).items()},
            "overlaps": len(self.overlaps()),
        }

    def dump(self) -> list[dict[str, Any]]:
        """Return all requests as JSON objects."""
        return [{**asdict(request), "written": request.written} for request in self.requests]
