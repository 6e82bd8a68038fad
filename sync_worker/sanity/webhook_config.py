"""The webhook in Sanity: what it should be, what it is, and the management API that makes it so.

Why it exists: a hook that is off, posts elsewhere or leaves out deletes loses events without a word. What must stand in
Sanity is said once, here: `webhook show` prints it, `webhook install` makes it so, `doctor` compares. Taking what the
hook sends is `receiver`; its filter and projection are GROQ files.
"""

from __future__ import annotations

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
"""The oldest version with delta functions, and Sanity's own default; a hook may have a newer one."""
NAME = "sync-worker"
DESCRIPTION = "Tells sync-worker which entitlements may have changed."
INVALID_SESSION = "SIO-401"
"""How the error code of a dead token begins. A 401 without it means that a living token lacks a grant."""


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel, populate_by_name=True)


class HookRule(_Answer):
    """When a hook fires, and what it sends."""

    on: tuple[str, ...] = ()
    filter: str | None = None
    projection: str | None = None


class Hook(_Answer):
    """One webhook. Hooks of the retired kind, of the type `transaction`, have no rule."""

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


class Attempt(_Answer):
    """One try to deliver something. `result_code` is what we answered, None when nobody did."""

    created_at: AwareDatetime
    is_failure: bool = False
    failure_reason: str | None = None
    result_code: int | None = None


@dataclass(frozen=True, slots=True)
class HookDifference:
    """One field of a hook that is not what it should be, as people read it."""

    field: str
    now: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.field} is {self.now}, wanted {self.wanted}"


def wanted_hook(queries: Queries, *, url: str, dataset: str, secret: SecretStr | None) -> Hook:
    """Return the hook as it should be."""
    rule = HookRule(
        on=("create", "update", "delete"), filter=queries.webhook_filter, projection=queries.webhook_projection
    )
    return Hook(url=url, dataset=dataset, secret=secret, rule=rule)


def differences(hook: Hook | None, wanted: Hook) -> tuple[HookDifference, ...]:
    """Return what must change, field by field; everything when there is no hook. No secret is in it."""
    return tuple(
        HookDifference(name, _shown(name, value_of(hook) if hook else None), _WANTED.get(name, value_of(wanted)))
        for name, value_of in FIELDS.items()
        if hook is None or value_of(hook) != value_of(wanted)
    )


@dataclass(frozen=True, slots=True)
class Repair:
    """What there is, and what must be done. `others` tell the same events to other places, or to ours twice."""

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
    """Compare the hooks of a project with the one that is wanted. A hook is known by its URL."""
    known = [hook for hook in hooks if hook.type == wanted.type]
    ours = sorted((h for h in known if h.url == wanted.url), key=lambda hook: len(differences(hook, wanted)))
    rivals = (h for h in known if h.url != wanted.url and h.url.endswith(PATH) and h.dataset in (wanted.dataset, "*"))
    present = next(iter(ours), None)
    return Repair(present, differences(present, wanted), (*ours[1:], *rivals))


def creation(hook: Hook) -> dict[str, Any]:
    """Return the body that creates a hook."""
    return {"type": hook.type, "name": NAME, "description": DESCRIPTION, "headers": {}, **_settable(hook)}


def change(hook: Hook, wanted: Hook) -> dict[str, Any]:
    """Return the body that makes `hook` what is wanted. Its name, its headers and a newer API version stay."""
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
        """Create or change the hook, and return it as Sanity holds it then. Raises HookNotRepaired if it differs."""
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
        """Return the last tries to deliver something, the newest first."""
        return _read(list[Attempt], await self._client.get(f"{self._base}/{hook.id}/attempts", params={"limit": 50}))


def open_hooks(transport: ServiceTransport, *, url: str, version: str, project: str) -> tuple[Hooks, httpx.AsyncClient]:
    """Return the webhooks of a project, and the client to close."""
    client = httpx.AsyncClient(transport=transport, timeout=sanity.timeout(transport.timings))
    return Hooks(client, f"{url}/v{version}/hooks/projects/{project}"), client


def error_from_response(response: httpx.Response, retry_after: float | None) -> Exception | None:
    """Return the error that an answer of the management API stands for; None when it is good."""
    if response.status_code not in (401, 403):
        return sanity.error_from_response(response, retry_after)
    detail = f"Sanity answered {response.status_code}: {sanity.description(response)}"
    if sanity.error_code(response).startswith(INVALID_SESSION):
        return CredentialsRefused(f"{detail} (SANITY_MANAGE_TOKEN, or SANITY_READ_TOKEN without it)")
    return MayNotManageHooks(detail)


def _groq(text: str | None) -> str:
    """Return GROQ without its line breaks and indents, which forms and editors change."""
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
"""What is compared: each field's name in Sanity's form, and its value."""

_WANTED = {
    "filter": "webhook_filter.groq",
    "projection": "webhook_projection.groq",
    "secret": "SANITY_WEBHOOK_SECRET",
}
"""Too long for a table, or a secret: said by where it comes from."""


def _shown(field: str, value: str | None) -> str:
    if field in _WANTED:
        return "another one" if value else "none"
    return "none" if value is None else value or "empty"


def _settable(hook: Hook) -> dict[str, Any]:
    """Return the fields that are ours to set, as Sanity names them. A filter that is null would be refused."""
    names = {"url", "dataset", "api_version", "http_method", "include_drafts", "include_all_versions", "rule"}
    fields = hook.model_dump(mode="json", by_alias=True, include=names, exclude_none=True)
    return {**fields, "secret": hook.secret.get_secret_value() if hook.secret else ""}


def _read(shape: type[T], response: httpx.Response) -> T:
    try:
        return TypeAdapter(shape).validate_json(response.content)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors(include_url=False, include_input=False)[0]["loc"])
        # The answer holds a secret, so nothing of it is quoted.
        raise UnreadableAnswer(f"Sanity's list of webhooks is not of the known shape: {where or 'body'}") from None
