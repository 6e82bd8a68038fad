"""uvicorn's HTTP protocol with limits on the size of a request head and on the time a request may take to arrive.

Without them one unauthenticated client could take all memory or all connections: uvicorn buffers an endless head at
about seventeen times its size, and waits for a body forever. `receiver` limits the size of the body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from asyncio import TimerHandle, Transport

    from sync_worker.domain.timings import Timings

HEAD_LIMIT = 64 * 1024
"""Bytes that may arrive without completing a request head or a piece of a body. A single read may exceed it."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection. uvicorn instantiates it, so its timings are set on the class by `bounded`."""

    timings: Timings
    _pending = 0
    _deadline: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Start the timeout for the first request."""
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timeout."""
        self._arrived()
        super().connection_lost(exc)

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


def bounded(timings: Timings) -> type[BoundedProtocol]:
    """Return the protocol class for uvicorn with these timings."""
    return type("Bounded", (BoundedProtocol,), {"timings": timings})
