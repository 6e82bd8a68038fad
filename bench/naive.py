"""The handler of the guides, in Python: verify, one GROQ by id, one `updateUserMetadata`.

It is what the figures are compared with, in the same run. It has no queue, no budget and no reconcile; what it cannot
do is in docs/performance.md. `python bench/naive.py` runs it with the worker's environment variables.
"""

from __future__ import annotations

import json
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import uvicorn
from clerk_backend_api import Clerk
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from sync_worker.webhooks.signatures import verify_sanity

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

QUERY = """*[_id == $id][0]{
  clerkUserId, "plan": select(defined(plan._ref) => plan->slug.current, plan), role,
  "courseSlugs": array::compact(courses[]->slug.current)
}"""


async def webhook(request: Request) -> JSONResponse:
    """Handle one webhook: write what the document says now."""
    body = await request.body()
    if not verify_sanity(request.headers, body, [os.environ["SANITY_WEBHOOK_SECRET"]]):
        return JSONResponse({"error": "bad signature"}, 401)
    url = f"{os.environ['SANITY_API_URL']}/v2025-02-19/data/query/{os.environ['SANITY_DATASET']}"
    answer = await request.app.state.sanity.get(url, params={"query": QUERY, "$id": json.dumps(json.loads(body)["id"])})
    row = answer.json()["result"]
    if row:
        metadata = {name: row[name] for name in ("plan", "role", "courseSlugs")}
        await request.app.state.clerk.users.update_metadata_async(user_id=row["clerkUserId"], public_metadata=metadata)
    return JSONResponse({"ok": True})


@asynccontextmanager
async def clients(app: Starlette) -> AsyncIterator[None]:
    """Keep one client per service."""
    token = os.environ["SANITY_READ_TOKEN"]
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60) as sanity:
        app.state.sanity = sanity
        app.state.clerk = Clerk(
            bearer_auth=os.environ["CLERK_SECRET_KEY"],
            server_url=f"{os.environ['CLERK_API_URL']}/v1",
            timeout_ms=60_000,
        )
        yield


app = Starlette(
    routes=[
        Route("/webhooks/sanity", webhook, methods=["POST"]),
        Route("/healthz", lambda _: JSONResponse({"ok": True})),
    ],
    lifespan=clients,
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", access_log=False)
