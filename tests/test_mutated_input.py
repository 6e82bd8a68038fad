"""Thousands of mutated rows and settings: no exception, no silent grant, each refusal names the place and reason."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st

from sync_worker.domain.entitlements import CORE_FIELDS, Entitlement, Field, MergeRule, Refusal
from sync_worker.domain.merge import is_active, merge
from sync_worker.errors import ConfigurationError
from sync_worker.formatting import at, rfc3339
from sync_worker.runtime.environment import load_valid_settings
from sync_worker.sanity.rows import read_row
from tests.sizes import examples

if TYPE_CHECKING:
    from sync_worker.settings import Settings

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
FIELDS = (
    Field("plan", MergeRule.HIGHEST, order=("basic", "pro")),
    *CORE_FIELDS[1:],
    Field("features", MergeRule.UNION),
)
ROW: dict[str, Any] = {
    "_id": "ent-1",
    "_rev": "r1",
    "_updatedAt": "2026-05-01T12:00:00Z",
    "clerkUserId": "user_1",
    "clerkOrganizationId": None,
    "userEmail": "ada@example.org",
    "userExternalId": "crm-7",
    "plan": "pro",
    "role": "member",
    "courseSlugs": ["algebra", "biology"],
    "features": ["beta"],
    "unresolved": 0,
    "startsAt": "2026-04-01T00:00:00Z",
    "endsAt": "2026-06-01",
    "status": "active",
}
SPECIAL = [
    "\u200b",
    "\u2060",
    "\u00ad",
    "\ufeff",
    "\n",
    "\t",
    "\x00",
    "\x1b[31m",
    "\u00a0",
    "\u202e",
    "\ud83d",
    ";",
    ".",
    "<",
]
ODD_TIMES = ["2027", "20270601", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00", "2026-02-30"]
ODD_NAMES = ["paused", "mailto:ada@example.org", "org_1", "user_2", "gold", "true", "null", "", " ", "x" * 1001]
odd_texts = st.sampled_from([*ODD_TIMES, "2026-05-01T12:00:00", *ODD_NAMES, *SPECIAL]) | st.text(max_size=12)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | odd_texts
odd_inserts = st.sampled_from(SPECIAL) | st.text(max_size=3)
odd_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def mutated_text(draw: st.DrawFn, text: str, inserted: st.SearchStrategy[str] = odd_inserts) -> str:
    """Insert something into a valid text, or around it."""
    position = draw(st.integers(0, len(text)))
    return text[:position] + draw(inserted) + text[position:]


@st.composite
def mutated_rows(draw: st.DrawFn) -> object:
    row = dict(ROW)
    for name in draw(st.lists(st.sampled_from(sorted(ROW)), min_size=1, max_size=4, unique=True)):
        value = row[name]
        if draw(st.booleans()) and isinstance(value, str):
            row[name] = draw(mutated_text(value))
        elif draw(st.integers(0, 9)) == 0:
            del row[name]
        else:
            row[name] = draw(odd_values)
    return row if draw(st.integers(0, 30)) else draw(odd_values)


@settings(max_examples=examples(10_000, share=20), deadline=None)
@given(mutated_rows())
def test_a_mutated_row_is_refused_with_a_reason_or_grants_what_it_shows(raw: Any) -> None:
    _, read = read_row(raw, FIELDS)
    access = merge([read] if isinstance(read, Entitlement) else [], FIELDS, NOW)
    for refusal in (*access.refusals, *([read] if isinstance(read, Refusal) else [])):
        assert refusal.document
        assert refusal.field in {*ROW, "row"}
        assert refusal.reason.isprintable()
        assert len(refusal.reason) > 10
    if isinstance(read, Refusal):
        return
    for moment in (read.starts_at, read.ends_at, read.updated_at):
        if moment is not None:
            assert rfc3339(moment.timestamp())
            assert at(moment.timestamp(), NOW.timestamp())
    if access.sources:
        assert_shown(raw, access.values)


def assert_shown(raw: dict[str, Any], values: Any) -> None:
    """Check by plain text what an active row grants, apart from the code under test."""
    named = [raw.get(n) for n in ("clerkUserId", "userExternalId", "userEmail", "clerkOrganizationId")]
    assert all(text.strip(" ").isprintable() for text in named if isinstance(text, str))
    for name in ("plan", "role"):
        given_ = raw.get(name)
        shown = given_.strip(" ") if isinstance(given_, str) else given_
        assert values.get(name) == (None if shown == "" else shown)
        assert str(values.get(name)).isprintable()
    assert values.get("plan") in ("basic", "pro", None)
    for name in ("courseSlugs", "features"):
        items = {item.strip(" ") for item in raw.get(name) or [] if isinstance(item, str)}
        assert set(values.get(name, ())) <= items
    assert raw.get("status") is None or raw["status"].strip(" ") in ("", "active")
    for name in ("startsAt", "endsAt"):
        text = (raw.get(name) or "").strip(" ")
        assert not text or re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9:.]+([Zz]|[+-][0-9]{2}:[0-9]{2}))?", text)


@settings(max_examples=examples(1_000), deadline=None)
@given(odd_values)
def test_no_odd_status_is_active(status: Any) -> None:
    _, read = read_row({**ROW, "status": status}, FIELDS)
    named = status.strip(" ") if isinstance(status, str) else status
    assert (isinstance(read, Entitlement) and is_active(read, NOW)) == (named in (None, "", "active"))


VALID = {
    "SANITY_PROJECT_ID": "p1",
    "SANITY_DATASET": "production",
    "SANITY_READ_TOKEN": "sk-token-of-a-viewer",
    "SANITY_WEBHOOK_SECRET": "planted-webhook-secret",
    "SANITY_API_VERSION": "2025-02-19",
    "SANITY_API_URL": "https://p1.api.sanity.io",
    "CLERK_SECRET_KEY": "sk_test_planted",
    "CLERK_WEBHOOK_SECRET": "whsec_c2FuZGJveC1jbGVyay13ZWJob29r",
    "CLERK_API_URL": "https://api.clerk.com",
    "PLAN_ORDER": "free,pro",
    "ROLE_ORDER": "member,admin",
    "EXTRA_FIELDS": "features=union",
    "PRIVATE_FIELDS": "role",
    "BASELINE_PLAN": "free",
    "METADATA_NAMESPACE": "access",
    "MAX_REVOCATIONS": "10%",
    "POLL_SECONDS": "300",
    "RECONCILE_AT": "03:30",
    "CLAIMS_BUDGET": "1000",
    "ADMIN_TOKEN": "planted-admin-token",
    "PORT": "8000",
    "LOG_FORMAT": "json",
}
SECRET = ("SANITY_READ_TOKEN", "SANITY_WEBHOOK_SECRET", "CLERK_SECRET_KEY", "CLERK_WEBHOOK_SECRET", "ADMIN_TOKEN")
in_environment = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
printable = st.characters(exclude_categories=["C", "Zl", "Zp", "Zs"], include_characters=" ")
printable_inserts = st.sampled_from([text for text in SPECIAL if text.isprintable()]) | st.text(printable, max_size=3)
slips = st.sampled_from(
    ["", " ", '["a"]', "a;b", "'a'", "v2025-02-19", "entitlementSync", "-1", "1e3", "²", "x,y", "http://"]
)
secrets = st.sampled_from(
    ["planted-short", "planted-one,two", '"planted-quoted-secret"', "planted-\u200bsecret-secret"]
)


@st.composite
def mutated_settings(draw: st.DrawFn) -> dict[str, str]:
    found = dict(VALID)
    for name in draw(st.lists(st.sampled_from(sorted(VALID)), min_size=1, max_size=3, unique=True)):
        inside = mutated_text(found[name], printable_inserts)
        found[name] = draw(
            (slips | in_environment | inside) if name not in SECRET else (secrets | in_environment | inside)
        )
    return found


@settings(max_examples=examples(10_000, share=50), deadline=None)
@given(mutated_settings())
def test_a_mutated_setting_is_refused_by_name_or_usable(environment: dict[str, str]) -> None:
    changed = {name for name, value in VALID.items() if environment[name] != value}
    with patch.dict(os.environ, environment, clear=True):
        read, problems = load_valid_settings()
    if not problems:
        usable(read)
        return
    assert changed
    for name, sentence in problems.items():  # one value may contradict another, which is then the one that is named
        assert name in VALID
        assert sentence.startswith(name)
        assert len(sentence) > len(name) + 8
        assert sentence.isprintable()
    shown = str(ConfigurationError("; ".join(problems.values())))
    assert not [name for name in SECRET if len(environment[name]) > 12 and environment[name] in shown]


def usable(read: Settings) -> None:
    """Derive what the program derives from its settings at the start."""
    assert read.layout.fields
    assert read.installation
    assert read.budget > 0
    for url in (read.sanity_url, read.clerk_api_url):
        assert httpx.URL(url).host
    for secret in (read.sanity_read_token, read.clerk_secret_key):
        httpx.Request("GET", "https://x.example", headers={"authorization": f"Bearer {secret.get_secret_value()}"})
    assert all(len(secret.get_secret_value()) >= 16 for secret in read.sanity_webhook_secret)
