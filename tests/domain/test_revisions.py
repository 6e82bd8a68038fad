"""What several events about one document amount to, in whatever order and however often they arrive."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker.domain.revisions import (
    Ambiguous,
    Deleted,
    Deletion,
    ExpectedRevision,
    Updated,
    deletion_of,
    indirect,
    merge,
    microseconds,
    reports_delete,
    revision_of,
)

DOCUMENT, REVISIONS = st.just("d"), st.sampled_from(["r1", "r2"])
MOMENTS = st.none() | st.integers(-1, 2)
REPORTS = st.sampled_from([Deletion.INDIRECT, Deletion.REPORTED])


def expectations(deletions: st.SearchStrategy[Deletion]) -> st.SearchStrategy[ExpectedRevision]:
    return st.one_of(
        st.builds(Updated, DOCUMENT, REVISIONS, MOMENTS),
        st.builds(Deleted, DOCUMENT, REVISIONS, MOMENTS, deletions),
        st.builds(Ambiguous, DOCUMENT, MOMENTS, st.none() | deletions),
    )


events = expectations(REPORTS)
anything = st.builds(lambda one, served: replace(one, served=served), events, st.booleans())
histories = st.lists(events, min_size=1, max_size=5)


@given(anything, anything)
def test_the_order_of_two_does_not_matter(one: ExpectedRevision, other: ExpectedRevision) -> None:
    assert merge(one, other) == merge(other, one)


@given(anything)
def test_the_same_once_more_changes_nothing(one: ExpectedRevision) -> None:
    assert merge(one, one) == one


@given(histories, st.data())
def test_events_amount_to_the_same_in_any_order_and_repeated(
    history: list[ExpectedRevision], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations([*history, *data.draw(st.lists(st.sampled_from(history), max_size=3))]))
    assert reduce(merge, shuffled) == reduce(merge, history)


@given(histories)
def test_the_latest_moment_counts_with_its_one_revision_and_its_deletes(history: list[ExpectedRevision]) -> None:
    known = [one.updated_at for one in history if one.updated_at is not None]
    latest = [one for one in history if one.updated_at == max(known, default=None)]
    revisions = {revision_of(one) for one in latest}
    merged = reduce(merge, history)
    assert merged.updated_at == max(known, default=None)
    assert revision_of(merged) == (revisions.pop() if len(revisions) == 1 else None)
    assert deletion_of(merged) == max((d for one in latest if (d := deletion_of(one)) is not None), default=None)


@given(anything, st.builds(Deleted, DOCUMENT, REVISIONS, MOMENTS))
def test_a_new_delete_is_reported_unless_a_later_event_or_the_same_delete_was_there(
    known: ExpectedRevision, delete: Deleted
) -> None:
    moments = [-2 if moment is None else moment for moment in (known.updated_at, delete.updated_at)]
    deleted_before = known.served and deletion_of(known) is Deletion.REPORTED
    is_known = deleted_before and revision_of(known) == delete.revision
    may_be_news = moments[0] == moments[1] or (known.served and delete.updated_at is None)
    merged = merge(known, delete)
    if moments[0] < moments[1] or (may_be_news and not is_known):
        assert reports_delete(merged)
    else:
        assert merged == known


@given(events, events)
def test_what_was_served_is_overtaken_by_later_news_and_by_news_without_a_time(
    served: ExpectedRevision, news: ExpectedRevision
) -> None:
    known = replace(served, served=True)
    merged = merge(known, news)
    if news.updated_at is not None and (served.updated_at is None or news.updated_at > served.updated_at):
        assert merged == news
    elif news.updated_at is not None and news.updated_at < (served.updated_at or 0):
        assert merged == known
    elif revision_of(news) != revision_of(served):
        assert not merged.served


def test_an_event_that_comes_twice_is_no_news() -> None:
    for event in (Updated("d", "r1", 1), Deleted("d", "r1", 1), Updated("d", "r1"), Deleted("d", "r1")):
        known = replace(event, served=True)
        assert merge(known, event) == known


def test_the_delete_of_a_revision_that_was_served_is_news() -> None:
    assert merge(Updated("d", "r1", 1, served=True), Deleted("d", "r1", 1)) == Deleted("d", "r1", 1)
    assert merge(Updated("d", "r1", 1, served=True), Deleted("d", "r1")) == Ambiguous("d", 1, Deletion.REPORTED)


@given(anything)
def test_a_delete_reported_for_one_subject_is_no_news_for_another(expected: ExpectedRevision) -> None:
    inherited = indirect(expected)
    assert not reports_delete(inherited)
    assert (type(inherited), inherited.updated_at) == (type(expected), expected.updated_at)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("1970-01-01T00:00:01Z", 1_000_000),
        ("1970-01-01T00:00:01", 1_000_000),
        ("1970-01-01T01:00:00.000001+01:00", 1),
        ("1969-12-31T23:59:59Z", -1_000_000),
        ("yesterday", None),
        ("", None),
        (None, None),
    ],
)
def test_a_time_is_read_in_microseconds_or_is_unknown(text: str | None, read: int | None) -> None:
    assert microseconds(text) == read
