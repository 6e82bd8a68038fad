"""uvicorn's HTTP protocol with limits: open connections, the size of a head, and the time a request may take to arrive.

Without them one unauthenticated client could take all memory or all connections: uvicorn buffers an endless head at
about seventeen times its size, and waits for a body forever. `receiver` limits the size of the body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from asyncio import TimerHandle, Transport

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from sync_worker.domain.timings import Timings

HEAD_LIMIT = 64 * 1024
"""Bytes that may arrive without completing a request head or a piece of a body. A single read may exceed it."""
CONNECTIONS = 500
"""Open connections per process, well below the usual limit of 1,024 open files."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection. uvicorn instantiates it, so what all connections share is set on the class by `bounded`."""

    timings: Timings
    limit: int
    all_open: dict[BoundedProtocol, None]
    _pending = 0
    _deadline: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Make room for the connection, and start the timeout for its first request."""
        super().connection_made(transport)
        self._expect()
        if len(self.all_open) >= self.limit:
            next((one for one in self.all_open if one.is_waiting), self).drop()
        if not self.transport.is_closing():
            self.all_open[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timeout, and give the place away."""
        self._arrived()
        self.all_open.pop(self, None)
        super().connection_lost(exc)

    @property
    def is_waiting(self) -> bool:
        """Whether the connection waits for its client: for a request, or for the rest of one."""
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        return self._deadline is not None or cycle is None or cycle.response_complete

    def drop(self) -> None:
        """Close the connection, and give its place away at once."""
        self.all_open.pop(self, None)
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Parse the data, unless the head has grown too large."""
        self._pending += len(data)
        self._expect()
        super().data_received(data)
        if self._pending > HEAD_LIMIT and not self.transport.is_closing():
            self.logger.warning("Request head too large.")
            self.send_400_response("Request head too large.")

    def on_message_begin(self) -> None:
        """Start the timeout for a request; one read may hold several."""
        self._expect()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Reset the byte count at the end of the head."""
        self._pending = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Reset the byte count at each piece of the body."""
        self._pending = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Cancel the timeout once the request is complete."""
        self._pending = 0
        self._arrived()
        super().on_message_complete()

    def _expect(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.timings.request_arrival, self.transport.close)

    def _arrived(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def bounded(timings: Timings, limit: int = CONNECTIONS) -> type[BoundedProtocol]:
    """Return the protocol class for uvicorn, for one server.

    Beyond `limit` connections, a new one takes the place of the oldest that waits for its client, so that clients that
    send slowly cannot keep others out.
    """
    return type("Bounded", (BoundedProtocol,), {"timings": timings, "limit": limit, "all_open": {}})
