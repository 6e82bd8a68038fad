"""What `sync-worker doctor` looks at: CHECKS is its table of contents, and each check is one function.

Why it exists: most installations fail in the same few ways (a wrong key, a hook that is off, a projection that yields
something else), and none of them shows until somebody lacks access. Each finding says what is so and what to do. How
checks are done, and that they change nothing, is `examination`; the checks of webhooks are `doctor_webhooks`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sync_worker.clerk.client import Clerk
from sync_worker.doctor.database_probe import NEWEST, NONE, inspect
from sync_worker.doctor.runner import Check, Finding, Installation, ok, problem, rfc3339, skipped, warning
from sync_worker.doctor.webhook_checks import INSTALL, clerk_webhook, deliveries, last_webhook, webhook
from sync_worker.domain.diff import claims_size, managed_values
from sync_worker.domain.entitlements import Refusal
from sync_worker.domain.subjects import Kind, Subject
from sync_worker.errors import ConfigurationError, CredentialsRefused, UnreadableAnswer
from sync_worker.sanity.row_checks import shape_problems
from sync_worker.sanity.rows import read_row
from sync_worker.sanity.webhook_config import PATH
from sync_worker.storage.reconcile_runs import GOOD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sync_worker.sanity.client import Sanity

NEAR = 0.8
"""The part of the claims budget from which on somebody should know."""
SAMPLE = 100
"""Users whose metadata are looked at."""
VIEWER = "npx sanity tokens create sync-worker --role=viewer"


async def settings(installation: Installation) -> Finding:
    """Check that every variable that is needed is set, and that each has the right shape."""
    if installation.wrong:
        return problem(
            "; ".join(installation.wrong.values()),
            "Correct it in the environment or in .env; docs/settings.md lists all.",
        )
    if not installation.settings.sanity_webhook_secret:
        return problem(
            "SANITY_WEBHOOK_SECRET is not set, so every webhook is answered 503",
            f"`openssl rand -hex 32` makes one; then: {INSTALL} https://your-host{PATH}",
        )
    return ok("each variable has the right shape")


async def live_or_test(installation: Installation) -> Finding:
    """Check that a live key goes with the production dataset, and a test key with another one."""
    live = installation.settings.clerk_secret_key.get_secret_value().startswith("sk_live_")
    dataset = installation.settings.sanity_dataset
    if live == (dataset == "production"):
        return ok(f"a {'live' if live else 'test'} Clerk key, and the dataset {dataset}")
    return warning(
        f"a {'live' if live else 'test'} Clerk key with the dataset {dataset}",
        "If that is not meant: correct SANITY_DATASET, or take the key of the other Clerk instance.",
    )


async def clerk(installation: Installation) -> Finding:
    """Check that Clerk answers and knows the key."""
    try:
        answer = await installation.clerk.get(f"{installation.settings.clerk_api_url}/v1/instance")
        instance = answer.json()
        return ok(f"the instance {instance['id']}, {instance['environment_type']}")
    except CredentialsRefused as error:
        return problem(error.detail, "Copy the secret key once more from Clerk's dashboard, under API keys.")
    except (ValueError, KeyError, TypeError):
        raise UnreadableAnswer("Clerk did not name its instance; is CLERK_API_URL the address of Clerk?") from None


async def sanity(installation: Installation) -> Finding:
    """Check that Sanity answers, knows project and dataset, and takes the token."""
    dataset = installation.settings.sanity_dataset
    parameters = {"query": "defined(*[0])", "perspective": "published"}
    try:
        await installation.sanity.get(f"{installation.sanity_base}/data/query/{dataset}", params=parameters)
    except CredentialsRefused as error:
        return problem(error.detail, f"Make a token of this project: {VIEWER}")
    return ok(f"the project {installation.settings.sanity_project_id}, dataset {dataset}")


async def read_only_token(installation: Installation) -> Finding:
    """Check that the token cannot write: ask, as a dry run, what would come of a new document."""
    document = {"_id": f"sync-worker.{uuid4()}", "_type": "syncWorkerDoctor"}
    try:
        await installation.sanity.post(
            f"{installation.sanity_base}/data/mutate/{installation.settings.sanity_dataset}",
            params={"dryRun": "true"},
            json={"mutations": [{"create": document}]},
        )
    except CredentialsRefused:
        return ok("SANITY_READ_TOKEN can read and nothing else")
    return problem(
        "SANITY_READ_TOKEN can write: whoever gets hold of it can change the content",
        f"Make one that only reads, set it, and delete the old one: {VIEWER}",
    )


async def private_dataset(installation: Installation) -> Finding:
    """Check that nobody reads the dataset without a token: it is refused, or answered with nothing."""
    try:
        page = await installation.public_source.everything("")
    except (CredentialsRefused, ConfigurationError):
        return ok("nobody can read it without a token")
    if page.rows:
        return warning(
            "the dataset is public: whoever knows the project can read who is entitled to what",
            f"npx sanity datasets visibility set {installation.settings.sanity_dataset} private",
        )
    if not (await installation.source.everything("")).rows:
        return skipped("it cannot be told while nothing is published")
    return ok("nobody can read entitlements without a token")


async def groq_files(installation: Installation) -> Finding:
    """Check that every GROQ file is there, with what it includes."""
    _ = installation.queries
    return ok(f"all are in {installation.settings.groq_folder}")


async def projection(installation: Installation) -> Finding:
    """Check that each query runs and yields rows of our shape: for nobody, over all, for the subject of one row."""
    source, fields = installation.source, installation.settings.layout.fields
    nobody = await source.by_subject((), ())
    page = await source.everything("")
    await source.affected((), "", ())
    now = rfc3339(installation.clock.now())
    await source.changed(now, "", now)
    if nobody.rows:
        return problem("by_subject.groq yields rows although nobody was asked for", "Correct its filter.")
    if not page.rows:
        return warning(
            "the queries run, but not one entitlement is visible",
            "Publish one; or check SANITY_DATASET, the token's role and the type name in the GROQ files.",
        )
    if wrong := shape_problems(page.rows, fields):
        return problem("; ".join(wrong), f"Correct entitlement.groq in {installation.settings.groq_folder}.")
    if lost := await _lost(source, page.rows, installation):
        return problem(
            f"everything.groq shows {lost}, but by_subject.groq does not find it by whom it is for",
            "Make the filters of both queries mean the same documents.",
        )
    refused = [row for _, row in (read_row(raw, fields) for raw in page.rows) if isinstance(row, Refusal)]
    if refused:
        return warning(
            f"{len(refused)} of {len(page.rows)} rows are refused; the first is {refused[0]}",
            "Correct these documents and publish them; until then they count for nothing.",
        )
    return ok(f"the rows have the right shape; visible entitlements: {nobody.visible}")


async def _lost(source: Sanity, rows: Sequence[Mapping[str, Any]], installation: Installation) -> str:
    """Return the id of an entitlement that is not found by its own subject."""
    for raw in rows:
        subject, _ = read_row(raw, installation.settings.layout.fields)
        if subject is not None and subject.kind in (Kind.USER, Kind.ORGANIZATION, Kind.MEMBERSHIP):
            found = await source.by_subject([subject], ())
            return "" if raw["_id"] in {row["_id"] for row in found.rows} else str(raw["_id"])
    return ""


async def clock(installation: Installation) -> Finding:
    """Check that our clock is theirs."""
    if not installation.ahead:
        return skipped("no service has answered with its time")
    service, seconds = max(installation.ahead.items(), key=lambda item: abs(item[1]))
    tolerance = installation.timings.clock_tolerance
    if abs(seconds) > tolerance:
        way = "ahead of" if seconds > 0 else "behind"
        return problem(f"this clock is {abs(seconds):.0f} s {way} that of {service}", "Have it set by NTP.")
    return ok(f"within {tolerance:.0f} s of {' and '.join(sorted(installation.ahead))}")


async def database(installation: Installation) -> Finding:
    """Check that the database is there, can be written, and has the tables of this program."""
    tables = await inspect(installation.settings.database_url, installation.clock, installation.timings)
    if tables == NONE:
        return warning("there are no tables yet", "`sync-worker release` makes them, and so does `sync-worker serve`.")
    if tables.compatible_from > NEWEST:
        return problem(
            f"its tables are of version {tables.version}, too new for this program", "Install the newer release."
        )
    if tables.version < NEWEST:
        return warning(f"its tables are of version {tables.version}, not {NEWEST}", "`sync-worker release`")
    return ok(f"writable, tables of version {tables.version}")


async def reconcile(installation: Installation) -> Finding:
    """Check that the nightly comparison is done."""
    at = (await inspect(installation.settings.database_url, installation.clock, installation.timings)).noted.get(GOOD)
    if at is None:
        return warning("there was none yet", "`sync-worker reconcile --dry-run`, then without it; then every night.")
    told = f"the last good one was {installation.ago(at)}"
    if installation.clock.now() - at > installation.timings.reconcile_stale_after:
        return problem(told, "Run `sync-worker reconcile`, and have it run every night.")
    return ok(told)


async def claims(installation: Installation) -> Finding:
    """Check that access fits into session tokens, among the users that changed last."""
    layout = installation.settings.layout
    base = f"{installation.settings.clerk_api_url}/v1"
    latest = await installation.clerk.get(f"{base}/users", params={"limit": SAMPLE, "order_by": "-updated_at"})
    subjects = [Subject(Kind.USER, str(user["id"])) for user in latest.json()]
    held = (await Clerk(installation.clerk, base).observe(subjects)).values()
    sizes = {claims_size(managed_values(one, layout), layout): one.subject for one in held if one.marker}
    if not sizes:
        return ok("nobody holds access of ours yet")
    largest = max(sizes)
    told = f"the largest of {len(held)} is {largest} of {layout.claims_budget} bytes: {sizes[largest]}"
    if largest > NEAR * layout.claims_budget:
        return warning(told, "Group courses under plans, or put courseSlugs into PRIVATE_FIELDS: a cookie holds 4 KB.")
    return ok(told)


CLERK = ("CLERK_SECRET_KEY", "CLERK_API_URL")
CONTENT = ("SANITY_PROJECT_ID", "SANITY_DATASET", "SANITY_READ_TOKEN", "SANITY_API_URL", "SANITY_API_VERSION")
FIELDS = ("EXTRA_FIELDS", "PRIVATE_FIELDS", "METADATA_NAMESPACE")

CHECKS: Sequence[Check] = (
    Check("settings", settings),
    Check("live or test", live_or_test, uses=("CLERK_SECRET_KEY", "SANITY_DATASET")),
    Check("Clerk", clerk, uses=CLERK),
    Check("Sanity", sanity, uses=CONTENT),
    Check("read-only token", read_only_token, needs=("Sanity",)),
    Check("GROQ files", groq_files, uses=("GROQ_DIR",)),
    Check("projection", projection, uses=FIELDS, needs=("Sanity", "GROQ files")),
    Check("private dataset", private_dataset, needs=("projection",)),
    Check("webhook", webhook, needs=("Sanity", "GROQ files")),
    Check("deliveries", deliveries, needs=("Sanity", "GROQ files")),
    Check("clock", clock),
    Check("database", database, uses=("DATABASE_URL",)),
    Check("last webhook", last_webhook, needs=("database", "Sanity", "GROQ files")),
    Check("Clerk webhook", clerk_webhook, uses=("CLERK_WEBHOOK_SECRET",), needs=("database", "Sanity", "GROQ files")),
    Check("reconcile", reconcile, needs=("database",)),
    Check("claims", claims, uses=("CLAIMS_BUDGET", *FIELDS), needs=("Clerk",)),
)
