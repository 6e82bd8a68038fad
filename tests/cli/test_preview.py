"""`reconcile --dry-run --perspective`: what publishing drafts or a release would change, person by person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

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
    writes = operator.writes()
    code, result = await operator.reconcile("--dry-run", *arguments, **environment)
    assert "error" not in result, result
    assert operator.writes() == writes
    assert code == (2 if result["changes"] else 0)
    return {one["subject"]: (one["change"], one["before"], one["after"]) for one in result["changes"]}


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
    plan = {"_id": "plan-1", "_type": "plan", "slug": {"current": "pro"}}
    await published(
        box,
        operator,
        {"create": plan},
        created("e1", "user_1", plan=reference("plan-1")),
        created("e2", "user_2", plan="pro"),
        created("e3", "user_3", plan="pro"),
    )
    await box.lake.mutate(
        [
            release(),
            version({**plan, "slug": {"current": "team"}}),
            version(entitlement("e2", "user_2", plan="basic")),
            unpublishing("e3"),
            version(entitlement("e4", "user_4", plan="basic")),
        ]
    )
    foretold = await previewed(operator, "--perspective", RELEASE, PLAN_ORDER="basic,pro,team")
    assert {subject: (kind, after.get("plan")) for subject, (kind, _, after) in foretold.items()} == {
        "user:user_1": ("update", "team"),
        "user:user_2": ("update", "basic"),
        "user:user_3": ("revoke", None),
        "user:user_4": ("grant", "basic"),
    }
    assert await previewed(operator, "--at", "2199-01-01", PLAN_ORDER="basic,pro,team") == {}
    await box.lake.mutate(promote(box))
    assert (await operator.reconcile(PLAN_ORDER="basic,pro,team"))[0] == 0
    plans = {user: found["public_metadata"].get("plan") for user, found in box.clerk.users.items()}
    assert plans == {"user_1": "team", "user_2": "basic", "user_3": None, "user_4": "basic"}


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
    assert "2 of them would lose access; a reconcile would hold that for approval" in ended.err
    assert "not published yet" in " ".join(ended.out.split())


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
