"""How `doctor` examines: whom it looks at, what a check may find, and why a check cannot run.

Why it exists: each check in `doctor` is to say no more than what it looks at. That nothing is written is kept here, in
the transport: every request that could change something is refused, but for a mutation that is marked as a dry run.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import TYPE_CHECKING

import httpx

from sync_worker.clerk import client as clerk
from sync_worker.errors import MayNotManageHooks, ServiceUnavailable, SyncWorkerError
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
    "Run this again. If it stays so: check the address, this host's way to the internet, the service's status page."
)


class Status(StrEnum):
    """What a check found."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is so, and what to do about it."""

    status: Status
    result: str
    fix: str = ""


def ok(result: str) -> Finding:
    """Say that it is as it should be."""
    return Finding(Status.OK, result)


def warning(result: str, fix: str) -> Finding:
    """Say that it works, but that somebody should know."""
    return Finding(Status.WARNING, result, fix)


def problem(result: str, fix: str) -> Finding:
    """Say that it does not work, or will not for long."""
    return Finding(Status.PROBLEM, result, fix)


def skipped(result: str, fix: str = "") -> Finding:
    """Say that it could not be found out."""
    return Finding(Status.SKIPPED, result, fix)


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. It `uses` variables, and `needs` earlier checks to have found no problem."""

    name: str
    look: Callable[[Installation], Awaitable[Finding]]
    uses: Sequence[str] = ()
    needs: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Installation:
    """An installation, with ways to ask its services. `wrong` says what is wrong with which variable.

    `url` is where Sanity should post, empty when unknown. `ahead` is by how many seconds our clock is ahead of that of
    each service that has answered.
    """

    settings: Settings
    wrong: Mapping[str, str]
    url: str
    clock: Clock
    timings: Timings
    sanity: httpx.AsyncClient
    anonymous: httpx.AsyncClient
    clerk: httpx.AsyncClient
    hooks: hooks.Hooks
    ahead: Mapping[str, float]

    @property
    def queries(self) -> Queries:
        """The GROQ files. Raises ConfigurationError."""
        return Queries.load(self.settings.groq_folder)

    @property
    def sanity_base(self) -> str:
        """Where Sanity's API begins."""
        return f"{self.settings.sanity_url}/v{self.settings.sanity_api_version}"

    @property
    def source(self) -> Sanity:
        """Sanity, as the worker asks it."""
        return self._source(self.sanity)

    @property
    def public_source(self) -> Sanity:
        """Sanity, as anybody may ask it."""
        return self._source(self.anonymous)

    def ago(self, at: float) -> str:
        """Say how long ago something was that happened `at`, in epoch seconds."""
        seconds = max(0.0, self.clock.now() - at)
        for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
            if seconds >= 2 * length:
                return f"{seconds / length:.0f} {unit} ago"
        return f"{seconds:.0f} s ago"

    def _source(self, client: httpx.AsyncClient) -> Sanity:
        return Sanity(client, self.queries, base=self.sanity_base, dataset=self.settings.sanity_dataset)


@asynccontextmanager
async def open_installation(
    settings: Settings,
    wrong: Mapping[str, str],
    runtime: Runtime,
    *,
    url: str = "",
    manage_token: str = "",
) -> AsyncIterator[Installation]:
    """Open the ways to both services. The management API is asked with `manage_token`, else with the reading one."""
    clock, timings = runtime.clock, runtime.timings
    once = replace(timings, transport_attempts=1)  # what does not work the first time is to be told
    ahead: dict[str, float] = {}
    read_token = settings.sanity_read_token.get_secret_value()

    def transport(
        service: str, token: str, explain: Callable[[httpx.Response, float | None], Exception | None], **more: str
    ) -> ServiceTransport:
        return ServiceTransport(
            service,
            Watched(inner_transport(), service, clock, ahead),
            {**({"Authorization": f"Bearer {token}"} if token else {}), **more},
            explain,
            clock,
            once,
            is_read=changes_nothing,
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
        yield Installation(settings, wrong, url, clock, timings, reading, anonymous, users, managing, ahead)


def changes_nothing(request: httpx.Request) -> bool:
    """Tell whether a request may be sent: it reads, or Sanity is told to only say what it would do."""
    is_trial = "/data/mutate/" in request.url.path and request.url.params.get("dryRun") == "true"
    return sanity.reads_only(request) or is_trial


@dataclass(slots=True)
class Watched(httpx.AsyncBaseTransport):
    """Compares the Date of each answer with our clock."""

    inner: httpx.AsyncBaseTransport
    service: str
    clock: Clock
    ahead: dict[str, float] = field(repr=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and look at the clock."""
        response = await self.inner.handle_async_request(request)
        try:
            theirs = parsedate_to_datetime(response.headers.get("date", "")).timestamp()
        except ValueError:
            return response
        self.ahead[self.service] = self.clock.now() - theirs
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self.inner.aclose()


def rfc3339(epoch: float) -> str:
    """Return epoch seconds as Sanity writes a time."""
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


async def examine(installation: Installation, checks: Sequence[Check]) -> dict[str, Finding]:
    """Do all checks, in order, whatever comes of each."""
    findings: dict[str, Finding] = {}
    for check in checks:
        findings[check.name] = _hindered(check, installation, findings) or await _look(check, installation)
    return findings


def _hindered(check: Check, installation: Installation, findings: Mapping[str, Finding]) -> Finding | None:
    """Return why the check cannot be done."""
    for variable in check.uses:
        if variable in installation.wrong:
            return skipped(f"cannot be looked at: {installation.wrong[variable]}")
    for name in check.needs:
        if findings[name].status in (Status.PROBLEM, Status.SKIPPED):
            return skipped(f"cannot be looked at before this is right: {name}")
    return None


async def _look(check: Check, installation: Installation) -> Finding:
    try:
        return await check.look(installation)
    except MayNotManageHooks as error:
        return skipped(error.headline(), error.next_step())
    except SyncWorkerError as error:
        return problem(str(error), TRY_AGAIN if isinstance(error, ServiceUnavailable) else error.next_step())
    except httpx.InvalidURL as error:
        return problem(f"An address cannot be read: {error}", "Correct SANITY_API_URL or CLERK_API_URL.")
