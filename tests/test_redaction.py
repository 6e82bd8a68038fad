"""What is redacted in a text, and what stays."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker.errors import RequestRefused
from sync_worker.redaction import redact

TOKEN = "sk" + "aB3xY9" * 30


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("ada@example.com", "[e-mail]"),
        ("is taken: <ada.l+x@example.com>.", "is taken: <[e-mail]>."),
        ("email:ada@example.com", "email:[e-mail]"),
        ("email:org_1/ada@example.com", "email:org_1/[e-mail]"),
        ("O'Brien@müller.example or ben@localhost", "[e-mail] or [e-mail]"),
        ('"odd"@example.com', "[e-mail]"),
        ("?email_address=ada%40example.com", "?email_address=[e-mail]"),
        ("postgres://ada:pa55@db.example.com/x", "postgres://[secret]@db.example.com/x"),
        ("the key sk_live_aB3 is wrong", "the key [secret] is wrong"),
        ("sk_test_aB3", "[secret]"),
        ("whsec_aB3+/w==", "[secret]"),
        ("a token eyJhbGci.eyJzdWIi.c2ln-_0 here", "a token [secret] here"),
        ("Authorization: Bearer x.y-z and more", "Authorization: Bearer [secret] and more"),
        (f"Session not found ({TOKEN})", "Session not found ([secret])"),
    ],
)
def test_addresses_and_secrets_are_redacted(text: str, redacted: str) -> None:
    assert redact(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "user:user_2aB3 of org_1: document:ent-1#6f1c, grant in 0.041 s",
        "CLERK_SECRET_KEY must start with sk_live_ or sk_test_",
        "a task, a risk, a disk",
        "File node_modules/@sanity/client at 12:30, 3 @ 4",
        "https://api.clerk.com/v1/users?limit=100",
        "whsec_ and base64",
    ],
)
def test_a_text_without_secrets_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


@given(st.text(), st.from_regex(r"[\w.+'-]{1,64}@[\w.-]{1,60}", fullmatch=True), st.text())
def test_no_address_survives_wherever_it_is(before: str, address: str, after: str) -> None:
    assert address not in redact(f"{before} {address} {after}")


@given(st.text(), st.from_regex(r"(sk_live_|sk_test_|whsec_)[A-Za-z0-9]{1,60}|sk[A-Za-z0-9]{60,200}", fullmatch=True))
def test_no_secret_survives_wherever_it_is(before: str, secret: str) -> None:
    assert secret not in redact(f"{before} {secret}.")


@pytest.mark.parametrize(
    "text", ["a" * 100_000 + " @", "a%4" * 30_000 + "@", "sk" * 50_000 + "@", "://" * 30_000 + "@"]
)
def test_redaction_takes_linear_time(text: str) -> None:
    started = time.process_time()
    redact(text)
    assert time.process_time() - started < 2.0  # a hundredth of it; by the square of the length it would be minutes


def test_an_error_redacts_what_a_service_repeated() -> None:
    error = RequestRefused(f"Clerk answered 422: ada@example.com is taken (Bearer {TOKEN})")
    assert str(error) == "The service refused the request. Clerk answered 422: [e-mail] is taken (Bearer [secret]"
