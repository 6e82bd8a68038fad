"""Subscriptions of Clerk Billing, to read. An instance without Billing answers like one where nobody has subscribed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response

from sync_worker.sandbox import clerk_errors as errors

if TYPE_CHECKING:
    from starlette.requests import Request

    from sync_worker.sandbox.clerk import ClerkApi
    from sync_worker.sandbox.clerk_bodies import Record

MONTH = 30 * 86_400_000
"""In milliseconds."""


class BillingRoutes:
    """The handlers of subscriptions."""

    def __init__(self, clerk: ClerkApi) -> None:
        self.clerk = clerk

    async def of_user(self, request: Request) -> Response:
        """Return the subscription of a user."""
        return self._of(self.clerk.user(request.path_params["user"])["id"])

    async def of_organization(self, request: Request) -> Response:
        """Return the subscription of an organization."""
        return self._of(self.clerk.organization(request.path_params["organization"])["id"])

    def _of(self, payer_id: str) -> Response:
        if payer_id not in self.clerk.subscriptions:
            raise errors.not_found("subscription")
        return JSONResponse(self.clerk.subscriptions[payer_id])


def subscribe(clerk: ClerkApi, payer_id: str, status: str = "active", **plans: str) -> Record:
    """Give a user or an organization a subscription with these plans, each with the status of its item."""
    now = clerk.now()
    payer = clerk.new_id("cpayer")
    clerk.subscriptions[payer_id] = {
        "object": "commerce_subscription",
        "id": clerk.new_id("csub"),
        "instance_id": clerk.webhooks.instance_id,
        "status": status,
        "payer_id": payer,
        "created_at": now,
        "updated_at": now,
        "active_at": now,
        "past_due_at": now if status == "past_due" else None,
        "subscription_items": [_item(clerk, payer, plan, state, now) for plan, state in plans.items()],
    }
    return clerk.subscriptions[payer_id]


def _item(clerk: ClerkApi, payer: str, slug: str, status: str, now: int) -> Record:
    plan = _plan(clerk, slug)
    return {
        "object": "commerce_subscription_item",
        "id": clerk.new_id("csub_item"),
        "instance_id": clerk.webhooks.instance_id,
        "status": status,
        "plan_id": plan["id"],
        "plan": plan,
        "plan_period": "month",
        "payer_id": payer,
        "is_free_trial": False,
        "period_start": now,
        "period_end": now + MONTH,
        "canceled_at": now if status == "canceled" else None,
        "past_due_at": now if status == "past_due" else None,
        "ended_at": now if status == "ended" else None,
    }


def _plan(clerk: ClerkApi, slug: str) -> Record:
    fee = {"amount": 900, "amount_formatted": "9.00", "currency": "USD", "currency_symbol": "$"}
    return {
        "object": "commerce_plan",
        "id": clerk.new_id("cplan"),
        "name": slug.title(),
        "slug": slug,
        "description": None,
        "fee": fee,
        "annual_monthly_fee": None,
        "annual_fee": None,
        "product_id": clerk.new_id("cprod"),
        "is_default": False,
        "is_recurring": True,
        "publicly_visible": True,
        "has_base_fee": True,
        "for_payer_type": "user",
        "avatar_url": None,
        "features": [],
        "free_trial_enabled": False,
        "free_trial_days": None,
    }
