"""uvicorn's HTTP protocol, with an end to how large a request's head may be and how long a request may take to arrive.

Why it exists: before a body is read, nobody has shown a signature yet. uvicorn's C parser keeps a head for as long as
it goes on, at some seventeen times its size, and waits for a body for ever, so that one client could take all memory or
all connections. What is read of a body is limited by `receiver`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from asyncio import TimerHandle, Transport

    from sync_worker.domain.timings import Timings

HEAD_LIMIT = 64 * 1024
"""Bytes without a request, a header or a piece of a body coming to its end. One read may go beyond it."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection. uvicorn makes it, so what it goes by is in the class: see `bounded`."""

    timings: Timings
    _pending = 0
    _deadline: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, unless what came has no end."""
        self._pending += len(data)
        self._expect()
        super().data_received(data)
        if self._pending > HEAD_LIMIT and not self.transport.is_closing():
            self.logger.warning("Request head too large.")
            self.send_400_response("Request head too large.")

    def on_message_begin(self) -> None:
        """Begin to wait for a request, which may be the next one in the same read."""
        self._expect()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that the head has come to its end."""
        self._pending = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Note that a piece of a body has come."""
        self._pending = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request is there, whole."""
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
    """Return the protocol that uvicorn is to use."""
    return type("Bounded", (BoundedProtocol,), {"timings": timings})
