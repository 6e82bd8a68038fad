"""The last step of a receipt: `claims --token` measures what is otherwise a promise of Clerk's."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.sandbox import sample

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.terminal import Operator

pytestmark = pytest.mark.anyio
CLAIMS = {name: f"{{{{user.public_metadata.{name}}}}}" for name in ("plan", "role", "courseSlugs")}
AT_ONCE = "UTC, the app calls `getToken({skipCache: true})`"


@pytest.fixture
async def school(operator: Operator) -> Operator:
    await sample.load_sample(operator.box)
    operator.box.clerk.session_claims = CLAIMS
    await operator.run("sync", "user_ada", "membership:org_school/user_alan", "org_school")
    return operator


async def receipt(operator: Operator, document: str = "entitlement-ada-pro") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await operator.run("explain", document, "--json")).out)
    return found


async def test_a_receipt_says_by_when_and_what_the_app_does_to_see_it_at_once(school: Operator) -> None:
    found = await receipt(school)
    assert "→ in every session by" in found["headline"]
    assert "real token" not in found["headline"]
    assert found["inToken"] is None
    assert AT_ONCE in found["nextStep"]


async def test_a_real_token_measures_the_receipt_until_the_next_write(school: Operator) -> None:
    proved = await school.run("claims", "user_ada", "--token")
    assert (proved.code, "verified" in proved.out, "skipCache" in proved.out) == (0, True, True)
    found = await receipt(school)
    assert "(measured with a real token at " in found["headline"]
    assert datetime.fromisoformat(found["inClerk"]) <= datetime.fromisoformat(found["inToken"])
    first = found["inToken"]
    await school.run("claims", "user_ada", "--token")
    assert (await receipt(school))["inToken"] == first
    shown = await school.run("explain", "user_ada")
    assert f"in a real token      since {first}" in shown.out
    row = {"_type": "entitlement", "clerkUserId": "user_ada", "role": "teacher"}
    await school.box.lake.mutate([{"createOrReplace": {"_id": "entitlement-ada-pro", **row}}])
    await school.run("sync", "user_ada")
    assert (await receipt(school))["inToken"] is None


async def test_a_delete_is_measured_too(school: Operator) -> None:
    documents = ["entitlement-ada-pro", "entitlement-ada-drawing"]
    await school.box.lake.mutate([{"delete": {"id": document}} for document in documents])
    await school.run("sync", "user_ada")
    before = await receipt(school)
    assert ("from every session" in before["headline"], before["inToken"]) == (True, None)
    assert AT_ONCE in before["nextStep"]
    await school.run("claims", "user_ada", "--token")
    after = await receipt(school)
    assert ("(measured with a real token at " in after["headline"], bool(after["inToken"])) == (True, True)


async def test_the_metadata_of_an_active_organization_is_measured_where_the_token_shows_it(
    school: Operator, tmp_path: Path
) -> None:
    shown = {name: f"{{{{org.public_metadata.{name}}}}}" for name in ("plan", "role", "courseSlugs")}
    school.box.clerk.session_claims = shown
    (tmp_path / "claims.json").write_text(json.dumps(shown))
    document = "entitlement-school"
    assert (await receipt(school, document))["subjects"][0]["subject"] == "org:org_school"
    await school.run("claims", "user_alan", "--organization", "org_school", "--claims", "claims.json", "--token")
    assert (await receipt(school, document))["inToken"] is not None
    assert (await receipt(school))["inToken"] is None


@pytest.mark.parametrize("claims", [{}, {"plan": CLAIMS["plan"]}, {**CLAIMS, "role": "student"}])
async def test_a_token_that_does_not_show_every_key_measures_nothing(
    school: Operator, tmp_path: Path, claims: dict[str, str]
) -> None:
    school.box.clerk.session_claims = claims
    (tmp_path / "claims.json").write_text(json.dumps(claims))
    proved = await school.run("claims", "user_ada", "--claims", "claims.json", "--token")
    assert (proved.code, "verified" in proved.out) == (0, True)
    assert (await receipt(school))["inToken"] is None


async def test_a_token_that_differs_and_one_of_a_jwt_template_measure_nothing(school: Operator) -> None:
    template = {"id": "jtmp_1", "name": "convex", "claims": CLAIMS, "lifetime": 600, "allowed_clock_skew": 5}
    school.box.clerk.templates["jtmp_1"] = template
    assert (await school.run("claims", "user_ada", "--template", "convex", "--token")).code == 0
    school.box.clerk.session_claims = {**CLAIMS, "plan": "gold"}
    assert (await school.run("claims", "user_ada", "--token")).code == 2
    assert (await receipt(school))["inToken"] is None
