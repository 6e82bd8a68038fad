"""What is made of Clerk's answers: of errors, of another shape than expected, of a damaged marker."""

from __future__ import annotations

import httpx
import pytest

from sync_worker.clerk.client import Clerk, error_from_response
from sync_worker.domain.entitlements import Marker, Slot
from sync_worker.domain.ownership import read_markers
from sync_worker.domain.subjects import Subject
from sync_worker.errors import (
    AccessTooLarge,
    CredentialsRefused,
    NoSuchSubject,
    RateLimited,
    RequestRefused,
    ServiceUnavailable,
    SyncWorkerError,
    UnreadableAnswer,
)
from sync_worker.transport import retry_after
from tests.clerk.test_client import USER
from tests.clock import CLOCK, TIMINGS

pytestmark = pytest.mark.anyio


def refusal(status: int, code: str) -> httpx.Response:
    return httpx.Response(status, json={"errors": [{"code": code, "message": "m", "long_message": "l"}]})


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (refusal(400, "request_body_invalid"), RequestRefused),
        (refusal(401, "clerk_key_invalid"), CredentialsRefused),
        (refusal(403, "quota_exceeded"), RequestRefused),
        (refusal(404, "resource_not_found"), NoSuchSubject),
        (refusal(409, "resource_locked"), ServiceUnavailable),
        (refusal(409, "user_managed_by_scim"), RequestRefused),
        (refusal(413, "request_body_too_large"), AccessTooLarge),
        (refusal(422, "form_param_exceeds_allowed_size"), AccessTooLarge),
        (refusal(422, "form_param_unknown"), RequestRefused),
        (refusal(429, "too_many_requests"), RateLimited),
        (refusal(500, "internal_clerk_error"), ServiceUnavailable),
        (httpx.Response(502, text="<html>bad gateway</html>"), ServiceUnavailable),
        (httpx.Response(403, json={"errors": []}), RequestRefused),
        (httpx.Response(400, json=["odd"]), RequestRefused),
    ],
)
def test_each_refused_status_has_its_error(response: httpx.Response, error: type[SyncWorkerError]) -> None:
    assert type(error_from_response(response, None)) is error


@pytest.mark.parametrize("seconds", ["7", "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_retry_after_is_read_as_seconds_or_as_a_date(seconds: str) -> None:
    response = httpx.Response(429, json={"errors": []}, headers={"Retry-After": seconds})
    error = error_from_response(response, retry_after(response, CLOCK, TIMINGS))
    assert isinstance(error, RateLimited)
    assert error.retry_after is not None
    assert error.retry_after >= 7


@pytest.mark.parametrize("answer", [{}, [1], [{"id": 7}]])
async def test_a_response_of_another_shape_is_an_error_and_not_an_empty_result(answer: object) -> None:
    client = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=answer)))
    async with client:
        with pytest.raises(UnreadableAnswer):
            await Clerk(client, "http://127.0.0.1/v1").observe([USER])


async def test_a_user_of_another_shape_is_unreadable_and_costs_no_other_one() -> None:
    answer = [{"id": "user_1", "public_metadata": "text"}, {"id": "user_2"}]
    client = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=answer)))
    async with client:
        found = await Clerk(client, "http://127.0.0.1/v1").observe([USER, Subject.parse("user_2")])
    assert [observed.unreadable == "" for observed in found.values()] == [False, False]


@pytest.mark.parametrize(
    "marker", [7, {}, {"source": 7, "keys": []}, {"source": "p/d"}, {"source": "p/d", "keys": "plan"}]
)
def test_a_damaged_marker_counts_as_none(marker: object) -> None:
    assert read_markers({"entitlementSync": marker}) == {}


def test_keys_of_a_marker_that_are_none_are_left_out() -> None:
    assert read_markers({"entitlementSync": {"source": "p/d", "keys": ["nowhere.plan", 3, "role"]}}) == {
        None: Marker("p/d", (Slot.parse("3"), Slot.parse("role")))
    }
