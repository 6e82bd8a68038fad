"""The httpx transport of every call to Sanity and Clerk, whether Clerk's SDK makes it or our own clients do.

It applies authentication, the API version, the call budget, retries, the lease and the dry run in one place.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import httpx
import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter
from tenacity.stop import stop_base

from sync_worker import __version__
from sync_worker.domain.clock import utc
from sync_worker.errors import MutationInDryRun, RateLimited, RetryableError, ServiceUnavailable, UnreadableAnswer

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from tenacity import RetryCallState

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.lease import Lease
    from sync_worker.domain.timings import Timings

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

log = structlog.get_logger("http")

KEPT_SECONDS = 30.0
"""How long a connection that nobody uses is kept."""
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class CallBudget(Protocol):
    """Calls per window, shared by every process."""

    async def take(self, lane: int = 0) -> None:
        """Wait until one call may be sent."""

    async def pause(self, seconds: float) -> None:
        """Pause all processes after a 429."""


@dataclass(slots=True)
class Write:
    """A write in progress. With `unanswered`, an attempt got no response and may land late, even after a retry."""

    lease: Lease
    unanswered: bool = False


current_write: ContextVar[Write | None] = ContextVar("current_write", default=None)


@contextmanager
def guarded(lease: Lease) -> Iterator[Write]:
    """Send mutating requests of this context only while `lease` is held, and record Retry-After in it."""
    write = Write(lease)
    token = current_write.set(write)
    try:
        yield write
    finally:
        current_write.reset(token)


@dataclass(frozen=True, slots=True)
class Call:
    """One request, for metrics and reports. `outcome` is the status, or the name of the failure."""

    service: str
    method: str
    outcome: str
    seconds: float


@dataclass(slots=True)
class ServiceTransport(httpx.AsyncBaseTransport):
    """Sends requests to one service.

    `headers` are set on every request and override those of the SDK. `error_from_response` maps a response, and the
    seconds of its Retry-After, to an error, or to None if it succeeded. `is_read` says which POSTs only read. `observe`
    is called with every call.
    """

    service: str
    inner: httpx.AsyncBaseTransport
    headers: Mapping[str, str] = field(repr=False)
    error_from_response: Callable[[httpx.Response, float | None], Exception | None]
    clock: Clock
    timings: Timings
    is_read: Callable[[httpx.Request], bool] = lambda request: request.method in SAFE_METHODS
    budget: CallBudget | None = None
    dry_run: bool = False
    lane: ContextVar[int] = field(default_factory=lambda: current_lane)
    observe: Callable[[Call], None] = lambda _: None
    _refused: tuple[str, float] = ("", 0.0)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request`, and retry what may succeed later. Raises the typed error of any response but a 2xx."""
        request.headers.update({**self.headers, "User-Agent": f"sync-worker/{__version__}"})
        reads = self.is_read(request)
        if self.dry_run and not reads:
            raise MutationInDryRun(f"{request.method} {request.url.path}")
        try:  # outside tenacity, which costs as much CPU as half a request: most succeed at once
            return await self._attempt(request, reads)
        except RetryableError as error:
            return await self._retry(request, reads, error)

    async def _retry(self, request: httpx.Request, reads: bool, failed: RetryableError) -> httpx.Response:
        """Retry a request whose first attempt `failed`, which counts as an attempt here too."""
        first = [failed]

        async def attempt() -> httpx.Response:
            if first:
                raise first.pop()
            return await self._attempt(request, reads)

        timings = self.timings
        retrying = AsyncRetrying(
            sleep=self.clock.sleep,
            stop=stop_after_attempt(timings.transport_attempts) | _stop_after_wait(timings.max_transport_wait),
            wait=_wait_retry_after(timings),
            retry=retry_if_exception_type(RetryableError),
            reraise=True,
        )
        return await retrying(attempt)

    async def _attempt(self, request: httpx.Request, reads: bool) -> httpx.Response:
        if self.budget is not None:
            await self.budget.take(self.lane.get())
        write = None if reads else current_write.get()
        if write is not None:
            write.lease.ensure_held()
        started = asyncio.get_running_loop().time()
        outcome = "failed"
        try:
            response = await self._send(request)
            outcome = str(response.status_code)
        except ServiceUnavailable as error:
            outcome = type(error.__cause__).__name__
            if write is not None and not isinstance(error.__cause__, NEVER_SENT):
                write.unanswered = True
            raise
        finally:
            seconds = asyncio.get_running_loop().time() - started
            self.observe(Call(self.service, request.method, outcome, seconds))
        failure = self.error_from_response(response, retry_after(response, self.clock, self.timings))
        if (
            isinstance(failure, RateLimited)
            and self.budget is not None
            and self._is_instance_limit(request, reads=reads)
        ):
            pause = failure.retry_after or self.timings.default_retry_after
            log.warning("rate_limited", service=self.service, seconds=pause)
            await self.budget.pause(pause)
        if write is not None and isinstance(failure, RetryableError) and failure.retry_after:
            write.lease.record_retry_after(failure.retry_after)
        if failure is not None:
            raise failure
        return response

    def _is_instance_limit(self, request: httpx.Request, *, reads: bool) -> bool:
        """Return whether a 429 is the limit of the whole instance, not that of one subject.

        A refused read is; a refused write is if another subject was refused just before.
        """
        now = asyncio.get_running_loop().time()
        path, at = self._refused
        self._refused = request.url.path, now
        return reads or (path not in ("", request.url.path) and now - at < self.timings.instance_limit_window)

    async def _send(self, request: httpx.Request) -> httpx.Response:
        """Send once and read the whole body, so that a connection lost in the middle is a failed call."""
        try:
            response = await self.inner.handle_async_request(request)
            try:
                await response.aread()
            finally:
                await response.aclose()
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise ServiceUnavailable(f"{self.service}: {type(error).__name__}") from error
        response.request = request
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self.inner.aclose()


current_lane: ContextVar[int] = ContextVar("current_lane", default=0)
"""The lane of the work that calls are made for: the budget serves lane 0 first."""


class _stop_after_wait(stop_base):  # noqa: N801 - named as tenacity names its stops
    """Stops if Retry-After is longer than a request waits by itself."""

    def __init__(self, longest: float) -> None:
        self._longest = longest

    def __call__(self, retry_state: RetryCallState) -> bool:
        return (_retry_after(retry_state) or 0) > self._longest


class _wait_retry_after(wait_exponential_jitter):  # noqa: N801 - named as tenacity names its waits
    """Waits for Retry-After, or with backoff if there is none."""

    def __init__(self, timings: Timings) -> None:
        super().__init__(
            multiplier=timings.transport_first_backoff,
            max=timings.transport_max_backoff,
            jitter=timings.transport_jitter,
        )

    def __call__(self, retry_state: RetryCallState) -> float:
        after = _retry_after(retry_state)
        return super().__call__(retry_state) if after is None else after


def _retry_after(state: RetryCallState) -> float | None:
    error = state.outcome.exception() if state.outcome else None
    return error.retry_after if isinstance(error, RetryableError) else None


def read_json(service: str, response: httpx.Response) -> Any:
    """Return the JSON body. Raises UnreadableAnswer if it is not JSON or nested too deeply."""
    try:
        return response.json()
    except (ValueError, RecursionError):
        raise UnreadableAnswer(f"{service} answered {response.status_code} with a body that is not JSON") from None


def retry_after(response: httpx.Response, clock: Clock, timings: Timings) -> float | None:
    """Return the seconds of a Retry-After header, given as seconds or an HTTP date; None without a valid one."""
    text = response.headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - utc(clock)).total_seconds()
        except (ValueError, TypeError):
            return None
    return min(max(0.0, seconds), timings.max_retry_after) if math.isfinite(seconds) else None


@cache
def ssl_context() -> ssl.SSLContext:
    """Return the TLS context of all connections. It is cached, because loading the authorities takes 50 ms."""
    return httpx.create_ssl_context()


def inner_transport(connections: int = 32) -> httpx.AsyncBaseTransport:
    """Return what sends requests: connections are kept alive, redirects are not followed."""
    return Connections(connections)


class Connections(httpx.AsyncBaseTransport):
    """Keeps up to `most` connections and gives each request one of its own, the one used last if any is free.

    httpx's pool looks at all of its connections for each request, and again for each response: with 24 at work that is
    a third of what a write costs (`python -m bench writes`).
    """

    def __init__(self, most: int, kept_seconds: float = KEPT_SECONDS) -> None:
        self._slots = asyncio.Semaphore(most)
        self._kept_seconds = kept_seconds
        self._free: deque[tuple[float, httpx.AsyncHTTPTransport]] = deque()
        """Connections that wait, with when they were used last: the one that was used last is at the end."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request when a connection is free. Raises PoolTimeout when none is for too long."""
        try:
            async with asyncio.timeout(request.extensions.get("timeout", {}).get("pool")):
                await self._slots.acquire()
        except TimeoutError:
            raise httpx.PoolTimeout("no connection is free", request=request) from None
        connection = self._free.pop()[1] if self._free else _connection()
        try:
            response = await connection.handle_async_request(request)
        except BaseException:
            await self.drop(connection)
            raise
        stream = _Body(response.stream, connection, self)
        return httpx.Response(
            response.status_code, headers=response.headers, stream=stream, extensions=response.extensions
        )

    async def keep(self, connection: httpx.AsyncHTTPTransport) -> None:
        """Keep a connection whose request has ended well for the next one."""
        now = asyncio.get_running_loop().time()
        self._free.append((now, connection))
        self._slots.release()
        if now - self._free[0][0] > self._kept_seconds:
            await self._free.popleft()[1].aclose()

    async def drop(self, connection: httpx.AsyncHTTPTransport) -> None:
        """Close a connection whose request failed or was cancelled: httpcore may take it for busy for ever."""
        try:
            await connection.aclose()
        finally:
            self._slots.release()

    async def aclose(self) -> None:
        """Close the connections."""
        while self._free:
            await self._free.pop()[1].aclose()


class _Body(httpx.AsyncByteStream):
    """A response body. Read to its end, and closed, it leaves its connection to the next request."""

    def __init__(self, stream: Any, connection: httpx.AsyncHTTPTransport, connections: Connections) -> None:
        self._stream = stream
        self._connection = connection
        self._connections = connections
        self._whole = self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            yield part
        self._whole = True

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        end = self._connections.drop
        try:
            await self._stream.aclose()
            end = self._connections.keep if self._whole else end
        finally:
            await end(self._connection)


def _connection() -> httpx.AsyncHTTPTransport:
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEPT_SECONDS)
    return httpx.AsyncHTTPTransport(verify=ssl_context(), limits=limits)
