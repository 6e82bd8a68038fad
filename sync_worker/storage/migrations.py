"""The tables, and how a database is brought up to date.

A released step is never edited; a change is a new step. `compatible_from` is the oldest version of the tables whose
programs still work after the step, so that the previous release keeps running while the next one is rolled out.
Tables hold ids only: no personal data beyond the keys and the names that operators give, no payloads. Times are epoch
seconds by the database's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sync_worker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sync_worker.storage.database import Transaction


@dataclass(frozen=True)
class Step:
    """One change of the tables. Its version is its place in STEPS, counted from 1."""

    compatible_from: int
    statements: tuple[str, ...]


WORK = """
CREATE TABLE work (
  key TEXT COLLATE "C" PRIMARY KEY,
  kind TEXT NOT NULL,                                -- a domain.work.WorkKind
  lane INTEGER NOT NULL,
  visible_at DOUBLE PRECISION,                       -- NULL: nothing to do; while leased: the end of the lease
  generation BIGINT NOT NULL DEFAULT 0,              -- how often it was enqueued
  completed_generation BIGINT NOT NULL DEFAULT 0,    -- the generation of the claim that was last finished
  lease_token TEXT,                                  -- of the claim that runs it
  attempts INTEGER NOT NULL DEFAULT 0,               -- failed runs since the last finished one
  dead INTEGER NOT NULL DEFAULT 0,                   -- 1: given up until it is enqueued or retried
  error_code TEXT NOT NULL DEFAULT '',
  error_detail TEXT NOT NULL DEFAULT '',
  cause_kind TEXT NOT NULL DEFAULT '',               -- a domain.work.CauseKind
  cause_id TEXT NOT NULL DEFAULT '',                 -- of the document, or the type of the Clerk event
  cause_by TEXT NOT NULL DEFAULT '',                 -- the id of the editor, or the name of the operator
  delivery TEXT NOT NULL DEFAULT '',                 -- the id of the webhook that the cause came from
  enqueued_at DOUBLE PRECISION,                      -- of the oldest item that no finished run has served
  re_enqueued_at DOUBLE PRECISION,                   -- of the first item after the claim
  next_write_at DOUBLE PRECISION NOT NULL DEFAULT 0, -- not to be written in Clerk before this moment
  retry_not_before DOUBLE PRECISION NOT NULL DEFAULT 0, -- by a Retry-After of a service
  transition_at DOUBLE PRECISION,                    -- when the clock alone changes it, by the last finished run
  last_finished_at DOUBLE PRECISION                  -- when a run last ended
)
"""

EXPECTED_REVISION = """
CREATE TABLE expected_revision (
  key TEXT COLLATE "C" NOT NULL,
  document TEXT COLLATE "C" NOT NULL,
  revision TEXT,                                     -- NULL: ambiguous
  updated_at BIGINT,                                 -- microseconds since the epoch; NULL: unknown
  deletion INTEGER,                                  -- NULL: an update; else a domain.revisions.Deletion
  served_at DOUBLE PRECISION,                        -- when a finished run had reflected it; NULL: not yet
  generation BIGINT NOT NULL,                        -- work.generation of the item that brought it
  PRIMARY KEY (key, document)
)
"""

LEDGER = """
CREATE TABLE ledger (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at DOUBLE PRECISION NOT NULL,
  run TEXT NOT NULL,
  subject TEXT COLLATE "C" NOT NULL,
  kind TEXT NOT NULL,
  before TEXT NOT NULL,                              -- JSON object
  after TEXT NOT NULL,                               -- JSON object
  keys TEXT NOT NULL,                                -- JSON array: the places that are managed afterwards
  taken_over TEXT NOT NULL,                          -- JSON object: what the app had in keys that became ours
  documents TEXT NOT NULL,                           -- JSON array of ids
  cause TEXT NOT NULL,
  cause_by TEXT NOT NULL DEFAULT '',                 -- the id of the editor, or the name of the operator
  delivery TEXT NOT NULL DEFAULT '',                 -- the id of the webhook that the cause came from
  state TEXT NOT NULL,
  settled_at DOUBLE PRECISION
)
"""

CHANGESET = """
CREATE TABLE changeset (
  id TEXT COLLATE "C" PRIMARY KEY,
  at DOUBLE PRECISION NOT NULL,
  expires DOUBLE PRECISION NOT NULL,
  reason TEXT NOT NULL
)
"""

HELD = """
CREATE TABLE held (
  subject TEXT COLLATE "C" PRIMARY KEY,              -- on one list only, whatever else finds the same loss
  changeset TEXT COLLATE "C" NOT NULL,
  before TEXT NOT NULL,                              -- JSON object
  after TEXT NOT NULL                                -- JSON object
)
"""

LOSS = """
CREATE TABLE loss (
  cause TEXT COLLATE "C" NOT NULL,
  subject TEXT COLLATE "C" NOT NULL,
  at DOUBLE PRECISION NOT NULL,
  PRIMARY KEY (cause, subject)
)
"""

ACCESS = """
CREATE TABLE access (
  document TEXT COLLATE "C" NOT NULL,
  subject TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (document, subject)
)
"""

NOTICE = """
CREATE TABLE notice (
  event TEXT COLLATE "C" NOT NULL,                   -- what kind of thing happened
  cause TEXT COLLATE "C" NOT NULL,                   -- which one, for example the id of a held list
  size BIGINT NOT NULL,                              -- how large it was at the last notice; a new one needs more
  ended INTEGER NOT NULL DEFAULT 0,                  -- 1: it is over; when it comes back, that is news again
  body TEXT NOT NULL,                                -- JSON object: what is sent
  at DOUBLE PRECISION NOT NULL,                      -- of the last notice
  attempts INTEGER NOT NULL DEFAULT 0,
  send_at DOUBLE PRECISION,                          -- the next attempt; NULL: sent, or given up
  PRIMARY KEY (event, cause)
)
"""

STEPS: Sequence[Step] = (
    Step(
        compatible_from=1,
        statements=(
            WORK,
            """
            CREATE INDEX work_due ON work (lane, visible_at, kind) WHERE kind = 'subject' AND visible_at IS NOT NULL
            """,
            """
            CREATE INDEX work_due_lookups ON work (lane, visible_at, kind)
              WHERE kind <> 'subject' AND visible_at IS NOT NULL
            """,
            "CREATE INDEX work_owner ON work (lease_token) WHERE lease_token IS NOT NULL",
            "CREATE INDEX work_dead ON work (key) WHERE dead = 1",
            "CREATE INDEX work_noted ON work (key) WHERE error_code <> ''",
            """
            CREATE INDEX work_idle ON work (last_finished_at)
              WHERE visible_at IS NULL AND dead = 0 AND error_code = ''
            """,
            EXPECTED_REVISION,
            "CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL, at DOUBLE PRECISION NOT NULL)",
            LEDGER,
            "CREATE INDEX ledger_subject ON ledger (subject, id)",
            "CREATE INDEX ledger_at ON ledger (at)",
            "CREATE INDEX ledger_open ON ledger (subject) WHERE state IN ('intended', 'unknown')",
            "CREATE INDEX ledger_applied ON ledger (subject, id) WHERE state = 'applied'",
            "CREATE TABLE budget (name TEXT PRIMARY KEY, slots TEXT NOT NULL, paused_until DOUBLE PRECISION NOT NULL)",
            ACCESS,
            "CREATE INDEX access_subject ON access (subject, document)",
            CHANGESET,
            HELD,
            "CREATE INDEX held_changeset ON held (changeset, subject)",
            LOSS,
            "CREATE INDEX loss_at ON loss (at)",
            NOTICE,
        ),
    ),
)


def migrate(tx: Transaction) -> None:
    """Apply the steps that the database lacks. The caller holds a lock that keeps other processes out.

    Raises ConfigurationError when the database was changed by a newer program that this one cannot work beside.
    """
    tx.execute(
        "CREATE TABLE IF NOT EXISTS schema_version ("
        "version INTEGER PRIMARY KEY, compatible_from INTEGER NOT NULL, at DOUBLE PRECISION NOT NULL)"
    )
    newest = tx.execute("SELECT version, compatible_from FROM schema_version ORDER BY version DESC LIMIT 1")
    version, compatible_from = newest[0] if newest else (0, 0)
    if compatible_from > len(STEPS):
        raise ConfigurationError(
            f"The database has tables of version {version}, which need a program that knows version "
            f"{compatible_from}; this one knows {len(STEPS)}. Install the newer release again."
        )
    for number, step in enumerate(STEPS[version:], start=version + 1):
        for statement in step.statements:
            tx.execute(statement)
        tx.execute(
            "INSERT INTO schema_version (version, compatible_from, at) VALUES (?, ?, NOW())",
            (number, step.compatible_from),
        )
