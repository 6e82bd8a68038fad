"""The management API of webhooks: list, create, change, delete, and the log of deliveries.

It refuses what Sanity refuses: `on` at the top level, a null filter, `isDisabled`, and `type` in a change. Like Sanity,
it answers a token that lacks the grant with 401.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sync_worker.sandbox.lake_routes import boom, json_of, role_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from sync_worker.sandbox.content_lake import ContentLake
    from sync_worker.sandbox.delivery import Message
    from sync_worker.sandbox.webhooks import Hook

MOST_ROWS = 50
MOST_OFFSET = 1000
GRANTS = {"GET": "read", "POST": "create", "PATCH": "update", "DELETE": "delete"}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=False, strict=True)


class _Rule(_Body):
    on: list[Literal["create", "update", "delete"]] = Field(min_length=1)
    filter: str = ""
    projection: str = ""


class _HookBody(_Body):
    """The body that changes a hook."""

    name: str = ""
    description: str = ""
    url: str = ""
    dataset: str = ""
    api_version: str = "v2021-03-25"
    http_method: Literal["POST", "PUT", "PATCH", "DELETE", "GET"] = "POST"
    include_drafts: bool = False
    include_all_versions: bool = False
    headers: dict[str, str] = {}
    secret: str = ""
    is_disabled_by_user: bool = False
    rule: _Rule | None = None

    def settings(self) -> dict[str, Any]:
        """Return the fields that were sent, as Hook names them."""
        sent = self.model_dump(exclude_unset=True, exclude={"type", "rule"})
        if self.rule is not None:
            sent |= {"on": tuple(self.rule.on), "filter": self.rule.filter, "projection": self.rule.projection}
        return sent


class _NewHookBody(_HookBody):
    """The body that creates a hook."""

    type: Literal["document"]
    name: str = Field(min_length=1)
    url: str = Field(pattern="^https?://")
    dataset: str = Field(min_length=1)
    rule: _Rule


def routes(lake: ContentLake) -> list[Route]:
    """Return the routes of the management API."""
    hooks = HookRoutes(lake)
    base = "/v{version}/hooks/projects/{project}"
    return [
        Route(base, hooks.all, methods=["GET"]),
        Route(base, hooks.create, methods=["POST"]),
        Route(f"{base}/{{hook}}", hooks.get, methods=["GET"]),
        Route(f"{base}/{{hook}}", hooks.change, methods=["PATCH"]),
        Route(f"{base}/{{hook}}", hooks.delete, methods=["DELETE"]),
        Route(f"{base}/{{hook}}/attempts", hooks.attempts, methods=["GET"]),
        Route(f"{base}/{{hook}}/messages", hooks.messages, methods=["GET"]),
    ]


class HookRoutes:
    """The handlers."""

    def __init__(self, lake: ContentLake) -> None:
        self.lake = lake

    def _authorize(self, request: Request) -> None:
        if role_of(request, self.lake) != "administrator":
            grant = f"sanity.project.webhooks/{GRANTS[request.method]}"
            raise boom(401, "Unauthorized", f"Unauthorized - User is missing required grant {grant}")
        if request.path_params["project"] != self.lake.project_id:
            raise boom(404, "Not Found", "Project not found")

    def _hook(self, request: Request) -> Hook:
        self._authorize(request)
        hook = self.lake.webhooks.hooks.get(request.path_params["hook"])
        if hook is None:
            raise boom(404, "Not Found", "Webhook not found")
        return hook

    async def all(self, request: Request) -> Response:
        """Return all hooks."""
        self._authorize(request)
        return JSONResponse([self._json(hook) for hook in self.lake.webhooks.hooks.values()])

    async def create(self, request: Request) -> Response:
        """Create a hook."""
        self._authorize(request)
        settings = await self._settings(request, _NewHookBody)
        return JSONResponse(self._json(self.lake.webhooks.add(**settings)), 201)

    async def get(self, request: Request) -> Response:
        """Return one hook."""
        return JSONResponse(self._json(self._hook(request)))

    async def change(self, request: Request) -> Response:
        """Change the fields that were sent."""
        hook = self._hook(request)
        settings = await self._settings(request, _HookBody)
        return JSONResponse(self._json(await self.lake.webhooks.change(hook.id, **settings)))

    async def delete(self, request: Request) -> Response:
        """Delete a hook; what waits is cancelled."""
        hook = self._hook(request)
        await self.lake.webhooks.remove(hook.id)
        return JSONResponse(self._json(hook))

    async def attempts(self, request: Request) -> Response:
        """Return the newest attempts of a hook."""
        hook = self._hook(request)
        found = [item for item in reversed(self.lake.webhooks.deliveries.attempts) if item["hookId"] == hook.id]
        page = _page(request, found)
        return JSONResponse([{**item, "projectId": self.lake.project_id} for item in page])

    async def messages(self, request: Request) -> Response:
        """Return the newest messages of a hook."""
        hook = self._hook(request)
        found = [item for item in reversed(self.lake.webhooks.deliveries.messages) if item.hook_id == hook.id]
        return JSONResponse([self._message(item) for item in _page(request, found)])

    async def _settings(self, request: Request, body: type[_HookBody]) -> dict[str, Any]:
        try:
            settings = body.model_validate(await json_of(request)).settings()
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            reason = "is not allowed" if first["type"] == "extra_forbidden" else first["msg"]
            raise boom(400, "Bad Request", f'"{where}" {reason}') from error
        await self.lake.webhooks.check(settings.get("filter", ""), settings.get("projection", ""))
        return settings

    def _json(self, hook: Hook) -> dict[str, Any]:
        return {
            "type": "document",
            "id": hook.id,
            "projectId": self.lake.project_id,
            "name": hook.name,
            "description": hook.description or None,
            "url": hook.url,
            "dataset": hook.dataset,
            "apiVersion": hook.api_version,
            "httpMethod": hook.http_method,
            "includeDrafts": hook.include_drafts,
            "includeAllVersions": hook.include_all_versions,
            "headers": hook.headers,
            "secret": hook.secret or None,
            "rule": {"on": list(hook.on), "filter": hook.filter or None, "projection": hook.projection or None},
            "isDisabled": hook.is_disabled,
            "isDisabledByUser": hook.is_disabled_by_user,
            "createdAt": hook.created_at,
            "updatedAt": hook.updated_at,
            "deletedAt": None,
        }

    def _message(self, message: Message) -> dict[str, Any]:
        return {
            "id": message.id,
            "createdAt": message.created_at,
            "dataset": self.lake.dataset,
            "projectId": self.lake.project_id,
            "payload": message.body.decode(),
            "failureCount": message.failures,
            "resultCode": message.result_code,
            "status": message.status,
        }


def _page(request: Request, items: list[Any]) -> list[Any]:
    limit = _number(request, "limit", MOST_ROWS, MOST_ROWS)
    offset = _number(request, "offset", 0, MOST_OFFSET)
    return items[offset : offset + limit]


def _number(request: Request, name: str, default: int, most: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isdecimal() or int(text) > most:
        raise boom(400, "Bad Request", f'"{name}" must be a number up to {most}')
    return int(text)
