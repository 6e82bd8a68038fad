"""The log of the requests that a service received.

It includes requests that a fault answered, dropped or held, with the status that the caller saw (0 for none).
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
    """Return the subject of a Clerk path: `user_…`, `org_…` or `org_…/user_…`, or an empty string."""
    match = _SUBJECT.fullmatch(path)
    return "/".join(part for part in match.groups() if part) if match else ""


@dataclass(slots=True)
class Request:
    """One request. Times are monotonic seconds; `fault` is the fault that applied to it, if any."""

    method: str
    path: str
    query: tuple[str, ...]
    started: float
    ended: float = 0.0
    status: int = 0
    fault: str = ""

    @property
    def written(self) -> str:
        """The subject that the request writes, or an empty string."""
        return subject_of(self.path) if self.method in WRITES else ""


class Traffic:
    """All requests since the last `clear`, oldest first."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def start(self, method: str, path: str, query: tuple[str, ...]) -> Request:
        """Log a request that just arrived; its end and status follow later."""
        request = Request(method, path, query, time.monotonic())  # real time: the benchmarks measure by it
        self.requests.append(request)
        return request

    def finish(self, request: Request) -> None:
        """Record the end of a request."""
        request.ended = time.monotonic()

    def clear(self) -> None:
        """Forget all requests."""
        self.requests.clear()

    def select(self, method: str | None = None, path_prefix: str | None = None) -> list[Request]:
        """Return the requests with this method and path prefix."""
        return [
            request
            for request in self.requests
            if method in (None, request.method) and request.path.startswith(path_prefix or "")
        ]

    def count(self, method: str | None = None, path_prefix: str | None = None) -> int:
        """Return the number of requests with this method and path prefix."""
        return len(self.select(method, path_prefix))

    @property
    def writes(self) -> list[Request]:
        """The requests that write a Clerk subject."""
        return [request for request in self.requests if request.written]

    def overlaps(self) -> list[tuple[Request, Request]]:
        """Return pairs of writes of one subject where the second started before the first was answered."""
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
        """Return the total, counts by method and by status, and the number of overlapping writes."""
        return {
            "total": len(self.requests),
            "by_method": dict(Counter(request.method for request in self.requests)),
            "by_status": {str(k): v for k, v in Counter(request.status for request in self.requests).items()},
            "overlaps": len(self.overlaps()),
        }

    def dump(self) -> list[dict[str, Any]]:
        """Return all requests as JSON objects."""
        return [{**asdict(request), "written": request.written} for request in self.requests]
