"""Plausible mistakes in the GROQ files of another content model: each is reported, with the file and the line.

Documents of type "access" name a person behind a reference, whose access ends on a date. Slugs are localized, and the
reference to a course is inside an object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.domain.entitlements import CORE_FIELDS, Entitlement
from sync_worker.errors import GroqInvalid
from sync_worker.sanity.client import NAMES, Queries
from sync_worker.sanity.groq_checks import check_groq_files, refuse_wrong_queries
from sync_worker.sanity.groq_files import lines_of, load_query, place_of, scanning, types_of, unseen_types
from sync_worker.sanity.rows import read_row
from sync_worker.settings import packaged_groq
from tests.builders import reference
from tests.sanity.test_client import source_of

if TYPE_CHECKING:
    from pathlib import Path

    from sync_worker.sandbox.server import Sandbox
    from sync_worker.sanity.groq_checks import GroqReport

pytestmark = pytest.mark.anyio
NOW = "2026-01-01T00:00:00Z"
WHO = """"clerkUserId": holder->clerkId,
    "clerkOrganizationId": organisation,
    "userEmail": select(defined(holder->clerkId) => null, holder->mail)"""
TYPES = '["access", "tier", "person", "module"]'
TYPE = '"_type": select(_type == "access" => "entitlement", _type)'
FILES = {
    "entitlement": f"""{{
  _id, _rev, _updatedAt,
  {WHO},
  "userExternalId": null,
  "plan": tier->code,
  "role": seat,
  "courseSlugs": array::compact(coalesce(items[].module->slug.en.current, [])),
  "unresolved": count(coalesce(items[], [])[defined(@) && !defined(@.module->slug.en.current)]),
  "startsAt": null,
  "endsAt": validUntil,
  "status": select(state == "live" => "active", state)
}}""",
    "by_subject": """// Another model's.
{
  "entitlements": [
    ...*[_type == "access" && holder._ref in *[_type == "person" && clerkId in $users]._id],
    ...*[_type == "access" && organisation in $organizations && !defined(holder)],
    ...*[_type == "access" && holder._ref in *[_type == "person" && mail in $emails]._id],
    ...*[_type == "access" && _id in $documents]
  ]
  // include entitlement.groq
  ,
  "revisions": *[_id in $documents]{_id, _rev, _updatedAt},
  "visible": count(*[_type == "access"]),
  "addressed": count(*[_type == "access" && defined(holder)]),
  "addressedMembers": count(*[_type == "access" && defined(organisation) && defined(holder)])
}""",
    "by_address": """{"entitlements": *[
  _type == "access" && count(string::split(lower(holder->mail), " ")[@ in $emails]) > 0] | order(_id) {_id}
}""",
    "everything": """{
  "entitlements": *[_type == "access" && _id > $after] | order(_id) [0...1000]
  // include entitlement.groq
  ,
  "remaining": count(*[_type == "access" && _id > $after])
}""",
    "affected": f"""{{
  "entitlements": *[_type == "access" && _id > $after && (_id in $documents || references($documents))]
    | order(_id) [0...1000] {{_id, {WHO}}},
  "remaining": count(*[_type == "access" && _id > $after && (_id in $documents || references($documents))]),
  "between": *[_type in ["tier", "person"] && references($documents)]._id
}}""",
    "changed": f"""{{
  "changed": *[_type in {TYPES} && _updatedAt < $before
    && (_updatedAt > $since || (_updatedAt == $since && _id > $after))] | order(_updatedAt, _id) [0...500] {{
    _id, {TYPE}, _rev, _updatedAt, {WHO}
  }}
}}""",
    "webhook_filter": f"""(before()._type in {TYPES} || after()._type in {TYPES})
  && !(coalesce(after()._id, before()._id) in path("drafts.**"))""",
    "webhook_projection": f"""{{
  "operation": delta::operation(),
  "projectId": sanity::projectId(),
  "dataset": sanity::dataset(),
  "id": coalesce(after()._id, before()._id),
  "type": select(coalesce(after()._type, before()._type) == "access" => "entitlement", "other"),
  "rev": coalesce(after()._rev, before()._rev),
  "updatedAt": coalesce(after()._updatedAt, before()._updatedAt),
  "before": before(){{{TYPE}, {WHO}}},
  "after": after(){{{TYPE}, {WHO}}}
}}""",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / f"{name}.groq").write_text(text)
    return tmp_path


@pytest.fixture
async def content(box: Sandbox) -> Sandbox:
    people = {"ada": {"clerkId": "user_ada"}, "alan": {"mail": "alan@example.org"}}
    slugs = {language: {"_type": "slug", "current": f"knit-{language}"} for language in ("en", "de")}
    items = [{"_key": "1", "module": reference("module-1")}]
    rows: list[dict[str, Any]] = [
        {"_id": "module-1", "_type": "module", "slug": slugs},
        {"_id": "tier-1", "_type": "tier", "code": "gold"},
        *({"_id": f"person-{name}", "_type": "person", **fields} for name, fields in people.items()),
        *(
            {"_id": f"access-{name}", "_type": "access", "holder": reference(f"person-{name}"), "items": items}
            for name in people
        ),
        {"_id": "access-school", "_type": "access", "organisation": "org_school", "items": items},
    ]
    given = {"tier": reference("tier-1"), "seat": "student", "validUntil": "2099-06-30", "state": "live"}
    rows = [{**row, **(given if row["_type"] == "access" else {})} for row in rows]
    await box.lake.mutate([{"create": row} for row in rows])
    return box


def edit(folder: Path, file: str, old: str, new: str) -> None:
    path = folder / f"{file}.groq"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


async def check(box: Sandbox, folder: Path) -> GroqReport:
    async with source_of(box, folder=folder) as sanity:
        return await check_groq_files(sanity, Queries.load(folder), folder, CORE_FIELDS, NOW)


def texts(report: GroqReport) -> str:
    return "\n".join(one.text for one in (*report.problems_with("both"), *report.warnings))


async def test_another_model_is_read_and_nothing_is_reported(content: Sandbox, folder: Path) -> None:
    assert texts(await check(content, folder)) == ""
    async with source_of(content, folder=folder) as sanity:
        await refuse_wrong_queries(sanity, CORE_FIELDS)
        rows = [read_row(raw, CORE_FIELDS) for raw in (await sanity.everything("")).rows]
    assert [str(subject) for subject, _ in rows] == ["user:user_ada", "email:alan@example.org", "org:org_school"]
    assert all(isinstance(row, Entitlement) and row.values["courseSlugs"] == ("knit-en",) for _, row in rows)


MISTAKES = [
    ("by_subject", '"access" && organisation', '"acces" && organisation', "access-school, but by_subject.groq"),
    ("by_subject", '"person" && mail', '"persons" && mail', "access-alan, but by_subject.groq does not find it"),
    ("by_subject", '"access" && _id in', '"acces" && _id in', "does not find access-ada by its _id, in $documents"),
    ("by_subject", 'count(*[_type == "access"])', "0", 'by_subject.groq: "visible" is 0, but everything.groq'),
    ("by_subject", 'count(*[_type == "access" && defined(holder)])', "0", '"addressed" is 0, but access-alan'),
    ("by_subject", "  // include entitlement.groq\n", "", 'by_subject.groq returns access-ada without "clerkUserId", '),
    ("by_subject", "mail in $emails", "lower(mail) in $emails", "by_subject.groq, line 6: lower() in a filter"),
    ("by_subject", '*[_type == "access" && holder._ref in *[_type == "person" && clerkId in $users]._id]',
     '*[_type == "access" && holder->clerkId in $users]', "by_subject.groq, line 4: -> in a filter reads all"),
    ("changed", '"access", "tier"', '"acces", "tier"', "changed.groq does not find access-ada"),
    ("changed", '"person", ', "", 'by_subject.groq, line 4: "person" is not among the types of changed.groq'),
    ("webhook_filter", '"tier", ', "", 'affected.groq, line 7: "tier" is not among the types of webhook_filter.groq'),
    ("affected", '["tier"', '["tiers"', 'affected.groq, line 7: "tiers" is not among the types of changed.groq and'),
    ("entitlement", '"plan": tier->code', '"plan": tier', 'entitlement.groq, line 7: "plan" is an object'),
    ("entitlement", 'select(state == "live" => "active", state)', "state",
     'entitlement.groq, line 13: "status" is live (3 rows), and not "active" in any row'),
    ("webhook_projection", f"before(){{{TYPE}", "before(){_type", '"_type" of "before" of access-ada is access'),
    ("webhook_projection", '  "projectId": sanity::projectId(),\n', "", '"projectId" is missing'),
    ("webhook_projection", "delta::operation()", "operation", '"operation" of access-ada is missing'),
]  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: f"{mistake[0]}: {mistake[3]}")
async def test_a_mistake_is_reported(content: Sandbox, folder: Path, mistake: tuple[str, str, str, str]) -> None:
    *where, said = mistake
    edit(folder, *where)
    assert said in texts(await check(content, folder))


@pytest.mark.parametrize("change", ["organisation in $organizations", "mail in $emails", "// include entitlement.groq"])
async def test_a_worker_does_not_start_with_a_query_that_would_take_access(
    content: Sandbox, folder: Path, change: str
) -> None:
    edit(folder, "by_subject", change, "" if change.startswith("//") else "false")
    async with source_of(content, folder=folder) as sanity:
        with pytest.raises(GroqInvalid, match=r"by_subject\.groq"):
            await refuse_wrong_queries(sanity, CORE_FIELDS)


async def test_a_type_without_documents_is_reported_with_those_that_have_some(content: Sandbox, folder: Path) -> None:
    for name in NAMES:
        edit(folder, name, '"access"', '"acces"')
    said = 'everything.groq, line 2: no document of type "acces" is published; the dataset has access, module, person,'
    assert said in texts(await check(content, folder))


@pytest.mark.parametrize(
    "mistake",
    [
        ("by_subject", "$users", "$user", "by_subject.groq: Sanity answered 400: .*; see by_subject.groq, line 4"),
        ("entitlement", '"role": seat,', '"role": seat $role', "see entitlement.groq, line"),
        ("by_subject", '  "visible"', '  "seen"', 'by_subject.groq: the query did not return "visible" as a number'),
        ("by_subject", '  "revisions"', '  "revs"', 'by_subject.groq: the query did not return "revisions" as a list'),
        ("by_subject", "include entitlement.groq", "include entitlements.groq", "entitlements.groq cannot be read"),
        ("by_subject", "include entitlement.groq", "include by_subject.groq", "by_subject.groq includes itself"),
        ("webhook_filter", "drafts.**", '"', "webhook_filter.groq: Sanity answered 400"),
    ],
)
async def test_an_error_in_the_text_names_the_file_and_says_to_correct_it(
    content: Sandbox, folder: Path, mistake: tuple[str, str, str, str]
) -> None:
    *where, said = mistake
    edit(folder, *where)
    with pytest.raises(GroqInvalid, match=said) as raised:
        await check(content, folder)
    assert "content-model.md" in raised.value.next_step()
    assert "settings.md" not in raised.value.next_step()


async def test_a_model_that_does_not_count_its_unresolved_references_is_a_warning(
    content: Sandbox, folder: Path
) -> None:
    edit(folder, "entitlement", '"unresolved": count(', '"unresolvd": count(')
    report = await check(content, folder)
    assert [one.text for one in report.problems_with("webhook")] == []
    assert 'entitlement.groq returns no "unresolved"' in texts(report)


# The text alone.


@pytest.mark.parametrize("folder_", [packaged_groq(), packaged_groq() / "examples" / "memberships"])
def test_the_files_of_the_package_have_nothing_to_report(folder_: Path) -> None:
    assert [*unseen_types(folder_, NAMES)] == []
    assert {name for name in NAMES[:-2] if [*scanning(folder_, f"{name}.groq")]} == {"by_address"}
    for name in NAMES:
        query = load_query(folder_, f"{name}.groq")
        assert query == "".join(line.text for line in lines_of(folder_, f"{name}.groq")).strip()
        assert "//" not in query


def test_a_position_in_a_query_leads_to_the_line_of_the_file_it_came_from(folder: Path) -> None:
    query = load_query(folder, "by_subject.groq")
    found = {text: place_of(folder, "by_subject.groq", query.index(text)) for text in ("$users", "seat", '"addressed"')}
    assert found == {
        "$users": "by_subject.groq, line 4",
        "seat": "entitlement.groq, line 8",
        '"addressed"': "by_subject.groq, line 13",
    }
    assert place_of(folder, "by_subject.groq", 10**6) == "by_subject.groq, line 15"
    assert types_of(folder, "by_subject.groq") == {
        "access": "by_subject.groq, line 4",
        "person": "by_subject.groq, line 4",
    }


@pytest.mark.parametrize(
    ("condition", "scans"),
    [
        ('_type == "a" && lower(x) in $list', True),
        ('_type == "a" && x->y in $list', True),
        ('_type == "a" && x._ref in *[_type == "b" && y in $list]._id', False),
        ('_type == "a" && x._ref in *[_type == "b" && lower(y) in $list]._id', True),
        ('_type == "a" && defined(x) && references($list)', False),
        ('_type == "a" && x == "lower(x) -> ]"', False),
        ('!(_id in path("drafts.**"))', False),
    ],
)
def test_a_filter_that_computes_over_an_attribute_scans(tmp_path: Path, condition: str, *, scans: bool) -> None:
    (tmp_path / "q.groq").write_text(f'*[{condition}]{{_id, "x": x->y, "z": lower(z)}}')
    assert bool([*scanning(tmp_path, "q.groq")]) is scans
