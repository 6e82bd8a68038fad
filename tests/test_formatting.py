"""Times, durations and addresses, as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker.formatting import ago, at, masked, printable, rfc3339

NOON = 1_767_268_800.0  # 2026-01-01T12:00:00Z


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ada@example.org", "a***@example.org"),
        ("email:ada@example.org", "email:a***@example.org"),
        ("email:org_1/ada@example.org", "email:org_1/a***@example.org"),
        ("external:ada@example.org", "external:a***@example.org"),
        ("of a@b.c and 'dö@x.example', <q@r.s>", "of a***@b.c and 'd***@x.example', <q***@r.s>"),
        ("user:user_1 @ noon", "user:user_1 @ noon"),
    ],
)
def test_an_address_keeps_its_first_letter_and_its_host(text: str, shown: str) -> None:
    assert masked(text) == shown


@given(st.from_regex(r"[a-z0-9._%+-]{2,30}@[a-z0-9-]{1,20}\.[a-z]{2,5}", fullmatch=True), st.text(max_size=20))
def test_no_address_survives_wherever_it_is(address: str, before: str) -> None:
    assert address not in masked(f"{before} {address}. {address}")


def test_a_time_of_today_has_no_date() -> None:
    assert (at(NOON + 70, NOON), at(NOON - 86_400, NOON)) == ("12:01:10", "2025-12-31 12:00:00")


def test_programs_read_rfc_3339() -> None:
    assert (rfc3339(NOON + 0.9), rfc3339(None)) == ("2026-01-01T12:00:00Z", None)


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (172_800, "2 days")]
)
def test_a_duration_is_written_in_its_largest_unit(seconds: float, text: str) -> None:
    assert ago(seconds) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plan \x1b[31mpro\x07", r"plan \u001b[31mpro\u0007"),
        ("\x9b2J \u202eorp \ud83d", r"\u009b2J \u202eorp \ud83d"),
        ("Zoë\r\n\tプロ", "Zoë\\r\n\tプロ"),
    ],
)
def test_what_could_control_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
