"""The whole error tree.

Why it exists: an operator reads one line and knows what happened and what to do. The first line of each docstring is
the message, the rest is the next step; both are printed by the command line and shown in `failed`. Callers add only
the particulars: `raise NoSuchSubject("user:user_2x")`. Services repeat in theirs what they were sent, so these are
cleaned: errors are shown, logged and kept in the database.

    SyncWorkerError
      ConfigurationError      the settings, the GROQ files or the database address are wrong; nothing starts
      InvalidSubject          a text that names no subject
      CredentialsRefused      401/403; work stops, nothing is lost, it resumes when the key is right
      RetryableError          the same call may succeed later; carries `retry_after` seconds when the service said so
        RateLimited           429
        ServiceUnavailable    5xx, timeouts, dropped connections, busy resources
        UnreadableAnswer      a 2xx that is not what was asked for
        StaleRead             the query index lags behind the event
        DatasetEmpty        no entitlement is visible at all
        DatabaseUnavailable   the work set cannot be read or written
      RefusedError            it will not succeed until somebody changes something
        RevocationHeld        too many revocations at once; a person has to approve
        NoSuchSubject         nobody by that id in Clerk
        AccessTooLarge        more than 8 KB of metadata
        RequestRefused        any other 4xx
      SourceShrank            far fewer entitlements than in the last good run
      AlreadyRunning          another reconcile is at work
      NoSuchChangeset         nothing is held by this id
      MayNotManageHooks       the token has no right to see or change webhooks
      HookNotRepaired         Sanity took the change of a webhook, but it is not what was asked for
      LeaseLost               another process owns the subject now
      MutationInDryRun        a dry run tried to write
"""

from __future__ import annotations

import inspect

from sync_worker.redaction import redact


class SyncWorkerError(Exception):
    """Something went wrong.

    Read the particulars above.
    """

    def __init__(self, detail: str = "") -> None:
        self.detail = redact(detail)
        super().__init__(self.detail)

    @classmethod
    def headline(cls) -> str:
        """Return the first line of the class docstring: what happened."""
        return (inspect.getdoc(cls) or cls.__name__).partition("\n")[0]

    @classmethod
    def next_step(cls) -> str:
        """Return the rest of the class docstring: what to do."""
        return " ".join((inspect.getdoc(cls) or "").partition("\n")[2].split())

    @property
    def code(self) -> str:
        """Name the error for logs and JSON: `NoSuchSubject` is `no_such_subject`."""
        return _code(type(self))

    def __str__(self) -> str:
        return f"{self.headline()} {self.detail}".rstrip()


def quoted(value: object) -> str:
    """Return how a value looks in a message: as Python writes it, without secrets and addresses."""
    return redact(repr(value))


def error_named(code: str) -> type[SyncWorkerError] | None:
    """Return the class whose errors have this code, if there is one."""
    found: list[type[SyncWorkerError]] = [SyncWorkerError]
    for error in found:
        found += error.__subclasses__()
    return next((error for error in found if _code(error) == code), None)


def _code(error: type[SyncWorkerError]) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in error.__name__).lstrip("_")


class ConfigurationError(SyncWorkerError):
    """The configuration is wrong.

    Correct the setting that is named, then start again. `docs/settings.md` lists every setting.
    """


class InvalidSubject(SyncWorkerError):
    """This names no subject.

    Write user:user_…, org:org_…, membership:org_…/user_…, email:… or external:….
    """


class CredentialsRefused(SyncWorkerError):
    """The service refused our credentials.

    Check the key or token that is named. Nothing is lost: work resumes by itself when the key is right again.
    """


class RetryableError(SyncWorkerError):
    """The call did not succeed this time.

    It is tried again by itself.
    """

    def __init__(self, detail: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class RateLimited(RetryableError):
    """The service asked us to slow down.

    It is tried again by itself. If it happens often, lower CLERK_BUDGET.
    """


class ServiceUnavailable(RetryableError):
    """The service did not answer properly.

    It is tried again by itself. If it lasts, look at the status page of the service.
    """


class UnreadableAnswer(RetryableError):
    """The service answered something we cannot read, so nothing was concluded from it.

    It is tried again by itself. If it lasts, compare the answer with the GROQ files in use.
    """


class StaleRead(RetryableError):
    """The query index does not show the published revision yet.

    It is tried again by itself; nothing is written from a stale read.
    """


class DatasetEmpty(RetryableError):
    """Not one entitlement is visible, so no access is taken away.

    Check SANITY_PROJECT_ID, SANITY_DATASET, the token's permissions and the type name in the GROQ files.
    """


class DatabaseUnavailable(RetryableError):
    """The database cannot be used.

    Check DATABASE_URL, the disk and the server. Webhooks are answered 503 meanwhile, and the sender repeats them.
    """


class RefusedError(SyncWorkerError):
    """The change was refused and will not be retried by itself.

    Correct the cause, then `sync-worker failed retry SUBJECT`, or publish again.
    """


class RevocationHeld(RefusedError):
    """Too many revocations at once, so this one is held.

    Read the list with `sync-worker approve`, then `sync-worker approve ID`; or publish again what is missing.
    """


class NoSuchSubject(RefusedError):
    """There is nobody by this id in Clerk.

    Correct the id in the entitlement and publish it, or create the user; then `sync-worker sync SUBJECT`.
    """


class AccessTooLarge(RefusedError):
    """The access is larger than the 8 KB that Clerk stores, so nothing was written.

    Name fewer courses in the entitlements that are listed, or group them under a plan.
    """


class RequestRefused(RefusedError):
    """The service refused the request.

    The code of the service is above; correct what it names, then `sync-worker failed retry SUBJECT`.
    """

    def __init__(self, detail: str = "", *, status: int = 0) -> None:
        super().__init__(detail)
        self.status = status


class SourceShrank(SyncWorkerError):
    """Far fewer entitlements are visible than in the last good run, so nothing was changed.

    If that is right, run `sync-worker reconcile --accept-fewer` once. If not, check the dataset, the token and the
    GROQ files.
    """


class AlreadyRunning(SyncWorkerError):
    """Another reconcile is running.

    Wait for it to end. One that was killed stops counting after a minute.
    """


class NoSuchChangeset(SyncWorkerError):
    """No changeset is held by this id.

    `sync-worker approve` lists those that are held. An expired one is found again by the next reconcile.
    """


class MayNotManageHooks(SyncWorkerError):
    """This token may not see or change webhooks.

    Take a token with the Administrator or Developer role, or your own (`npx sanity debug --secrets`), and give it to
    this one command as SANITY_MANAGE_TOKEN. The worker keeps its Viewer token.
    """


class HookNotRepaired(SyncWorkerError):
    """Sanity took the change, but the webhook is still not what was asked for.

    Delete it in Sanity's project settings under API, then run `sync-worker webhook install` again.
    """


class LeaseLost(SyncWorkerError):
    """Another process took this subject over, so this run wrote nothing more.

    Nothing to do: the other process makes it right.
    """


class MutationInDryRun(SyncWorkerError):
    """A dry run tried to write, and was stopped.

    This is a bug in sync-worker: please report it with the request that is named.
    """
