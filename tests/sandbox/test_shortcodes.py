"""Each rule of Clerk's page on JWT templates, with the page's own examples."""

from __future__ import annotations

from typing import Any

import pytest

from sync_worker.sandbox.shortcodes import render

ROOTS = {
    "user": {
        "first_name": "John",
        "last_name": None,
        "email_verified": False,
        "public_metadata": {"plan": "pro", "interests": ["hiking"], "seats": 0, "note": "", "courses": [], "on": True},
    }
}


@pytest.mark.parametrize(
    ("template", "claim"),
    [
        ("{{user.public_metadata.plan}}", "pro"),
        ("{{ user.public_metadata.plan }}", "pro"),
        ("{{user.public_metadata.interests}}", ["hiking"]),
        ("{{user.public_metadata.seats}}", 0),
        ("{{user.i_dont_exist}}", None),
        ("{{user.public_metadata.no.such.path}}", None),
        ("{{user.last_name}} {{user.first_name}}", "null John"),
        ("on: {{user.public_metadata.on}}", "on: true"),
        ("{{user.last_name || 'Awesome User'}}", "Awesome User"),
        ("{{user.last_name || user.public_metadata.age || 30 }}", 30),
        ("{{user.email_verified || user.last_name}}", None),
        ("{{user.email_verified || true}}", True),
        ("{{user.last_name || 'a || b'}}", "a || b"),
        ("{{user.public_metadata.seats || 5}}", 0),
        ("{{user.public_metadata.note || 'x'}}", ""),
        ("{{user.public_metadata.courses || 'x'}}", []),
        ("{{org.public_metadata.plan}}", None),
        ("{{organization.public_metadata.plan}}", "{{organization.public_metadata.plan}}"),
        ("{{user.private_metadata.plan}}", None),
        ({"a": ["{{user.first_name}}", 1, None]}, {"a": ["John", 1, None]}),
    ],
)
def test_a_shortcode_becomes_what_clerk_documents(template: Any, claim: Any) -> None:
    assert render(template, ROOTS) == claim


def test_an_unknown_root_stays_text_also_inside_other_text() -> None:
    assert render("at {{organization.name}} as {{user.first_name}}", ROOTS) == "at {{organization.name}} as John"
