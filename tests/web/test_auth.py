"""Who is let in: the token, sessions that end, and guesses that are counted."""

from __future__ import annotations

import pytest

from sync_worker.web.auth import CLIENTS, WRONG_GUESSES, Authenticator, LoginThrottle
from tests.clock import TIMINGS, ManualClock

TOKEN = "träge-katze".encode()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def admission(clock: ManualClock) -> Authenticator:
    return Authenticator(TOKEN, LoginThrottle(clock, TIMINGS), clock, TIMINGS)


@pytest.mark.parametrize("given", [b"", b"tr", TOKEN + b" ", TOKEN[:-1], b"x" * len(TOKEN)])
def test_only_the_token_is_the_token(admission: Authenticator, given: bytes) -> None:
    assert admission.is_token(TOKEN)
    assert not admission.is_token(given)


def test_a_session_is_good_for_twelve_hours_and_no_longer(admission: Authenticator, clock: ManualClock) -> None:
    cookie = admission.new_session()
    clock.advance(TIMINGS.session_lifetime - 1)
    assert admission.is_session(cookie)
    clock.advance(1)
    assert not admission.is_session(cookie)


def test_a_session_with_any_letter_changed_is_none(admission: Authenticator) -> None:
    cookie = admission.new_session()
    for place, letter in enumerate(cookie):
        changed = cookie[:place] + ("1" if letter != "1" else "2") + cookie[place + 1 :]
        assert not admission.is_session(changed)


@pytest.mark.parametrize("cookie", ["", ".", "..", "9999999999.x", "9999999999.x.", "ä.ö.ü", "x.y.z"])
def test_what_was_not_made_here_is_no_session(admission: Authenticator, cookie: str) -> None:
    assert not admission.is_session(cookie)


def test_another_token_ends_every_session(admission: Authenticator, clock: ManualClock) -> None:
    assert not Authenticator(b"another", LoginThrottle(clock, TIMINGS), clock, TIMINGS).is_session(
        admission.new_session()
    )


def test_what_signs_a_form_is_no_session_and_belongs_to_one_only(admission: Authenticator) -> None:
    first, second = admission.new_session(), admission.new_session()
    assert first != second
    code = admission.sign_out_code(first)
    assert code != admission.sign_out_code(second)
    assert not admission.is_session(f"{first.rpartition('.')[0]}.{code}")


def test_the_token_is_in_nothing_that_is_printed(admission: Authenticator) -> None:
    assert TOKEN.decode() not in repr(admission)
    assert TOKEN.decode() not in admission.new_session()


def test_ten_wrong_guesses_in_a_minute_are_enough_for_one_client(clock: ManualClock) -> None:
    guesses = LoginThrottle(clock, TIMINGS)
    for _ in range(WRONG_GUESSES):
        assert not guesses.exhausted("10.0.0.1")
        guesses.wrong("10.0.0.1")
    assert guesses.exhausted("10.0.0.1")
    assert not guesses.exhausted("10.0.0.2")
    clock.advance(TIMINGS.guess_window)
    assert not guesses.exhausted("10.0.0.1")


def test_many_clients_do_not_fill_the_memory(clock: ManualClock) -> None:
    guesses = LoginThrottle(clock, TIMINGS)
    for number in range(CLIENTS + 10):
        guesses.wrong(str(number))
    assert len(guesses._seen) == CLIENTS
