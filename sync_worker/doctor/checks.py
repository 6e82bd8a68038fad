"""The checks of `sync-worker doctor`, one function each; CHECKS lists them in order."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from sync_worker import DOCUMENTATION
from sync_worker.doctor.database_probe import NEWEST, NO_TABLES, inspect
from sync_worker.doctor.people_checks import claims, ownership
from sync_worker.doctor.runner import Check, Finding, Installation, ok, problem, rfc3339, skipped, warning
from sync_worker.doctor.webhook_checks import INSTALL, clerk_webhook, deliveries, last_webhook, listener, webhook
from sync_worker.errors import ConfigurationError, CredentialsRefused, UnreadableAnswer
from sync_worker.sanity.groq_checks import check_groq_files
from sync_worker.sanity.webhook_config import PATH
from sync_worker.storage.reconcile_runs import GOOD
from sync_worker.variables import names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sync_worker.doctor.database_probe import Tables

VIEWER = "npx sanity tokens create sync-worker --role=viewer"


async def settings(installation: Installation) -> Finding:
    """Check that every required variable is set, and that all are valid."""
    if installation.invalid:
        return problem(
            "; ".join(installation.invalid.values()),
            f"Correct this in the environment or in .env. All settings: {DOCUMENTATION}/settings.md",
        )
    if installation.settings.events != "listen" and not installation.settings.sanity_webhook_secret:
        return problem(
            "SANITY_WEBHOOK_SECRET is not set, so every webhook is answered 503",
            f"Generate one with `openssl rand -hex 32`, then run: {INSTALL} https://your-host{PATH}",
        )
    if installation.unknown:
        return warning(
            "; ".join(names.sentence(name, meant) for name, meant in installation.unknown.items()),
            "Correct the name, or remove the variable if it is for another program.",
        )
    return ok("all variables are valid")


async def live_or_test(installation: Installation) -> Finding:
    """Check that a live key is used with the production dataset, and a test key with another one."""
    live = installation.settings.clerk_secret_key.get_secret_value().startswith("sk_live_")
    dataset = installation.settings.sanity_dataset
    if live == (dataset == "production"):
        return ok(f"a {'live' if live else 'test'} Clerk key with the dataset {dataset}")
    return warning(
        f"a {'live' if live else 'test'} Clerk key with the dataset {dataset}",
        "If this is not intended, correct SANITY_DATASET or use the key of the other Clerk instance.",
    )


async def clerk(installation: Installation) -> Finding:
    """Check that Clerk answers and accepts the key."""
    try:
        answer = await installation.clerk.get(f"{installation.settings.clerk_api_url}/v1/instance")
        instance = answer.json()
        return ok(f"instance {instance['id']}, {instance['environment_type']}")
    except CredentialsRefused as error:
        return problem(error.detail, "Copy the secret key from Clerk's dashboard again, under API keys.")
    except (ValueError, KeyError, TypeError):
        raise UnreadableAnswer("Clerk's response does not name an instance. Check CLERK_API_URL.") from None


async def sanity(installation: Installation) -> Finding:
    """Check that Sanity answers, has the project and the dataset, and accepts the token."""
    dataset = installation.settings.sanity_dataset
    parameters = {"query": "defined(*[0])", "perspective": "published"}
    try:
        await installation.sanity.get(f"{installation.sanity_base}/data/query/{dataset}", params=parameters)
    except CredentialsRefused as error:
        return problem(error.detail, f"Create a token for this project: {VIEWER}")
    return ok(f"project {installation.settings.sanity_project_id}, dataset {dataset}")


async def read_only_token(installation: Installation) -> Finding:
    """Check that the token cannot write, with a mutation that Sanity only simulates."""
    document = {"_id": f"sync-worker.{uuid4()}", "_type": "syncWorkerDoctor"}
    try:
        await installation.sanity.post(
            f"{installation.sanity_base}/data/mutate/{installation.settings.sanity_dataset}",
            params={"dryRun": "true"},
            json={"mutations": [{"create": document}]},
        )
    except CredentialsRefused:
        return ok("SANITY_READ_TOKEN can only read")
    return problem(
        "SANITY_READ_TOKEN can write, so a leaked token could change the content",
        f"Create a read-only token, set it, and delete the old one: {VIEWER}",
    )


async def private_dataset(installation: Installation) -> Finding:
    """Check that the entitlements cannot be read without a token."""
    try:
        page = await installation.public_source.everything("")
    except (CredentialsRefused, ConfigurationError):
        return ok("it cannot be read without a token")
    if page.rows:
        return warning(
            "the dataset is public: anyone who knows the project id can read all entitlements",
            f"npx sanity datasets visibility set {installation.settings.sanity_dataset} private",
        )
    if not (await installation.source.everything("")).rows:
        return skipped("not checked: nothing is published yet")
    return ok("entitlements cannot be read without a token")


async def agents(installation: Installation) -> Finding:
    """Say what agents read. Their endpoints belong to the organization, and our token sees none of them."""
    rows = (await installation.source.everything("")).rows
    addresses = ", some with e-mail addresses," if any(row.get("userEmail") for row in rows) else ""
    return ok(
        f"agents that use Sanity Context read all entitlements{addresses} unless their groqFilter leaves them out, "
        f"which is not visible from here: {DOCUMENTATION}/go-live.md#agents-that-read-your-dataset"
    )


async def groq_files(installation: Installation) -> Finding:
    """Check that every GROQ file exists, with its includes."""
    _ = installation.queries
    return ok(f"all files are in {installation.settings.groq_folder}")


async def projection(installation: Installation) -> Finding:
    """Check that each file runs, returns valid rows, and would report an event about one of them."""
    configured = installation.settings
    fields, now = configured.layout.fields, rfc3339(installation.clock.now())
    report = await check_groq_files(installation.source, installation.queries, configured.groq_folder, fields, now)
    if problems := report.problems_with(configured.events):
        return problem("; ".join(one.text for one in problems), problems[0].fix)
    if report.warnings:
        return warning("; ".join(one.text for one in report.warnings), report.warnings[0].fix)
    return ok(f"all rows are valid; visible entitlements: {report.visible}")


async def clock(installation: Installation) -> Finding:
    """Check our clock against the services."""
    if not installation.clock_offsets:
        return skipped("not checked: no service returned its time")
    service, seconds = max(installation.clock_offsets.items(), key=lambda item: abs(item[1]))
    tolerance = installation.timings.clock_tolerance
    if abs(seconds) > tolerance:
        way = "ahead of" if seconds > 0 else "behind"
        return problem(f"this clock is {abs(seconds):.0f} s {way} {service}'s", "Synchronize it with NTP.")
    return ok(f"within {tolerance:.0f} s of {' and '.join(sorted(installation.clock_offsets))}")


async def database(installation: Installation) -> Finding:
    """Check that the database exists, is writable, and has the tables of this release."""
    tables = await _tables(installation)
    if tables == NO_TABLES:
        return warning("there are no tables yet", "`sync-worker release` or `sync-worker serve` creates them.")
    if tables.compatible_from > NEWEST:
        return problem(f"its schema version {tables.version} is too new for this release", "Install the newer release.")
    if tables.version < NEWEST:
        return warning(f"its schema version is {tables.version}, not {NEWEST}", "Run `sync-worker release`.")
    return ok(f"writable, schema version {tables.version}")


async def _tables(installation: Installation) -> Tables:
    return await inspect(installation.settings.database_url, installation.clock, installation.timings)


async def reconcile(installation: Installation) -> Finding:
    """Check that a reconcile has succeeded recently."""
    at = (await _tables(installation)).noted.get(GOOD)
    if at is None:
        return warning(
            "none has run yet",
            "Run `sync-worker reconcile --dry-run`, then without it. Schedule it every night.",
        )
    result = f"the last successful run was {installation.ago(at)}"
    if installation.clock.now() - at > installation.timings.reconcile_stale_after:
        return problem(result, "Run `sync-worker reconcile`, and schedule it every night.")
    return ok(result)


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
    Check("agents", agents, needs=("projection",)),
    Check("webhook", webhook, needs=("Sanity", "GROQ files")),
    Check("deliveries", deliveries, needs=("Sanity", "GROQ files")),
    Check("clock", clock),
    Check("database", database, uses=("DATABASE_URL",)),
    Check("listener", listener, uses=("EVENTS",), needs=("database",)),
    Check("last webhook", last_webhook, needs=("database", "Sanity", "GROQ files")),
    Check("Clerk webhook", clerk_webhook, uses=("CLERK_WEBHOOK_SECRET",), needs=("database", "Sanity", "GROQ files")),
    Check("reconcile", reconcile, needs=("database",)),
    Check("ownership", ownership, uses=FIELDS, needs=("Sanity", "Clerk", "database")),
    Check("claims", claims, uses=("CLAIMS_BUDGET", *FIELDS), needs=("Clerk", "database")),
)
