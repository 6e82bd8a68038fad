"""A network that doubles, delays, drops and breaks: nobody is wrong in the end.

`CRASH_EDITS=2000` is the run that is not done every time.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.crash.load import Editors

if TYPE_CHECKING:
    from tests.crash.site import Site

pytestmark = [pytest.mark.anyio, pytest.mark.full("hundreds of edits; the worlds do the same in the quick run")]
EDITS = int(os.environ.get("CRASH_EDITS", "200"))
USERS = 60


@pytest.mark.parametrize("database_url", ["postgres_url"], indirect=True)
async def test_webhooks_that_come_twice_late_and_eight_at_a_time_make_nobody_wrong(site: Site) -> None:
    box = site.box
    editors = await Editors.begin(box, USERS)
    faults = box.lake.webhooks.deliveries.faults
    faults.duplicate, faults.delay, faults.delay_seconds, faults.at_once = 0.2, 0.2, (0.0, 1.0), 8
    box.clerk.faults.latency, box.lake.lag = 0.05, 0.15
    async with site.receiver("serve"):
        site.install_hook()
        for _ in range(EDITS):
            await editors.edit()
        await box.lake.hooks_idle()
        await site.until_in_sync()


@pytest.mark.parametrize("database_url", ["sqlite_url"], indirect=True)
async def test_services_that_fail_drop_answers_and_reset_connections_make_nobody_wrong(site: Site) -> None:
    box = site.box
    editors = await Editors.begin(box, USERS)
    for faults in (box.clerk.faults, box.lake.faults):
        for fault, fraction in (("unavailable", 0.1), ("lost", 0.05), ("reset", 0.05)):
            faults.some(fault, fraction)
    async with site.receiver("serve"):
        site.install_hook()
        for _ in range(EDITS):
            await editors.edit()
        await box.lake.hooks_idle()
        await site.until_in_sync()
    assert all(box.clerk.faults.hits[fault] for fault in ("unavailable", "lost", "reset"))
