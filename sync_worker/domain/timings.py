"""All durations and retry counts of the program, as one immutable value that is passed to whatever needs it.

They are not settings: each follows from a limit of a service or from another timing. The relations between them are
checked on construction. All are in seconds unless the field says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

HOUR = 3600.0
DAY = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Timings:
    """The timings of a process. The defaults are for production."""

    # A run of claimed subjects

    lease: float = 30.0
    """How long a claim on a subject is valid. After a crash on another machine, its work waits this long."""
    lease_margin: float = 2.0
    """Nothing is sent during this last part of a lease, because a request takes a moment to arrive."""
    run_deadline: float = 20.0
    """How long a run may take. It ends well before its lease, so that a live run never loses its subjects. A worker
    also drains for this long on shutdown; platforms kill after 30 seconds."""
    max_attempts: int = 30
    """Failed runs after which a subject is dead-lettered and listed as failed: about an hour and a half of backoff."""
    first_backoff: float = 0.5
    """The delay after the first failed run. It doubles with each further failure, minus up to half of it as jitter."""
    max_backoff: float = 300.0
    """The longest delay between two attempts: the end of an outage is noticed within five minutes."""
    dead_letter_retry: float = HOUR
    """When a dead-lettered subject is tried once more: the outage may have ended unnoticed."""
    credentials_probe: float = 15.0
    """Between two attempts while a key or the configuration is refused. All work is paused in between."""
    shared_address_recheck: float = 30.0
    """When an entitlement whose address belongs to several users is checked again: no event may report the end of
    that."""

    # Reads and writes

    stale_read_waits: tuple[float, ...] = (0.2, 0.5, 1.0, 2.0)
    """Before each further read while Sanity's query index lags; after the last one the document store decides. Their
    sum is far shorter than a run."""
    revision_memory: float = HOUR
    """How long a revision that a run has served is remembered, so that no read which falls behind it is believed.
    Sanity repeats a webhook for half an hour."""
    revisions_kept: int = 20
    """How many of them are remembered for one subject, as a count: the newest."""
    max_write_delay: float = 10.0
    """How long after it was abandoned a write may still land. Requests are abandoned after the shorter
    `clerk_timeout`."""
    write_delay_margin: float = 1.0
    """Between `max_write_delay` and the second look at a write whose response was lost."""
    subject_pace: float = 5.05
    """Between two writes to one subject, after a burst. Clerk refuses the eleventh write in ten seconds; a burst of
    eight and then one per pace is nine in any ten seconds."""
    subject_burst: int = 8
    """Writes to one subject without a delay, as a count: an editor who publishes a few times in a row does not wait."""
    pace_memory: float = 45.0
    """How long the last writes to a subject count, and its row must be kept: longer than a whole burst takes."""
    max_kept_retry_after: float = 300.0
    """The longest Retry-After that is honoured for new work on one subject: the clock may have been set since."""
    min_schedule_delay: float = 0.25
    """The earliest a finished row is due again on its own: the worker's clock may be ahead of the database's."""

    # The worker loop

    heartbeat_interval: float = 10.0
    """Between two heartbeats of a worker. Each also reclaims the work of killed processes on this machine."""
    worker_gone_after: float = 30.0
    """How long after its last heartbeat a worker counts as gone: three in a row were missed."""
    idle_interval: float = 5.0
    """The poll interval while nothing is due. New work and completed runs wake the loop at once."""
    min_rest: float = 0.005
    """The shortest sleep of the loop before a row becomes due, so that it does not spin."""
    first_gather: float = 0.05
    """How long subjects are collected for the next run under load. It doubles while the load lasts."""
    max_gather: float = 0.5
    """The longest collection: larger batches cost fewer calls, but every subject in them waits. Where the call budget
    was used up, calls are collected so long too."""
    database_retry: float = 1.0
    """The retry interval while the database is unavailable."""
    database_patience: float = 10.0
    """How long a request waits for the database, which may be connected and silent. Senders wait longer."""

    # Webhooks and events

    request_arrival: float = 30.0
    """How long an HTTP request may take to arrive. Both senders give up sooner."""
    liveness_note_interval: float = 30.0
    """Between two notes by one process that a service sent a webhook. A note with every webhook would double its
    cost."""
    echo_window: float = 60.0
    """The age up to which our own marker in a Clerk event identifies the echo of our write."""
    echo_delay: float = 20.0
    """How long the check of an echo is delayed, so that the echoes of a bulk change form one batch."""
    memberships_delay: float = 2.0
    """How long the check of a changed user's memberships is delayed, to batch them. It is short because access may be
    ending."""

    # Periodic work

    poll_grace: float = 60.0
    """The age at which a publish is picked up by the poll: by then its webhook has arrived and the query index has
    caught up."""
    empty_dataset_interval: float = 15.0
    """Between two checks whether any entitlement is visible again."""
    empty_dataset_overlap: float = 60.0
    """Runs that started this long before the first empty read are also covered, because they ran beside it. At least
    two runs."""
    purge_interval: float = HOUR
    """Between two clean-ups."""
    row_retention: float = 7 * DAY
    """How long idle rows of the work queue are kept."""
    ledger_retention: float = 400 * DAY
    """How long ledger entries are kept: a little more than a year."""
    instance_interval: float = HOUR
    """Between two checks of which Clerk instance the key belongs to."""
    counter_flush_interval: float = 10.0
    """Between two writes of a process's counters to the database. A killed process loses at most this much."""

    # Notices

    notify_interval: float = 15.0
    """Between two looks whether there is anything to notify of."""
    notify_timeout: float = 10.0
    """How long a receiver of notices may take to answer."""
    notify_pause: float = HOUR
    """Between two notices of one cause."""
    notify_patience: float = HOUR
    """How long a notice that was not accepted is tried again."""
    notify_first_retry: float = 30.0
    """The delay before the second attempt; it doubles. Longer than `notify_timeout`, so that nothing is sent twice at
    once."""
    notify_max_retry: float = 600.0
    """The longest such delay."""

    # Requests to Sanity and Clerk

    clerk_timeout: float = 8.0
    """The timeout of a request to Clerk. Shorter than `max_write_delay`."""
    clerk_connect_timeout: float = 3.0
    """The timeout of a connection to Clerk."""
    sanity_timeout: float = 15.0
    """The timeout of a request to Sanity: a page of a large dataset takes long. Shorter than a run."""
    sanity_connect_timeout: float = 5.0
    """The timeout of a connection to Sanity."""
    transport_attempts: int = 4
    """How often one request is sent before its error reaches the run, as a count. 1 where a repeat is not
    idempotent."""
    transport_first_backoff: float = 0.1
    """The delay before the second attempt; it doubles."""
    transport_max_backoff: float = 2.0
    """The longest such delay: the other subjects of the run wait too."""
    transport_jitter: float = 0.1
    """The most that is added to it at random."""
    max_transport_wait: float = 5.0
    """The longest Retry-After that a request waits for itself. A longer one goes back to the work queue, so that no
    lease expires during the wait."""
    max_retry_after: float = HOUR
    """The longest Retry-After that is honoured. All calls wait after a 429, so a mistake in it must not stop the
    program."""
    default_retry_after: float = 1.0
    """How long all calls wait after a 429 without Retry-After."""
    instance_limit_window: float = 2.0
    """When two subjects are rate-limited within this time, the limit of the whole instance is reached, not that of one
    subject."""

    # The call budget

    budget_window: float = 10.0
    """The window over which Clerk counts calls."""
    budget_slot: float = 0.125
    """The resolution of the window. A call counts until one slot after it left the window, because it is sent a moment
    after it was granted."""
    max_budget_pause: float = 60.0
    """The longest pause after a 429. A longer one was recorded before the clock was set back, and is ignored."""

    # Reconcile and held changes

    reconcile_patience: float = 60.0
    """How long a reconcile waits for subjects that another run holds, or that are delayed by their pace."""
    reconcile_poll: float = 0.5
    """Between two tries to claim those."""
    reconcile_lock: float = 60.0
    """How long a reconcile holds its lock without renewing it."""
    reconcile_lock_renewal: float = 15.0
    """Between two renewals of that lock: a few may fail."""
    reconcile_stale_after: float = 26 * HOUR
    """The age at which the last successful reconcile counts as overdue: it runs nightly and may take a while. A new
    installation has this long for its first."""
    reconcile_reminder: float = DAY
    """How often the log reminds of a reconcile that is overdue."""
    clerk_list_lag: float = 60.0
    """How long a new subject may be missing from Clerk's lists, and when one that was missing is looked up again."""
    published_in_the_past: float = 600.0
    """How far a publish may be from the arrival of its event. One further away (an import) proves no order."""
    listen_lease: float = 15.0
    """How long a process that died still counts as the one that listens."""
    listen_silence: float = 120.0
    """Seconds without even a comment after which a listener connects again. Sanity does not say how often it sends
    one."""
    listen_lifetime: float = 27 * 60.0
    """How long a listener keeps one connection. Sanity ends it after half an hour."""
    listen_reconnect: float = 1.0
    """The pause before a listener connects again, as in Sanity's own client. It doubles while no connection succeeds,
    minus up to half of it as jitter."""
    listen_max_reconnect: float = 60.0
    """The longest such pause."""
    listen_refused_wait: float = 300.0
    """The pause after Sanity said that it cannot be listened to."""
    log_retention: float = 3 * DAY
    """How long Sanity's transaction log is kept at least, which is on the Free plan."""
    loss_window: float = HOUR
    """The window over which losses by one cause are counted."""
    approval_expiry: float = 3 * DAY
    """How long held losses can be approved: a weekend and a day. A later reconcile finds them again."""

    # Databases

    sqlite_busy_timeout: float = 5.0
    """How long to wait for another process that writes. Its transactions take milliseconds."""
    sqlite_poll: float = 0.1
    """Between two checks for commits of other processes."""
    postgres_lock_timeout: float = 5.0
    """How long a statement waits for a lock before it fails."""
    postgres_statement_timeout: float = 30.0
    """How long a statement may run before it is cancelled."""
    postgres_idle_timeout: float = 10.0
    """How long a transaction may be idle before the server ends it: a hung process would block the others."""
    postgres_connect_timeout: float = 10.0
    """The connection timeout, in whole seconds; the URL may override it."""
    postgres_keepalive: float = 30.0
    """The idle time before TCP keepalives, in whole seconds; the URL may override it."""
    postgres_tcp_timeout: float = 30.0
    """How long a server may leave data unacknowledged before it counts as gone; the URL may override it."""
    postgres_tries: int = 5
    """How often a transaction is run that the server aborts, for a deadlock for example, as a count."""
    postgres_deadlock_wait: float = 0.02
    """The delay before the loser of a deadlock retries, so that the winner can finish."""
    postgres_poll: float = 0.25
    """Between two checks for work while notifications do not arrive, for example behind a pooler."""
    postgres_reconnect: float = 1.0
    """Between two attempts to listen again."""
    postgres_listen_check: float = 30.0
    """The silence after which a LISTEN connection is tested."""
    postgres_stop_wait: float = 0.5
    """How long shutdown waits for a listener whose server does not respond."""

    # Pages and the command line

    page_patience: float = 3.0
    """How long a status page waits for Sanity and Clerk. The Studio kit waits for five seconds."""
    names_kept: float = 300.0
    """How long a name is shown without asking Clerk again. Names are kept in memory only."""
    explain_patience: float = 20.0
    """How long `explain` waits for Sanity and Clerk."""
    late_after: float = 60.0
    """How long a change may wait before the status page reports it."""
    session_lifetime: float = 12 * HOUR
    """How long a sign-in to the pages is valid: a working day."""
    form_lifetime: float = 600.0
    """How long a sign-in form is valid."""
    guess_window: float = 60.0
    """The window over which a client's wrong tokens are counted."""
    sync_patience: float = 120.0
    """How long `sync` waits. What is not done by then stays in the work queue."""
    sync_poll: float = 0.05
    """Between two checks by `sync` whether its work is done."""
    request_drain: float = 5.0
    """How long requests in flight have after SIGTERM, in whole seconds. The worker has `run_deadline` meanwhile."""

    # Doctor

    clock_tolerance: float = 60.0
    """How far our clock may differ from a service's: access windows depend on it, and Clerk's signatures contain a
    time."""
    webhook_grace: float = 90.0
    """How long a webhook may be on its way, in addition to `liveness_note_interval`."""
    delivery_memory: float = DAY
    """How long a failed delivery counts."""

    def __post_init__(self) -> None:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        numbers = {name: value for name, value in values.items() if not isinstance(value, tuple)}
        _require(
            all(value > 0 for value in (*numbers.values(), *self.stale_read_waits)), "every timing must be positive"
        )
        _require(
            self.run_deadline < self.lease - self.lease_margin,
            "run_deadline must be shorter than lease minus lease_margin",
        )
        _require(self.first_backoff <= self.max_backoff, "first_backoff must not exceed max_backoff")
        _require(self.subject_pace * self.subject_burst <= self.pace_memory, "pace_memory must cover a whole burst")
        _require(
            self.heartbeat_interval < self.worker_gone_after,
            "heartbeat_interval must be shorter than worker_gone_after",
        )
        _require(self.first_gather <= self.max_gather, "first_gather must not exceed max_gather")
        _require(
            self.transport_first_backoff <= self.transport_max_backoff,
            "transport_first_backoff must not exceed transport_max_backoff",
        )
        _require(self.budget_slot < self.budget_window, "budget_slot must be shorter than budget_window")
        _require(
            self.reconcile_lock_renewal < self.reconcile_lock,
            "reconcile_lock_renewal must be shorter than reconcile_lock",
        )
        _require(
            self.notify_timeout < self.notify_first_retry <= self.notify_max_retry,
            "notify_first_retry must be longer than notify_timeout, and not longer than notify_max_retry",
        )
        _require(self.pace_memory <= self.row_retention, "row_retention must not be shorter than pace_memory")

    @property
    def write_settles_after(self) -> float:
        """When a write whose response was lost is checked again: by then it has landed or never will."""
        return self.max_write_delay + self.write_delay_margin


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(f"timings: {rule}")
