"""The Sanity Function forwards events as if Sanity's webhook had sent them; it runs here on a real Node.js."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.cli.processes import SECRET, free_port, settings_for
from sync_worker.sanity.client import Queries
from sync_worker.settings import packaged_groq
from sync_worker.webhooks.signatures import SANITY_HEADER, verify_sanity
from tests.kits import DEPLOY
from tests.node import Thrown, evaluate
from tests.nursery import listening
from tests.oracle import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
FOLDER = DEPLOY / "sanity-function"
FORWARD = (FOLDER / "functions" / "forward" / "forward.ts").as_uri()
HANDLER = (FOLDER / "functions" / "forward" / "index.ts").as_uri()
BLUEPRINT = (FOLDER / "sanity.blueprint.ts").as_uri()
EVENT = {"v": 1, "operation": "update", "id": "ent-1", "after": {"clerkUserId": "user_ada"}}


@dataclass
class Receiver:
    """Answers one request after the other with the statuses it was given, and keeps what it got."""

    statuses: list[int]
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = {k.lower(): v for k, v in re.findall(r"^([\w-]+): (.*)\r$", head, re.MULTILINE)}
        self.got.append((headers, await reader.readexactly(int(headers["content-length"]))))
        writer.write(f"HTTP/1.1 {self.statuses.pop(0)} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()


@asynccontextmanager
async def receiving(*statuses: int) -> AsyncIterator[Receiver]:
    receiver = Receiver(list(statuses))
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    async with server:
        receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/webhooks/sanity"
        yield receiver


async def forward(event: Any, url: str, *, secret: str = SECRET, pauses: tuple[int, ...] = (0, 0, 0)) -> None:
    script = f"const {{forward}} = await import('{FORWARD}'); return forward(given.event, given)"
    await evaluate(script, {"event": event, "url": url, "secret": secret, "pauses": pauses})


async def test_the_worker_takes_what_the_function_sends_and_does_the_work(
    box: Sandbox, sqlite_url: str, tmp_path: Path
) -> None:
    user = box.clerk.users[box.clerk.add_user("user_ada")]
    environment = settings_for(box, sqlite_url)
    async with listening("serve", environment, tmp_path / "log") as url:
        await box.lake.mutate(
            [{"create": {"_id": "ent-1", "_type": "entitlement", "clerkUserId": "user_ada", "plan": "pro"}}]
        )
        document = box.lake.documents["ent-1"]
        event = {
            **EVENT,
            "operation": "create",
            "projectId": box.lake.project_id,
            "dataset": box.lake.dataset,
            "type": "entitlement",
            "rev": document["_rev"],
            "updatedAt": document["_updatedAt"],
            "before": None,
        }
        script = f"const {{handler}} = await import('{HANDLER}'); await handler({{event: {{data: given}}}})"
        reported = {"SYNC_WORKER_URL": f"{url}/webhooks/sanity", "SANITY_WEBHOOK_SECRET": SECRET}
        await evaluate(script, event, environment=reported)
        await until(lambda: user["public_metadata"].get("plan") == "pro")


@pytest.mark.parametrize(
    "event",
    [
        EVENT,
        {"title": "Grüße, 世界, 🎓"},
        {"text": 'quotes " and \\ and \n and \u2028', "number": 1.0, "nothing": None},
        None,
        "a text",
    ],
    ids=["plain", "beyond ASCII", "escapes", "null", "a text"],
)
async def test_the_signature_is_the_one_that_sanity_makes(event: Any) -> None:
    async with receiving(202) as receiver:
        await forward(event, receiver.url)
    ((headers, body),) = receiver.got
    assert verify_sanity(headers, body, [SECRET])
    assert not verify_sanity(headers, body + b" ", [SECRET])
    assert not verify_sanity(headers, body, ["another"])
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize("trouble", [503, 500, 429, 408])
async def test_trouble_that_may_pass_is_tried_again_with_a_new_signature(trouble: int) -> None:
    async with receiving(trouble, trouble, 202) as receiver:
        await forward(EVENT, receiver.url, pauses=(5, 5))
    assert len(receiver.got) == 3
    assert all(verify_sanity(headers, body, [SECRET]) for headers, body in receiver.got)
    assert len({headers[SANITY_HEADER] for headers, _ in receiver.got}) == 3


@pytest.mark.parametrize("status", [301, 400, 401, 413])
async def test_a_refusal_is_reported_at_once_without_the_secret(status: int) -> None:
    async with receiving(status, 202) as receiver:
        with pytest.raises(Thrown, match=f"answered {status}") as error:
            await forward(EVENT, receiver.url)
    assert len(receiver.got) == 1
    assert SECRET not in str(error.value)
    assert "user_ada" not in str(error.value)


async def test_a_worker_that_does_not_answer_fails_the_function_in_the_end() -> None:
    with pytest.raises(Thrown, match="did not answer"):
        await forward(EVENT, f"http://127.0.0.1:{free_port()}/webhooks/sanity")


async def test_all_attempts_end_before_the_function_is_stopped() -> None:
    source = (FOLDER / "functions" / "forward" / "forward.ts").read_text()
    pauses = [int(n) for n in re.findall(r"\d+", re.findall(r"PAUSES = \[(.*)\]", source)[0])]
    answer = int(re.findall(r"ANSWER_WITHIN = (\d+)", source)[0])
    timeout = (await blueprint())["timeout"]
    assert sum(pauses) + (len(pauses) + 1) * answer < timeout * 1000


@pytest.mark.parametrize("missing", ["SYNC_WORKER_URL", "SANITY_WEBHOOK_SECRET"])
async def test_a_setting_that_is_missing_is_named(missing: str) -> None:
    environment = {"SYNC_WORKER_URL": "http://127.0.0.1:1/", "SANITY_WEBHOOK_SECRET": SECRET}
    del environment[missing]
    with pytest.raises(Thrown, match=f"{missing} is not set"):
        await evaluate(
            f"const {{handler}} = await import('{HANDLER}'); await handler({{event: {{}}}})",
            None,
            environment=environment,
        )


async def test_the_blueprint_subscribes_to_the_same_events_as_the_webhook() -> None:
    queries = Queries.load(packaged_groq())
    event = (await blueprint())["event"]
    assert words(event["filter"]) == words(queries.webhook_filter)
    assert words(event["projection"]) == words(queries.webhook_projection)
    assert event["on"] == ["create", "update", "delete"]
    assert event["resource"] == {"type": "dataset", "id": "abc.production"}


async def blueprint() -> dict[str, Any]:
    script = f"return (await import('{BLUEPRINT}')).default"
    (function,) = (await evaluate(script, environment={"SANITY_PROJECT_ID": "abc"}))["resources"]
    assert isinstance(function, dict)
    return function


def words(groq: str) -> str:
    return " ".join(groq.split())
