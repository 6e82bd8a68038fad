"""A million people for a reconcile: both services in one process, which computes each page when it is requested.

The sandbox keeps every record and evaluates GROQ over all of them, so beyond a hundred thousand people it would be what
is measured. Here nobody has drifted, and each page of Clerk takes the given time.

`python -m bench.population PEOPLE SECONDS` prints its port.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from sync_worker.domain.entitlements import CORE_FIELDS, Layout, Marker, Slot
from sync_worker.domain.ownership import MARKER_KEY, fingerprint, marker_json
from sync_worker.sandbox.clerk_bodies import USER_CONSTANTS, email_body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

PROJECT = "population"
FIRST = 1_600_000_000_000
"""When the first person signed up, in Unix milliseconds; then one came each minute."""
MINUTE = 60_000
ROWS = 1000
AT = "2026-05-01T12:00:00Z"
LAYOUT = Layout(CORE_FIELDS, source=f"{PROJECT}/production")
VALUES: Mapping[Slot, object] = {Slot.parse("plan"): "pro", Slot.parse("courseSlugs"): []}
TAIL = json.dumps({**USER_CONSTANTS, "external_id": None, "public_metadata": {"plan": "pro", "courseSlugs": []}})[1:]


class Population:
    """Answers what a reconcile requests of both services."""

    def __init__(self, people: int, page_seconds: float) -> None:
        self.people = people
        self.page_seconds = page_seconds
        self.calls: Counter[str] = Counter()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection. None of them has a body."""
        while head := await _head(reader):
            url = urlsplit(head.split(" ")[1])
            query = {name: values[-1] for name, values in parse_qs(url.query).items()}
            self.calls[url.path.split("/")[-1]] += 1
            if url.path == "/v1/users":
                await asyncio.sleep(self.page_seconds)
            body = self.answer(url.path, query)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
            writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
        writer.close()

    def answer(self, path: str, query: Mapping[str, str]) -> bytes:
        """Return the body of an answer."""
        match path:
            case "/v1/users":
                return self.page(query)
            case "/v1/users/count":
                return json.dumps({"object": "total_count", "total_count": self.people}).encode()
            case "/v1/instance":
                return b'{"object":"instance","id":"ins_population","environment_type":"production"}'
            case "/v1/organizations" | "/v1/organization_memberships":
                return b'{"data":[],"total_count":0}'
            case _ if "$after" in query:
                return self.entitlements(json.loads(query["$after"]))
            case _:  # the check whether the query of single subjects finds what that of everybody does
                rows = [_row(int(user.removeprefix("user_"))) for user in json.loads(query["$users"])]
                counts = {"visible": self.people, "addressed": 0, "addressedMembers": 0}
                return json.dumps({"result": {"entitlements": rows, "revisions": [], **counts}}).encode()

    def page(self, query: Mapping[str, str]) -> bytes:
        """Return a page of users."""
        limit = int(query["limit"])
        if query["order_by"] == "-created_at":
            numbers = range(self.people - 1, max(-1, self.people - 1 - limit), -1)
        else:
            after = (int(query.get("created_at_after", FIRST - 1)) - FIRST) // MINUTE + 1
            first = max(after, int(query.get("starting_after", "user_-1").removeprefix("user_")) + 1)
            numbers = range(first, min(self.people, first + limit))
        return f"[{','.join(map(_user, numbers))}]".encode()

    def entitlements(self, after: str) -> bytes:
        """Return a page of what is published."""
        first = int(after.removeprefix("ent-")) + 1 if after else 0
        rows = [_row(number) for number in range(first, min(self.people, first + ROWS))]
        return json.dumps({"result": {"entitlements": rows, "remaining": self.people - first}}).encode()


async def _head(reader: asyncio.StreamReader) -> str:
    try:
        return (await reader.readuntil(b"\r\n\r\n")).decode()
    except (asyncio.IncompleteReadError, ConnectionError):
        return ""


def _user(number: int) -> str:
    document = f"ent-{number:08}"
    marker = Marker(LAYOUT.source, tuple(VALUES), (document,), PRINT, AT)
    user = {
        "id": f"user_{number:08}",
        "created_at": FIRST + number * MINUTE,
        "updated_at": FIRST + number * MINUTE,
        "primary_email_address_id": f"idn_{number}",
        "email_addresses": [
            email_body(f"idn_{number}", f"u{number}@example.org", FIRST, verified=True, reserved=False)
        ],
        "private_metadata": {MARKER_KEY: marker_json(marker)},
    }
    return json.dumps(user)[:-1] + "," + TAIL


PRINT = fingerprint(VALUES)


def _row(number: int) -> dict[str, Any]:
    return {
        "_id": f"ent-{number:08}",
        "_rev": f"revision{number:014}",
        "_updatedAt": AT,
        "clerkUserId": f"user_{number:08}",
        "clerkOrganizationId": None,
        "userEmail": None,
        "userExternalId": None,
        "plan": "pro",
        "role": None,
        "courseSlugs": [],
        "unresolved": 0,
        "startsAt": None,
        "endsAt": None,
        "status": None,
    }


@asynccontextmanager
async def population(people: int, page_seconds: float) -> AsyncIterator[dict[str, str]]:
    """Run the services; yield the settings of a worker that uses them."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.population", str(people), str(page_seconds)), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        url = f"http://127.0.0.1:{int(await process.stdout.readline())}"
        yield {
            "SANITY_PROJECT_ID": PROJECT,
            "SANITY_DATASET": "production",
            "SANITY_READ_TOKEN": "token-of-the-population",
            "SANITY_WEBHOOK_SECRET": "secret-of-the-population",
            "SANITY_API_URL": url,
            "CLERK_SECRET_KEY": "sk_test_population",
            "CLERK_API_URL": url,
        }
    finally:
        process.terminate()
        await process.wait()


async def main(people: int, page_seconds: float) -> None:
    """Serve until the process is ended."""
    server = await asyncio.start_server(Population(people, page_seconds).serve, "127.0.0.1", 0, limit=1 << 20)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
