"""The Studio's content model is the one that the queries read, and Sanity's own packages take the kit."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker.sandbox.node import node_binary
from sync_worker.sandbox.sample import documents
from sync_worker.sanity.client import Queries
from sync_worker.sanity.rows import Row, SubjectFields
from sync_worker.settings import packaged_groq
from tests.kits import DEPLOY
from tests.node import STYLES, evaluate

if TYPE_CHECKING:
    from sync_worker.sandbox.server import Sandbox
    from tests.deploy.conftest import Absent

pytestmark = pytest.mark.anyio
STUDIO = DEPLOY / "studio"
SCHEMA = (STUDIO / "schema" / "index.ts").as_uri()
SAMPLE = documents(datetime(2027, 1, 1, tzinfo=UTC))
READ = {*SubjectFields.model_fields, "plan", "role", "courses", "cohorts", "startsAt", "endsAt", "status"}


async def schema() -> dict[str, dict[str, Any]]:
    """Return the document types by name, without their functions."""
    types = await evaluate(f"return (await import('{SCHEMA}')).entitlementTypes")
    return {kind["name"]: kind for kind in types}


async def test_editors_fill_in_exactly_the_fields_that_the_projection_reads() -> None:
    groq = re.sub("//.*", "", (packaged_groq() / "entitlement.groq").read_text())
    assert {name for name in READ if not re.search(rf"\b{name}\b", groq)} == set()
    names = set(Row.model_fields) - {"id", "revision", "updatedAt"} | {"plan", "role", "courses", "cohorts"}
    assert {field["name"] for field in (await schema())["entitlement"]["fields"]} == READ == names


async def test_the_types_are_those_that_the_webhook_reports() -> None:
    reported = re.findall(r'"(\w+)"', Queries.load(packaged_groq()).webhook_filter.split("in [")[1].split("]")[0])
    assert set(await schema()) == set(reported)


async def test_the_sample_content_has_no_field_that_the_studio_does_not_know() -> None:
    types = await schema()
    known = {name: {field["name"] for field in kind["fields"]} for name, kind in types.items()}
    for document in SAMPLE:
        assert {name for name in document if not name.startswith("_")} <= known[document["_type"]]


async def test_every_field_of_an_entitlement_is_explained_to_editors() -> None:
    fields = (await schema())["entitlement"]["fields"]
    assert [field["name"] for field in fields if not field.get("description")] == []


async def test_only_what_has_a_slug_and_is_not_chosen_yet_can_be_chosen(box: Sandbox) -> None:
    script = f"""
      const {{entitlementTypes}} = await import('{SCHEMA}');
      const courses = entitlementTypes[0].fields.find(({{name}}) => name === 'courses');
      return courses.of[0].options.filter({{document: given}});
    """
    chosen = {"courses": [{"_ref": "course-a"}, {"_key": "not filled in yet"}]}
    choices = await evaluate(script, chosen)
    assert choices["params"] == {"chosen": ["course-a"]}
    await box.lake.load(
        [
            {"_id": "course-a", "_type": "course", "slug": {"current": "a"}},
            {"_id": "course-b", "_type": "course", "slug": {"current": "b"}},
            {"_id": "course-c", "_type": "course"},
        ]
    )
    query = f"*[_type == 'course' && {choices['filter']}]._id"
    assert await box.lake.query(query, choices["params"], perspective="published") == ["course-b"]
    assert (await evaluate(script, {}))["params"] == {"chosen": []}


@pytest.mark.parametrize(
    ("seen", "title", "subtitle"),
    [
        ({"clerkUserId": "user_a", "planTitle": "Pro", "status": "active"}, "user_a", "Pro"),
        ({"clerkUserId": "user_a", "clerkOrganizationId": "org_s"}, "user_a in org_s", ""),
        ({"userEmail": "a@example.com", "endsAt": "2027-05-01T10:00:00Z"}, "a@example.com", "until 2027-05-01"),
        ({"role": "teacher", "status": "paused"}, "Nobody yet", "teacher · paused"),
    ],
)
async def test_a_list_shows_whom_an_entitlement_is_for_and_what_it_gives(
    seen: dict[str, Any], title: str, subtitle: str
) -> None:
    script = f"return (await import('{SCHEMA}')).entitlementTypes[0].preview.prepare(given)"
    assert await evaluate(script, seen) == {"title": title, "subtitle": subtitle}


@pytest.mark.parametrize("kit", ["studio", "sanity-function", "app/nextjs"])
def test_npm_ci_finds_every_platforms_package_in_the_lock(kit: str) -> None:
    packages = json.loads((DEPLOY / kit / "package-lock.json").read_text())["packages"]
    locked = {(name.rpartition("node_modules/")[2], package.get("version")) for name, package in packages.items()}
    wanted = {
        (name, version)
        for package in packages.values()
        for name, version in package.get("optionalDependencies", {}).items()
        if re.fullmatch(r"[\d.]+", version)
    }
    assert wanted
    assert wanted - locked == set()


kit_run = pytest.mark.full("the full run installs Sanity's packages")


@pytest.mark.kit
@kit_run
@pytest.mark.parametrize("kit", ["studio", "sanity-function"])
def test_the_types_of_sanitys_packages_agree(kit: str, absent: Absent) -> None:
    folder = DEPLOY / kit
    compiler = folder / "node_modules" / "typescript" / "bin" / "tsc"
    if not compiler.is_file():
        absent(f"deploy/{kit}/node_modules")
    done = subprocess.run(
        [node_binary(), compiler, "--noEmit"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


VALIDATE = f"""
  const {{createClient}} = await import('@sanity/client');
  const {{createMockAuthStore, createSchema, createWorkspaceFromConfig, validateDocument}} = await import('sanity');
  const {{entitlementTypes: types}} = await import('{SCHEMA}');
  const problems = createSchema({{name: 'default', types}})._validation.flatMap(({{problems}}) => problems);
  const where = {{projectId: 'sandbox', dataset: 'production'}};
  const client = createClient({{...where, apiVersion: '2025-02-19', useCdn: false}});
  const auth = createMockAuthStore({{currentUser: null, client}});
  const workspace = await createWorkspaceFromConfig({{name: 'default', ...where, auth, schema: {{types}}}});
  const lonely = {{fetch: async () => true, withConfig: () => lonely}};  // no other document has the slug
  const found = await Promise.all(given.map((document) => validateDocument({{
    document, workspace, environment: 'studio', getDocumentExists: async () => true,
    getClient: () => lonely,
  }})));
  return {{problems, found: found.map((markers) => markers.map(({{level, path, message}}) =>
    [level, path.join('.'), message]))}};
"""


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"clerkUserId": "usr_1"}, "clerkUserId"),
    ({"clerkUserId": " user_1"}, "clerkUserId"),
    ({"clerkOrganizationId": "organization"}, "clerkOrganizationId"),
    ({"userEmail": "nobody"}, "userEmail"),
    ({"clerkUserId": "user_1", "userEmail": "a@example.com"}, "userEmail"),
    ({"clerkUserId": "user_1", "userExternalId": "7"}, "userExternalId"),
    ({"userExternalId": "7", "userEmail": "a@example.com"}, "userEmail"),
    ({"clerkUserId": "user_1", "startsAt": "2027-02-01T00:00:00Z", "endsAt": "2027-01-01T00:00:00Z"}, "endsAt"),
    ({"plan": {"_type": "reference", "_ref": "plan-pro"}}, ""),
]


@pytest.mark.kit
@kit_run
async def test_sanity_stops_editors_before_the_worker_must_refuse_and_takes_the_sample_content(absent: Absent) -> None:
    if not (STUDIO / "node_modules" / "sanity").is_dir():
        absent("deploy/studio/node_modules")
    rows = [{"_id": "e", "_type": "entitlement", "role": "student", **fields} for fields, _ in WRONG]
    gives_nothing = {"_id": "e", "_type": "entitlement", "clerkUserId": "user_1"}
    given = [*SAMPLE, *rows, gives_nothing]  # in one process, because loading Sanity takes many seconds
    answer = await evaluate(VALIDATE, given, hooks=STYLES, packages=STUDIO)
    assert answer["problems"] == []
    found = [[(level, path) for level, path, _ in markers] for markers in answer["found"]]
    stopped = [sorted({path for level, path in markers if level == "error"}) for markers in found]
    # Imports may write a plan's slug; editors choose a plan.
    texts = [["plan"] if isinstance(document.get("plan"), str) else [] for document in SAMPLE]
    assert stopped[: len(SAMPLE)] == texts
    assert stopped[len(SAMPLE) : -1] == [[path] for _, path in WRONG]
    assert [level for level, _ in found[-1]] == ["warning"]
