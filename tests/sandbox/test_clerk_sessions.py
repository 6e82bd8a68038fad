"""Sessions, tokens and JWT templates, read and verified by Clerk's own Python SDK."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import httpx
import jwt
import pytest
from clerk_backend_api import Clerk, models
from clerk_backend_api.security import (
    AuthenticateRequestOptions,
    TokenVerificationError,
    TokenVerificationErrorReason,
    VerifyTokenOptions,
    authenticate_request,
    verify_token_async,
)

from sync_worker.sandbox import sample
from sync_worker.sandbox.clerk_tokens import public_pem
from sync_worker.transport import ssl_context
from tests.sandbox.answers import codes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sync_worker.sandbox.server import Sandbox

pytestmark = pytest.mark.anyio
CLAIMS = {"plan": "{{user.public_metadata.plan}}", "courseSlugs": "{{user.public_metadata.courseSlugs}}"}


@pytest.fixture
async def sdk(box: Sandbox) -> AsyncIterator[Clerk]:
    await sample.load_sample(box)
    box.clerk.session_claims = CLAIMS
    box.clerk.update_user("user_ada", public_metadata={"plan": "pro", "courseSlugs": ["algebra"]})
    async with httpx.AsyncClient(verify=ssl_context(), trust_env=False) as client:
        yield Clerk(
            bearer_auth=box.clerk.secret_key, server_url=f"{box.clerk_url}/v1", async_client=client, retry_config=None
        )


async def token(sdk: Clerk, user: str = "user_ada", **more: Any) -> str:
    request = models.CreateSessionRequestBody(user_id=user, **more)
    session = await sdk.sessions.create_async(request=request)
    signed = await sdk.sessions.create_token_async(session_id=session.id)
    assert signed.jwt
    return signed.jwt


def verification(box: Sandbox) -> VerifyTokenOptions:
    return VerifyTokenOptions(secret_key=box.clerk.secret_key, api_url=box.clerk_url)


async def test_the_sdk_verifies_a_session_token_by_the_key_set(sdk: Clerk, box: Sandbox) -> None:
    claims = await verify_token_async(await token(sdk), verification(box))
    assert (claims["sub"], claims["v"], claims["sts"]) == ("user_ada", 2, "active")
    assert (claims["plan"], claims["courseSlugs"]) == ("pro", ["algebra"])
    assert claims["exp"] - claims["iat"] == 60


async def test_the_sdk_authenticates_a_request_by_the_public_key_alone(sdk: Clerk) -> None:
    request = httpx.Request("GET", "https://app.example.com", headers={"cookie": f"__session={await token(sdk)}"})
    state = authenticate_request(request, AuthenticateRequestOptions(jwt_key=public_pem()))
    assert state.is_signed_in
    assert (state.payload or {})["plan"] == "pro"


async def test_a_changed_token_is_refused(sdk: Clerk, box: Sandbox) -> None:
    header, _, signature = (await token(sdk)).split(".")
    forged = jwt.encode({"sub": "user_ada", "plan": "campus"}, "x" * 32).split(".")[1]
    with pytest.raises(TokenVerificationError) as refused:
        await verify_token_async(f"{header}.{forged}.{signature}", verification(box))
    assert refused.value.reason is TokenVerificationErrorReason.TOKEN_INVALID_SIGNATURE


async def test_a_token_carries_the_active_organization_and_only_then_its_claims(sdk: Clerk, box: Sandbox) -> None:
    box.clerk.session_claims = {"seat": "{{org_membership.public_metadata.seat}}", "org": "{{org.slug}}"}
    box.clerk.touch(box.clerk.membership("org_school", "user_alan"), "x.y", public_metadata={"seat": 4})
    without = await verify_token_async(await token(sdk, "user_alan"), verification(box))
    assert (without["seat"], without["org"], "o" in without) == (None, None, False)
    active = await token(sdk, "user_alan", active_organization_id="org_school")
    claims = await verify_token_async(active, verification(box))
    assert (claims["seat"], claims["org"]) == (4, "riverside-school")
    assert claims["o"] == {"id": "org_school", "slg": "riverside-school", "rol": "member"}


async def test_default_claims_win_over_custom_ones(sdk: Clerk, box: Sandbox) -> None:
    box.clerk.session_claims = {"sub": "user_eve", "sid": "sess_eve", "v": 9}
    claims = await verify_token_async(await token(sdk), verification(box))
    assert (claims["sub"], claims["v"]) == ("user_ada", 2)
    assert claims["sid"] in box.clerk.sessions


async def test_a_revoked_session_gets_no_token_but_its_last_one_stays_valid(sdk: Clerk, box: Sandbox) -> None:
    last = await token(sdk)
    (session,) = box.clerk.sessions
    assert (await sdk.sessions.revoke_async(session_id=session)).status == "revoked"
    with pytest.raises(models.ClerkErrors):
        await sdk.sessions.create_token_async(session_id=session)
    assert (await verify_token_async(last, verification(box)))["sid"] == session
    listed = await sdk.sessions.list_async(user_id="user_ada")
    assert [(one.id, one.status) for one in listed] == [(session, "revoked")]


async def test_a_production_instance_creates_no_session(sdk: Clerk, clerk: httpx.AsyncClient, box: Sandbox) -> None:
    box.clerk.environment = "production"
    answer = await clerk.post("/sessions", json={"user_id": "user_ada"})
    assert codes(answer) == (400, "request_invalid_for_environment", None)
    assert box.clerk.sessions == {}
    assert (await sdk.instance_settings.get_async()).environment_type == "production"


async def test_a_template_has_its_own_claims_and_lifetime_and_none_of_the_session(
    sdk: Clerk, clerk: httpx.AsyncClient, box: Sandbox
) -> None:
    template = {
        "name": "convex",
        "lifetime": 600,
        "claims": {"aud": "convex", "email": "{{user.primary_email_address}}"},
    }
    await clerk.post("/jwt_templates", json=template)
    session = await sdk.sessions.create_async(request={"user_id": "user_ada"})
    signed = await sdk.sessions.create_token_from_template_async(session_id=session.id, template_name="convex")
    options = dataclasses.replace(verification(box), audience="convex")
    claims = await verify_token_async(signed.jwt or "", options)
    assert (claims["email"], claims["sub"]) == ("ada@example.com", "user_ada")
    assert claims["exp"] - claims["iat"] == 600
    assert claims.keys() & {"sid", "v", "sts", "plan"} == set()


async def test_a_template_needs_name_and_claims_also_to_change_one_of_them(clerk: httpx.AsyncClient) -> None:
    made = (await clerk.post("/jwt_templates", json={"name": "plain", "claims": {"a": 1, "b": 2}})).json()
    path = f"/jwt_templates/{made['id']}"
    assert codes(await clerk.patch(path, json={"claims": {}})) == (422, "form_param_missing", "name")
    assert codes(await clerk.patch(path, json={"name": "plain"})) == (422, "form_param_missing", "claims")
    changed = await clerk.patch(path, json={"name": "plain", "claims": {"b": 3}})
    assert changed.json()["claims"] == {"b": 3}


@pytest.mark.parametrize("claim", ["azp", "exp", "iat", "iss", "jti", "nbf", "sub"])
async def test_a_template_may_not_name_a_reserved_claim(clerk: httpx.AsyncClient, claim: str) -> None:
    answer = await clerk.post("/jwt_templates", json={"name": "plain", "claims": {claim: 1}})
    assert codes(answer) == (400, "jwt_template_reserved_claim", "claims")
