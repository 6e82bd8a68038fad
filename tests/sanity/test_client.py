"""The Source, against the local Content Lake: real HTTP, real GROQ."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from sync_worker.domain.subjects import Subject
from sync_worker.errors import (
    ConfigurationError,
    CredentialsRefused,
    RateLimited,
    ServiceUnavailable,
    SyncWorkerError,
    UnreadableAnswer,
)
from sync_worker.sanity.client import TRANSACTIONS, Queries, Sanity, error_from_response, open_sanity, reads_only
from sync_worker.settings import packaged_groq
from sync_worker.transport import ServiceTransport, inner_transport
from tests.builders import created, reference
from tests.builders import entitlement as row_of
from tests.clock import TIMINGS, ImpatientClock
from tests.sizes import sizes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
USER = Subject.parse("user_1")


def course(document: str, slug: str) -> dict[str, Any]:
    return {"create": {"_id": document, "_type": "course", "slug": {"_type": "slug", "current": slug}}}


@pytest.fixture
async def source(box: Sandbox) -> AsyncIterator[Sanity]:
    async with source_of(box) as sanity:
        yield sanity


class source_of:  # noqa: N801 - reads as a function
    def __init__(self, box: Sandbox, **given: Any) -> None:
        transport = ServiceTransport(
            "Sanity",
            inner_transport(),
            {"Authorization": f"Bearer {given.get('token', box.lake.token)}"},
            error_from_response,
            ImpatientClock(),
            TIMINGS,
            is_read=reads_only,
            dry_run=True,
        )
        queries = Queries.load(given.get("folder", packaged_groq()))
        self.sanity, self._client = open_sanity(
            transport, queries, url=box.sanity_url, version="2025-02-19", dataset=given.get("dataset", box.lake.dataset)
        )

    async def __aenter__(self) -> Sanity:
        return self.sanity

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()


async def test_one_query_returns_rows_revisions_and_the_visible_count(box: Sandbox, source: Sanity) -> None:
    revision = await box.lake.mutate(
        [
            course("c1", "algebra"),
            created("e1", "user_1", plan="pro", courses=[reference("c1")]),
            created("e2", "user_1", clerkUserId="user_2"),
        ]
    )
    box.lake.requests.clear()
    snapshot = await source.by_subject([USER], ["e1", "gone"])
    assert [(row["_id"], row["plan"], row["courseSlugs"]) for row in snapshot.rows] == [("e1", "pro", ["algebra"])]
    assert {k: s.revision for k, s in snapshot.revisions.items()} == {"e1": revision}
    assert snapshot.visible == 2
    assert box.lake.requests.count() == 1


async def test_courses_come_from_the_entitlement_its_cohorts_and_its_plan(box: Sandbox, source: Sanity) -> None:
    await box.lake.mutate(
        [
            *(course(f"c{n}", f"course-{n}") for n in range(3)),
            {"create": {"_id": "plan-1", "_type": "plan", "slug": {"current": "team"}, "courses": [reference("c0")]}},
            {"create": {"_id": "cohort-1", "_type": "cohort", "courses": [reference("c1")]}},
            created(
                "e1", "user_1", plan=reference("plan-1"), cohorts=[reference("cohort-1")], courses=[reference("c2")]
            ),
        ]
    )
    (row,) = (await source.by_subject([USER], [])).rows
    assert row["plan"] == "team"
    assert sorted(row["courseSlugs"]) == ["course-0", "course-1", "course-2"]


async def test_a_deleted_or_null_course_is_dropped(box: Sandbox, source: Sanity) -> None:
    weak = {**reference("nowhere"), "_weak": True}
    await box.lake.mutate([created("e1", "user_1", courses=[weak, None])])
    (row,) = (await source.by_subject([USER], [])).rows
    assert row["courseSlugs"] == []


async def test_an_id_with_spaces_around_it_is_found_by_its_document(box: Sandbox, source: Sanity) -> None:
    await box.lake.mutate([created("e1", "user_1", clerkUserId="  user_1 ")])
    assert (await source.by_subject([USER], [])).rows == ()
    assert [row["_id"] for row in (await source.by_subject([USER], ["e1"])).rows] == ["e1"]


async def test_drafts_and_versions_are_not_published(box: Sandbox, source: Sanity) -> None:
    await box.lake.mutate([created("drafts.e1", "user_1"), created("versions.r1.e1", "user_1")])
    snapshot = await source.by_subject([USER], [])
    assert (snapshot.rows, snapshot.visible) == ((), 0)


async def test_a_hundred_subjects_and_expected_revisions_are_one_post(box: Sandbox, source: Sanity) -> None:
    await box.lake.mutate([created(f"e{n:03}", "user_1", clerkUserId=f"user_{n:028}") for n in range(100)])
    box.lake.requests.clear()
    snapshot = await source.by_subject(
        [Subject.parse(f"user_{n:028}") for n in range(100)], [f"e{n:03}-{'x' * 60}" for n in range(100)]
    )
    assert len(snapshot.rows) == 100
    assert [request.method for request in box.lake.requests.select()] == ["POST"]


async def test_pages_go_on_by_id_until_nothing_remains(box: Sandbox, source: Sanity) -> None:
    await box.lake.mutate([created(f"e{n:05}", "user_1") for n in range(1001)])
    first = await source.everything("")
    second = await source.everything(first.cursor)
    assert (len(first.rows), first.last, len(second.rows), second.last) == (1000, False, 1, True)


async def test_affected_returns_entitlements_and_the_documents_between(box: Sandbox, source: Sanity) -> None:
    await box.lake.mutate(
        [
            course("c1", "algebra"),
            {"create": {"_id": "plan-1", "_type": "plan", "courses": [reference("c1")]}},
            created("e1", "user_1", courses=[reference("c1")]),
            created("e2", "user_1", plan=reference("plan-1")),
        ]
    )
    direct = await source.affected(["c1"], "", ["c1"])
    assert ([row["_id"] for row in direct.rows], direct.between, direct.last) == (["e1"], ("plan-1",), True)
    through = await source.affected(direct.between, "", [])
    assert [row["_id"] for row in through.rows] == ["e2"]


async def test_the_document_store_is_ahead_of_the_index(box: Sandbox, source: Sanity) -> None:
    await box.lake.mutate([created("e1", "user_1")])
    box.lake.lag = 60.0
    revision = await box.lake.mutate([{"patch": {"id": "e1", "set": {"plan": "pro"}}}])
    snapshot = await source.by_subject([USER], ["e1"])
    stored = await source.stored(["e1", "gone"])
    assert snapshot.revisions["e1"].revision != revision
    assert stored.documents["e1"].revision == revision
    assert stored.missing == {"gone"}


async def test_a_wrong_token_is_reported_by_the_name_of_its_setting(box: Sandbox) -> None:
    async with source_of(box, token="wrong") as sanity:
        with pytest.raises(CredentialsRefused, match="SANITY_READ_TOKEN"):
            await sanity.by_subject([USER], [])


async def test_an_unknown_dataset_is_an_error_and_not_an_empty_result(box: Sandbox) -> None:
    async with source_of(box, dataset="elsewhere") as sanity:
        with pytest.raises(SyncWorkerError):
            await sanity.by_subject([USER], [])


async def test_a_query_that_does_not_parse_is_a_configuration_error(box: Sandbox, tmp_path: Path) -> None:
    for file in packaged_groq().glob("*.groq"):
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "by_subject.groq").write_text("*[_type ==")
    async with source_of(box, folder=tmp_path) as sanity:
        with pytest.raises(ConfigurationError, match="400"):
            await sanity.by_subject([USER], [])


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("rate_limited", RateLimited),
        ("internal", ServiceUnavailable),
        ("bad_gateway", ServiceUnavailable),
        ("unavailable", ServiceUnavailable),
        ("reset", ServiceUnavailable),
        ("truncated", SyncWorkerError),
        ("error_in_ok", UnreadableAnswer),
    ],
)
async def test_a_failed_read_is_an_error_and_never_an_empty_result(
    box: Sandbox, source: Sanity, fault: str, error: type[SyncWorkerError]
) -> None:
    box.lake.faults.next(fault, 10)
    with pytest.raises(error):
        await source.by_subject([USER], [])


async def test_a_transient_failure_is_retried(box: Sandbox, source: Sanity) -> None:
    box.lake.faults.next("unavailable")
    assert (await source.by_subject([USER], [])).visible == 0


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"by_subject\.groq"):
        Queries.load(tmp_path)


def test_both_queries_include_the_projection_from_its_own_file() -> None:
    queries = Queries.load(packaged_groq())
    assert "courseSlugs" in queries.by_subject
    assert "courseSlugs" in queries.everything
    assert "courseSlugs" not in (packaged_groq() / "by_subject.groq").read_text()


def answer(status: int, body: object) -> httpx.Response:
    return httpx.Response(status, json=body)


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (answer(400, {"error": {"type": "queryParseError", "description": "unexpected ]"}}), ConfigurationError),
        (answer(401, {"errorCode": "SIO-401-ANF", "message": "Session not found"}), CredentialsRefused),
        (answer(403, {"statusCode": 403, "error": "Forbidden", "message": "no"}), CredentialsRefused),
        (answer(404, {"message": "Dataset not found"}), ConfigurationError),
        (answer(402, {}), ConfigurationError),
        (answer(429, {}), RateLimited),
        (answer(504, {"error": "Gateway Time-Out"}), ServiceUnavailable),
        (httpx.Response(502, text="<html>"), ServiceUnavailable),
    ],
)
def test_each_refused_status_has_its_error(response: httpx.Response, error: type[Exception]) -> None:
    assert isinstance(error_from_response(response, None), error)


@pytest.mark.parametrize("members", sizes(1_000, 50_000))
async def test_of_an_organization_with_many_members_only_the_rows_of_the_batch_are_read(
    box: Sandbox, source: Sanity, members: int
) -> None:
    rows = [row_of(f"m{n:05}", f"user_{n:05}", clerkOrganizationId="org_1", plan="pro") for n in range(members)]
    await box.lake.load([*rows, row_of("whole", clerkOrganizationId="org_1", plan="team")])
    batch = [Subject.parse("org:org_1"), Subject.parse("membership:org_1/user_00007")]
    snapshot = await source.by_subject(batch, ())
    assert {row["_id"] for row in snapshot.rows} == {"whole", "m00007"}
    assert snapshot.visible == members + 1


async def test_a_log_whose_pages_meet_within_one_moment_is_read_to_its_end(
    box: Sandbox, source: Sanity, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"e{n:04}" for n in range(TRANSACTIONS + 5)]
    await box.lake.mutate([created(id_, "user_1") for id_ in ids])
    moment = box.lake.clock()
    monkeypatch.setattr(box.lake, "clock", lambda: moment)
    for id_ in ids:
        await box.lake.mutate([{"delete": {"id": id_}}], author="p-ada")
    since, until = (datetime.fromtimestamp(moment + seconds, UTC).isoformat() for seconds in (-60, 60))
    assert await source.deleted(since, until) == dict.fromkeys(ids, "p-ada")
