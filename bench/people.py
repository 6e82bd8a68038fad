"""People by name, among 20,000 of them: the search of a picker, and the names of a page of fifty ids."""

from __future__ import annotations

import statistics
import time

import httpx

from bench.figures import Figure
from bench.stage import WEB, running
from sync_worker.sandbox.server import Sandbox

PEOPLE = 20_000
TOKEN = "a token for the benchmark"
SEARCHES = ("ada 1", "lovelace 777", "person19999@", "user_00042", "nobody at all")


async def measure() -> list[Figure]:
    """Measure both, as a picker asks: one request after the other."""
    async with Sandbox() as box:
        for number in range(PEOPLE):
            box.clerk.add_user(
                f"user_{number:05}",
                email=f"person{number}@example.org",
                first_name="Ada",
                last_name=f"{number} Lovelace {number}",
            )
        async with running(box, WEB, admin_token=TOKEN) as program, httpx.AsyncClient(base_url=program.url) as client:
            client.headers["Authorization"] = f"Bearer {TOKEN}"
            searched = [await _milliseconds(client, f"/people?q={text}") for text in SEARCHES * 4]
            ids = ",".join(f"user_{number:05}" for number in range(0, PEOPLE, PEOPLE // 50))
            before = box.clerk.requests.count()
            named = [await _milliseconds(client, f"/people?id={ids}") for _ in range(10)]
            calls = (box.clerk.requests.count() - before) // len(named)
    return [
        Figure("picker: a search among 20,000 people", statistics.median(searched), "ms", 300),
        Figure("… the slowest of 20", max(searched), "ms"),
        Figure("… the names of 50 stored ids", statistics.median(named), "ms", 300, calls=calls),
    ]


async def _milliseconds(client: httpx.AsyncClient, path: str) -> float:
    started = time.perf_counter()
    (await client.get(path)).raise_for_status()
    return (time.perf_counter() - started) * 1000
