"""The worker and the sandbox each render shortcodes by Clerk's documentation; here they are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker.clerk.shortcodes import has_loose_braces, render, shortcodes
from sync_worker.sandbox import shortcodes as sandbox

if TYPE_CHECKING:
    from typing import Any

ROOTS: dict[str, Any] = {
    "user": {"id": "user_1", "n": 0, "no": False, "none": None, "public_metadata": {"plan": "pro", "c": ["a"]}},
    "org": {"slug": "school", "public_metadata": {}},
}
PATHS = (
    *("user.id", "user.n", "user.no", "user.none", "user.public_metadata", "user.public_metadata.plan"),
    *("user.public_metadata.c", "user.public_metadata.x.y", "user.id.x", "org.slug", "org_membership.role"),
    *("organization.slug", "plan", "user public", ""),
)
LITERALS = ("'text'", "'a || b'", "''", "7", "-1.5", "true", "false", "null")
operands = st.sampled_from((*PATHS, *LITERALS))
expressions = st.lists(operands, min_size=1, max_size=3).map(" || ".join)
texts = st.lists(
    st.one_of(expressions.map("{{{{{}}}}}".format), st.sampled_from(["", " ", "at ", "{", "}}", "{{"])), max_size=3
).map("".join)
templates = st.recursive(
    st.one_of(texts, st.none(), st.booleans(), st.integers()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
)


@given(templates)
def test_both_implementations_render_the_same(template: object) -> None:
    assert render(template, ROOTS) == sandbox.render(template, ROOTS)


@pytest.mark.parametrize(
    ("text", "is_resolved"),
    [
        ("{{user.public_metadata.plan || 'free'}}", True),
        ("{{org_membership.public_metadata.seat}}", True),
        ("{{organization.public_metadata.plan}}", False),
        ("{{user.id || plan}}", False),
        ("{{}}", False),
    ],
)
def test_a_shortcode_is_resolved_if_all_its_roots_are_known(text: str, is_resolved: bool) -> None:
    (shortcode,) = shortcodes(text)
    assert shortcode.is_resolved is is_resolved
    assert str(shortcode) == text


@pytest.mark.parametrize(("text", "loose"), [("{{user.id}}", False), ("{{user.id", True), ("user.id}}", True)])
def test_braces_without_a_partner_are_noticed(text: str, loose: bool) -> None:
    assert has_loose_braces(text) is loose
