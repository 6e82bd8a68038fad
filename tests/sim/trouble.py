"""Failures: network trouble, services that see nothing or refuse, crashes, jumping clocks, full disks.

Each function is one step. A failure lasts until another step ends it, or until the world comes to rest.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING

from sync_worker.sandbox.clerk_errors import ClerkError
from tests.sim import content, groq
from tests.sim.hooks import receive
from tests.sim.network import FATES

if TYPE_CHECKING:
    from tests.sim.world import World

BEHIND = 45.0
"""Seconds by which a replica may be behind: the poll looks at what is a minute old."""
SKEWS = (-60.0, -5.0, 0.0, 5.0, 45.0, 90.0)


def calm(world: World) -> str:
    world.weather.fates.clear()
    world.disk.trouble = 0.0
    world.lake.dataset_empty = False
    world.lake.fallen_back = None
    world.lake.key_works = world.clerk.key_works = True
    return "everything works again"


def weather(world: World) -> str:
    service = world.random.choice(("sanity", "clerk"))
    fates = world.random.sample(FATES, world.random.randrange(1, 4))
    world.weather.fates[service] = {fate: world.random.choice((0.03, 0.1, 0.3)) for fate in fates}
    return f"weather of {service}: {world.weather.fates[service]}"


def outage(world: World) -> str:
    """Let every request to one service meet the same fate."""
    service, fate = world.random.choice(("sanity", "clerk")), world.random.choice(FATES)
    world.weather.fates[service] = {fate: 1.0}
    return f"every request to {service} is {fate}"


def lag(world: World) -> str:
    world.lake.lag = world.random.choice((0.0, 0.2, 1.0, 3.0, 5.0))
    return f"queries are up to {world.lake.lag} s behind"


def fall_back(world: World) -> str:
    """Let a replica of the query index fall behind, or be up to date again."""
    if world.lake.fallen_back is not None and world.random.random() < 0.4:
        world.lake.fallen_back = None
        return "all replicas are up to date"
    return f"a replica shows state {world.lake.fall_back(world.random.randrange(1, 12), BEHIND)}"


def log_fault(world: World) -> str:
    """Let the transaction log be readable or not, for as long as it takes: all ids are compared meanwhile."""
    world.lake.log_fault = world.random.choice(("", "unavailable", "forbidden", "garbled", "error line"))
    return f"the transaction log is {world.lake.log_fault or 'readable'}"


def cut(world: World) -> str:
    world.stream.cut()
    return "the stream is cut"


def dataset_empty(world: World) -> str:
    world.lake.dataset_empty = not world.lake.dataset_empty
    return f"Sanity shows {'nothing' if world.lake.dataset_empty else 'everything again'}"


def keys(world: World) -> str:
    """Let a service refuse our key, or take it again."""
    if world.random.random() < 0.5:
        world.lake.key_works = not world.lake.key_works
        return f"the key of Sanity works: {world.lake.key_works}"
    world.clerk.key_works = not world.clerk.key_works
    return f"the key of Clerk works: {world.clerk.key_works}"


def disk(world: World) -> str:
    world.disk.trouble = world.random.choice((0.0, 0.02, 0.2))
    return f"{world.disk.trouble:.0%} of the transactions fail"


def busy_app(world: World) -> str:
    """Let the customer's own app use up much of Clerk's limit."""
    calls = world.random.randrange(20, 101)
    for _ in range(calls):
        with suppress(ClerkError):
            world.clerk.api.limiter.check("the app", "")
    return f"the app calls Clerk {calls} times"


async def jump(world: World) -> str:
    """Set the clock of the worker's machine, while something is in flight."""
    if not world.config.jumps:
        return "the clock goes well"
    done = [content.publish(world), content.publish(world)]
    await asyncio.sleep(world.random.uniform(0.1, 0.6))
    world.clock.jump(world.random.choice(SKEWS))
    return f"{'; '.join(done)}; then the clock is {world.clock.skew:+.0f} s wrong"


async def crash(world: World) -> str:
    """Kill a server; the platform mostly starts another one at once."""
    if not world.servers:
        return "no server is left to kill"
    server = world.random.choice(world.servers)
    await world.kill_server(server)
    if world.random.random() < 0.3:
        return f"{server.name} is killed"
    return f"{server.name} is killed, {(await world.start_server()).name} starts"


async def stop(world: World) -> str:
    """Stop a server as a deployment does."""
    if not world.servers:
        return "no server is left to stop"
    server = world.random.choice(world.servers)
    world.servers.remove(server)
    await server.stop()
    return f"{server.name} is stopped"


async def start(world: World) -> str:
    if len(world.servers) >= world.config.servers:
        return "enough servers run"
    server = await world.start_server(takes_webhooks=not world.servers or world.random.random() < 0.7)
    return f"{server.name} starts"


async def kill_command(world: World) -> str:
    """Kill a command that runs, such as a reconcile."""
    if not world.commands:
        return "no command runs"
    process = world.random.choice(list(world.commands))
    await process.kill()
    return f"{process.name} is killed"


async def forge(world: World) -> str:
    """Send a webhook that nobody signed."""
    server = next((one for one in world.servers if one.takes_webhooks), None)
    if server is None:
        return "nobody takes forged webhooks"
    body = groq.webhook({"_id": "ent-0", "_type": "entitlement", "_rev": "r1", "_updatedAt": ""}, None)
    header = f"t={int(world.clock.true_time() * 1000)},v1={'A' * 43}"
    status = await receive(server, "sanity", json.dumps(body).encode(), {"sanity-webhook-signature": header})
    if status not in (0, 401):
        world.watch.fail("only signed webhooks count", f"a forged webhook was answered {status}")
    return "somebody forges a webhook"
