"""The configuration of the webhook in Sanity, and the management API that reads and changes it.

`webhook show` prints the expected configuration, `webhook install` applies it, and `doctor` compares it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
from pydantic import AwareDatetime, BaseModel, ConfigDict, SecretStr, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from sync_worker.errors import CredentialsRefused, HookNotRepaired, MayNotManageHooks, UnreadableAnswer
from sync_worker.sanity import client as sanity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sync_worker.sanity.client import Queries
    from sync_worker.transport import ServiceTransport

T = TypeVar("T")

PATH = "/webhooks/sanity"
API_VERSION = "v2021-03-25"
"""The oldest version with delta functions, and Sanity's default. A hook may use a newer one."""
NAME = "sync-worker"
DESCRIPTION = "Notifies sync-worker about changed entitlements."
INVALID_SESSION = "SIO-401"
"""The prefix of the error code for an invalid token. A 401 without it means that a valid token lacks a grant."""


class _ApiModel(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel, populate_by_name=True)


class HookRule(_ApiModel):
    """The trigger, filter and projection of a hook."""

    on: tuple[str, ...] = ()
    filter: str | None = None
    projection: str | None = None


class Hook(_ApiModel):
    """One webhook. Legacy hooks, of the type `transaction`, have no rule."""

    id: str = ""
    type: str = "document"
    url: str
    dataset: str
    api_version: str = API_VERSION
    http_method: str = "POST"
    include_drafts: bool = False
    include_all_versions: bool = False
    secret: SecretStr | None = None
    is_disabled: bool = False
    rule: HookRule = HookRule()


class Attempt(_ApiModel):
    """One delivery attempt. `result_code` and `result_body` are of the response to it, None without a response."""

    created_at: AwareDatetime
    is_failure: bool = False
    failure_reason: str | None = None
    result_code: int | None = None
    result_body: str | None = None

    @property
    def refusal(self) -> str:
        """The code of a refusal of ours; empty for the answer of another program."""
        try:
            body = json.loads(self.result_body or "")
        except ValueError:
            return ""
        code = body.get("error") if isinstance(body, dict) else None
        return code if isinstance(code, str) else ""


@dataclass(frozen=True, slots=True)
class HookDifference:
    """One field of a hook that differs from the expected configuration, for people."""

    field: str
    now: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.field} is {self.now}, expected {self.wanted}"


def wanted_hook(queries: Queries, *, url: str, dataset: str, secret: SecretStr | None) -> Hook:
    """Return the expected configuration of the hook."""
    rule = HookRule(
        on=("create", "update", "delete"), filter=queries.webhook_filter, projection=queries.webhook_projection
    )
    return Hook(url=url, dataset=dataset, secret=secret, rule=rule)


def differences(hook: Hook | None, wanted: Hook) -> tuple[HookDifference, ...]:
    """Return the fields that differ; all of them without a hook. Secrets are not included."""
    return tuple(
        HookDifference(name, _shown(name, value_of(hook) if hook else None), _SOURCES.get(name, value_of(wanted)))
        for name, value_of in FIELDS.items()
        if hook is None or value_of(hook) != value_of(wanted)
    )


@dataclass(frozen=True, slots=True)
class Repair:
    """The present hook and what to change. `others` are hooks that send the same events elsewhere, or to us twice."""

    present: Hook | None
    differences: tuple[HookDifference, ...]
    others: tuple[Hook, ...]

    @property
    def action(self) -> str:
        """`create`, `change` or `none`."""
        if not self.differences:
            return "none"
        return "change" if self.present else "create"


def needed(hooks: Iterable[Hook], wanted: Hook) -> Repair:
    """Compare the hooks of a project with the wanted one. A hook is identified by its URL."""
    same_type = [hook for hook in hooks if hook.type == wanted.type]
    same_url = sorted((h for h in same_type if h.url == wanted.url), key=lambda h: len(differences(h, wanted)))
    elsewhere = (
        h for h in same_type if h.url != wanted.url and h.url.endswith(PATH) and h.dataset in (wanted.dataset, "*")
    )
    present = next(iter(same_url), None)
    return Repair(present, differences(present, wanted), (*same_url[1:], *elsewhere))


def creation(hook: Hook) -> dict[str, Any]:
    """Return the request body that creates a hook."""
    return {"type": hook.type, "name": NAME, "description": DESCRIPTION, "headers": {}, **_settable(hook)}


def change(hook: Hook, wanted: Hook) -> dict[str, Any]:
    """Return the request body that changes `hook` into `wanted`. Its name, headers and newer API version stay."""
    version = max(hook.api_version, wanted.api_version)
    return {**_settable(wanted), "apiVersion": version, "isDisabledByUser": False}


class Hooks:
    """The webhooks of one project, through the management API."""

    def __init__(self, client: httpx.AsyncClient, base: str) -> None:
        self._client = client
        self._base = base

    async def all(self) -> list[Hook]:
        """Return every webhook of the project."""
        return _read(list[Hook], await self._client.get(self._base))

    async def apply(self, repair: Repair, wanted: Hook) -> Hook:
        """Create or change the hook and return the result. Raises HookNotRepaired if it still differs."""
        if repair.present is None:
            response = await self._client.post(self._base, json=creation(wanted))
        else:
            response = await self._client.patch(
                f"{self._base}/{repair.present.id}", json=change(repair.present, wanted)
            )
        hook = _read(Hook, response)
        if remaining := differences(hook, wanted):
            raise HookNotRepaired(f"{hook.id}: {'; '.join(str(difference) for difference in remaining)}")
        return hook

    async def attempts(self, hook: Hook) -> list[Attempt]:
        """Return the last delivery attempts, newest first."""
        return _read(list[Attempt], await self._client.get(f"{self._base}/{hook.id}/attempts", params={"limit": 50}))


def open_hooks(transport: ServiceTransport, *, url: str, version: str, project: str) -> tuple[Hooks, httpx.AsyncClient]:
    """Return the webhooks of a project, and the HTTP client that the caller must close."""
    client = httpx.AsyncClient(transport=transport, timeout=sanity.timeout(transport.timings))
    return Hooks(client, f"{url}/v{version}/hooks/projects/{project}"), client


def error_from_response(response: httpx.Response, retry_after: float | None) -> Exception | None:
    """Return the error for a response from the management API, or None for a 2xx."""
    if response.status_code not in (401, 403):
        return sanity.error_from_response(response, retry_after)
    detail = f"Sanity answered {response.status_code}: {sanity.description(response)}"
    if sanity.error_code(response).startswith(INVALID_SESSION):
        return CredentialsRefused(f"{detail} (SANITY_MANAGE_TOKEN, or SANITY_READ_TOKEN without it)")
    return MayNotManageHooks(detail)


def _groq(text: str | None) -> str:
    """Return GROQ on one line: forms and editors change line breaks and indentation."""
    return " ".join((text or "").split())


def _switch(value: bool) -> str:
    return "on" if value else "off"


FIELDS: Mapping[str, Callable[[Hook], str]] = {
    "URL": lambda hook: hook.url,
    "dataset": lambda hook: hook.dataset,
    "state": lambda hook: "disabled" if hook.is_disabled else "enabled",
    "trigger on": lambda hook: ", ".join(sorted(hook.rule.on)),
    "filter": lambda hook: _groq(hook.rule.filter),
    "projection": lambda hook: _groq(hook.rule.projection),
    "secret": lambda hook: hook.secret.get_secret_value() if hook.secret else "",
    "drafts": lambda hook: _switch(hook.include_drafts),
    "versions": lambda hook: _switch(hook.include_all_versions),
    "method": lambda hook: hook.http_method,
    "API version": lambda hook: hook.api_version if hook.api_version < API_VERSION else f"{API_VERSION} or newer",
}
"""The compared fields, by their label in Sanity's form, with their values."""

_SOURCES = {
    "filter": "webhook_filter.groq",
    "projection": "webhook_projection.groq",
    "secret": "SANITY_WEBHOOK_SECRET",
}
"""The source of values that are secret or too long for a table."""


def _shown(field: str, value: str | None) -> str:
    if field in _SOURCES:
        return "different" if value else "none"
    return "none" if value is None else value or "empty"


def _settable(hook: Hook) -> dict[str, Any]:
    """Return the fields that we set, with Sanity's names. Sanity refuses a null filter, so nulls are left out."""
    names = {"url", "dataset", "api_version", "http_method", "include_drafts", "include_all_versions", "rule"}
    fields = hook.model_dump(mode="json", by_alias=True, include=names, exclude_none=True)
    return {**fields, "secret": hook.secret.get_secret_value() if hook.secret else ""}


def _read(shape: type[T], response: httpx.Response) -> T:
    try:
        return TypeAdapter(shape).validate_json(response.content)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors(include_url=False, include_input=False)[0]["loc"])
        # The response contains a secret, so it is not quoted.
        raise UnreadableAnswer(f"Sanity's list of webhooks has an unexpected {where or 'body'}") from None
