"""Clerk: the sandbox's instance and handlers, called without HTTP.

The sandbox has Clerk's merge, limits and filters already; here only the way in is shorter.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from starlette.datastructures import QueryParams
from starlette.requests import Request

from sync_worker.sandbox import clerk_errors
from sync_worker.sandbox.clerk import ClerkApi
from sync_worker.sandbox.clerk_errors import ClerkError
from sync_worker.sandbox.clerk_http import refusal
from sync_worker.sandbox.clerk_routes import routes
from sync_worker.sandbox.traffic import subject_of
from tests.sim.network import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from random import Random

    import httpx
    from starlette.responses import Response

    from sync_worker.sandbox.clerk_bodies import Record
    from sync_worker.sandbox.limits import Limits
    from tests.sim.hooks import ClerkHooks
    from tests.sim.truth import Directory

KEY = "sk_test_sandbox"


class Instance:
    """One Clerk instance."""

    def __init__(self, clock: Callable[[], float], random: Random, limits: Limits) -> None:
        self.api = ClerkApi(KEY, limits=limits, clock=clock, random=random)
        self._endpoints = [
            (route.methods or set(), re.compile(_pattern(route.path)), route.endpoint) for route in routes(self.api)
        ]

    def report_to(self, hooks: ClerkHooks) -> None:
        """Report every change to `hooks`."""
        self.api.webhooks = hooks  # type: ignore[assignment]  # it only publishes, as the real ones do

    @property
    def key_works(self) -> bool:
        return self.api.secret_key == KEY

    @key_works.setter
    def key_works(self, works: bool) -> None:
        self.api.secret_key = KEY if works else "sk_test_another"

    def directory(self) -> Directory:
        """Return who has which address: only a primary, verified one that is not reserved is anybody's."""
        found: dict[str, list[str]] = {}
        for id_, user in self.api.users.items():
            for email in user["email_addresses"]:
                verified = (email["verification"] or {}).get("status") == "verified"
                if email["id"] == user["primary_email_address_id"] and verified and not email["reserved"]:
                    found.setdefault(f"email:{email['email_address'].lower()}", []).append(id_)
            if user["external_id"]:
                found.setdefault(f"external:{user['external_id']}", []).append(id_)
        return {address: tuple(sorted(users)) for address, users in found.items()}

    def record(self, key: str) -> Record | None:
        """Return the record of a subject, if it exists."""
        kind, _, id_ = key.partition(":")
        if kind == "membership":
            organization, _, user = id_.partition("/")
            return self.api.memberships.get((organization, user))
        return self.api.users.get(id_) if kind == "user" else self.api.organizations.get(id_)

    def records(self) -> dict[str, Record]:
        """Return everybody, by subject key."""
        return {
            **{f"user:{id_}": record for id_, record in self.api.users.items()},
            **{f"org:{id_}": record for id_, record in self.api.organizations.items()},
            **{f"membership:{org}/{user}": record for (org, user), record in self.api.memberships.items()},
        }

    def serve(self, request: httpx.Request) -> Reply:
        """Answer one request."""
        for methods, pattern, endpoint in self._endpoints:
            match = pattern.fullmatch(request.url.path)
            if match is not None and request.method in methods:
                return _reply(at_once(_answer(endpoint, _incoming(request, match.groupdict()))))
        return Reply.json(404, clerk_errors.not_found("route").body())


def key_of(path: str) -> str:
    """Return the key of the subject that a path of Clerk's API names; empty when it is a list."""
    id_ = subject_of(path)
    if not id_:
        return ""
    return f"membership:{id_}" if "/" in id_ else f"user:{id_}" if id_.startswith("user_") else f"org:{id_}"


def at_once(work: Coroutine[Any, Any, Response]) -> Response:
    """Run a handler that never has to wait."""
    try:
        work.send(None)
    except StopIteration as stop:
        answer: Response = stop.value
        return answer
    raise AssertionError("a handler of the sandbox waited")


async def _answer(endpoint: Any, request: Request) -> Response:
    try:
        response: Response = await endpoint(request)
    except ClerkError as error:
        return refusal(request, error)
    return response


def _incoming(request: httpx.Request, path_params: dict[str, str]) -> Request:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": request.content, "more_body": False}

    scope = {
        "type": "http",
        "method": request.method,
        "path": request.url.path,
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "path_params": path_params,
    }
    incoming = Request(scope, receive)
    incoming._query_params = QueryParams(request.url.params.multi_items())
    return incoming


def _reply(response: Response) -> Reply:
    after = response.headers.get("retry-after")
    return Reply(response.status_code, bytes(response.body), None if after is None else float(after))


def _pattern(path: str) -> str:
    return re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", path)
