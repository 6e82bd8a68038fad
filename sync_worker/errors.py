"""All errors of the program.

The docstring of each error is the text that users read: its first line says what happened, the rest what to do.
Callers add only the particulars: `raise NoSuchSubject("user:user_2x")`. They are redacted, because services repeat in
their errors what they were sent, and errors are shown, logged and stored in the database.

    SyncWorkerError
      ConfigurationError      a setting, GROQ file or database URL is wrong; nothing starts
        GroqInvalid           a GROQ file is missing, is no GROQ, or returns what the worker cannot use
      InvalidSubject          a text that is not a subject
      NobodyFound             a text that is no name of anybody
      CredentialsRefused      401 or 403; work pauses until the key is valid, and nothing is lost
      RetryableError          the same call may succeed later; `retry_after` is in seconds, if the service sent it
        RateLimited           429
        ServiceUnavailable    5xx, timeouts, dropped connections, locked resources
        UnreadableAnswer      a 2xx response with an unexpected body
          WrongResult         the body is what a query of ours returns, but not what the worker needs
        StaleRead             the query index lags behind the event
        NotListedYet          Clerk reported the subject a moment ago, and does not list it yet
        DatasetEmpty          no entitlement is visible at all
        DatabaseUnavailable   the work queue cannot be read or written
      RefusedError            it cannot succeed until somebody changes something
        LossHeld              too many losses at once; they need approval
        NoSuchSubject         the subject is not in Clerk
        AccessTooLarge        more than 8 KB of metadata
        ManagedElsewhere      another installation's marker is on the subject
        NamespaceOccupied     the app has a value where the namespace would be
        RequestRefused        any other 4xx
      SourceShrank            far fewer entitlements than in the last successful reconcile
      EveryoneLoses           a reconcile would take one key from everybody who stays entitled
      AlreadyRunning          another reconcile holds the lock
      NoSuchChangeset         no held changeset has this id
      MayNotManageHooks       the token may not list or change webhooks
      HookNotRepaired         Sanity accepted the change of a webhook, but did not apply it
      LeaseLost               another process took the subject over
      MutationInDryRun        a dry run tried to write
"""

from __future__ import annotations

import inspect

from sync_worker.redaction import redact


class SyncWorkerError(Exception):
    """Something went wrong.

    See the details.
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
        """The name of the error for logs and JSON: `NoSuchSubject` is `no_such_subject`."""
        return _code(type(self))

    def __str__(self) -> str:
        return f"{self.headline()} {self.detail}".rstrip()


def quoted(value: object) -> str:
    """Return a value as Python writes it, with secrets and addresses redacted."""
    return redact(repr(value))


def error_named(code: str) -> type[SyncWorkerError] | None:
    """Return the error class with this code, or None."""
    found: list[type[SyncWorkerError]] = [SyncWorkerError]
    for error in found:
        found += error.__subclasses__()
    return next((error for error in found if _code(error) == code), None)


def _code(error: type[SyncWorkerError]) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in error.__name__).lstrip("_")


class ConfigurationError(SyncWorkerError):
    """The configuration is invalid.

    Correct the setting that is named, then start again. All settings:
    https://github.com/sanity-clerk-sync/sanity-clerk-sync/blob/main/docs/settings.md
    """


class GroqInvalid(ConfigurationError):
    """A GROQ file is wrong.

    Correct the file that is named, then start again. What the worker needs of each file:
    https://github.com/sanity-clerk-sync/sanity-clerk-sync/blob/main/docs/content-model.md#your-own-content-model
    """

    def __init__(self, detail: str = "", *, position: int | None = None) -> None:
        super().__init__(detail)
        self.position = position


class InvalidSubject(SyncWorkerError):
    """This is not a valid subject.

    Write user:user_…, org:org_…, membership:org_…/user_…, email:… or external:….
    """


class NobodyFound(SyncWorkerError):
    """Nobody is found by this name, and it is not an id.

    Write part of a name, user:user_…, org:org_…, an e-mail address, external:… or a document id.
    """


class CredentialsRefused(SyncWorkerError):
    """The service rejected our credentials.

    Check the named key or token. Work is paused and nothing is lost; it resumes once the key is valid.
    """


class RetryableError(SyncWorkerError):
    """The call failed.

    It is retried automatically.
    """

    def __init__(self, detail: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class RateLimited(RetryableError):
    """The service is rate-limiting our calls.

    The call is retried automatically. If this happens often, lower CLERK_BUDGET.
    """


class ServiceUnavailable(RetryableError):
    """The service is unavailable.

    The call is retried automatically. If this lasts, check the status page of the service.
    """


class UnreadableAnswer(RetryableError):
    """The service sent an unexpected response, and it was ignored.

    The call is retried automatically. If this lasts, check the GROQ files and API URLs in use.
    """


class WrongResult(UnreadableAnswer):
    """A query did not return what the worker needs, so its result was ignored.

    The query is repeated automatically. If this lasts, correct the GROQ file: run `sync-worker doctor`.
    """


class StaleRead(RetryableError):
    """Sanity's query index does not show the published revision yet.

    The read is retried automatically. Nothing is written until the index has caught up.
    """


class NotListedYet(RetryableError):
    """Clerk reported this subject, but does not list it yet.

    The read is retried automatically for a minute.
    """


class DatasetEmpty(RetryableError):
    """No entitlement is visible, so no access is removed.

    Check SANITY_PROJECT_ID, SANITY_DATASET, the token's permissions and the document type in the GROQ files.
    """


class DatabaseUnavailable(RetryableError):
    """The database is unavailable.

    Check DATABASE_URL, the disk and the server. Meanwhile webhooks are answered with 503, and the sender retries them.
    """


class RefusedError(SyncWorkerError):
    """The change was refused and is not retried automatically.

    Correct the cause, then run `sync-worker failed retry SUBJECT`, or publish again.
    """


class LossHeld(RefusedError):
    """Too many losses by one cause, so this one is held for approval.

    List them with `sync-worker approve`, then run `sync-worker approve ID`, or publish again what is missing.
    """


class NoSuchSubject(RefusedError):
    """The subject was not found in Clerk.

    Correct the id in the entitlement and publish it, or create the user in Clerk, then run `sync-worker sync SUBJECT`.
    """


class AccessTooLarge(RefusedError):
    """The access does not fit into the 8 KB of metadata that Clerk stores, so nothing was written.

    Reduce the courses in the listed entitlements, or group them under a plan.
    """


class ManagedElsewhere(RefusedError):
    """Another installation manages this subject, so nothing was written.

    Remove the entitlement from one of the two datasets, give one installation its own METADATA_NAMESPACE, or run
    `sync-worker reconcile --take-over SOURCE` with the source that is named.
    """


class NamespaceOccupied(RefusedError):
    """The app keeps a value of its own where our namespace would be, so nothing was written.

    Choose another METADATA_NAMESPACE, or rename the key in the app.
    """


class RequestRefused(RefusedError):
    """The service refused the request.

    Correct what the error code of the service names, then run `sync-worker failed retry SUBJECT`.
    """

    def __init__(self, detail: str = "", *, status: int = 0) -> None:
        super().__init__(detail)
        self.status = status


class SourceShrank(SyncWorkerError):
    """Far fewer entitlements are visible than in the last successful reconcile, so nothing was changed.

    If this is intended, run `sync-worker reconcile --accept-fewer` once. Otherwise check the dataset, the token and the
    GROQ files.
    """


class EveryoneLoses(SyncWorkerError):
    """Everybody who stays entitled would lose the same key, so nothing was changed.

    Most likely a slug was cleared or a GROQ file asks for a wrong field: correct it. If this is intended, run
    `sync-worker reconcile --accept-fewer` once.
    """


class AlreadyRunning(SyncWorkerError):
    """Another reconcile is running.

    Wait until it ends. If it was killed, its lock expires after a minute.
    """


class NoSuchChangeset(SyncWorkerError):
    """No held changeset has this id.

    List the held changesets with `sync-worker approve`. The next reconcile finds an expired one again.
    """


class MayNotManageHooks(SyncWorkerError):
    """The token may not list or change webhooks.

    Create a token with the Administrator or Developer role, or use your own (`npx sanity debug --secrets`), and pass it
    to this command as SANITY_MANAGE_TOKEN. The worker keeps its Viewer token.
    """


class HookNotRepaired(SyncWorkerError):
    """Sanity accepted the change, but the webhook still differs.

    Delete it in Sanity's project settings under API, then run `sync-worker webhook install` again.
    """


class LeaseLost(SyncWorkerError):
    """Another process took this subject over, so this run stopped writing.

    Nothing to do: the other process syncs it.
    """


class MutationInDryRun(SyncWorkerError):
    """A dry run tried to write and was stopped.

    This is a bug in sync-worker. Please report it with the named request.
    """
