from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sync_worker.sandbox.clerk_errors import ClerkError
from sync_worker.sandbox.limits import Limiter, Limits

if TYPE_CHECKING:
    import httpx

    from sync_worker.sandbox.server import Sandbox

LIST = "GET /users"
WRITE = "PATCH /users/{user}/metadata"


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def refused_for(limiter: Limiter, endpoint: str, subject: str = "") -> int | None:
    """Return None when the request passes, else the seconds of Retry-After."""
    try:
        limiter.check(endpoint, subject)
    except ClerkError as error:
        return error.retry_after if error.status == 429 else -1
    return None


def test_a_development_instance_has_100_and_a_production_instance_1000_in_ten_seconds() -> None:
    assert Limits.of_key("sk_test_x") == Limits(instance=100, subject=10)
    assert Limits.of_key("sk_live_x") == Limits(instance=1000, subject=10)


def test_the_request_over_the_limit_gets_retry_after(clock: Clock) -> None:
    limiter = Limiter(Limits(instance=3), clock)
    assert [refused_for(limiter, LIST) for _ in range(3)] == [None, None, None]
    clock.now += 2.5
    assert refused_for(limiter, LIST) == 8
    clock.now += 7.9
    assert refused_for(limiter, LIST) == 1
    clock.now += 0.1
    assert refused_for(limiter, LIST) is None


def test_an_endpoint_over_the_limit_stays_shut_though_there_is_room(clock: Clock) -> None:
    limiter = Limiter(Limits(instance=2), clock)
    limiter.check(LIST, "")
    clock.now += 9
    limiter.check(LIST, "")
    clock.now += 0.5
    assert refused_for(limiter, LIST) == 1
    clock.now += 0.6
    assert refused_for(limiter, WRITE, "user_a") is None


def test_writes_of_one_subject_are_limited_whatever_the_route(clock: Clock) -> None:
    limiter = Limiter(Limits(subject=10), clock)
    for number in range(10):
        limiter.check(("PATCH /users/{user}", WRITE)[number % 2], "user_a")
    assert refused_for(limiter, WRITE, "user_a") == 10
    assert refused_for(limiter, WRITE, "user_b") is None
    assert refused_for(limiter, LIST) is None


def test_without_limits_everything_passes(clock: Clock) -> None:
    limiter = Limiter(Limits(), clock)
    assert {refused_for(limiter, WRITE, "user_a") for _ in range(5000)} == {None}


@pytest.mark.anyio
async def test_the_answer_over_the_limit_is_429_with_whole_seconds(box: Sandbox, clerk: httpx.AsyncClient) -> None:
    box.clerk.add_user("user_a")
    box.clerk.limiter.limits = Limits.of_key("sk_live_x")
    answers = [await clerk.patch("/users/user_a/metadata", json={"public_metadata": {"n": n}}) for n in range(11)]
    assert [answer.status_code for answer in answers] == [200] * 10 + [429]
    assert answers[-1].json()["errors"][0]["code"] == "too_many_requests"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 10
    assert box.clerk.users["user_a"]["public_metadata"] == {"n": 9}
    assert (await clerk.get("/users/user_a")).status_code == 200
