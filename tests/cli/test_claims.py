"""`claims` as an operator runs it, against an instance that signs real tokens."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from starlette.responses import JSONResponse

from sync_worker.cli.processes import settings_for
from sync_worker.sandbox import sample
from sync_worker.sandbox.clerk_tokens import session_token, signing_key
from sync_worker.sandbox.server import Sandbox
from tests.cli.terminal import Operator
from tests.nursery import process
from tests.oracle import until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio
CLAIMS = {name: f"{{{{user.public_metadata.{name}}}}}" for name in ("plan", "role", "courseSlugs")}
HELD = {"plan": "pro", "role": "student", "courseSlugs": ["algebra"]}


@pytest.fixture
async def school(operator: Operator) -> Operator:
    await sample.load_sample(operator.box)
    operator.box.clerk.update_user("user_ada", public_metadata=HELD)
    operator.box.clerk.session_claims = CLAIMS
    return operator


def statuses(box: Sandbox) -> set[str]:
    return {session["status"] for session in box.clerk.sessions.values()}


async def claims(operator: Operator, *arguments: str, **environment: str) -> tuple[int, dict[str, Any]]:
    ended = await operator.run("claims", *arguments, "--json", **environment)
    assert ended.out, ended.err
    return ended.code, json.loads(ended.out)


async def test_the_claims_of_a_person_are_what_clerk_holds(school: Operator) -> None:
    code, report = await claims(school, "user:user_ada")
    assert (code, report) == (
        0,
        {"subject": "user:user_ada", "claims": HELD, "bytes": 57, "budget": 1000, "findings": [], "token": None},
    )
    assert school.box.clerk.requests.count("POST") == 0


async def test_a_person_is_found_by_address_and_the_address_is_not_shown(school: Operator, tmp_path: Path) -> None:
    (tmp_path / "claims.json").write_text('{"email": "{{user.primary_email_address}}"}')
    code, report = await claims(school, "ada@example.com", "--claims", "claims.json")
    assert (code, report["subject"], report["claims"]) == (0, "user:user_ada", {"email": "a***@example.com"})


async def test_findings_are_printed_with_a_fix_and_exit_with_2(school: Operator, tmp_path: Path) -> None:
    (tmp_path / "claims.json").write_text('{"plan": "{{organization.public_metadata.plan}}"}')
    ended = await school.run("claims", "user_ada", "--claims", "claims.json")
    assert ended.code == 2
    assert "plan: {{organization.public_metadata.plan}} stays in the token as text" in ended.out
    assert "→ Write {{org.public_metadata.plan}}." in ended.out


async def test_the_claims_of_an_organization_need_it_to_be_active(school: Operator, tmp_path: Path) -> None:
    (tmp_path / "claims.json").write_text('{"org": "{{org.slug}}", "seat": "{{org_membership.public_metadata.seat}}"}')
    membership = school.box.clerk.membership("org_school", "user_alan")
    school.box.clerk.touch(membership, "organizationMembership.updated", public_metadata={"seat": 4})
    for arguments in (["user_alan", "--organization", "org_school"], ["membership:org_school/user_alan"]):
        _, report = await claims(school, *arguments, "--claims", "claims.json")
        assert report["claims"] == {"org": "riverside-school", "seat": 4}
    _, report = await claims(school, "user_alan", "--claims", "claims.json")
    assert report["claims"] == {"org": None, "seat": None}
    stranger = await school.run("claims", "user_ada", "--organization", "org_school")
    assert (stranger.code, "not a member" in stranger.err) == (1, True)


async def test_a_real_token_proves_the_claims_and_its_session_is_ended(school: Operator) -> None:
    code, report = await claims(school, "user_ada", "--token")
    assert (code, report["token"]["verified"], report["token"]["differs"]) == (0, True, [])
    assert (report["token"]["claims"]["plan"], report["token"]["claims"]["sub"]) == ("pro", "user_ada")
    assert statuses(school.box) == {"revoked"}


async def test_a_session_token_that_was_never_customized_is_a_finding(school: Operator) -> None:
    school.box.clerk.session_claims = {}
    code, report = await claims(school, "user_ada", "--token")
    assert (code, report["token"]["differs"]) == (2, ["courseSlugs", "plan", "role"])
    assert "Customize session token" in report["findings"][0]["fix"]
    assert statuses(school.box) == {"revoked"}


async def test_a_jwt_template_is_read_and_proved_too(school: Operator) -> None:
    template = {"id": "jtmp_1", "name": "convex", "claims": {"aud": "convex", **CLAIMS}, "lifetime": 600}
    school.box.clerk.templates["jtmp_1"] = {**template, "allowed_clock_skew": 5}
    code, report = await claims(school, "user_ada", "--template", "convex", "--token")
    assert (code, report["budget"], report["claims"]) == (0, None, {"aud": "convex", **HELD})
    assert report["token"]["verified"]
    shown = await school.run("claims", "user_ada", "--template", "convex", "--token")
    assert "getToken({template: 'convex', skipCache: true})" in shown.out
    missing = await school.run("claims", "user_ada", "--template", "hasura")
    assert (missing.code, "it has convex" in missing.err) == (1, True)


async def test_a_token_that_another_key_signed_is_not_verified(
    school: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = signing_key.__wrapped__()

    def forged(_: Any, session: Any, *__: Any) -> str:
        return jwt.encode({"sub": session["user_id"]}, other, "RS256", {"kid": "ins_sandbox"})

    monkeypatch.setattr("sync_worker.sandbox.clerk_sessions.session_token", forged)
    code, report = await claims(school, "user_ada", "--token")
    assert (code, report["token"]) == (2, {"verified": False, "claims": None, "differs": []})
    assert statuses(school.box) == {"revoked"}


async def test_a_live_key_gets_no_token(tmp_path: Path) -> None:
    async with Sandbox(clerk_secret_key="sk_live_sandbox") as box:
        box.clerk.add_user("user_ada")
        live = Operator(box, tmp_path, settings_for(box, f"sqlite:///{tmp_path / 'work.db'}"))
        refused = await live.run("claims", "user_ada", "--token")
        assert (refused.code, "live key" in refused.err) == (1, True)
        assert box.clerk.requests.count() == 0
        assert (await live.run("claims", "user_ada")).code == 0


async def test_a_production_instance_gets_no_session_even_with_a_test_key(school: Operator) -> None:
    school.box.clerk.environment = "production"
    refused = await school.run("claims", "user_ada", "--token")
    assert (refused.code, "production instance" in refused.err) == (1, True)
    assert school.box.clerk.requests.count("POST") == 0


@pytest.mark.parametrize("fault", ["lost", "truncated", "internal", "error_in_ok"])
async def test_no_session_stays_active_when_a_response_goes_wrong(school: Operator, fault: str) -> None:
    school.box.clerk.faults.next(fault, method="POST", path_prefix="/v1/sessions")
    await school.run("claims", "user_ada", "--token")
    assert statuses(school.box) <= {"revoked"}


@pytest.mark.parametrize("path", ["/v1/sessions", "/v1/sessions/"], ids=["creating", "signing"])
async def test_the_next_run_ends_the_session_of_a_killed_one(school: Operator, path: str) -> None:
    school.box.clerk.faults.hold(1, method="POST", path_prefix=path)
    log = school.folder / "log"
    async with process("claims", school.environment, log, "user_ada", "--token") as child:
        await until(lambda: school.box.clerk.faults.held == 1)
        child.kill()
        await child.wait()
    school.box.clerk.faults.release()
    await until(lambda: statuses(school.box) == {"active"})
    code, _ = await claims(school, "user_barbara")
    assert (code, statuses(school.box)) == (0, {"revoked"})


async def test_the_session_is_ended_by_its_id_where_the_clocks_disagree(
    school: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(school.box.clerk, "clock", lambda: time.time() - 3600)
    await school.run("claims", "user_ada", "--token")
    assert statuses(school.box) == {"revoked"}


async def test_a_strange_answer_with_a_token_is_refused_without_showing_it(
    school: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strange(content: dict[str, Any]) -> JSONResponse:
        return JSONResponse({**content, "object": "other"} if "jwt" in content else content)

    monkeypatch.setattr("sync_worker.sandbox.clerk_sessions.JSONResponse", strange)
    refused = await school.run("claims", "user_ada", "--token")
    assert (refused.code, "not the expected token" in refused.err) == (1, True)
    assert not re.search(r"eyJ|Traceback", refused.out + refused.err)
    assert statuses(school.box) == {"revoked"}


async def test_a_session_of_the_person_themselves_is_left_alone(school: Operator) -> None:
    session = {"id": "sess_own", "user_id": "user_ada", "status": "active", "last_active_organization_id": None}
    school.box.clerk.sessions["sess_own"] = {**session, "created_at": school.box.clerk.now()}
    await school.run("claims", "user_ada", "--token")
    assert school.box.clerk.sessions["sess_own"]["status"] == "active"


async def test_the_token_is_in_no_output_and_not_in_the_database(school: Operator) -> None:
    signed: list[str] = []

    def remembering(*given: Any) -> str:
        signed.append(session_token(*given))
        return signed[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sync_worker.sandbox.clerk_sessions.session_token", remembering)
        outputs = [await school.run("claims", "user_ada", "--token", *more) for more in ([], ["--json"])]
    assert len(signed) == 2
    written = "".join(one.out + one.err for one in outputs)
    stored = b"".join(file.read_bytes() for file in school.folder.iterdir() if file.is_file())
    assert not re.search(r"eyJ[\w-]+\.", written)
    assert b"eyJ" not in stored
