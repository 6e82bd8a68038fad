"""Authentication: the token, sessions that expire, and the throttle of wrong tokens."""

from __future__ import annotations

import pytest

from sync_worker.web.auth import CLIENTS, WRONG_GUESSES, Authenticator, LoginThrottle
from tests.clock import TIMINGS, ManualClock

TOKEN = "träge-katze".encode()
KEY = "the session key"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def authenticator(clock: ManualClock) -> Authenticator:
    return Authenticator(TOKEN, LoginThrottle(clock, TIMINGS), clock, TIMINGS)


@pytest.mark.parametrize("given", [b"", b"tr", TOKEN + b" ", TOKEN[:-1], b"x" * len(TOKEN)])
def test_only_the_token_is_the_token(authenticator: Authenticator, given: bytes) -> None:
    assert authenticator.is_token(TOKEN)
    assert not authenticator.is_token(given)


def test_a_session_expires_after_twelve_hours(authenticator: Authenticator, clock: ManualClock) -> None:
    cookie = authenticator.new_session(KEY)
    clock.advance(TIMINGS.session_lifetime - 1)
    assert authenticator.is_session(cookie, KEY)
    clock.advance(1)
    assert not authenticator.is_session(cookie, KEY)


def test_a_session_with_any_character_changed_is_invalid(authenticator: Authenticator) -> None:
    cookie = authenticator.new_session(KEY)
    for place, letter in enumerate(cookie):
        changed = cookie[:place] + ("1" if letter != "1" else "2") + cookie[place + 1 :]
        assert not authenticator.is_session(changed, KEY)


@pytest.mark.parametrize("cookie", ["", ".", "..", "9999999999.x", "9999999999.x.", "ä.ö.ü", "x.y.z"])
def test_a_forged_cookie_is_no_session(authenticator: Authenticator, cookie: str) -> None:
    assert not authenticator.is_session(cookie, KEY)


def test_another_token_ends_every_session(authenticator: Authenticator, clock: ManualClock) -> None:
    assert not Authenticator(b"another", LoginThrottle(clock, TIMINGS), clock, TIMINGS).is_session(
        authenticator.new_session(KEY), KEY
    )


def test_another_key_ends_every_session(authenticator: Authenticator) -> None:
    assert not authenticator.is_session(authenticator.new_session(KEY), "another")


def test_a_sign_out_code_is_no_session_and_belongs_to_one_session(authenticator: Authenticator) -> None:
    first, second = authenticator.new_session(KEY), authenticator.new_session(KEY)
    assert first != second
    code = authenticator.form_code(first, "sign-out")
    assert code != authenticator.form_code(second, "sign-out")
    assert not authenticator.is_session(f"{first.rpartition('.')[0]}.{code}", KEY)


def test_the_token_is_never_printed(authenticator: Authenticator) -> None:
    assert TOKEN.decode() not in repr(authenticator)
    assert TOKEN.decode() not in authenticator.new_session(KEY)


def test_a_client_is_throttled_after_ten_wrong_tokens_in_a_minute(clock: ManualClock) -> None:
    guesses = LoginThrottle(clock, TIMINGS)
    for number in range(WRONG_GUESSES):
        assert not guesses.exhausted("10.0.0.1", b"%d" % number)
    assert guesses.exhausted("10.0.0.1", b"another")
    assert not guesses.exhausted("10.0.0.2", b"another")
    clock.advance(TIMINGS.guess_window)
    assert not guesses.exhausted("10.0.0.1", b"another")


def test_a_program_that_repeats_an_old_token_counts_as_one_guess(clock: ManualClock) -> None:
    guesses = LoginThrottle(clock, TIMINGS)
    assert not any(guesses.exhausted("10.0.0.1", b"old") for _ in range(2 * WRONG_GUESSES))
    assert not guesses.exhausted("10.0.0.1", b"another")


def test_many_guesses_of_one_client_do_not_fill_the_memory(clock: ManualClock) -> None:
    guesses = LoginThrottle(clock, TIMINGS)
    for number in range(1000):
        guesses.exhausted("10.0.0.1", b"%d" % number)
    assert [len(seen) for seen in guesses._seen.values()] == [WRONG_GUESSES]


def test_many_clients_do_not_fill_the_memory(clock: ManualClock) -> None:
    guesses = LoginThrottle(clock, TIMINGS)
    for number in range(CLIENTS + 10):
        guesses.exhausted(str(number), b"wrong")
    assert len(guesses._seen) == CLIENTS
