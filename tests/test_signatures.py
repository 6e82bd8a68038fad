from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker.signatures import SANITY_HEADER, sign_sanity, verify_sanity

VECTORS: dict[str, Any] = json.loads(Path(__file__).with_name("data").joinpath("sanity-signature.json").read_text())
GOOD = VECTORS["upstream_test_vectors"] + VECTORS["vectors"]
SECRET, BODY = "whsec_test_0123456789abcdef", VECTORS["vectors"][0]["payload"].encode()
HEADER = VECTORS["vectors"][0]["header"]


def verifies(header: str, body: bytes = BODY, *secrets: str) -> bool:
    return verify_sanity({SANITY_HEADER: header}, body, secrets or [SECRET])


@pytest.mark.parametrize("vector", GOOD, ids=lambda v: v.get("name", v["header"][:16]))
def test_what_sanity_signed_is_good(vector: dict[str, Any]) -> None:
    assert verifies(vector["header"], vector["payload"].encode(), vector["secret"])


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda v: v["name"])
def test_we_sign_as_sanity_does(vector: dict[str, Any]) -> None:
    assert sign_sanity(vector["payload"].encode(), vector["secret"], vector["timestamp"]) == vector["header"]


@pytest.mark.parametrize("behaviour", VECTORS["library_behaviours"], ids=lambda b: b["label"][:40])
def test_only_the_header_exactly_as_sanity_writes_it_is_good(behaviour: dict[str, Any]) -> None:
    header = behaviour.get("header")
    if not isinstance(header, str) or "payload" in behaviour or "secret" in behaviour:
        pytest.skip("a probe of another argument than the header")
    assert verifies(header) == (bool(behaviour.get("isValidSignature")) and header == HEADER)


def test_either_of_two_secrets_is_good_during_rotation() -> None:
    assert verifies(HEADER, BODY, "new-secret", SECRET)


def test_another_secret_is_bad() -> None:
    assert not verifies(HEADER, BODY, "another")


def test_without_a_header_it_is_bad() -> None:
    assert not verify_sanity({}, BODY, [SECRET])


@given(st.integers(0, len(BODY) - 1), st.integers(1, 255))
def test_one_changed_byte_of_the_body_is_bad(position: int, flip: int) -> None:
    body = bytearray(BODY)
    body[position] ^= flip
    assert not verifies(HEADER, bytes(body))


@given(st.text(max_size=80))
def test_no_made_up_header_is_good(header: str) -> None:
    assert not verifies(header)
