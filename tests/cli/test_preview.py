"""`reconcile --dry-run --perspective`: what publishing drafts or a release would change, person by person."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.sandbox.traffic import WRITES
from sync_worker.settings import packaged_groq
from tests.builders import created, entitlement, reference

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox
    from tests.cli.terminal import Operator

pytestmark = pytest.mark.anyio
RELEASE = "rAbc123"


def release(name: str = RELEASE, **fields: Any) -> dict[str, Any]:
    document = {"_id": f"_.releases.{name}", "_type": "system.release", "name": name, "state": "active", **fields}
    return {"create": document}


def version(document: dict[str, Any], name: str = RELEASE) -> dict[str, Any]:
    return {"create": {**document, "_id": f"versions.{name}.{document['_id']}"}}


def unpublishing(document: str, name: str = RELEASE) -> dict[str, Any]:
    return version({"_id": document, "_type": "entitlement", "_system": {"delete": True}}, name)


async def published(box: Sandbox, operator: Operator, *mutations: dict[str, Any], users: int = 4) -> None:
    """Publish, and let Clerk have it."""
    for number in range(1, users + 1):
        box.clerk.add_user(f"user_{number}")
    await box.lake.mutate(list(mutations))
    code, _ = await operator.reconcile()
    assert code == 0


async def previewed(operator: Operator, *arguments: str, **environment: str) -> dict[str, tuple[str, Any, Any]]:
    """Return kind, before and after by subject."""
    for service in (operator.box.clerk, operator.box.lake):
        service.requests.clear()
    code, result = await operator.reconcile("--dry-run", *arguments, **environment)
    assert "error" not in result, result
    assert_nothing_was_changed(operator.box)
    assert code == (2 if result["changes"] else 0)
    return {one["subject"]: (one["change"], one["before"], one["after"]) for one in result["changes"]}


def assert_nothing_was_changed(box: Sandbox) -> None:
    """Both services received nothing but reads: a long query is posted, but never to an endpoint that changes."""
    for service in (box.clerk, box.lake):
        assert service.requests.count() > 0
        writes = [request for request in service.requests.requests if request.method in WRITES]
        assert [request.path for request in writes if "/data/query/" not in request.path] == []


def promote(box: Sandbox) -> list[dict[str, Any]]:
    """Return the mutations that publish the release."""
    prefix = f"versions.{RELEASE}."
    versions = [one for id_, one in box.lake.documents.items() if id_.startswith(prefix)]
    mutations: list[dict[str, Any]] = []
    for one in versions:
        id_ = one["_id"].removeprefix(prefix)
        gone = one.get("_system", {}).get("delete")
        mutations += [{"delete": {"id": id_}} if gone else {"createOrReplace": {**one, "_id": id_}}]
        mutations += [{"delete": {"id": one["_id"]}}]
    return mutations


async def test_what_a_release_will_change_is_foretold_person_by_person(box: Sandbox, operator: Operator) -> None:
    """Grants, changes, a plan's new slug, a downgrade, an unpublished document, an address and an organization."""
    plan = {"_id": "plan-1", "_type": "plan", "slug": {"current": "pro"}}
    courses = [{"_id": f"c-{slug}", "_type": "course", "slug": {"current": slug}} for slug in ("algebra", "biology")]
    box.clerk.add_user("user_5", email="ada@example.org")
    box.clerk.add_user("user_6", public_metadata={"plan": "basic", "theme": "dark"})
    box.clerk.add_organization("org_1")
    await published(
        box,
        operator,
        *({"create": one} for one in (plan, *courses)),
        created("e1", "user_1", plan=reference("plan-1")),
        created("e2", "user_2", plan="pro", courses=[reference("c-algebra"), reference("c-biology")]),
        created("e3", "user_3", plan="pro"),
        created("e7", "user_3", plan="basic"),
    )
    window = {"startsAt": "2098-01-01T00:00:00Z", "endsAt": "2100-01-01T00:00:00Z"}
    address = {"_id": "e5", "_type": "entitlement", "userEmail": "ada@example.org", "role": "member"}
    school = {"_id": "e8", "_type": "entitlement", "clerkOrganizationId": "org_1", "plan": "team"}
    await box.lake.mutate(
        [
            release(),
            version({**plan, "slug": {"current": "team"}}),
            version(entitlement("e2", "user_2", plan="basic", courses=[reference("c-algebra")])),
            unpublishing("e3"),
            version(entitlement("e4", "user_4", plan="basic", courses=[reference("c-biology")])),
            version(address),
            version(entitlement("e6", "user_6", plan="pro")),
            version(school),
            version(entitlement("e9", "user_4", plan="pro", **window)),
        ]
    )
    order = {"PLAN_ORDER": "basic,pro,team"}
    before = everybody(box)
    foretold = await previewed(operator, "--perspective", RELEASE, **order)
    assert {subject: (kind, after.get("plan")) for subject, (kind, _, after) in foretold.items()} == {
        "user:user_1": ("update", "team"),
        "user:user_2": ("update", "basic"),
        "user:user_3": ("update", "basic"),
        "user:user_4": ("grant", "basic"),
        "user:user_5": ("grant", None),
        "user:user_6": ("grant", "pro"),
        "org:org_1": ("grant", "team"),
    }
    ended = {}
    for form in ((), ("--markdown",)):
        ended[form] = await operator.run("reconcile", "--dry-run", "--perspective", RELEASE, *form, **order)
        assert all(subject in ended[form].out for subject in foretold)
        assert_nothing_was_changed(box)
    assert "2 would lose" in ended["--markdown",].out
    assert everybody(box) == before
    await box.lake.mutate(promote(box))
    assert (await operator.reconcile(**order))[0] == 0
    after = everybody(box)
    for subject, metadata in after.items():
        _, was, becomes = foretold.get(subject, ("none", {}, {}))
        assert {name: before[subject].get(name) for name in was} == was
        assert metadata == {**{name: v for name, v in before[subject].items() if name not in was}, **becomes}
    assert {subject for subject in after if after[subject] != before[subject]} == set(foretold)


def everybody(box: Sandbox) -> dict[str, dict[str, Any]]:
    """Return the public metadata of all subjects."""
    users = {f"user:{id_}": dict(one["public_metadata"]) for id_, one in box.clerk.users.items()}
    return users | {f"org:{id_}": dict(one["public_metadata"]) for id_, one in box.clerk.organizations.items()}


async def test_drafts_are_seen_as_if_they_were_published(box: Sandbox, operator: Operator) -> None:
    await published(box, operator, created("e1", "user_1", plan="pro"))
    await box.lake.mutate([created("drafts.e1", "user_1", plan="basic"), created("drafts.e2", "user_2", plan="pro")])
    foretold = await previewed(operator, "--perspective", "drafts")
    assert {subject: kind for subject, (kind, _, _) in foretold.items()} == {
        "user:user_1": "update",
        "user:user_2": "grant",
    }


async def test_windows_are_judged_when_the_release_is_to_be_published(box: Sandbox, operator: Operator) -> None:
    await published(box, operator, created("e1", "user_1", plan="pro"))
    window = {"startsAt": "2098-01-01T00:00:00Z", "endsAt": "2100-01-01T00:00:00Z"}
    await box.lake.mutate(
        [release(publishAt="2099-01-01T00:00:00Z"), version(entitlement("e2", "user_2", plan="pro", **window))]
    )
    assert (await previewed(operator, "--perspective", RELEASE)).keys() == {"user:user_2"}
    assert await previewed(operator, "--perspective", RELEASE, "--at", "2097-01-01") == {}


async def test_the_first_release_that_has_a_version_decides(box: Sandbox, operator: Operator) -> None:
    await published(box, operator, created("e1", "user_1", plan="pro"), created("e2", "user_2", plan="pro"))
    await box.lake.mutate([release(), release("rOther"), unpublishing("e1", "rOther"), unpublishing("e2", "rOther")])
    await box.lake.mutate([version(entitlement("e1", "user_1", plan="team"))])
    foretold = await previewed(operator, "--perspective", f"{RELEASE},rOther")
    assert {subject: kind for subject, (kind, _, _) in foretold.items()} == {
        "user:user_1": "update",
        "user:user_2": "revoke",
    }


async def test_a_preview_says_that_the_guard_would_hold_it(box: Sandbox, operator: Operator) -> None:
    rows = [created(f"e{n}", f"user_{n}", plan="pro") for n in (1, 2, 3, 4)]
    await published(box, operator, *rows)
    await box.lake.mutate([release(), unpublishing("e1"), unpublishing("e2")])
    ended = await operator.run("reconcile", "--dry-run", "--perspective", RELEASE, MAX_REVOCATIONS="1")
    assert ended.code == 2
    verdict = "2 would lose plan pro: this would be held by a reconcile, because MAX_REVOCATIONS=1 allows 1."
    assert verdict in ended.err
    assert "not published yet" in " ".join(ended.out.split())
    code, result = await operator.reconcile("--dry-run", "--perspective", RELEASE, MAX_REVOCATIONS="1")
    assert (code, result["held"], result["verdict"]) == (2, 2, verdict)
    ended = await operator.run("reconcile", "--dry-run", "--perspective", RELEASE, "--markdown", MAX_REVOCATIONS="1")
    assert ended.out.startswith(f"**2 of 4 subjects differ.** {verdict}\n\n| subject | change |")
    code, result = await operator.reconcile("--dry-run", "--perspective", RELEASE, MAX_REVOCATIONS="2")
    assert (code, result["held"]) == (2, 0)
    assert "a reconcile would not hold this" in result["verdict"]
    await box.lake.mutate(promote(box))
    code, result = await operator.reconcile(MAX_REVOCATIONS="1")
    assert (code, result["held"]) == (3, 2)


async def test_what_a_changed_projection_or_setting_would_do_is_one_command(box: Sandbox, operator: Operator) -> None:
    await published(box, operator, created("e1", "user_1", plan="pro"), created("e2", "user_2", plan="team"))
    groq = operator.folder / "groq"
    shutil.copytree(packaged_groq(), groq)
    file = groq / "entitlement.groq"
    file.write_text(file.read_text().replace("  role,\n", '  "role": "member",\n'))
    ended = await operator.run("reconcile", "--dry-run", "--markdown", GROQ_DIR=str(groq))
    assert ended.code == 2
    assert ended.out.startswith("**2 of 4 subjects differ.** Nobody would lose anything.\n")
    assert "| user:user_1 | update | plan=pro courseSlugs= | plan=pro role=member courseSlugs= |" in ended.out
    ended = await operator.run("reconcile", "--dry-run", "--markdown", PLAN_ORDER="basic,pro", MAX_REVOCATIONS="0")
    assert ended.code == 2
    assert "1 would lose plan team: this would be held by a reconcile" in ended.out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--perspective", "drafts"), "add --dry-run"),
        (("--at", "2099-01-01"), "add --dry-run"),
        (("--dry-run", "--at", "soon"), "--at is not a time or a date"),
        (("--dry-run", "--perspective", "rNone"), "No release is called rNone"),
        (("--dry-run", "--perspective", "rDone"), "The release rDone is published"),
        (("--dry-run", "--perspective", "a b"), "--perspective takes drafts"),
    ],
)
async def test_a_preview_refuses_what_it_cannot_show(
    box: Sandbox, operator: Operator, arguments: tuple[str, ...], problem: str
) -> None:
    await box.lake.mutate([release("rDone", state="published")])
    ended = await operator.run("reconcile", *arguments)
    assert (ended.code, problem in ended.err, ended.out) == (1, True, "")
