"""Hypothesis strategies: JSON and bytes that nobody sends by mistake."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Mapping

    Shape = st.SearchStrategy[dict[str, Any]]

MARK = "hostile-7f3a"
"""It is in what is sent, and must not come back."""

texts = st.one_of(
    st.text(),
    st.sampled_from(
        [
            MARK,
            "user_1",
            " user_1 ",
            "user_1\x00",
            "user_\u0661",
            "user_1/../../organizations/org_1",
            "org_1",
            "ada@example.com",
            "ADA@EXAMPLE.COM ",
            "ada@example.com\x00",
            "-ext-1",
            "+",
            "e1",
            "drafts.e1",
            "\ud800",
            "\u202eadmin",
            "'; DROP TABLE subjects; --",
            "%00%2e%2e",
            "2026-05-01T12:00:00Z",
            "0001-01-01T00:00:00",
            "9999-12-31T23:59:59-23:59",
            "9999-99-99T99:99:99Z",
            "public..plan",
        ]
    ),
    st.integers(250, 5_000).map(lambda size: "user_" + "9" * size),
)
numbers = st.one_of(
    st.integers(), st.floats(), st.sampled_from([10**400, -(10**30), 2**63, 2**64, 1e308, -0.0, 0.1 + 0.2])
)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
"""Any JSON, and the NaN that Python's reader takes for JSON."""

anything = texts | values
subject_fields = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "clerkUserId": anything,
        "clerkOrganizationId": anything,
        "userEmail": anything,
        "userExternalId": anything,
        MARK: values,
    },
)
DELIVERY: Mapping[str, st.SearchStrategy[Any]] = {
    "v": st.just(1),
    "operation": st.sampled_from(["create", "update", "delete"]),
    "projectId": st.just("sandbox"),
    "dataset": st.just("production"),
    "id": st.sampled_from(["e1", "e2", "course-1", "gone"]),
    "type": st.sampled_from(["entitlement", "course", MARK]),
    "rev": st.none() | st.sampled_from(["r1", "r2", ""]),
    "updatedAt": st.none() | st.sampled_from(["2026-05-01T12:00:00Z", "", "9999-12-31T23:59:59.999999Z", "+:.-TZ"]),
    "before": subject_fields,
    "after": subject_fields,
}
objects = st.fixed_dictionaries(
    {"id": st.sampled_from(["user_1", "org_1", "user_gone"])},
    optional={
        "organization": st.just({"id": "org_1"}) | values,
        "public_user_data": st.just({"user_id": "user_1"}) | values,
        "public_metadata": st.just({}) | values,
        "private_metadata": st.fixed_dictionaries(
            {
                "entitlementSync": st.fixed_dictionaries(
                    {"at": anything, "fingerprint": anything, "sources": anything},
                    optional={"slots": st.lists(anything, max_size=3)},
                )
            }
        )
        | values,
        "email_addresses": values,
    },
)
EVENT: Mapping[str, st.SearchStrategy[Any]] = {
    "object": st.just("event"),
    "type": st.sampled_from(["user.created", "user.updated", "user.deleted", "organization.updated", MARK])
    | st.just("organizationMembership.deleted"),
    "data": objects,
    "instance_id": st.just("ins_sandbox"),
    "timestamp": numbers,
}


@st.composite
def shaped(draw: st.DrawFn, fields: Mapping[str, st.SearchStrategy[Any]], *, wrong: int = 3) -> dict[str, Any]:
    """A body of our shape with up to `wrong` fields that hold anything, or are not there."""
    body = {name: draw(strategy) for name, strategy in fields.items()}
    for name in draw(st.lists(st.sampled_from(sorted(fields)), max_size=wrong)):
        if draw(st.booleans()):
            body.pop(name, None)
        else:
            body[name] = draw(values)
    return body


@st.composite
def _repeated_keys(draw: st.DrawFn, shape: Shape) -> bytes:
    return (json.dumps({"": 0, **draw(shape)})[:-1] + "," + json.dumps({"": 0, **draw(shape)})[1:]).encode()


@st.composite
def _damaged(draw: st.DrawFn, shape: Shape) -> bytes:
    raw = bytearray(json.dumps(draw(shape)).encode())
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw)))
        raw[at : at + draw(st.integers(0, 5))] = draw(st.binary(max_size=5))
    return bytes(raw)


def bodies(fields: Mapping[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[bytes]:
    """Bytes that are JSON of this shape, almost so, or nothing of the kind."""
    sane = shaped(fields, wrong=0)
    encodings = st.sampled_from(["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-7", "cp037"])
    return st.one_of(
        st.binary(max_size=2_000),
        values.map(lambda value: json.dumps(value).encode()),
        shaped(fields).map(lambda body: json.dumps(body).encode()),
        _repeated_keys(sane),
        _damaged(sane),
        st.builds(lambda body, encoding: json.dumps(body).encode(encoding), sane, encodings),
        sane.map(lambda body: gzip.compress(json.dumps(body).encode())),
        st.integers(1, 10_000).map(lambda depth: b'{"after":' * depth),
        st.integers(1, 60_000).map(lambda depth: b"[" * depth + b"]" * depth),
        st.integers(4_000, 9_000).map(lambda digits: b'{"id":' + b"9" * digits + b"}"),
    )
