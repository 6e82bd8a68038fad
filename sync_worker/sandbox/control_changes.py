"""Controls listeners and the transaction log from another process, as `control` does for the rest.

POST /_sandbox/authors    {"author": "p-ada", "token"?: "sk-ada"}   whom mutations with a token are by
POST /_sandbox/log        {"retention": 86400}                      seconds that the transaction log keeps
POST /_sandbox/listen     {"settings"?: {…}, "faults"?: {…}}        the fields of ListenSettings and ListenFaults
GET  /_sandbox/listeners                                            counts of connections and events
POST /_sandbox/listeners  {"action": "cut"}                         end, cut, reset, fail or disconnect all
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from sync_worker.sandbox.control import Body, route
from sync_worker.sandbox.listeners import ListenFaults, ListenSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.routing import Route

    from sync_worker.sandbox.content_lake import ContentLake
    from sync_worker.sandbox.listeners import Listeners


class _Author(Body):
    """The user of a token, which may do everything; without `token`, of the sandbox's own."""

    author: str
    token: str | None = None


class _Log(Body):
    retention: float


class _Listen(Body):
    """What is left out gets its default."""

    settings: ListenSettings = ListenSettings()
    faults: ListenFaults = ListenFaults()


class _Interruption(Body):
    """What happens to all open connections; `reason` is for `fail` and `disconnect`."""

    action: Literal["end", "cut", "reset", "fail", "disconnect"]
    reason: str = "stopped by the sandbox"

    def apply(self, listeners: Listeners) -> None:
        """Interrupt the connections."""
        actions: dict[str, Callable[[], None]] = {
            "end": listeners.end,
            "cut": listeners.cut,
            "reset": listeners.send_reset,
            "fail": lambda: listeners.fail(self.reason),
            "disconnect": lambda: listeners.disconnect(self.reason),
        }
        actions[self.action]()


def routes(lake: ContentLake) -> list[Route]:
    """Return the control routes of a lake's listeners and log."""

    async def author(request: Request) -> None:
        body = _Author.model_validate_json(await request.body())
        lake.authors[body.token or lake.token] = body.author

    async def log(request: Request) -> None:
        lake.log.retention = _Log.model_validate_json(await request.body()).retention

    async def listen(request: Request) -> None:
        body = _Listen.model_validate_json(await request.body())
        lake.listeners.settings, lake.listeners.faults = body.settings, body.faults

    async def count(_: Request) -> Any:
        listeners = lake.listeners
        return {name: getattr(listeners, name) for name in ("connected", "opened", "sent", "dropped")}

    async def interrupt(request: Request) -> None:
        _Interruption.model_validate_json(await request.body()).apply(lake.listeners)

    return [
        route("POST", "/authors", author),
        route("POST", "/log", log),
        route("POST", "/listen", listen),
        route("GET", "/listeners", count),
        route("POST", "/listeners", interrupt),
    ]
