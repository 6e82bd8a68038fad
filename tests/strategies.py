"""Hypothesis strategies for the pure core: any rows, any metadata, in small alphabets so that values collide."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from sync_worker.domain.entitlements import (
    CORE_FIELDS,
    Entitlement,
    Field,
    Layout,
    Marker,
    MergeRule,
    Observed,
    Placement,
)
from sync_worker.domain.subjects import Kind, Subject

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
USER = Subject(Kind.USER, "user_1")
PLANS = ("free", "pro", "team")

moments = st.integers(-3, 3).map(lambda hours: NOW + timedelta(hours=hours))
slugs = st.lists(st.sampled_from(["algebra", "biology", "chemistry", "drawing"]), max_size=4).map(
    lambda items: tuple(sorted(set(items)))
)
values = st.fixed_dictionaries(
    {},
    optional={
        "plan": st.sampled_from((*PLANS, "root")),
        "role": st.sampled_from(("member", "admin")),
        "courseSlugs": slugs,
    },
)
entitlements = st.builds(
    Entitlement,
    id=st.integers(0, 10_000).map(lambda n: f"ent-{n}"),
    revision=st.just("r1"),
    updated_at=moments,
    subject=st.just(USER),
    values=values,
    starts_at=st.none() | moments,
    ends_at=st.none() | moments,
    status=st.sampled_from((None, "active", "paused")),
)
rows = st.lists(entitlements, max_size=6, unique_by=lambda row: row.id)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    order = draw(st.sampled_from(((), PLANS)))
    baseline = draw(st.sampled_from((None, "free")))
    private = draw(st.sets(st.sampled_from(("plan", "role", "courseSlugs"))))
    return Layout(
        tuple(
            Field(
                f.name,
                f.rule,
                Placement.PRIVATE if f.name in private else Placement.PUBLIC,
                order if f.name == "plan" else (),
                baseline if f.name == "plan" else None,
            )
            for f in CORE_FIELDS
        ),
        namespace=draw(st.sampled_from((None, "access"))),
    )


scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(("", "pro", "x"))
unmanaged_keys = st.dictionaries(
    st.sampled_from(("theme", "stripeId", "nested", "plan2")),
    scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.sampled_from(("a", "b")), scalars, max_size=2),
    max_size=3,
)
"""Metadata of other writers; a key that holds null cannot be in Clerk, whose merge removes it."""


@st.composite
def observations(draw: st.DrawFn, *, unmanaged_plan: bool = True) -> Observed:
    public = {k: v for k, v in draw(unmanaged_keys).items() if v is not None}
    private = {k: v for k, v in draw(unmanaged_keys).items() if v is not None}
    if unmanaged_plan and draw(st.booleans()):
        public["plan"] = draw(st.sampled_from(("free", "pro", "by-hand")))
    marker = Marker("", Layout(CORE_FIELDS).slots, ("ent-0",), "0" * 16, "2026-01-01T00:00:00+00:00")
    return Observed(USER, public, private, {None: marker} if draw(st.booleans()) else {})


UNION_FIELD = Field("features", MergeRule.UNION)
