"""Single oddities that `test_answers` once found, each pinned by itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from sync_worker.clerk import client as clerk
from sync_worker.domain.entitlements import Change, ChangeKind
from sync_worker.domain.subjects import Subject
from sync_worker.errors import RateLimited, UnreadableAnswer
from sync_worker.sanity import client as sanity
from sync_worker.sanity.client import Queries
from sync_worker.settings import packaged_groq
from sync_worker.transport import ServiceTransport, retry_after
from sync_worker.triggers.poll import CURSOR, find_published, horizon
from tests.clock import CLOCK, TIMINGS, ImpatientClock
from tests.parts import opened

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
USER, MEMBER = Subject.parse("user_1"), Subject.membership("org_1", "user_1")
GRANT = Change(USER, ChangeKind.GRANT, {}, {"plan": "pro"}, public={"plan": "pro"})
DEEP = b'{"a":' * 50_000


def answering(answer: httpx.Response) -> httpx.MockTransport:
    return httpx.MockTransport(
        lambda _: httpx.Response(answer.status_code, headers=answer.headers.raw, content=answer.content)
    )


def target(answer: httpx.Response) -> clerk.Clerk:
    transport = ServiceTransport("Clerk", answering(answer), {}, clerk.error_from_response, ImpatientClock(), TIMINGS)
    return clerk.open_clerk(transport, url="http://127.0.0.1")[0]


def source(answer: httpx.Response) -> sanity.Sanity:
    transport = ServiceTransport("Sanity", answering(answer), {}, sanity.error_from_response, ImpatientClock(), TIMINGS)
    queries = Queries.load(packaged_groq())
    return sanity.open_sanity(transport, queries, url="http://127.0.0.1", version="1", dataset="d")[0]


USES: dict[str, Callable[[httpx.Response], Awaitable[Any]]] = {
    "list": lambda answer: target(answer).observe([USER]),
    "write": lambda answer: target(answer).apply(GRANT),
    "query": lambda answer: source(answer).everything(""),
    "documents": lambda answer: source(answer).stored(["e1"]),
}


@pytest.mark.parametrize("use", USES)
async def test_an_answer_nested_too_deeply_is_unreadable(use: str) -> None:
    with pytest.raises(UnreadableAnswer):
        await USES[use](httpx.Response(200, content=DEEP))


@pytest.mark.parametrize("use", USES)
async def test_an_error_nested_too_deeply_is_still_known_by_its_status(use: str) -> None:
    with pytest.raises(RateLimited):
        await USES[use](httpx.Response(429, content=DEEP))


async def test_a_header_that_is_no_ascii_does_no_harm() -> None:
    answer = httpx.Response(200, headers=[(b"x-served-by", "Zürich".encode("latin-1"))], content=b"[]")
    assert await target(answer).observe([USER]) == {}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2.5", 2.5),
        ("-3", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("1e9", TIMINGS.max_retry_after),
        ("Fri, 31 Dec 9999 23:59:59 GMT", TIMINGS.max_retry_after),
        ("inf", None),
        ("nan", None),
        ("soon", None),
        ("", None),
    ],
)
def test_no_retry_after_stops_the_worker_for_good(text: str, seconds: float | None) -> None:
    assert retry_after(httpx.Response(429, headers={"retry-after": text}), CLOCK, TIMINGS) == seconds


ADDRESSED: dict[str, Any] = {"email_addresses": [], "primary_email_address_id": None, "external_id": None}
EMAIL = {"id": "idn_1", "email_address": "ada@example.com", "verification": {"status": "verified"}}


@pytest.mark.parametrize(
    "odd",
    [
        {"email_addresses": 7},
        {"email_addresses": None},
        {"email_addresses": [None]},
        {"email_addresses": [{**EMAIL, "verification": "verified"}]},
        {"email_addresses": [{**EMAIL, "verification": {}}]},
        {"email_addresses": [{**EMAIL, "email_address": None}]},
        {"email_addresses": [{**EMAIL, "reserved": "no"}]},
        {"primary_email_address_id": 7},
        {"external_id": ["ext-1"]},
    ],
)
async def test_odd_addresses_are_unreadable_and_do_not_pass_for_given_up(odd: dict[str, Any]) -> None:
    user = {"id": "user_1", **ADDRESSED, **odd}
    observed = (await target(httpx.Response(200, json=[user])).observe([USER]))[USER]
    assert "malformed addresses" in observed.unreadable
    assert "ada@" not in observed.unreadable
    address = Subject.parse("email:ada@example.com")
    found = await target(httpx.Response(200, json=[user])).find([address])
    assert (found.users, found.unreadable) == ({}, {address: observed.unreadable})


@pytest.mark.parametrize("odd", [None, 7, "", "another", "user_1/..", "org_1", ["user_1"]])
async def test_an_odd_id_is_unreadable_and_gets_nowhere(odd: Any) -> None:
    with pytest.raises(UnreadableAnswer):
        await target(httpx.Response(200, json=[{"id": odd, **ADDRESSED}])).observe([USER])
    member = {"organization": {"id": "org_1"}, "public_user_data": {"user_id": odd}}
    with pytest.raises(UnreadableAnswer):
        await target(httpx.Response(200, json={"data": [member], "total_count": 1})).observe([MEMBER])


@pytest.mark.parametrize("odd", [7, [None], [{}], [{"_id": 7}]])
async def test_odd_documents_prove_nothing(odd: Any) -> None:
    with pytest.raises(UnreadableAnswer):
        await source(httpx.Response(200, json={"documents": odd, "omitted": []})).stored(["e1"])


@pytest.mark.parametrize("odd", [7, ["e1"], {"id": "e1"}])
async def test_odd_omissions_prove_nothing(odd: Any) -> None:
    with pytest.raises(UnreadableAnswer):
        await source(httpx.Response(200, json={"documents": [], "omitted": odd})).stored(["e1"])


@pytest.mark.parametrize("total", [None, True, "5", 5.5])
async def test_a_total_that_is_no_number_proves_no_sweep(total: Any) -> None:
    with pytest.raises(UnreadableAnswer, match="total"):
        [page async for page in target(httpx.Response(200, json={"data": [], "total_count": total})).sweep()]


@pytest.mark.parametrize("moment", ["another", None, "9999-01-01T00:00:00Z", "1999-01-01T00:00:00Z"])
async def test_no_answer_moves_the_poll_where_it_would_find_nothing_again(
    box: Sandbox, sqlite_url: str, moment: str | None
) -> None:
    now = datetime.now(UTC)
    cursor = json.dumps([(now - timedelta(days=1)).isoformat(), ""])
    rows = [{"_id": "e1", "_type": "entitlement", "_updatedAt": moment}]
    async with opened(box, sqlite_url) as parts:
        await parts.store.queue.remember(CURSOR, cursor)
        odd = source(httpx.Response(200, json={"result": {"changed": rows}}))
        with pytest.raises(UnreadableAnswer):
            await find_published(odd, parts.store.queue, horizon(CLOCK, TIMINGS))
        known = await parts.store.queue.recall(CURSOR)
        assert known is not None
        assert known[0] == cursor
