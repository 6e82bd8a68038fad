"""Steering the stand-ins from another process: `/_sandbox/…` on each of them.

Why it exists: black-box tests and the demo run the worker as its own process, so faults, lag and counts must be reached
over HTTP too. The routes only call what `content_lake` and `clerk` offer in-process, and need no token.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sync_worker.sandbox.clerk_webhooks import Endpoint
from sync_worker.sandbox.delivery import Mischief
from sync_worker.sandbox.faults import CONTROL
from sync_worker.sandbox.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request

    from sync_worker.sandbox.clerk import ClerkApi
    from sync_worker.sandbox.content_lake import ContentLake
    from sync_worker.sandbox.faults import Faults
    from sync_worker.sandbox.traffic import Traffic

OK: Mapping[str, Any] = {"ok": True}


class _Order(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Fault(_Order):
    """One fault; `times` for the next requests, `fraction` for some of all; `fault` none clears everything."""

    fault: str | None = None
    times: int | None = None
    fraction: float | None = None
    method: str | None = None
    path_prefix: str = ""
    retry_after: float | None = None
    latency: float | None = None

    def apply(self, faults: Faults) -> None:
        """Do it. Raises ValueError for a fault that does not exist."""
        if self.latency is not None:
            faults.latency = self.latency
        elif self.fault is None:
            faults.clear()
        else:
            where = self.model_dump(include={"method", "path_prefix", "retry_after"})
            if self.fraction is not None:
                faults.some(self.fault, self.fraction, **where)
            else:
                faults.next(self.fault, self.times or 1, **where)


class _Lag(_Order):
    seconds: float


class _Hook(_Order):
    url: str
    secret: str = ""
    filter: str = ""
    projection: str = ""
    on: list[Literal["create", "update", "delete"]] = ["create", "update", "delete"]
    include_drafts: bool = False


class _Mischief(_Order):
    """What the webhooks of the lake suffer; `paused` holds them back."""

    drop: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0
    delay_seconds: tuple[float, float] = (0.0, 0.2)
    retry_delays: tuple[float, ...] | None = None
    paused: bool = False


class _Limits(_Order):
    instance: int | None = Field(default=None, ge=1)
    subject: int | None = Field(default=None, ge=1)


class _Endpoint(_Order):
    url: str
    secret: str
    events: list[str] = []


def _route(method: str, path: str, serve: Callable[[Request], Awaitable[Any]]) -> Route:
    """Make a route of a function that returns what becomes the JSON answer; nothing becomes `{"ok": true}`."""

    async def answer(request: Request) -> Response:
        try:
            result = await serve(request)
        except (ValidationError, ValueError) as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse(OK if result is None else result)

    return Route(f"{CONTROL}{path}", answer, methods=[method])


def _shared(faults: Faults, traffic: Traffic) -> list[Route]:
    """Return what both services have: faults and the log of requests."""

    async def fault(request: Request) -> None:
        _Fault.model_validate_json(await request.body()).apply(faults)

    async def requests(_: Request) -> Any:
        return {**traffic.summary(), "requests": traffic.dump()}

    async def count(request: Request) -> Any:
        asked = request.query_params
        return {"count": traffic.count(asked.get("method"), asked.get("path_prefix"))}

    async def forget(_: Request) -> None:
        traffic.clear()

    return [
        _route("POST", "/faults", fault),
        _route("GET", "/requests", requests),
        _route("GET", "/requests/count", count),
        _route("DELETE", "/requests", forget),
    ]


def lake_routes(lake: ContentLake) -> list[Route]:
    """Return the control routes of a lake."""

    async def state(_: Request) -> Any:
        hooks = [dataclasses.asdict(hook) for hook in lake.webhooks.hooks.values()]
        return {"documents": list(lake.documents.values()), "lag": lake.lag, "hooks": hooks}

    async def lag(request: Request) -> None:
        lake.lag = _Lag.model_validate_json(await request.body()).seconds

    async def load(request: Request) -> None:
        await lake.load(await request.json())

    async def hook(request: Request) -> Any:
        return {"id": lake.add_hook(**_Hook.model_validate_json(await request.body()).model_dump()).id}

    async def mischief(request: Request) -> None:
        asked = _Mischief.model_validate_json(await request.body())
        deliveries = lake.webhooks.deliveries
        deliveries.mischief = Mischief(asked.drop, asked.duplicate, asked.delay, asked.delay_seconds)
        if asked.retry_delays is not None:
            deliveries.policy = dataclasses.replace(deliveries.policy, retry_delays=asked.retry_delays)
        (deliveries.pause if asked.paused else deliveries.resume)()

    async def idle(_: Request) -> None:
        await lake.hooks_idle()
        await lake.indexed()

    async def reset(_: Request) -> None:
        await lake.reset()

    return [
        *_shared(lake.faults, lake.requests),
        _route("GET", "/state", state),
        _route("POST", "/lag", lag),
        _route("POST", "/load", load),
        _route("POST", "/hooks", hook),
        _route("POST", "/mischief", mischief),
        _route("POST", "/idle", idle),
        _route("POST", "/reset", reset),
    ]


def clerk_routes(clerk: ClerkApi) -> list[Route]:
    """Return the control routes of a Clerk instance."""

    async def state(_: Request) -> Any:
        return {
            "users": dict(clerk.users),
            "organizations": clerk.organizations,
            "memberships": list(clerk.memberships.values()),
            "limits": dataclasses.asdict(clerk.limiter.limits),
        }

    async def limits(request: Request) -> None:
        clerk.limiter.limits = Limits(**_Limits.model_validate_json(await request.body()).model_dump())

    async def users(request: Request) -> Any:
        return {"ids": [clerk.add_user(**user) for user in await request.json()]}

    async def endpoint(request: Request) -> None:
        asked = _Endpoint.model_validate_json(await request.body())
        clerk.webhooks.endpoints.append(Endpoint(asked.url, asked.secret, frozenset(asked.events)))

    async def reset(_: Request) -> None:
        await clerk.reset()

    return [
        *_shared(clerk.faults, clerk.requests),
        _route("GET", "/state", state),
        _route("POST", "/limits", limits),
        _route("POST", "/users", users),
        _route("POST", "/endpoints", endpoint),
        _route("POST", "/reset", reset),
    ]
