"""The checks of webhooks: their configuration, their deliveries, and whether any publish was missed."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sync_worker.doctor.database_probe import inspect
from sync_worker.doctor.runner import Finding, Installation, ok, problem, rfc3339, skipped, warning
from sync_worker.domain.subjects import Kind
from sync_worker.sanity.rows import read_row
from sync_worker.sanity.webhook_config import PATH, Hook, differences, needed, wanted_hook
from sync_worker.storage.liveness import ANOTHER_INSTANCE, note_of
from sync_worker.storage.state import CONNECTED, FAILURE, LAST_EVENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sync_worker.sanity.webhook_config import Attempt, Repair

INSTALL = "SANITY_MANAGE_TOKEN=… sync-worker webhook install --url"

NOT_NEEDED = "not needed: EVENTS=listen"


async def webhook(installation: Installation) -> Finding:
    """Check that the webhook exists, is enabled, and is configured correctly."""
    if installation.settings.events == "listen":
        return skipped(NOT_NEEDED)
    hooks = await installation.hooks.all()
    repair = _repair(installation, hooks)
    if repair is None or repair.present is None:
        url = installation.url or f"https://your-host{PATH}"
        near = get_close_matches(url, [one.url for one in hooks], n=1) or [one.url for one in hooks if _nearly(one.url)]
        meant = f"; the nearest posts to {near[0]}" if near else ""
        return problem(f"no webhook posts to {url}{meant}", f"Run: {INSTALL} {url}")
    if repair.differences:
        return problem("; ".join(map(str, repair.differences)), f"Run: {INSTALL} {repair.present.url}")
    if repair.others:
        others = ", ".join(f"{other.id} to {other.url}" for other in repair.others)
        return warning(f"{repair.present.url}; other webhooks post the same: {others}", "Delete those not needed.")
    return ok(repair.present.url)


def _nearly(url: str) -> bool:
    """Return whether the path of a URL looks like ours, mistyped."""
    return bool(get_close_matches(urlsplit(url).path.lower(), [PATH]))


def _repair(installation: Installation, hooks: Sequence[Hook]) -> Repair | None:
    """Return what to repair on the webhook with the given URL, or on the best match. None if there is no webhook."""
    configured = installation.settings

    def expected(hook: Hook) -> Hook:
        known = hook.secret in configured.sanity_webhook_secret
        secret = hook.secret if known else next(iter(configured.sanity_webhook_secret), None)
        return wanted_hook(
            installation.queries, url=installation.url or hook.url, dataset=configured.sanity_dataset, secret=secret
        )

    candidates = [
        h
        for h in hooks
        if h.type == "document" and (h.url == installation.url if installation.url else h.url.endswith(PATH))
    ]
    best = min(candidates, key=lambda hook: len(differences(hook, expected(hook))), default=None)
    return None if best is None else needed(hooks, expected(best))


async def deliveries(installation: Installation) -> Finding:
    """Check that the deliveries of the webhook were accepted."""
    if installation.settings.events == "listen":
        return skipped(NOT_NEEDED)
    repair = _repair(installation, await installation.hooks.all())
    if repair is None or repair.present is None:
        return skipped("not checked: there is no webhook")
    attempts = await installation.hooks.attempts(repair.present)
    if not attempts:
        return ok("nothing has been sent yet")
    last = attempts[0]
    if last.is_failure:
        return problem(
            f"the last delivery {_answered(last)}, {installation.ago(last.created_at.timestamp())}", _remedy(last)
        )
    since = installation.clock.now() - installation.timings.delivery_memory
    failed = [one for one in attempts if one.is_failure and one.created_at.timestamp() > since]
    if failed:
        return warning(
            f"{len(failed)} of the last {len(attempts)} deliveries failed; the latest {_answered(failed[0])}",
            _remedy(failed[0]),
        )
    return ok(f"the last delivery arrived {installation.ago(last.created_at.timestamp())}")


REMEDIES = {
    "bad_signature": "The secrets differ. Run `sync-worker webhook install`, then `sync-worker reconcile`.",
    "bad_body": "Its projection is not ours. Run `sync-worker webhook install`, then `sync-worker reconcile`.",
    "body_too_large": "Its projection sends whole documents. Run `sync-worker webhook install`, then `sync-worker "
    "reconcile`.",
    "method_not_allowed": "It must POST. Run `sync-worker webhook install`, then `sync-worker reconcile`.",
    "not_found": f"Its path must be {PATH}. Run `sync-worker webhook install`, and delete the webhook.",
    "not_configured": "Set SANITY_WEBHOOK_SECRET on the web process. Sanity retries for half an hour.",
}
"""What to do about each refusal of ours."""


def _answered(attempt: Attempt) -> str:
    if not attempt.result_code:
        return f"failed: {attempt.failure_reason}"
    by_us = f" by us: {attempt.refusal}" if attempt.refusal in REMEDIES else ""
    return f"was answered {attempt.result_code}{by_us}"


def _remedy(attempt: Attempt) -> str:
    if attempt.refusal in REMEDIES:
        return REMEDIES[attempt.refusal]
    match attempt.result_code:
        case None:
            return "Nothing answers at that URL. Start `sync-worker serve`; check host name, certificate and firewall."
        case code if code == 429 or code >= 500:  # noqa: PLR2004 - a status code is its own name
            return "Check the log of the web process. Sanity retries for half an hour."
        case _:
            return "Something else answers at that URL: open it. Then run `sync-worker reconcile` for lost events."


async def last_webhook(installation: Installation) -> Finding:
    """Check that nothing was published since the last webhook."""
    if installation.settings.events == "listen":
        return skipped(NOT_NEEDED)
    at = (await inspect(installation.settings.database_url, installation.clock, installation.timings)).noted.get(
        note_of("sanity")
    )
    if at is None:
        return warning(
            "none has been accepted yet", "Publish an entitlement. If none arrives, see webhook and deliveries."
        )
    grace, allowed = installation.timings.webhook_grace, installation.timings.liveness_note_interval
    missed = await installation.source.changed(
        rfc3339(at + allowed + grace), "", rfc3339(installation.clock.now() - grace)
    )
    if missed:
        return problem(
            f"it arrived {installation.ago(at)}, but {missed[-1]['_id']} was published at {missed[-1]['_updatedAt']}",
            "See webhook and deliveries, then run `sync-worker reconcile` for lost events.",
        )
    return ok(f"it arrived {installation.ago(at)}, and nothing was published since")


async def listener(installation: Installation) -> Finding:
    """Check that Sanity lets us listen, where publishes are reported in this way."""
    if installation.settings.events == "webhook":
        return ok("not used: EVENTS=webhook")
    noted = (await inspect(installation.settings.database_url, installation.clock, installation.timings)).noted
    received, connected, refused = (noted.get(name, 0.0) for name in (LAST_EVENT, CONNECTED, FAILURE))
    if refused > max(received, connected):
        return problem(
            f"Sanity refused it {installation.ago(refused)}",
            "Check SANITY_READ_TOKEN and SANITY_DATASET. The log has the reason under `listener_refused`.",
        )
    if not received and not connected:
        return warning("it has not been connected yet", "Start `sync-worker serve`.")
    if not received:
        return ok(f"it was connected {installation.ago(connected)}, and nothing has been published since")
    return ok(f"it last received a publish {installation.ago(received)}")


async def clerk_webhook(installation: Installation) -> Finding:
    """Check that Clerk reports sign-ups, if any entitlement names people by address."""
    if not installation.settings.clerk_webhook_secret:
        fields = installation.settings.layout.fields
        subjects = (read_row(raw, fields)[0] for raw in (await installation.source.everything("")).rows)
        if any(subject is not None and subject.kind in (Kind.EMAIL, Kind.EXTERNAL) for subject in subjects):
            return warning(
                "entitlements name people by address, but after a sign-up access has to wait for the next reconcile",
                "Add the endpoint https://your-host/webhooks/clerk in Clerk, and set CLERK_WEBHOOK_SECRET.",
            )
        return ok("not set up and not needed: no entitlement names people by address")
    noted = (await inspect(installation.settings.database_url, installation.clock, installation.timings)).noted
    at, elsewhere = noted.get(note_of("clerk")), noted.get(note_of(ANOTHER_INSTANCE), 0.0)
    if elsewhere > (at or 0.0):
        return problem(
            f"an event of another Clerk instance was ignored {installation.ago(elsewhere)}",
            "The log has both ids under `webhook_ignored`. Add the endpoint in the instance of CLERK_SECRET_KEY.",
        )
    if at is None:
        return warning(
            "none has been accepted yet", "If users have changed, check the endpoint's log in Clerk's dashboard."
        )
    return ok(f"the last one arrived {installation.ago(at)}")
