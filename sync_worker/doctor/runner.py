"""Runs the checks of `doctor`: their inputs, their findings, and which checks are skipped.

The transport guarantees that nothing is written: it refuses every request that could change something, except a
mutation that Sanity only simulates.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

import httpx

from sync_worker.clerk import client as clerk
from sync_worker.errors import MayNotManageHooks, ServiceUnavailable, SyncWorkerError
from sync_worker.formatting import ago
from sync_worker.sanity import client as sanity
from sync_worker.sanity import webhook_config as hooks
from sync_worker.sanity.client import Queries, Sanity
from sync_worker.transport import ServiceTransport, inner_transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings
    from sync_worker.runtime.wiring import Runtime
    from sync_worker.settings import Settings

TRY_AGAIN = (
    "Run this again. If it persists, check the URL, the network of this host and the status page of the service."
)


class Status(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found, and how to fix it."""

    status: Status
    result: str
    fix: str = ""


def ok(result: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding(Status.OK, result)


def warning(result: str, fix: str) -> Finding:
    """Return a finding that works but deserves attention."""
    return Finding(Status.WARNING, result, fix)


def problem(result: str, fix: str) -> Finding:
    """Return a finding that does not work, or soon will not."""
    return Finding(Status.PROBLEM, result, fix)


def skipped(result: str, fix: str = "") -> Finding:
    """Return that the check could not be made."""
    return Finding(Status.SKIPPED, result, fix)


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. It is skipped when a variable it `uses` is invalid or a check it `needs` did not pass."""

    name: str
    run: Callable[[Installation], Awaitable[Finding]]
    uses: Sequence[str] = ()
    needs: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Installation:
    """An installation with clients for its services. `invalid` maps each invalid variable to what is wrong with it.

    `unknown` maps each variable that is not a setting to the one that was meant, if known. `url` is where Sanity should
    post, empty when unknown. `clock_offsets` is how many seconds our clock is ahead of each service that has answered.
    """

    settings: Settings
    invalid: Mapping[str, str]
    url: str
    clock: Clock
    timings: Timings
    sanity: httpx.AsyncClient
    anonymous: httpx.AsyncClient
    clerk: httpx.AsyncClient
    hooks: hooks.Hooks
    clock_offsets: Mapping[str, float]
    unknown: Mapping[str, str] = field(default_factory=dict)

    @property
    def queries(self) -> Queries:
        """The GROQ files. Raises ConfigurationError."""
        return Queries.load(self.settings.groq_folder)

    @property
    def sanity_base(self) -> str:
        """The base URL of Sanity's API."""
        return f"{self.settings.sanity_url}/v{self.settings.sanity_api_version}"

    @property
    def source(self) -> Sanity:
        """Sanity with the worker's token."""
        return self._source(self.sanity)

    @property
    def public_source(self) -> Sanity:
        """Sanity without a token."""
        return self._source(self.anonymous)

    def ago(self, at: float) -> str:
        """Return how long ago `at` was, for people. `at` is in epoch seconds."""
        return f"{ago(self.clock.now() - at)} ago"

    def _source(self, client: httpx.AsyncClient) -> Sanity:
        return Sanity(client, self.queries, base=self.sanity_base, dataset=self.settings.sanity_dataset)


@asynccontextmanager
async def open_installation(
    settings: Settings,
    invalid: Mapping[str, str],
    runtime: Runtime,
    *,
    url: str = "",
    manage_token: str = "",
    unknown: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Installation]:
    """Open clients for both services. Webhooks are read with `manage_token`, or else with the read token."""
    clock, timings = runtime.clock, runtime.timings
    once = replace(timings, transport_attempts=1)  # report the first failure instead of retrying
    clock_offsets: dict[str, float] = {}
    read_token = settings.sanity_read_token.get_secret_value()

    def transport(
        service: str, token: str, explain: Callable[[httpx.Response, float | None], Exception | None], **more: str
    ) -> ServiceTransport:
        return ServiceTransport(
            service,
            ClockWatch(inner_transport(), service, clock, clock_offsets),
            {**({"Authorization": f"Bearer {token}"} if token else {}), **more},
            explain,
            clock,
            once,
            is_read=is_harmless,
            dry_run=True,
        )

    managing, managing_client = hooks.open_hooks(
        transport("Sanity", manage_token or read_token, hooks.error_from_response),
        url=settings.sanity_url,
        version=settings.sanity_api_version,
        project=settings.sanity_project_id,
    )
    patience = sanity.timeout(timings)
    key, version = settings.clerk_secret_key.get_secret_value(), {"Clerk-API-Version": clerk.API_VERSION}
    async with (
        managing_client,
        httpx.AsyncClient(
            transport=transport("Sanity", read_token, sanity.error_from_response), timeout=patience
        ) as reading,
        httpx.AsyncClient(transport=transport("Sanity", "", sanity.error_from_response), timeout=patience) as anonymous,
        httpx.AsyncClient(
            transport=transport("Clerk", key, clerk.error_from_response, **version), timeout=clerk.timeout(timings)
        ) as users,
    ):
        yield Installation(
            settings, invalid, url, clock, timings, reading, anonymous, users, managing, clock_offsets, unknown
        )


def is_harmless(request: httpx.Request) -> bool:
    """Return whether a request changes nothing: it reads, or it is a mutation that Sanity only simulates."""
    is_dry_run = "/data/mutate/" in request.url.path and request.url.params.get("dryRun") == "true"
    return sanity.reads_only(request) or is_dry_run


@dataclass(slots=True)
class ClockWatch(httpx.AsyncBaseTransport):
    """Compares the Date header of each response with our clock."""

    inner: httpx.AsyncBaseTransport
    service: str
    clock: Clock
    offsets: dict[str, float] = field(repr=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request, and record the clock offset."""
        response = await self.inner.handle_async_request(request)
        try:
            theirs = parsedate_to_datetime(response.headers.get("date", "")).timestamp()
        except ValueError:
            return response
        self.offsets[self.service] = self.clock.now() - theirs
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self.inner.aclose()


def rfc3339(epoch: float) -> str:
    """Return epoch seconds as an RFC 3339 time in UTC."""
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


async def examine(installation: Installation, checks: Sequence[Check]) -> dict[str, Finding]:
    """Run all checks in order, and return the findings by name."""
    findings: dict[str, Finding] = {}
    for check in checks:
        findings[check.name] = _skipped(check, installation, findings) or await _run(check, installation)
    return findings


def _skipped(check: Check, installation: Installation, findings: Mapping[str, Finding]) -> Finding | None:
    """Return why the check cannot run, or None."""
    for variable in check.uses:
        if variable in installation.invalid:
            return skipped(f"not checked: {installation.invalid[variable]}")
    for name in check.needs:
        if findings[name].status in (Status.PROBLEM, Status.SKIPPED):
            return skipped(f"not checked until this passes: {name}")
    return None


async def _run(check: Check, installation: Installation) -> Finding:
    try:
        return await check.run(installation)
    except MayNotManageHooks as error:
        return skipped(error.headline(), error.next_step())
    except SyncWorkerError as error:
        return problem(str(error), TRY_AGAIN if isinstance(error, ServiceUnavailable) else error.next_step())
    except httpx.InvalidURL as error:
        return problem(f"A URL is invalid: {error}", "Correct SANITY_API_URL or CLERK_API_URL.")
