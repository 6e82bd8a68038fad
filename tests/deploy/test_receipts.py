"""Receipts in the Studio: editors see them, ADMIN_TOKEN stays on the server, and nobody else is answered."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.cli.processes import free_port
from tests.kits import DEPLOY
from tests.node import evaluate
from tests.oracle import GUARD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
STUDIO = DEPLOY / "studio"
ADMIN_TOKEN = "admin-token-of-the-worker"
ORIGIN = "https://acme.sanity.studio"
RECEIPT: dict[str, Any] = {
    "document": "ent-1",
    "state": "synced",
    "headline": "Ada has the plan pro.",
    "revision": "rev-2",
    "published": "2027-01-05T09:00:00Z",
    "inClerk": "2027-01-05T09:00:02Z",
    "inSessionsBy": "2027-01-05T09:01:02Z",
    "subjects": [{"subject": "user:user_ada", "state": "synced", "reason": None}],
    "nextStep": None,
}
MODULES = "\n".join(
    f"const {{{names}}} = await import('{file.as_uri()}');"
    for names, file in (
        ("receiptProxy, passOf", STUDIO / "proxy" / "receipts.ts"),
        ("issuePass, passDocument", STUDIO / "receipts" / "pass.ts"),
        ("asOf, readReceipt, STATES", STUDIO / "receipts" / "receipt.ts"),
        ("Desk", STUDIO / "receipts" / "ask.ts"),
        ("studioClient, serve", Path(__file__).parents[1] / "studio" / "client.mjs"),
    )
)
SCENE = f"""
  {MODULES}
  const client = studioClient(given.sanity);
  const allowed = passOf({{...given.sanity, apiUrl: given.sanity.url, token: given.sanity.viewer}});
  const answer = receiptProxy({{...given.worker, studioOrigins: ['{ORIGIN}'], allowed}});
  const ask = (pass, query = 'document=ent-1', more = {{}}) => answer(new Request(
    `http://localhost/api/receipts?${{query}}`,
    {{headers: {{origin: '{ORIGIN}', ...(pass ? {{authorization: `Bearer ${{pass}}`}} : {{}})}}, ...more}}));
  const payload = async (response) => (
    {{status: response.status, body: await response.text(), headers: Object.fromEntries(response.headers)}});
"""


@dataclass
class Worker:
    """Answers `GET /documents/{id}` as the worker does, and keeps the requests."""

    receipts: list[Any]
    status: int = 200
    requested: list[str] = field(default_factory=list)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requested.append((await reader.readuntil(b"\r\n\r\n")).decode())
        receipt = self.receipts.pop(0) if len(self.receipts) > 1 else self.receipts[0]
        body = json.dumps(receipt)
        writer.write(
            f"HTTP/1.1 {self.status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
        )
        await writer.drain()
        writer.close()


@asynccontextmanager
async def working(*receipts: Any, status: int = 200) -> AsyncIterator[Worker]:
    worker = Worker(list(receipts or [RECEIPT]), status)
    server = await asyncio.start_server(worker.serve, "127.0.0.1", 0)
    async with server:
        worker.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield worker


async def play(box: Sandbox, worker_url: str, script: str, **more: Any) -> Any:
    sanity = {
        "url": box.sanity_url,
        "projectId": box.lake.project_id,
        "dataset": box.lake.dataset,
        "token": box.lake.token,
        "viewer": box.lake.viewer_token,
    }
    worker = {"workerUrl": worker_url, "adminToken": ADMIN_TOKEN}
    return await evaluate(SCENE + script, {"sanity": sanity, "worker": worker, **more})


async def test_an_editor_sees_the_receipt_of_a_document(box: Sandbox) -> None:
    script = """
      const {url, close} = await serve(answer);
      const seen = await new Desk(url, client).ask('ent-1');
      close();
      return seen;
    """
    async with working() as worker:
        assert await play(box, worker.url, script) == {"receipt": RECEIPT}
    (requested,) = worker.requested
    assert requested.startswith("GET /documents/ent-1 HTTP/1.1\r\n")
    assert f"authorization: bearer {ADMIN_TOKEN}" in requested.lower()
    assert "accept: application/json" in requested.lower()


async def test_the_admin_token_and_what_else_the_worker_says_never_reach_the_browser(box: Sandbox) -> None:
    async with working({**RECEIPT, "debug": "secret", "token": ADMIN_TOKEN}) as worker:
        reported = await play(box, worker.url, "return payload(await ask((await issuePass(client)).text))")
    assert reported["status"] == 200
    assert json.loads(reported["body"]) == RECEIPT
    assert ADMIN_TOKEN not in json.dumps(reported)
    assert reported["headers"]["cache-control"] == "no-store"


async def test_an_editor_who_cannot_write_into_the_dataset_gets_no_answer(box: Sandbox) -> None:
    script = "return Promise.all(given.passes.map(async (pass) => payload(await ask(pass))))"
    passes = {"none": None, "made up": "0" * 64, "short": "short", "a path": "../../etc"}
    async with working() as worker:
        answers = await play(box, worker.url, script, passes=list(passes.values()))
    assert [(a["status"], json.loads(a["body"])) for a in answers] == [(401, {"error": "not_an_editor"})] * len(passes)
    assert worker.requested == []


async def test_reading_the_dataset_is_not_enough_to_make_a_pass(box: Sandbox) -> None:
    script = """
      const {text} = await issuePass(client);
      return payload(await ask((await passDocument(text)).split('-')[1]));
    """
    async with working() as worker:
        assert (await play(box, worker.url, script))["status"] == 401


@pytest.mark.parametrize(("minutes", "status"), [(59, 200), (61, 401)])
async def test_a_pass_is_good_for_an_hour(box: Sandbox, minutes: int, status: int) -> None:
    (document,) = await evaluate(f"{MODULES} return [await passDocument('{'a' * 64}')]")
    await written(box, minutes * 60, {"_id": document, "_type": "syncWorkerPass"})
    async with working() as worker:
        assert (await play(box, worker.url, f"return payload(await ask('{'a' * 64}'))"))["status"] == status


async def test_old_passes_are_tidied_up(box: Sandbox) -> None:
    await written(box, 3700, {"_id": "drafts.syncWorkerPass-old", "_type": "syncWorkerPass"})
    await written(box, 3700, {"_id": "drafts.ent-1", "_type": "entitlement"})
    script = """
      let tidied;
      await issuePass({...client, delete: (selection) => (tidied = client.delete(selection))});
      await tidied;
    """
    await play(box, "http://127.0.0.1", script)
    assert sorted(document["_type"] for document in box.lake.documents.values()) == ["entitlement", "syncWorkerPass"]
    assert "drafts.syncWorkerPass-old" not in box.lake.documents


async def written(box: Sandbox, seconds_ago: float, document: dict[str, Any]) -> None:
    clock, box.lake.clock = box.lake.clock, lambda: time.time() - seconds_ago
    await box.lake.load([document])
    box.lake.clock = clock


async def test_only_pages_of_the_studio_may_read_the_answers(box: Sandbox) -> None:
    script = """
      const preflight = (origin) => ({method: 'OPTIONS', headers: {origin}});
      return [await payload(await ask('', 'document=ent-1', preflight(given.studio))),
              await payload(await ask('', 'document=ent-1', preflight('https://evil.example')))];
    """
    async with working() as worker:
        studio, evil = await play(box, worker.url, script, studio=ORIGIN)
    assert (studio["status"], studio["headers"]["access-control-allow-origin"]) == (204, ORIGIN)
    assert studio["headers"]["access-control-allow-headers"] == "authorization"
    assert "access-control-allow-origin" not in evil["headers"]


async def test_what_is_not_a_document_id_leads_to_no_request(box: Sandbox) -> None:
    script = """
      const {text} = await issuePass(client);
      return Promise.all(given.queries.map(async (query) => (await ask(text, query)).status));
    """
    queries = ["", "document=", *(f"document={id_}" for id_ in ("../status", "a%2Fb", "a%3Fb", "-a", "a" * 129))]
    async with working() as worker:
        assert await play(box, worker.url, script, queries=queries) == [400] * len(queries)
    assert worker.requested == []


async def test_receipts_are_only_read(box: Sandbox) -> None:
    script = "return Promise.all(['POST', 'DELETE'].map(async (method) => (await ask('x', '', {method})).status))"
    async with working() as worker:
        assert await play(box, worker.url, script) == [405, 405]
    assert worker.requested == []


@pytest.mark.parametrize("status", [401, 404, 500])
async def test_trouble_of_the_worker_is_shown_without_details(box: Sandbox, status: int) -> None:
    async with working(status=status) as worker:
        reported = await play(box, worker.url, "return payload(await ask((await issuePass(client)).text))")
    assert (reported["status"], json.loads(reported["body"])) == (502, {"error": "no_receipt"})


async def test_an_unreachable_worker_is_shown_too(box: Sandbox) -> None:
    reported = await play(
        box, f"http://127.0.0.1:{free_port()}", "return payload(await ask((await issuePass(client)).text))"
    )
    assert (reported["status"], json.loads(reported["body"])) == (502, {"error": "unavailable"})


async def test_while_sanity_is_down_nobody_is_let_in(box: Sandbox) -> None:
    script = """
      const {text} = await issuePass(client);
      const refused = receiptProxy({...given.worker, studioOrigins: [], allowed:
        passOf({...given.sanity, apiUrl: given.sanity.url, token: 'revoked'})});
      const request = new Request('http://localhost/?document=ent-1', {headers: {authorization: `Bearer ${text}`}});
      return payload(await refused(request));
    """
    async with working() as worker:
        assert (await play(box, worker.url, script))["status"] == 502
    assert worker.requested == []


async def test_the_studio_takes_a_new_pass_when_the_old_one_is_gone(box: Sandbox) -> None:
    script = """
      const {url, close} = await serve(answer);
      const desk = new Desk(url, client);
      await desk.ask('ent-1');
      await client.delete({query: '*[_type == "syncWorkerPass"]'});
      const seen = await desk.ask('ent-2');
      close();
      return seen.receipt.state;
    """
    async with working() as worker:
        assert await play(box, worker.url, script) == "synced"


async def test_an_editor_who_may_not_write_drafts_reads_what_is_missing(box: Sandbox) -> None:
    script = """
      const {url, close} = await serve(answer);
      const reader = studioClient({...given.sanity, token: given.sanity.viewer});
      const seen = await new Desk(url, reader).ask('ent-1');
      close();
      return seen.trouble;
    """
    async with working() as worker:
        assert "Contributor" in await play(box, worker.url, script)


async def test_badge_and_pane_share_one_answer(box: Sandbox) -> None:
    script = """
      const {url, close} = await serve(answer);
      const desk = new Desk(url, client);
      await Promise.all([desk.ask('ent-1'), desk.ask('ent-1')]);
      close();
    """
    async with working() as worker:
        await play(box, worker.url, script)
    assert len(worker.requested) == 1


async def test_the_pane_follows_a_publish_until_it_is_in_clerk(box: Sandbox) -> None:
    script = """
      for (const state of Object.values(STATES)) if (state.lasts) state.lasts = 501;  // later than a shared answer
      const {url, close} = await serve(answer);
      const shown = [];
      const published = {id: 'ent-1', revision: 'rev-2'};
      const {signal} = new AbortController();
      await new Desk(url, client).follow(published, ({receipt}) => shown.push(receipt.state), signal);
      close();
      return shown;
    """
    before = {**RECEIPT, "revision": "rev-1"}
    async with working(before, {**RECEIPT, "state": "late"}, RECEIPT) as worker:
        assert await play(box, worker.url, script) == ["unknown", "late", "synced"]


async def test_the_pane_stops_asking_when_it_is_closed(box: Sandbox) -> None:
    script = """
      const {url, close} = await serve(answer);
      const left = new AbortController();
      await new Desk(url, client).follow({id: 'ent-1', revision: null}, () => left.abort(), left.signal);
      close();
    """
    async with working({**RECEIPT, "state": "late"}) as worker:
        await asyncio.wait_for(play(box, worker.url, script), GUARD)
    assert len(worker.requested) == 1


@pytest.mark.parametrize(
    ("revision", "of_receipt", "state", "expected"),
    [
        ("rev-2", "rev-2", "synced", "synced"),
        ("rev-2", "rev-1", "synced", "unknown"),
        ("rev-2", None, "deleted", "unknown"),
        (None, "rev-2", "synced", "unknown"),
        (None, None, "deleted", "deleted"),
        (None, None, "late", "late"),
    ],
    ids=[
        *("this publish", "an earlier publish", "before the document came back"),
        *("before the unpublish", "after the unpublish", "the unpublish on its way"),
    ],
)
async def test_a_receipt_from_before_the_last_publish_is_not_taken_for_one_of_it(
    revision: str | None, of_receipt: str | None, state: str, expected: str
) -> None:
    given = {"receipt": {**RECEIPT, "state": state, "revision": of_receipt}, "revision": revision}
    seen = await evaluate(f"{MODULES} return asOf(given.receipt, given.revision)", given)
    assert seen["state"] == expected


async def test_a_worker_that_cannot_tell_keeps_its_own_words() -> None:
    given = {**RECEIPT, "state": "unknown", "revision": None, "headline": "Cannot tell right now."}
    seen = await evaluate(f"{MODULES} return asOf(given, 'rev-2')", given)
    assert seen["headline"] == "Cannot tell right now."


async def test_what_is_no_receipt_is_not_shown_as_one() -> None:
    answers: list[Any] = [None, [], "text", {}, {"document": "x"}, {"document": 1, "headline": "h"}]
    assert await evaluate(f"{MODULES} return given.map(readReceipt)", answers) == [None] * len(answers)


async def test_a_state_of_a_newer_worker_is_shown_as_unknown() -> None:
    seen = await evaluate(f"{MODULES} return readReceipt(given)", {**RECEIPT, "state": "brand new"})
    assert (seen["state"], seen["headline"]) == ("unknown", RECEIPT["headline"])
