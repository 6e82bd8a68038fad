from __future__ import annotations

import base64
import json
import string
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker.webhooks.signatures import SANITY_HEADER, sign_sanity, verify_sanity, verify_svix

VECTORS: dict[str, Any] = json.loads(Path(__file__).parents[1].joinpath("data", "sanity-signature.json").read_text())
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


OF_HEADERS = [
    behaviour
    for behaviour in VECTORS["library_behaviours"]
    if isinstance(behaviour.get("header"), str) and not {"payload", "secret"} & behaviour.keys()
]


@pytest.mark.parametrize("behaviour", OF_HEADERS, ids=lambda b: b["label"][:40])
def test_only_the_header_exactly_as_sanity_writes_it_is_good(behaviour: dict[str, Any]) -> None:
    header = behaviour["header"]
    good = bool(behaviour.get("isValidSignature")) or header == HEADER
    assert verifies(header) == (good and header == header.strip())


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


SVIX: dict[str, Any] = json.loads(Path(__file__).parents[1].joinpath("data", "svix.json").read_text())


@pytest.fixture
def svix_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock of Svix's package at the moment of its vectors."""

    class Frozen(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.fromtimestamp(SVIX["now"], tz)

    monkeypatch.setattr("standardwebhooks.webhooks.datetime", Frozen)


@pytest.mark.usefixtures("svix_now")
@pytest.mark.parametrize("vector", SVIX["vectors"] + SVIX["negative"], ids=lambda v: v["name"])
def test_exactly_what_svix_signed_is_good(vector: dict[str, Any]) -> None:
    good = verify_svix(vector["headers"], vector["body"].encode(), [vector["secret"]])
    assert good == (vector["expect"] == "valid")


@pytest.mark.usefixtures("svix_now")
def test_either_of_two_svix_secrets_is_good_during_rotation() -> None:
    vector = SVIX["vectors"][0]
    other = "whsec_" + base64.b64encode(b"another secret").decode()
    assert verify_svix(vector["headers"], vector["body"].encode(), [other, vector["secret"]])


MUTATIONS = 10_000


def mutated(random: Random, text: str) -> str:
    """Return `text` with one to three characters changed, put in, taken out or doubled."""
    characters = list(text)
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(characters)) if characters else 0
        other = random.choice(string.printable + "é\x00\x7f")
        match random.randrange(4):
            case 0 if characters:
                characters[at] = other
            case 1 if characters:
                del characters[at]
            case 2 if characters:
                characters.insert(at, characters[at])
            case _:
                characters.insert(at, other)
    return "".join(characters)


def test_no_mutation_of_what_sanity_signed_is_good() -> None:
    random, accepted = Random(1), []
    for _ in range(MUTATIONS):
        header, body = HEADER, BODY.decode()
        if random.random() < 0.5:
            header = mutated(random, header)
        else:
            body = mutated(random, body)
        if (header, body) != (HEADER, BODY.decode()) and verifies(header, body.encode()):
            accepted.append((header, body))
    assert not accepted


@pytest.mark.usefixtures("svix_now")
def test_no_mutation_of_what_svix_signed_is_good() -> None:
    random, accepted = Random(2), []
    names = ("svix-id", "svix-timestamp", "svix-signature")
    for _ in range(MUTATIONS):
        vector = random.choice(SVIX["vectors"])
        headers = {name: vector["headers"][name] for name in names}
        body, changed = vector["body"], random.choice((*names, "body"))
        if changed == "body":
            body = mutated(random, body)
        else:
            headers[changed] = mutated(random, headers[changed])
        is_changed = body != vector["body"] or any(headers[name] != vector["headers"][name] for name in names)
        if is_changed and verify_svix(headers, body.encode(), [vector["secret"]]):
            accepted.append((changed, headers))
    assert [case for case in accepted if not _is_another_of_two(*case)] == []


def _is_another_of_two(changed: str, headers: dict[str, str]) -> bool:
    """During rotation a header holds two signatures, and one of them is enough: the other may be anything."""
    whole = [v["headers"]["svix-signature"] for v in SVIX["vectors"] if " " in v["headers"]["svix-signature"]]
    signatures = {signature for header in whole for signature in header.split(" ")}
    return changed == "svix-signature" and bool(signatures & set(headers[changed].split(" ")))
