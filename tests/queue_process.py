"""A process that enqueues and runs subjects until its input ends, for the tests that kill such processes.

It prints one JSON array a line, unbuffered: `["item", key]` once an item has been acknowledged, and
`["run", key, begin, end]` (monotonic seconds) once a run has been completed; a run begins after its claim and ends
before it is completed. After its input has ended it works until nothing is due any more.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time

from sync_worker.runtime.wiring import open_database
from sync_worker.storage.queue import WorkQueue
from sync_worker.storage.work_items import Completed, Retry, WorkItem
from tests.clock import CLOCK, TIMINGS
from tests.leases import holds

KEYS = [f"user:user_{n}" for n in range(12)]
LEASE = 1.0


def report(*what: object) -> None:
    os.write(1, f"{json.dumps(what)}\n".encode())


class Process:
    def __init__(self, queue: WorkQueue) -> None:
        self.queue = queue
        self.ending = asyncio.Event()

    async def enqueue(self) -> None:
        while not self.ending.is_set():
            keys = random.choices(KEYS, k=random.randint(1, 5))
            await self.queue.enqueue([WorkItem(key) for key in keys])
            for key in keys:
                report("item", key)
            await asyncio.sleep(random.uniform(0, 0.005))

    async def work(self) -> None:
        while not self.ending.is_set() or await self.queue.next_due() is not None:
            for claim in await self.queue.claim(0, 3, LEASE):
                begin = time.monotonic()
                await asyncio.sleep(random.uniform(0, 0.005))
                end = time.monotonic()
                if claim.key not in await holds(self.queue, [claim]):  # it was owned until then, at least
                    continue
                completion = Completed(claim) if random.random() < 0.9 else Retry(claim, "x", "", 0.01)
                if not await self.queue.complete([completion]):
                    report("run", claim.key, begin, end)
            await asyncio.sleep(random.uniform(0, 0.005))

    async def run(self) -> None:
        ended = asyncio.to_thread(sys.stdin.read)
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(self.enqueue())
                group.create_task(self.work())
            await ended
            self.ending.set()


async def main(url: str) -> None:
    db = open_database(url, CLOCK, TIMINGS)
    await db.start()
    await Process(WorkQueue(db, TIMINGS)).run()
    await db.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
