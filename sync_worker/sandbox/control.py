"""Controls both services from another process, over HTTP under `/_sandbox/…`: faults, lag, limits and counts.

Black-box tests run the worker as its own process, and need the controls that `content_lake` and `clerk` offer
in-process. The routes need no token.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sync_worker.sandbox.clerk_webhooks import Endpoint
from sync_worker.sandbox.delivery import DeliveryFaults
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


class Body(BaseModel):
    """A request body; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class _Fault(Body):
    """One fault, for the next `times` requests or a `fraction` of all; without `fault`, all faults are cleared."""

    fault: str | None = None
    times: int | None = None
    fraction: float | None = None
    method: str | None = None
    path_prefix: str = ""
    retry_after: float | None = None
    latency: float | None = None

    def apply(self, faults: Faults) -> None:
        """Apply the fault. Raises ValueError for one that does not exist."""
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


class _Lag(Body):
    seconds: float


class _Hook(Body):
    url: str
    secret: str = ""
    filter: str = ""
    projection: str = ""
    on: list[Literal["create", "update", "delete"]] = ["create", "update", "delete"]
    include_drafts: bool = False


class _DeliveryFaults(Body):
    """What goes wrong with the deliveries of the lake's webhooks; `paused` holds them back."""

    drop: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0
    delay_seconds: tuple[float, float] = (0.0, 0.2)
    retry_delays: tuple[float, ...] | None = None
    paused: bool = False


class _Limits(Body):
    instance: int | None = Field(default=None, ge=1)
    subject: int | None = Field(default=None, ge=1)


class _Instance(Body):
    """The type of the instance, and the claims of its custom session token; what is not given stays."""

    environment: Literal["development", "production"] | None = None
    session_claims: dict[str, Any] | None = None


class _Endpoint(Body):
    url: str
    secret: str
    events: list[str] = []


def route(method: str, path: str, serve: Callable[[Request], Awaitable[Any]]) -> Route:
    """Make a route from a function that returns the JSON response; None becomes `{"ok": true}`."""

    async def answer(request: Request) -> Response:
        try:
            result = await serve(request)
        except (ValidationError, ValueError) as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse(OK if result is None else result)

    return Route(f"{CONTROL}{path}", answer, methods=[method])


def _shared(faults: Faults, traffic: Traffic) -> list[Route]:
    """Return the routes that both services have: faults and the request log."""

    async def fault(request: Request) -> None:
        _Fault.model_validate_json(await request.body()).apply(faults)

    async def requests(_: Request) -> Any:
        return {**traffic.summary(), "requests": traffic.dump()}

    async def count(request: Request) -> Any:
        query = request.query_params
        return {"count": traffic.count(query.get("method"), query.get("path_prefix"))}

    async def forget(_: Request) -> None:
        traffic.clear()

    return [
        route("POST", "/faults", fault),
        route("GET", "/requests", requests),
        route("GET", "/requests/count", count),
        route("DELETE", "/requests", forget),
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

    async def delivery_faults(request: Request) -> None:
        body = _DeliveryFaults.model_validate_json(await request.body())
        deliveries = lake.webhooks.deliveries
        deliveries.faults = DeliveryFaults(body.drop, body.duplicate, body.delay, body.delay_seconds)
        if body.retry_delays is not None:
            deliveries.policy = dataclasses.replace(deliveries.policy, retry_delays=body.retry_delays)
        (deliveries.pause if body.paused else deliveries.resume)()

    async def idle(_: Request) -> None:
        await lake.hooks_idle()
        await lake.indexed()

    async def reset(_: Request) -> None:
        await lake.reset()

    return [
        *_shared(lake.faults, lake.requests),
        route("GET", "/state", state),
        route("POST", "/lag", lag),
        route("POST", "/load", load),
        route("POST", "/hooks", hook),
        route("POST", "/delivery-faults", delivery_faults),
        route("POST", "/idle", idle),
        route("POST", "/reset", reset),
    ]


def clerk_routes(clerk: ClerkApi) -> list[Route]:
    """Return the control routes of a Clerk instance."""

    async def state(_: Request) -> Any:
        return {
            "users": dict(clerk.users),
            "organizations": clerk.organizations,
            "memberships": list(clerk.memberships.values()),
            "limits": dataclasses.asdict(clerk.limiter.limits),
            "sessions": list(clerk.sessions.values()),
            "templates": list(clerk.templates.values()),
        }

    async def instance(request: Request) -> None:
        body = _Instance.model_validate_json(await request.body())
        clerk.environment = body.environment or clerk.environment
        clerk.session_claims = clerk.session_claims if body.session_claims is None else body.session_claims

    async def limits(request: Request) -> None:
        clerk.limiter.limits = Limits(**_Limits.model_validate_json(await request.body()).model_dump())

    async def users(request: Request) -> Any:
        return {"ids": [clerk.add_user(**user) for user in await request.json()]}

    async def endpoint(request: Request) -> None:
        body = _Endpoint.model_validate_json(await request.body())
        clerk.webhooks.endpoints.append(Endpoint(body.url, body.secret, frozenset(body.events)))

    async def reset(_: Request) -> None:
        await clerk.reset()

    return [
        *_shared(clerk.faults, clerk.requests),
        route("GET", "/state", state),
        route("POST", "/limits", limits),
        route("POST", "/instance", instance),
        route("POST", "/users", users),
        route("POST", "/endpoints", endpoint),
        route("POST", "/reset", reset),
    ]
