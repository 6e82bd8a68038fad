"""What `doctor` finds out about webhooks: whether they are set up, arrive, and miss nothing.

Why it exists: a webhook fails in silence, and in three places: as it is configured, on its way, and where it is taken.
What the hook in Sanity should be is said by `hooks`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sync_worker.doctor.database_probe import inspect
from sync_worker.doctor.runner import Finding, Installation, ok, problem, rfc3339, skipped, warning
from sync_worker.domain.subjects import Kind
from sync_worker.sanity.rows import read_row
from sync_worker.sanity.webhook_config import PATH, Hook, differences, needed, wanted_hook
from sync_worker.storage.liveness import note_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sync_worker.sanity.webhook_config import Attempt, Repair

INSTALL = "SANITY_MANAGE_TOKEN=… sync-worker webhook install --url"


async def webhook(installation: Installation) -> Finding:
    """Check that the webhook is there, is on, and tells us what we need."""
    repair = _repair(installation, await installation.hooks.all())
    if repair is None or repair.present is None:
        url = installation.url or f"https://your-host{PATH}"
        return problem(f"no webhook posts to {url}", f"{INSTALL} {url}")
    if repair.differences:
        return problem("; ".join(map(str, repair.differences)), f"{INSTALL} {repair.present.url}")
    if repair.others:
        told = ", ".join(f"{other.id} to {other.url}" for other in repair.others)
        return warning(f"{repair.present.url}; other webhooks post the same: {told}", "Delete those that nobody needs.")
    return ok(repair.present.url)


def _repair(installation: Installation, hooks: Sequence[Hook]) -> Repair | None:
    """Compare the webhook with what it should be. Its URL is the one that was given, or that of the likeliest."""
    given = installation.settings

    def wanted(hook: Hook) -> Hook:
        known = hook.secret in given.sanity_webhook_secret
        secret = hook.secret if known else next(iter(given.sanity_webhook_secret), None)
        return wanted_hook(
            installation.queries, url=installation.url or hook.url, dataset=given.sanity_dataset, secret=secret
        )

    likely = [
        h
        for h in hooks
        if h.type == "document" and (h.url == installation.url if installation.url else h.url.endswith(PATH))
    ]
    best = min(likely, key=lambda hook: len(differences(hook, wanted(hook))), default=None)
    return None if best is None else needed(hooks, wanted(best))


async def deliveries(installation: Installation) -> Finding:
    """Check that what the webhook sent was taken."""
    repair = _repair(installation, await installation.hooks.all())
    if repair is None or repair.present is None:
        return skipped("there is no webhook")
    attempts = await installation.hooks.attempts(repair.present)
    if not attempts:
        return ok("nothing was sent yet")
    last = attempts[0]
    if last.is_failure:
        return problem(
            f"the last one {_answered(last)}, {installation.ago(last.created_at.timestamp())}", _remedy(last)
        )
    since = installation.clock.now() - installation.timings.delivery_memory
    failed = [one for one in attempts if one.is_failure and one.created_at.timestamp() > since]
    if failed:
        return warning(
            f"{len(failed)} of the last {len(attempts)} failed; the newest of them {_answered(failed[0])}",
            _remedy(failed[0]),
        )
    return ok(f"the last one arrived {installation.ago(last.created_at.timestamp())}")


def _answered(attempt: Attempt) -> str:
    return f"was answered {attempt.result_code}" if attempt.result_code else f"failed: {attempt.failure_reason}"


def _remedy(attempt: Attempt) -> str:
    match attempt.result_code:
        case None:
            return "Nobody answers there: start `sync-worker serve`, and check name, certificate and firewall."
        case 401:
            return "The secrets differ: `sync-worker webhook install`. Then `sync-worker reconcile` for what was lost."
        case code if code == 429 or code >= 500:  # noqa: PLR2004 - a status code is its own name
            return "Look into the worker's log. Sanity repeats it for half an hour."
        case _:
            return "Something in front of us answers: open the URL. Then `sync-worker reconcile` for what was lost."


async def last_webhook(installation: Installation) -> Finding:
    """Check that nothing was published after the last webhook that came."""
    at = (await inspect(installation.settings.database_url, installation.clock, installation.timings)).noted.get(
        note_of("sanity")
    )
    if at is None:
        return warning(
            "none was accepted yet", "Publish an entitlement. If nothing comes, look at webhook and deliveries."
        )
    grace, allowed = installation.timings.webhook_grace, installation.timings.liveness_note_interval
    unheard = await installation.source.changed(
        rfc3339(at + allowed + grace), "", rfc3339(installation.clock.now() - grace)
    )
    if unheard:
        return problem(
            f"it came {installation.ago(at)}, but {unheard[-1]['_id']} was published at {unheard[-1]['_updatedAt']}",
            "Look at webhook and deliveries; then `sync-worker reconcile` for what was lost.",
        )
    return ok(f"it came {installation.ago(at)}, and nothing was published since")


async def clerk_webhook(installation: Installation) -> Finding:
    """Check that Clerk tells of people who are entitled before they sign up."""
    if not installation.settings.clerk_webhook_secret:
        fields = installation.settings.layout.fields
        subjects = (read_row(raw, fields)[0] for raw in (await installation.source.everything("")).rows)
        if any(subject is not None and subject.kind in (Kind.EMAIL, Kind.EXTERNAL) for subject in subjects):
            return warning(
                "entitlements name people by address, but who signs up later gets access only with the next reconcile",
                "Add the endpoint https://your-host/webhooks/clerk in Clerk, and set CLERK_WEBHOOK_SECRET.",
            )
        return ok("none, and none is needed: nobody is named by address")
    at = (await inspect(installation.settings.database_url, installation.clock, installation.timings)).noted.get(
        note_of("clerk")
    )
    if at is None:
        return warning(
            "none was accepted yet", "If users have changed: look at the endpoint's log in Clerk's dashboard."
        )
    return ok(f"the last one came {installation.ago(at)}")
