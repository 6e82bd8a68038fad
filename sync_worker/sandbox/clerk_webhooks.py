"""Clerk's webhooks: every change in the instance, signed as Svix does.

Clerk may lose, repeat and reorder deliveries; `deliveries.faults` does that here. The schedule and the headers follow
Svix's documentation.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from standardwebhooks.webhooks import Webhook

from sync_worker.sandbox.clock import milliseconds, rfc3339
from sync_worker.sandbox.delivery import Deliveries, Message, Policy

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

HTTP_OK = range(200, 300)

POLICY = Policy(
    retry_delays=(5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 36000.0),
    is_final=HTTP_OK.__contains__,
    timeout=15.0,
)
"""Anything but a 2xx is retried, eight attempts in all."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A subscribed endpoint. `secret` is whsec_…; `events` are the subscribed types, empty for all."""

    url: str
    secret: str
    events: frozenset[str] = frozenset()


class ClerkWebhooks:
    """The endpoints of one instance, and the deliveries to them."""

    def __init__(self, clock: Callable[[], float], random: Random) -> None:
        self.endpoints: list[Endpoint] = []
        self.instance_id = "ins_sandbox"
        self.deliveries = Deliveries(POLICY, clock, random)
        self._clock = clock
        self._random = random

    def publish(self, event: str, data: dict[str, Any]) -> None:
        """Send an event to every endpoint that is subscribed to it."""
        now = self._clock()
        envelope = {
            "data": data,
            "event_attributes": {"http_request": {"client_ip": "", "user_agent": ""}},
            "instance_id": self.instance_id,
            "object": "event",
            "timestamp": milliseconds(now),
            "type": event,
        }
        body = json.dumps(envelope, ensure_ascii=False, separators=(",", ":"))
        for endpoint in self.endpoints:
            if not endpoint.events or event in endpoint.events:
                self.deliveries.send(self._message(endpoint, body, now))

    def _message(self, endpoint: Endpoint, body: str, now: float) -> Message:
        id_ = f"msg_{self._random.getrandbits(96):024x}"

        def headers() -> dict[str, str]:
            # Svix signs each attempt with its own time.
            at = datetime.fromtimestamp(int(self._clock()), UTC)
            return {
                "content-type": "application/json",
                "user-agent": "Svix-Webhooks/1.0",
                "svix-id": id_,
                "svix-timestamp": str(int(at.timestamp())),
                "svix-signature": Webhook(endpoint.secret).sign(id_, at, body),
            }

        return Message(id_, endpoint.url, "POST", endpoint.url, headers, body.encode(), rfc3339(now))

    async def reset(self) -> None:
        """Remove all endpoints and delivery faults."""
        self.endpoints.clear()
        await self.deliveries.reset()

    async def close(self) -> None:
        """Stop delivering."""
        await self.deliveries.close()
