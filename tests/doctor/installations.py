"""Installations for doctor to examine: a web process against the local services."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sync_worker.cli.processes import install_clerk_hook, install_hook
from sync_worker.doctor.checks import CHECKS
from sync_worker.doctor.runner import Finding, Status, examine, open_installation
from sync_worker.runtime.wiring import Runtime, open_reconcile, open_store
from sync_worker.sandbox.server import Sandbox, Server
from sync_worker.web.app import create_app
from tests.builders import entitlement
from tests.clock import TIMINGS, ShiftedClock
from tests.parts import RUNTIME, settings_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sync_worker.sandbox.webhooks import Hook as Configured
    from sync_worker.settings import Settings


@dataclass
class Installation:
    """A web process against the local services. `ahead` is how many seconds its clock is fast."""

    box: Sandbox
    settings: Settings
    manage_token: str = ""
    ahead: float = 0.0
    invalid: dict[str, str] = field(default_factory=dict)

    @property
    def hook(self) -> Configured:
        return next(iter(self.box.lake.webhooks.hooks.values()))

    def reconfigure(self, **given: Any) -> None:
        """Examine it with other settings."""
        changed = settings_of(self.box, **{"database_url": self.settings.database_url, **given})
        self.settings = self.settings.model_copy(update={name: getattr(changed, name) for name in given})

    async def change_hook(self, **settings: Any) -> None:
        await self.box.lake.webhooks.change(self.hook.id, **settings)

    async def publish(self, document: str, **fields: Any) -> None:
        await self.box.lake.mutate([{"createOrReplace": entitlement(document, "user_1", **fields)}])
        await self.box.lake.hooks_idle()

    async def examine(self, url: str = "") -> dict[str, Finding]:
        runtime = Runtime(ShiftedClock(self.ahead), TIMINGS)
        async with open_installation(
            self.settings, self.invalid, runtime, url=url, manage_token=self.manage_token
        ) as installation:
            return await examine(installation, CHECKS)

    async def remembered(self) -> list[Any]:
        async with open_store(self.settings, RUNTIME) as store:
            return await store.database.read(lambda tx: tx.execute("SELECT name, value, at FROM state ORDER BY name"))


@asynccontextmanager
async def installation(box: Sandbox, database_url: str) -> AsyncIterator[Installation]:
    """Run a healthy installation: a working webhook, an entitlement in Clerk, a successful reconcile."""
    settings = settings_of(box, database_url)
    one = Installation(box, settings, manage_token=box.lake.token)
    async with listening(settings) as url:
        install_hook(box, url)
        install_clerk_hook(box, url)
        box.clerk.add_user("user_1")
        await box.clerk.webhooks.deliveries.idle()
        await one.publish("ent-1", plan="pro")
        await reconcile(settings)
        yield one


@asynccontextmanager
async def listening(settings: Settings) -> AsyncIterator[str]:
    """Run the web application in this process, and yield its address."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        server = Server(app, 0)
        running = asyncio.create_task(server.run_until_stopped())
        yield server.url
        server.stop()
        await running


async def reconcile(settings: Settings) -> None:
    async with open_store(settings, RUNTIME) as store, open_reconcile(settings, store, Counter()) as run_:
        await run_.apply(await run_.find())


def having(findings: dict[str, Finding], status: Status) -> set[str]:
    return {name for name, finding in findings.items() if finding.status is status}
