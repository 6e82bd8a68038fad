"""Anything at all posted to the receiver: it is accepted or refused, by name, and nobody's access suffers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import structlog
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from sync_worker.cli.processes import CLERK_SECRET, SECRET
from sync_worker.runtime.wiring import reconciler_of
from sync_worker.sandbox.server import Sandbox
from sync_worker.storage.work_items import WorkItem
from sync_worker.web.app import create_app
from sync_worker.webhooks.receiver import BODY_LIMIT
from sync_worker.webhooks.signatures import SANITY_HEADER, sign_sanity
from sync_worker.worker.jobs import Jobs
from tests.clock import TIMINGS, ImpatientClock
from tests.hostile.bodies import DELIVERY, EVENT, MARK, bodies, shaped, texts
from tests.parts import Parts, opened, settings_of
from tests.sizes import examples

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from starlette.applications import Starlette

pytestmark = pytest.mark.anyio
Headers = list[tuple[bytes, bytes]]

ACCEPTED = (202, b'{"ok":true}')
BAD_BODY = (400, b'{"error":"bad_body"}')
BAD_SIGNATURE = (401, b'{"error":"bad_signature"}')
TOO_LARGE = (413, b'{"error":"body_too_large"}')
ELSEWHERE = {(404, b'{"error":"not_found"}'), (405, b'{"error":"method_not_allowed"}')}
WEBHOOKS = {f"/webhooks/{sender}{end}" for sender in ("clerk", "sanity") for end in ("", "/")}
ROUTES = {"/healthz", "/metrics", "/readyz", *WEBHOOKS}
many = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=examples(300))


@dataclass(frozen=True, repr=False)
class Sender:
    """Who posts, how it signs, and what its bodies look like."""

    path: str
    fields: Mapping[str, st.SearchStrategy[Any]]
    sign: Callable[..., Headers]

    def __repr__(self) -> str:
        return self.path


def by_sanity(body: bytes, secret: str = SECRET) -> Headers:
    return [(SANITY_HEADER.encode(), sign_sanity(body, secret, int(time.time() * 1000)).encode())]


def by_svix(body: bytes, secret: str = CLERK_SECRET) -> Headers:
    now = str(int(time.time())).encode()
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, b"msg_1." + now + b"." + body, hashlib.sha256).digest()
    return [
        (b"svix-id", b"msg_1"),
        (b"svix-timestamp", now),
        (b"svix-signature", b"v1," + base64.b64encode(digest)),
    ]


SANITY = Sender("/webhooks/sanity", DELIVERY, by_sanity)
CLERK = Sender("/webhooks/clerk", EVENT, by_svix)
senders = pytest.mark.parametrize("sender", [SANITY, CLERK], ids=str)
posted = st.one_of(*(st.tuples(st.just(sender), bodies(sender.fields)) for sender in (SANITY, CLERK)))
reported = st.one_of(
    *(
        st.tuples(st.just(sender), st.lists(shaped(sender.fields, wrong=2), min_size=20, max_size=40))
        for sender in (SANITY, CLERK)
    )
)


@dataclass(frozen=True, repr=False)
class World:
    """A receiver and a worker on one database, and people who hold access."""

    box: Sandbox
    app: Starlette
    client: httpx.AsyncClient
    parts: Parts

    async def post(self, path: str, body: bytes, headers: Headers) -> tuple[int, bytes]:
        response = await self.client.post(path, content=body, headers=headers)
        return response.status_code, response.content

    async def ask(self, method: str, path: str, query: bytes) -> tuple[int, bytes, bytes]:
        """Ask the application for what a client library would not send. Return status, headers and body."""
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query,
            "headers": [(b"host", MARK.encode())],
            "server": ("127.0.0.1", 80),
        }
        reported: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": MARK.encode(), "more_body": False}

        async def send(message: Any) -> None:
            reported.append(message)

        await self.app(scope, receive, send)
        head = b"".join(name + value for name, value in reported[0]["headers"])
        return reported[0]["status"], head, b"".join(message.get("body", b"") for message in reported[1:])

    async def work_off(self) -> list[str]:
        """Do all that is due as the worker does, without its waits. Return what it logged, by name."""
        queue, services = self.parts.store.queue, self.parts.services
        clock = ImpatientClock()
        reconciler = replace(reconciler_of(self.parts.settings, self.parts.store, services), clock=clock)
        jobs = Jobs(queue, reconciler, clock, TIMINGS)
        with structlog.testing.capture_logs() as logs:
            worked = True
            while worked:
                worked = False
                for claim in await queue.claim_lookups(1, 100, 30.0):
                    await jobs.fan_out([claim])
                    worked = True
                if claims := await queue.claim_lookups(0, 100, 30.0):
                    await jobs.look_up(claims)
                    worked = True
                for lane in (0, 1):
                    if claims := await queue.claim(lane, 100, 30.0):
                        await jobs.reconcile_subjects(claims)
                        worked = True
        return [entry["event"] for entry in logs]


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    url = f"sqlite:///{tmp_path_factory.mktemp('hostile') / 'work.db'}"
    async with Sandbox() as box, opened(box, url) as parts:
        app = create_app(settings_of(box, url))
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")
        async with app.router.lifespan_context(app), client:
            world = World(box, app, client, parts)
            await _grant(world)
            box.clerk.requests.clear()
            yield world


async def _grant(world: World) -> None:
    """Let a user, an organization, a member, and somebody known by address hold access."""
    box = world.box
    box.clerk.add_user("user_1")
    box.clerk.add_user("user_2", email="ada@example.com")
    box.clerk.add_organization("org_1")
    box.clerk.add_membership("org_1", "user_1")
    names = [
        {"clerkUserId": "user_1"},
        {"clerkOrganizationId": "org_1"},
        {"userEmail": "ada@example.com"},
        {"clerkUserId": "user_1", "clerkOrganizationId": "org_1"},
    ]
    rows = [{"_id": f"e{n}", "_type": "entitlement", "plan": "pro", **name} for n, name in enumerate(names, 1)]
    await box.lake.mutate([{"create": row} for row in rows])
    subjects = ["user:user_1", "user:user_2", "org:org_1", "membership:org_1/user_1"]
    await world.parts.store.queue.enqueue([WorkItem(subject) for subject in subjects])
    assert (await world.work_off()).count("access_changed") == len(subjects)


@many
@given(posted=posted)
async def test_a_signed_body_is_accepted_or_refused_and_never_our_trouble(
    world: World, posted: tuple[Sender, bytes]
) -> None:
    sender, body = posted
    expected = {ACCEPTED, BAD_BODY} if sender is SANITY or _is_text(body) else {BAD_SIGNATURE}
    assert await world.post(sender.path, body, sender.sign(body)) in expected


def _is_text(body: bytes) -> bool:
    """Svix signs texts; whatever is none cannot have been signed by it."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def forgeries(body: bytes, junk: bytes) -> Iterable[Headers]:
    """Headers that are almost right, each in its own way."""
    junk = junk.translate(None, b"\r\n\0")
    others = {by_sanity: "another secret", by_svix: "whsec_" + base64.b64encode(b"another secret").decode()}
    for sign, other in others.items():
        yield sign(body, other)
        yield sign(body + b" ")
        for place, (name, value) in enumerate(good := sign(body)):
            for wrong in (junk, b"", value[:-1], value + b"=", value + b"A", b"A" + value, value.swapcase()):
                if wrong != value:
                    yield [*good[:place], (name, wrong), *good[place + 1 :]]
            yield [*good[:place], *good[place + 1 :]]
    yield [(SANITY_HEADER.encode(), b"t=" + b"9" * 30 + b",v1=" + b"A" * 43)]
    yield []


@settings(many, max_examples=examples(60))
@given(posted=posted, junk=st.binary(max_size=100) | texts.map(lambda text: text.encode(errors="replace")))
async def test_a_body_that_is_not_signed_is_refused_whatever_it_holds(
    world: World, posted: tuple[Sender, bytes], junk: bytes
) -> None:
    sender, body = posted
    for headers in forgeries(body, junk):
        assert await world.post(sender.path, body, headers) == BAD_SIGNATURE, headers


names = st.sampled_from(
    [
        b"accept",
        b"content-encoding",
        b"content-type",
        b"cookie",
        b"expect",
        b"host",
        b"idempotency-key",
        b"sanity-dataset",
        b"sanity-document-id",
        b"sanity-operation",
        b"transfer-encoding",
        b"x-forwarded-for",
    ]
)
other_headers = st.lists(
    st.tuples(names, st.binary(max_size=40) | st.sampled_from([b"gzip", b"br", b"text/html", MARK.encode()])),
    max_size=5,
)


@senders
@many
@given(headers=other_headers)
async def test_other_headers_are_not_believed(world: World, sender: Sender, headers: Headers) -> None:
    body = json.dumps({"operation": "update", "type": "user.updated", MARK: 1}).encode()
    assert await world.post(sender.path, body, [*headers, *sender.sign(body)]) == BAD_BODY
    assert await world.post(sender.path, body, headers) == BAD_SIGNATURE


@many
@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW", "get"]),
    start=st.sampled_from(["", "/", "//", "/healthz", "/webhooks", "/webhooks/sanity", "/WEBHOOKS/CLERK"]),
    end=st.sampled_from(["", "/", "/.", "/..", "//"]) | texts.map(lambda text: text.encode(errors="replace").decode()),
    query=st.binary(max_size=50),
)
async def test_other_paths_and_methods_are_refused_by_name_alone(
    world: World, method: str, start: str, end: str, query: bytes
) -> None:
    path = start + end
    assume(path not in ROUTES)
    status, head, body = await world.ask(method, path, query)
    assert (status, body) in ELSEWHERE
    assert MARK.encode() not in head + body


@senders
@pytest.mark.parametrize("size", [BODY_LIMIT + 1, 5_000_000])
async def test_a_body_over_the_limit_is_refused_before_its_signature(world: World, sender: Sender, size: int) -> None:
    body = b'"' + MARK.encode() * (size // len(MARK) + 1)
    assert await world.post(sender.path, body, sender.sign(body)) == TOO_LARGE
    assert await world.post(sender.path, body, []) == TOO_LARGE


@settings(many, max_examples=examples(25))
@given(reported=reported)
async def test_what_was_accepted_can_be_worked_off_and_takes_nobodys_access(
    world: World, reported: tuple[Sender, list[dict[str, Any]]]
) -> None:
    sender, bodies = reported
    raw = [json.dumps(body).encode() for body in bodies]
    answers = {await world.post(sender.path, body, sender.sign(body)) for body in raw}
    assert ACCEPTED in answers
    assert "run_crashed" not in await world.work_off()
    assert world.box.clerk.requests.writes == []
