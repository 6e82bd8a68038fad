"""The worked app on Next.js: its types, and what it makes of tokens that the sandbox signs."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.clerk.claims import default_template
from sync_worker.domain.entitlements import CORE_FIELDS, Layout
from sync_worker.sandbox.node import node_binary
from tests.kits import DEPLOY
from tests.node import STYLES, evaluate

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox

needs_packages = pytest.mark.full("needs packages of 400 MB, which the full run installs")
APP = DEPLOY / "app" / "nextjs"
ACCESS, SANITY = ((APP / "lib" / name).as_uri() for name in ("access.ts", "sanity.ts"))
VERIFY = f"""
  const {{createClerkClient, verifyToken}} = await import('@clerk/backend');
  const {{accessOf}} = await import('{ACCESS}');
  const clerk = createClerkClient({{secretKey: given.secretKey, apiUrl: given.apiUrl}});
  const session = await clerk.sessions.createSession({{userId: 'user_ada'}});
  const {{jwt}} = await clerk.sessions.getToken(session.id);
  const claims = await verifyToken(jwt, given);
  await clerk.sessions.revokeSession(session.id);
  return {{user: claims.sub, access: accessOf(claims)}};
"""


@pytest.fixture
def packages() -> Any:
    if not (APP / "node_modules").is_dir():
        pytest.skip("Clerk's packages are not installed; make full installs them, or npm ci in deploy/app/nextjs")
    return APP


@needs_packages
def test_the_types_of_clerks_packages_agree(packages: Any) -> None:
    compiler = packages / "node_modules" / "typescript" / "bin" / "tsc"
    done = subprocess.run(
        [node_binary(), compiler, "--noEmit"], cwd=packages, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@needs_packages
@pytest.mark.anyio
async def test_clerks_javascript_verifies_a_token_of_the_sandbox(box: Sandbox, packages: Any) -> None:
    box.clerk.session_claims = dict(default_template(Layout(CORE_FIELDS)).claims)
    box.clerk.add_user("user_ada", public_metadata={"plan": "pro", "courseSlugs": ["algebra"]})
    given = {"secretKey": box.clerk.secret_key, "apiUrl": box.clerk_url}
    seen = await evaluate(VERIFY, given, hooks=STYLES, packages=packages)
    assert seen == {"user": "user_ada", "access": {"plan": "pro", "courses": ["algebra"]}}
    assert {session["status"] for session in box.clerk.sessions.values()} == {"revoked"}


@pytest.mark.anyio
@pytest.mark.parametrize(
    "claims",
    [None, {}, {"plan": None, "courseSlugs": None}, {"plan": 1, "courseSlugs": "algebra"}, {"courseSlugs": [1]}],
)
async def test_claims_of_another_shape_give_nothing(claims: Any) -> None:
    access = await evaluate(f"return (await import('{ACCESS}')).accessOf(given)", claims)
    assert access == {"plan": None, "courses": []}


@pytest.mark.anyio
async def test_only_the_persons_courses_are_read(box: Sandbox) -> None:
    courses = [
        {"_id": f"course-{slug}", "_type": "course", "title": slug.title(), "slug": {"current": slug}}
        for slug in ("algebra", "biology")
    ]
    await box.lake.load(courses)
    environment = {
        "SANITY_PROJECT_ID": box.lake.project_id,
        "SANITY_READ_TOKEN": box.lake.viewer_token,
        "SANITY_API_URL": box.sanity_url,
    }
    script = f"return (await import('{SANITY}')).coursesOf(given)"
    access = {"plan": "pro", "courses": ["algebra", 'x"] || true']}
    assert await evaluate(script, access, environment=environment) == [{"title": "Algebra", "slug": "algebra"}]
    assert await evaluate(script, {"plan": None, "courses": []}, environment=environment) == []


def test_the_lock_names_no_registry() -> None:
    packages = json.loads((APP / "package-lock.json").read_text())["packages"]
    assert [name for name, package in packages.items() if "resolved" in package] == []
