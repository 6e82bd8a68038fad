"""The tables, in the order in which they came to be, and how a database is brought up to date.

Why it exists: whoever looks into the database reads one page. A step that has been released is never edited; a change
is a new step. `compatible_from` is the oldest version of the tables whose programs still work after the step, so that
the previous release keeps running while the next one is rolled out, and after a rollback.

Ids only: no personal data beyond the keys, no payloads. Times are epoch seconds by the clock of the database.
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
  fanout INTEGER NOT NULL,                      -- 1: a document, address or member to look up; 0: a subject
  lane INTEGER NOT NULL,
  due DOUBLE PRECISION,                         -- NULL: nothing to do; while owned: the end of the lease
  wanted BIGINT NOT NULL DEFAULT 0,             -- counts marks
  done BIGINT NOT NULL DEFAULT 0,               -- wanted, as of the claim that was last finished
  owner TEXT,                                   -- the token of the claim that runs it
  attempts INTEGER NOT NULL DEFAULT 0,          -- failed runs since the last finished one
  dead INTEGER NOT NULL DEFAULT 0,              -- 1: given up until marked or revived
  code TEXT NOT NULL DEFAULT '',
  detail TEXT NOT NULL DEFAULT '',
  cause TEXT NOT NULL DEFAULT '',
  since DOUBLE PRECISION,                       -- when the oldest mark came that no finished run has served
  again DOUBLE PRECISION,                       -- when the first mark came after the claim
  paced DOUBLE PRECISION NOT NULL DEFAULT 0,    -- not to be written in Clerk before this moment
  settled DOUBLE PRECISION                      -- when a run last ended
)
"""

WITNESS = """
CREATE TABLE witness (
  key TEXT COLLATE "C" NOT NULL,
  document TEXT COLLATE "C" NOT NULL,
  revision TEXT NOT NULL,
  updated_at TEXT COLLATE "C" NOT NULL,
  deleted INTEGER NOT NULL,
  generation BIGINT NOT NULL,                   -- work.wanted of the mark that brought it
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
  before TEXT NOT NULL,                         -- JSON object
  after TEXT NOT NULL,                          -- JSON object
  documents TEXT NOT NULL,                      -- JSON array of ids
  cause TEXT NOT NULL,
  state TEXT NOT NULL,
  settled_at DOUBLE PRECISION
)
"""

HELD = """
CREATE TABLE held (
  id TEXT COLLATE "C" PRIMARY KEY,
  at DOUBLE PRECISION NOT NULL,
  expires DOUBLE PRECISION NOT NULL,
  reason TEXT NOT NULL,
  subjects TEXT NOT NULL                        -- JSON array of keys
)
"""

STEPS: Sequence[Step] = (
    Step(
        compatible_from=1,
        statements=(
            WORK,
            "CREATE INDEX work_due ON work (fanout, lane, due) WHERE due IS NOT NULL",
            "CREATE INDEX work_owner ON work (owner) WHERE owner IS NOT NULL",
            "CREATE INDEX work_dead ON work (key) WHERE dead = 1",
            "CREATE INDEX work_noted ON work (key) WHERE code <> ''",
            "CREATE INDEX work_idle ON work (settled) WHERE due IS NULL AND dead = 0 AND code = ''",
            WITNESS,
            "CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL, at DOUBLE PRECISION NOT NULL)",
            LEDGER,
            "CREATE INDEX ledger_subject ON ledger (subject, id)",
            "CREATE INDEX ledger_at ON ledger (at)",
            "CREATE INDEX ledger_open ON ledger (subject) WHERE state IN ('intended', 'unknown')",
            "CREATE TABLE budget (name TEXT PRIMARY KEY, slots TEXT NOT NULL, paused_until DOUBLE PRECISION NOT NULL)",
        ),
    ),
    Step(compatible_from=1, statements=(HELD,)),
    Step(
        compatible_from=1,
        statements=(
            # Not to be run before this moment, because the service asked for it.
            "ALTER TABLE work ADD COLUMN asked DOUBLE PRECISION NOT NULL DEFAULT 0",
            # A finished run has seen this delete; it is kept so that its create, told late, is known to be old.
            "ALTER TABLE witness ADD COLUMN served INTEGER NOT NULL DEFAULT 0",
        ),
    ),
    # The id of the webhook that the cause came from.
    Step(
        compatible_from=1,
        statements=tuple(f"ALTER TABLE {t} ADD COLUMN delivery TEXT NOT NULL DEFAULT ''" for t in ("work", "ledger")),
    ),
    # When the clock alone changes the subject, by the last finished run.
    Step(compatible_from=1, statements=("ALTER TABLE work ADD COLUMN transition DOUBLE PRECISION",)),
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
