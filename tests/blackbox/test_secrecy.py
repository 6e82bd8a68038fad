"""Secrets and e-mail addresses are planted wherever the program meets them, and looked for wherever it writes."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from random import Random
from string import ascii_letters, digits
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest

from sync_worker.cli.processes import CLERK_SECRET, free_port, install_clerk_hook, install_hook, settings_for
from sync_worker.sandbox.faults import Answer
from sync_worker.sandbox.server import Sandbox
from sync_worker.transport import ssl_context
from sync_worker.webhooks.signatures import SANITY_HEADER, sign_sanity
from tests.blackbox import buggy
from tests.nursery import nursery
from tests.oracle import until
from tests.trouble import Trouble

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.nursery import Child

pytestmark = pytest.mark.anyio
RANDOM = Random(7)
WEBHOOK_SECRET, ADMIN_TOKEN, PASSWORD = "plain-webhook-secret", "plain admin token", "plainpassword"
ADDRESSES = [f"{name}@secrecy.example" for name in ("ada", "ben", "cleo", "dora", "emil", "finn", "odd'name+x", "gül")]
ADA, BEN, CLEO, DORA, EMIL, FINN, ODD, UMLAUT = ADDRESSES

BUGGY = Trouble(bugs=True, probe_after=0.2)  # a key is refused many times here


def random_text(length: int) -> str:
    return "".join(RANDOM.choices(ascii_letters + digits, k=length))


SANITY_TOKEN, CLERK_KEY = f"sk{random_text(120)}", f"sk_test_{random_text(40)}"
PLANTED = [
    *ADDRESSES,
    *(address.replace("@", "%40") for address in ADDRESSES),
    *(SANITY_TOKEN, CLERK_KEY, CLERK_SECRET, WEBHOOK_SECRET, ADMIN_TOKEN, PASSWORD),
]


@dataclass
class Place:
    """One installation, and all that it has written: lines of logs, outputs of commands, answers."""

    box: Sandbox
    folder: Path
    database_url: str
    port: int = field(default_factory=free_port)
    answers: list[str] = field(default_factory=list)
    running: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **settings_for(self.box, self.database_url),
            "SANITY_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "ADMIN_TOKEN": ADMIN_TOKEN,
            "PLAN_ORDER": "basic,pro",
        }

    def process(self, *arguments: str, output: str, **environment: str) -> AbstractAsyncContextManager[Child]:
        written = self.folder / output
        given = {**self.environment, **environment}
        return nursery().child([*arguments], given, self.folder, [written, written], BUGGY)

    async def start(self, *arguments: str) -> None:
        await self.running.enter_async_context(self.process(*arguments, output="log"))

    async def run(self, *arguments: str, **environment: str) -> int:
        async with self.process(*arguments, output="output", **environment) as process:
            return await asyncio.wait_for(process.wait(), 60)

    async def ask(self, client: httpx.AsyncClient, method: str, path: str, **given: Any) -> int:
        response = await client.request(method, self.url + path, **given)
        self.answers.append(f"{response.headers}\n{response.text}")
        return response.status_code

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def events(self) -> set[str]:
        return {json.loads(line)["event"] for line in self.log().splitlines()}

    def written(self) -> dict[str, str]:
        """Return all that was written, by where: files of the database as the bytes that they are."""
        files = {path.name: path.read_bytes().decode(errors="replace") for path in self.folder.iterdir()}
        return {**files, "answers": "\n".join(self.answers)}


@pytest.fixture(params=["serve on SQLite", "web and worker on PostgreSQL"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    async with Sandbox(sanity_token=SANITY_TOKEN, clerk_secret_key=CLERK_KEY) as box:
        if request.param == "serve on SQLite":
            place = Place(box, tmp_path, f"sqlite:///{tmp_path}/work.db")
            verbs: list[tuple[str, ...]] = [("serve", "--port", str(place.port))]
        else:
            url = str(request.getfixturevalue("postgres_url")).replace("postgres@", f"postgres:{PASSWORD}@")
            place = Place(box, tmp_path, url)
            verbs = [("web", "--port", str(place.port)), ("worker",)]
        try:
            for verb in verbs:
                await place.start(*verb)
            await until_up(place)
            install_hook(box, place.url, WEBHOOK_SECRET)
            install_clerk_hook(box, place.url)
            yield place
        finally:
            await place.running.aclose()


async def until_up(place: Place) -> None:
    deadline = time.monotonic() + 20
    async with httpx.AsyncClient(verify=ssl_context()) as client:
        while time.monotonic() < deadline:
            try:
                await client.get(f"{place.url}/healthz")
            except httpx.TransportError:
                await asyncio.sleep(0.05)
            else:
                return
    pytest.fail("it did not start")


@pytest.mark.full("every verb, page and event of a whole installation")
async def test_no_secret_and_no_address_is_written_anywhere(place: Place) -> None:
    await people_and_documents(place)
    await errors_that_repeat_what_was_sent(place)
    await bugs_that_tell_all(place)
    async with httpx.AsyncClient(verify=ssl_context()) as client:
        await odd_requests(place, client)
        await pages(place, client)
        for path in ("/metrics", "/readyz", "/healthz"):
            await place.ask(client, "GET", path)
    await commands(place)
    await until(lambda: nothing_waits(place))
    await place.running.aclose()
    found = [(where, text) for where, written in place.written().items() for text in PLANTED if text in written]
    assert found == []
    assert {"access_changed", "entitlement_pending", "entitlement_refused", "row_refused"} <= place.events()
    assert {"worker_paused", "run_crashed", "library_warned", "webhook_refused", "subject_failed"} <= place.events()


async def people_and_documents(place: Place) -> None:
    """Name people by address in every way: known, unknown, moved, shared, misplaced, in other fields."""
    box = place.box
    for number, address in enumerate((ADA, BEN, CLEO, CLEO, ODD, UMLAUT, EMIL)):
        box.clerk.add_user(f"user_{number}", email=address, private_metadata={"crm": address})
    rows = {
        "by-address": {"userEmail": ADA, "plan": "pro", "note": f"for {ADA}"},
        "unknown": {"userEmail": DORA, "plan": "pro"},
        "shared": {"userEmail": CLEO, "plan": "pro"},
        "odd": {"userEmail": ODD, "plan": "pro"},
        "umlaut": {"userEmail": UMLAUT, "plan": "pro"},
        "no-id": {"clerkUserId": EMIL, "plan": "pro"},
        "no-address": {"userEmail": f"{EMIL} {FINN}", "plan": "pro"},
        "no-plan": {"clerkUserId": "user_1", "plan": FINN},
        "no-list": {"clerkUserId": "user_1", "plan": "basic", "startsAt": f"since {FINN}"},
        "external": {"userExternalId": FINN, "plan": "pro"},
    }
    await box.lake.mutate([{"create": {"_id": id_, "_type": "entitlement", **row}} for id_, row in rows.items()])
    await until(lambda: plan(box, "user_0") == "pro")
    await until(lambda: {"entitlement_pending", "entitlement_refused", "row_refused"} <= place.events())
    await box.lake.mutate([{"patch": {"id": "by-address", "set": {"userEmail": BEN}}}])
    await until(lambda: plan(box, "user_0") is None and plan(box, "user_1") == "pro")


def plan(box: Sandbox, user: str) -> Any:
    return box.clerk.users[user]["public_metadata"].get("plan")


async def errors_that_repeat_what_was_sent(place: Place) -> None:
    """Let both services answer with our own headers and with addresses in all they say."""
    box = place.box
    sanity = f"Authorization: Bearer {box.lake.viewer_token} {SANITY_TOKEN} for {ADA}"
    clerk = f"Authorization: Bearer {CLERK_KEY}, {CLERK_KEY} for {BEN}"
    error = {"errors": [{"code": f"taken {CLERK_KEY}", "message": clerk, "long_message": clerk}]}
    echoes = {f"echo_{status}": status for status in (401, 422, 500)}
    box.lake.faults.answers = {
        **box.lake.faults.answers,
        **{name: Answer.json(status, {"error": sanity, "message": sanity}) for name, status in echoes.items()},
    }
    box.clerk.faults.answers = {
        **box.clerk.faults.answers,
        **{name: Answer.json(status, error) for name, status in echoes.items()},
    }
    for name in echoes:
        for service in (box.lake, box.clerk):
            service.faults.some(name, 1.0)
            await box.lake.mutate([{"createOrReplace": row("again", "user_6", note=name)}])
            await until(lambda: service.faults.hits[name] > 1)  # noqa: B023 - it is awaited here
            service.faults.clear()
    box.clerk.faults.some("echo_422", 1.0, method="PATCH")
    await box.lake.mutate([{"createOrReplace": row("again", "user_6", plan="basic")}])
    await until(lambda: "subject_failed" in place.events())
    box.clerk.faults.clear()


def row(document: str, user: str, **fields: Any) -> dict[str, Any]:
    return {"_id": document, "_type": "entitlement", "clerkUserId": user, **fields}


async def bugs_that_tell_all(place: Place) -> None:
    """Crash a run and a request while they hold data."""
    place.box.clerk.add_user(buggy.BUGGY_USER.id, email=ADA)
    await place.box.lake.mutate([{"create": row("buggy", buggy.BUGGY_USER.id, plan="pro", userEmail=ADA)}])
    await until(lambda: "run_crashed" in place.events())
    body = json.dumps({"bug": f"{ADA} {CLERK_KEY}"}).encode()
    signed = {SANITY_HEADER: sign_sanity(body, WEBHOOK_SECRET, int(time.time() * 1000))}
    async with httpx.AsyncClient(verify=ssl_context()) as client:
        assert await place.ask(client, "POST", "/webhooks/sanity", content=body, headers=signed) == 500
    await until(lambda: "library_warned" in place.events())


async def odd_requests(place: Place, client: httpx.AsyncClient) -> None:
    """Put secrets and addresses where a request has room for them."""
    for source, header in (("sanity", "idempotency-key"), ("clerk", "svix-id")):
        for text in (text for text in PLANTED if text != PASSWORD):  # which is known to us alone
            headers = {
                header: text.encode(),
                "authorization": f"Bearer {text}".encode(),
                "x-forwarded-for": text.encode(),
            }
            body = json.dumps({"data": {"id": text}, "type": text, "id": text})
            assert await place.ask(client, "POST", f"/webhooks/{source}", content=body, headers=headers) == 401
    wrong = json.dumps({"operation": ADA, "id": CLERK_KEY}).encode()
    for key in (CLERK_KEY, SANITY_TOKEN, ADA):
        signed = {SANITY_HEADER: sign_sanity(wrong, WEBHOOK_SECRET, int(time.time() * 1000)), "idempotency-key": key}
        assert await place.ask(client, "POST", "/webhooks/sanity", content=wrong, headers=signed) == 400
    assert await place.ask(client, "GET", f"/{ADA}", params={"token": ADMIN_TOKEN}) == 404


async def pages(place: Place, client: httpx.AsyncClient) -> None:
    """Look at all that people can look at, in a browser and as a program, also at what nobody has."""
    assert await place.ask(client, "GET", "/status", headers={"authorization": f"Bearer {CLERK_KEY}"}) == 401
    for kind in ("text/html", "application/json"):
        headers = {"authorization": f"Bearer {ADMIN_TOKEN}", "accept": kind}
        for path in ("/status", "/documents/by-address", "/documents/shared", "/documents/no-plan", "/subjects/user_1"):
            assert await place.ask(client, "GET", path, headers=headers) == 200
        for address in (ADA, DORA, CLEO):
            await place.ask(client, "GET", f"/subjects/email:{address}", headers=headers)
        assert await place.ask(client, "GET", f"/held/{ADA}", headers=headers) == 404


async def commands(place: Place) -> None:
    """Run what operators run, also with a key that Clerk refuses and a setting that is wrong."""
    for verb in ("release", "verify", "doctor", "approve", "failed"):
        await place.run(verb)
    for target in ("user:user_1", "no-plan", CLEO):
        await place.run("explain", target)
    await place.run("explain", ADA, "--json")
    for options in (("--markdown", "--dry-run"), ()):
        await place.run("reconcile", *options)
    await place.run("history")
    await place.run("history", "--json")
    await place.run("sync", "user:user_1", "user:user_gone")
    await place.run("webhook", "show")
    await place.run("reconcile", CLERK_SECRET_KEY=f"{CLERK_KEY}x")
    variables = ("CLERK_SECRET_KEY", "CLERK_WEBHOOK_SECRET", "MAX_REVOCATIONS", "DATABASE_URL", "SANITY_API_URL")
    await place.run("release", **dict.fromkeys(variables, f"{SANITY_TOKEN}, {ADA}"))
    await place.run("release", DATABASE_URL=f"{SANITY_TOKEN}, {ADA}")
    await place.run("release", DATABASE_URL=f"postgres://ada:{PASSWORD}@127.0.0.1:1/x")


def nothing_waits(place: Place) -> bool:
    """Return whether no address waits to be looked up any more: while it does, it is a key of the queue."""
    statement = "SELECT COUNT(*) FROM work WHERE key LIKE 'email:%' OR key LIKE 'external:%'"
    if place.database_url.startswith("postgres"):
        with psycopg.connect(place.database_url) as connection:
            return connection.execute(statement).fetchone() == (0,)
    with closing(sqlite3.connect(place.folder / "work.db")) as connection:
        return bool(connection.execute(statement).fetchone() == (0,))
