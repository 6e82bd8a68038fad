"""The web application: its routes, and the resources that are open while it runs."""

from __future__ import annotations

import asyncio
import importlib
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import structlog
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sync_worker.diagnostics.health import readiness
from sync_worker.diagnostics.metrics import Metrics
from sync_worker.diagnostics.status import StatusReader
from sync_worker.errors import DatabaseUnavailable
from sync_worker.logs import configure_logs
from sync_worker.runtime.environment import load_settings
from sync_worker.runtime.service import running_worker
from sync_worker.runtime.wiring import Runtime, clerk_budget, explainer_of, open_services, open_store
from sync_worker.storage.database import patience
from sync_worker.storage.liveness import Liveness
from sync_worker.web.auth import Authenticator, LoginThrottle, same
from sync_worker.web.pages import routes
from sync_worker.web.site import Pages
from sync_worker.webhooks.receiver import RETRY_AFTER, Receiver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request

    from sync_worker.runtime.wiring import Store
    from sync_worker.settings import Settings

log = structlog.get_logger("app")


def _from_environment() -> Settings:
    """Load the settings and configure the logs when another server runs the application."""
    settings = load_settings()
    configure_logs(settings.log_format, settings.secrets)
    return settings


def create_app(
    settings: Settings | None = None, runtime: Runtime | None = None, *, with_worker: bool = False
) -> Starlette:
    """Return the web application. Without `settings`, as with `uvicorn --factory`, it reads the environment."""
    chosen = settings or _from_environment()
    runtime = runtime or Runtime.system()
    clock, timings = runtime.clock, runtime.timings

    def on_crash() -> None:
        app.state.broken = True

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            async with AsyncExitStack() as stack:
                store = await stack.enter_async_context(open_store(chosen, runtime, watch=with_worker))
                app.state.store = store
                app.state.metrics = Metrics(
                    store.queue, store.runs, store.approvals, store.counters, clerk_budget(chosen, store)
                )
                app.state.receiver = Receiver(
                    store.queue,
                    chosen.layout,
                    chosen.sanity_project_id,
                    chosen.sanity_dataset,
                    Liveness(store.queue, clock, timings),
                    clock,
                    timings,
                    [secret.get_secret_value() for secret in chosen.sanity_webhook_secret],
                    [secret.get_secret_value() for secret in chosen.clerk_webhook_secret],
                    store.counters.webhook,
                )
                if chosen.admin_token:
                    services = await stack.enter_async_context(open_services(chosen, store, dry_run=True))
                    app.state.pages = Pages(
                        Authenticator(
                            chosen.admin_token.get_secret_value().encode(),
                            LoginThrottle(clock, timings),
                            clock,
                            timings,
                        ),
                        StatusReader(store.queue, store.ledger, store.approvals, timings),
                        explainer_of(chosen, store, services, timings.page_patience),
                        services.directory,
                        services.names,
                        services.editors,
                        store.queue,
                        store.approvals,
                        chosen.studio_url,
                        clock,
                        timings,
                    )
                if with_worker:
                    worker = await stack.enter_async_context(
                        running_worker(chosen, store, on_crash, nightly=chosen.nightly)
                    )
                    app.state.stop = worker.stop
                yield
            log.info("stopped")
        except asyncio.CancelledError:
            if not app.state.forced:  # a second Ctrl-C, which waits for nothing
                raise

    app = Starlette(
        routes=[
            *(Route(f"/webhooks/sanity{end}", _sanity, methods=["POST"]) for end in ("", "/")),
            *(Route(f"/webhooks/clerk{end}", _clerk, methods=["POST"]) for end in ("", "/")),
            Route("/webhooks/{_:path}", _near_miss, methods=["POST"]),
            Route("/healthz", _healthz),
            Route("/readyz", _readyz),
            Route("/metrics", _metrics),
            *(routes() if chosen.admin_token else ()),
        ],
        lifespan=lifespan,
        exception_handlers={404: _error("not_found"), 405: _error("method_not_allowed"), 500: _error("internal")},
    )
    app.router.redirect_slashes = False  # the redirect would echo the path, and fails on some paths
    app.state.entered = app.state.broken = app.state.forced = False
    app.state.stop = lambda: None
    app.state.metrics_token = chosen.metrics_token.get_secret_value() if chosen.metrics_token else ""
    return app


def _error(code: str) -> Callable[[Request, Exception], JSONResponse]:
    """Return an exception handler that answers with an error code alone."""

    def answer(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": code}, getattr(error, "status_code", 500), getattr(error, "headers", None))

    return answer


async def _sanity(request: Request) -> JSONResponse:
    receiver: Receiver = request.app.state.receiver
    return await receiver.sanity(request)


async def _clerk(request: Request) -> JSONResponse:
    receiver: Receiver = request.app.state.receiver
    # Half a second the first time, for which no other request should wait, nor a second delivery block the loop.
    await asyncio.to_thread(importlib.import_module, "svix.webhooks")
    return await receiver.clerk(request)


async def _near_miss(request: Request) -> JSONResponse:
    """Answer 404 to a webhook with a wrong path, and make it known: its sender never tries again."""
    store: Store = request.app.state.store
    store.counters.webhook("unknown", "not_found")
    log.warning("webhook_path_unknown", next_step="correct the webhook's URL: /webhooks/sanity or /webhooks/clerk")
    return JSONResponse({"error": "not_found"}, 404)


async def _healthz(_: Request) -> JSONResponse:
    return JSONResponse({"ok": True})


async def _readyz(request: Request) -> JSONResponse:
    """Answer 200 if incoming work will be done, else 503, with the result of each check."""
    store: Store = request.app.state.store
    checks = await readiness(store.queue, store.runtime.timings)
    ready = all(check["ok"] for check in checks.values())
    return JSONResponse({"ok": ready, "checks": checks}, 200 if ready else 503)


async def _metrics(request: Request) -> Response:
    metrics: Metrics = request.app.state.metrics
    token = request.app.state.metrics_token
    if token and not same(request.headers.get("authorization", ""), f"Bearer {token}"):
        return JSONResponse({"error": "unauthorized"}, 401, headers={"WWW-Authenticate": "Bearer"})
    try:
        async with patience(request.app.state.store.runtime.timings.database_patience):
            text = await metrics.exposition()
    except DatabaseUnavailable:
        return JSONResponse({"error": "unavailable"}, 503, headers={"Retry-After": RETRY_AFTER})
    return Response(text, media_type=CONTENT_TYPE_LATEST)
