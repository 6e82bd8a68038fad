"""What Clerk Billing says of a person or an organization. It sells plans beside us; nothing here changes any of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, ValidationError

from sync_worker.domain.subjects import Kind
from sync_worker.errors import RefusedError, UnreadableAnswer
from sync_worker.transport import read_json

if TYPE_CHECKING:
    import httpx

    from sync_worker.domain.subjects import Subject

SERVICE = "Clerk"
PAYERS = {Kind.USER: "users", Kind.ORGANIZATION: "organizations"}
"""Who can have a subscription, by the path of Clerk's API."""
OVER = frozenset({"ended", "expired", "abandoned"})
"""The statuses of plans that the subscription no longer has."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription, and its plans by slug with their own statuses. `unknown` is one that cannot be read right now."""

    status: str
    plans: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        if self == UNKNOWN:
            return "cannot be read right now"
        return ", ".join(f"{plan} ({status})" for plan, status in self.plans) or f"no plan ({self.status})"


UNKNOWN = Subscription("unknown")


class Billing:
    """Reads subscriptions."""

    def __init__(self, client: httpx.AsyncClient, base: str) -> None:
        self._client = client
        self._base = base

    async def subscription(self, subject: Subject) -> Subscription | None:
        """Return the subscription of a user or an organization; None without one, and where Billing is off.

        Errors: RetryableError, CredentialsRefused, UnreadableAnswer.
        """
        if subject.kind not in PAYERS:
            return None
        path = f"/{PAYERS[subject.kind]}/{quote(subject.id, safe='')}/billing/subscription"
        try:
            answer = read_json(SERVICE, await self._client.get(self._base + path))
        except RefusedError:
            return None
        try:
            found = _Subscription.model_validate(answer)
        except ValidationError:
            raise UnreadableAnswer("Clerk's response is not a subscription") from None
        items = [
            (item.plan.slug if item.plan else item.plan_id or "?", item.status) for item in found.subscription_items
        ]
        return Subscription(found.status, tuple((plan, status) for plan, status in items if status not in OVER))


class _Plan(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)
    slug: str


class _Item(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)
    status: str
    plan_id: str | None = None
    plan: _Plan | None = None


class _Subscription(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)
    status: str
    subscription_items: list[_Item]
