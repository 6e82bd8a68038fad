"""Every duration that the program goes by, and how often it tries: one immutable value, passed to whatever needs it.

None of them is a setting. Each follows from a limit of a service or from another timing, as its field says, and what
must hold between them is checked when a value is made. All are in seconds unless the field says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

HOUR = 3600.0
DAY = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Timings:
    """The timings of a process; the defaults are those of production."""

    # A run of claimed subjects

    lease: float = 30.0
    """How long a claimed row belongs to its run. After a crash on another machine, work waits this long."""
    lease_margin: float = 2.0
    """Before the end of a lease, in which nothing is sent any more: a request takes a moment to arrive."""
    run_deadline: float = 20.0
    """How long a run may take. It ends well before its lease, so that a live run never loses its subjects; it is also
    how long a worker drains, and platforms kill after 30."""
    max_attempts: int = 30
    """Failed runs after which a subject is given up and listed as failed: about an hour and a half of backoff."""
    first_backoff: float = 0.5
    """The wait after the first failed run; it doubles with each further one, less up to half of it as jitter."""
    max_backoff: float = 300.0
    """The longest wait between two attempts: an outage that ends is noticed within five minutes."""
    dead_letter_retry: float = HOUR
    """Until what was given up is tried once more: the outage may be over without anybody having looked."""
    credentials_probe: float = 15.0
    """Between two tries while a key or the configuration is refused: all work stands still meanwhile."""
    shared_address_recheck: float = 30.0
    """Until an entitlement is looked at again whose address several people have: no event may tell when that ends."""

    # Reads and writes

    stale_read_waits: tuple[float, ...] = (0.2, 0.5, 1.0, 2.0)
    """Before each further read while Sanity's query index lags; after the last the document store decides. Together
    they are far shorter than a run."""
    max_write_delay: float = 10.0
    """How late a write may land that nobody waits for any more. Ours are abandoned after `clerk_timeout`, which is
    shorter."""
    write_delay_margin: float = 1.0
    """Between `max_write_delay` and the second look at a write whose answer was lost."""
    subject_pace: float = 5.05
    """Between two writes to one subject, after a burst. Clerk refuses the eleventh write in ten seconds: a burst of
    eight, then one per pace, is nine in any ten."""
    subject_burst: int = 8
    """Writes to one subject without a pause, in number: an editor who publishes a few times in a row does not wait."""
    pace_memory: float = 45.0
    """For which the last writes to a subject count, so that its row must stay: longer than a whole burst takes."""
    max_kept_retry_after: float = 300.0
    """The longest Retry-After that is kept for one subject against new work: the clock may have been set since."""
    min_schedule_delay: float = 0.25
    """The soonest that a finished row is due again by itself: the worker's clock may be ahead of the database's."""

    # The worker's loop

    heartbeat_interval: float = 10.0
    """Between two heartbeats of a worker, each of which also reclaims what killed processes of this machine held."""
    worker_gone_after: float = 30.0
    """Without a heartbeat until a worker counts as gone: three in a row were missed."""
    idle_interval: float = 5.0
    """Until the next look when nothing is due. Marks and the ends of runs wake the loop at once."""
    min_rest: float = 0.005
    """The shortest sleep of the loop before a row that is due in a moment, so that it does not spin."""
    first_gather: float = 0.05
    """How long subjects are gathered for the next run once many are coming in; it doubles while they do."""
    max_gather: float = 0.5
    """The longest gathering: larger batches cost fewer calls, but every subject in them waits."""
    scarce_budget_wait: float = 0.25
    """Until the next look when hardly any calls are left: two slots of the budget."""
    database_retry: float = 1.0
    """Until the next look while the database is unavailable."""

    # Webhooks and events

    request_arrival: float = 30.0
    """How long an HTTP request may take from its first byte to its last. Both senders give up sooner."""
    liveness_note_interval: float = 30.0
    """Between two notes of one process that a service was heard: one with every webhook would double its cost."""
    echo_window: float = 60.0
    """How old our own marker may be in an event of Clerk that passes for the echo of our write."""
    echo_delay: float = 20.0
    """Until an echo is looked at: by then all echoes of a bulk are one batch."""
    memberships_delay: float = 2.0
    """Until the memberships of changed users are looked at, to batch them too; entitlements may end meanwhile, so it
    is short."""

    # Periodic work

    poll_grace: float = 60.0
    """How old a publish must be before the poll takes it: its webhook and the query index have had their time."""
    empty_dataset_interval: float = 15.0
    """Between two looks whether any entitlement is visible again."""
    empty_dataset_overlap: float = 60.0
    """Before the first run that saw no entitlement, from which others count too because they ran beside it. At least
    as long as two runs."""
    purge_interval: float = HOUR
    """Between two clean-ups."""
    row_retention: float = 7 * DAY
    """For which idle rows of the work set stay."""
    ledger_retention: float = 400 * DAY
    """For which ledger entries stay: somewhat more than a year."""
    instance_interval: float = HOUR
    """Between two questions to Clerk which instance the key belongs to."""
    counter_flush_interval: float = 10.0
    """Between two writes of a process's counters to the database. A killed process loses so much of them."""

    # Requests to Sanity and Clerk

    clerk_timeout: float = 8.0
    """Until a request to Clerk is abandoned. Shorter than `max_write_delay`."""
    clerk_connect_timeout: float = 3.0
    """Until a connection to Clerk is given up."""
    sanity_timeout: float = 15.0
    """Until a request to Sanity is abandoned: a page of a large dataset takes long. Shorter than a run."""
    sanity_connect_timeout: float = 5.0
    """Until a connection to Sanity is given up."""
    transport_attempts: int = 4
    """How often one request is sent at most, in number, before its error goes to the run. 1 where sending twice would
    do something twice."""
    transport_first_backoff: float = 0.1
    """The wait before the second attempt; it doubles."""
    transport_max_backoff: float = 2.0
    """The longest such wait: a subject in a run waits along."""
    transport_jitter: float = 0.1
    """The most that is added to it by chance."""
    max_transport_wait: float = 5.0
    """The longest Retry-After that a request waits out itself. A longer one goes back to the work set, so that no lease
    is slept away."""
    max_retry_after: float = HOUR
    """The longest Retry-After that is believed. Everybody waits so long after a 429, so a slip must not stop us."""
    default_retry_after: float = 1.0
    """How long everybody waits after a 429 that does not say."""
    instance_limit_window: float = 2.0
    """Within which refusals of two subjects mean that the limit of the whole instance is reached, not of one."""

    # The call budget

    budget_window: float = 10.0
    """Over which Clerk counts calls."""
    budget_slot: float = 0.125
    """The grain of the window. A call counts until a whole slot after it has left the window, as it is sent a moment
    after it was granted."""
    max_budget_pause: float = 60.0
    """The longest pause after a 429. A longer one was set by a clock that has been set back since, and is ignored."""

    # Reconcile and held changes

    reconcile_patience: float = 60.0
    """How long a reconcile waits for subjects that another run holds, or that their pace keeps waiting."""
    reconcile_poll: float = 0.5
    """Between two tries to claim those."""
    reconcile_lock: float = 60.0
    """How long a reconcile that does not renew its lock keeps another one out."""
    reconcile_lock_renewal: float = 15.0
    """Between two renewals of that lock: a few may fail."""
    reconcile_stale_after: float = 26 * HOUR
    """Since the last good reconcile until that counts as trouble: it is nightly, and may take a while. A fresh
    installation has as long for its first."""
    revocation_window: float = HOUR
    """Over which revocations by one cause are counted."""
    approval_expiry: float = 3 * DAY
    """For which held revocations can be approved: a weekend and a day. A later reconcile finds them anew."""

    # Databases

    sqlite_busy_timeout: float = 5.0
    """How long to wait for another process that writes; its transactions take milliseconds."""
    sqlite_poll: float = 0.05
    """Between two looks for commits of other processes."""
    postgres_lock_timeout: float = 5.0
    """Until a statement that waits for a lock fails."""
    postgres_statement_timeout: float = 30.0
    """Until a statement is cancelled."""
    postgres_idle_timeout: float = 10.0
    """Until the server ends a transaction in which a process hangs, and which would hold up the others."""
    postgres_connect_timeout: float = 10.0
    """Until a connection is given up, in whole seconds; the URL may say otherwise."""
    postgres_keepalive: float = 30.0
    """Of silence until the connection is tested by TCP, in whole seconds; the URL may say otherwise."""
    postgres_tcp_timeout: float = 30.0
    """Until a server that acknowledges nothing counts as gone; the URL may say otherwise."""
    postgres_tries: int = 5
    """How often work is run, in number, when the server aborts it for a deadlock or the like."""
    postgres_deadlock_wait: float = 0.02
    """In which the winner of a deadlock gets ahead before the loser tries again."""
    postgres_poll: float = 0.25
    """Between two looks for work while notifications do not arrive, as behind a pooler."""
    postgres_reconnect: float = 1.0
    """Between two tries to listen again."""
    postgres_listen_check: float = 30.0
    """Of silence until a LISTEN connection is tested."""
    postgres_stop_wait: float = 0.5
    """How long stopping waits for a listener that may hang in a connection to a server that does not answer."""

    # People who look, and the command line

    page_patience: float = 3.0
    """How long Sanity and Clerk may keep a status page waiting; the Studio kit waits for five."""
    explain_patience: float = 20.0
    """How long they may keep `explain` waiting."""
    late_after: float = 60.0
    """How long a change may wait before the status page says so."""
    session_lifetime: float = 12 * HOUR
    """How long a sign-in to the pages holds: a working day."""
    form_lifetime: float = 600.0
    """How long a sign-in form can be sent."""
    guess_window: float = 60.0
    """Over which wrong tokens of one client are counted."""
    sync_patience: float = 120.0
    """How long `sync` waits. What is not done by then stays in the work set for the worker."""
    sync_poll: float = 0.05
    """Between two looks of `sync` whether it is done."""
    request_drain: float = 5.0
    """How long requests in flight have after SIGTERM, in whole seconds; the worker has `run_deadline` meanwhile."""

    # Doctor

    clock_tolerance: float = 60.0
    """By which our clock may differ from a service's: windows go by it, and Clerk's signatures carry a time."""
    webhook_grace: float = 90.0
    """Within which a webhook may be on its way, beyond what the note of the last one allows."""
    delivery_memory: float = DAY
    """For which a failed delivery counts."""

    def __post_init__(self) -> None:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        numbers = {name: value for name, value in values.items() if not isinstance(value, tuple)}
        _require(all(value > 0 for value in (*numbers.values(), *self.stale_read_waits)), "every timing is positive")
        _require(self.run_deadline < self.lease - self.lease_margin, "a run ends before its lease minus the margin")
        _require(self.first_backoff <= self.max_backoff, "no backoff is longer than the longest")
        _require(self.subject_pace * self.subject_burst <= self.pace_memory, "a burst is remembered until it is over")
        _require(self.heartbeat_interval < self.worker_gone_after, "a worker beats before it counts as gone")
        _require(self.first_gather <= self.max_gather, "no gathering is longer than the longest")
        _require(
            self.transport_first_backoff <= self.transport_max_backoff,
            "no wait of a request is longer than the longest",
        )
        _require(self.budget_slot < self.budget_window, "a window of the budget has several slots")
        _require(self.reconcile_lock_renewal < self.reconcile_lock, "a lock is renewed before it ends")
        _require(self.pace_memory <= self.row_retention, "a row stays as long as its writes count")

    @property
    def write_settles_after(self) -> float:
        """When a write whose answer was lost is looked at again: by then it has landed, or never will."""
        return self.max_write_delay + self.write_delay_margin


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(f"timings: {rule}")
