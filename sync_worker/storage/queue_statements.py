"""The statements of the work queue, each with its purpose. `NOW()` is the clock of the database, in epoch seconds.

Two transactions that lock the same rows do so in the order of their keys, so that neither waits for the other.
"""

from __future__ import annotations

from sync_worker.domain.work import PUBLISHED, CauseKind, WorkKind

IS_SUBJECT = f"kind = '{WorkKind.SUBJECT}'"
IS_LOOKUP = f"kind <> '{WorkKind.SUBJECT}'"

# When a waiting row may run at the earliest, whatever enqueues it: after the pace of Clerk's limit for one subject, and
# after a Retry-After. The upper bounds hold where the clock was set back meanwhile.
EARLIEST_RUN = """GREATEST(excluded.visible_at,
    LEAST(work.next_write_at, NOW() + :subject_pace), LEAST(work.retry_not_before, NOW() + :max_kept_retry_after))"""

PUBLISHED_KINDS = ", ".join(f"'{kind}'" for kind in sorted(PUBLISHED))

# A publish's cause stays until a run has served it: what else enqueues the subject must not pass for the reason.
KEEPS_CAUSE = f"""(excluded.cause_kind = '{CauseKind.NONE}' OR (
    (work.generation > work.completed_generation OR work.dead = 1)
    AND work.cause_kind IN ({PUBLISHED_KINDS}) AND excluded.cause_kind NOT IN ({PUBLISHED_KINDS})))"""

# Insert a row, or merge an item into it, field by field:
# - lane: the most urgent of all that waits.
# - visible_at: the earliest, but not before the pace and Retry-After allow it; while leased, it stays the lease's end.
# - generation: one more, so that a run under way is followed by another.
# - enqueued_at: that of the oldest item that no run has served.
# - re_enqueued_at: that of the first item since the claim.
# - cause, delivery: the newest, but a publish wins until it is served.
# - transition_at: the earliest.
# - attempts, error, dead: a dead-lettered row starts afresh.
ENQUEUE = f"""
INSERT INTO work
  (key, kind, lane, visible_at, generation, enqueued_at, cause_kind, cause_id, cause_by, delivery,
  transition_at)
VALUES (:key, :kind, :lane, COALESCE(:visible_at, NOW()), 1,
  COALESCE(:enqueued_at, GREATEST(NOW(), COALESCE(:visible_at, NOW()))),
  :cause_kind, :cause_id, :cause_by, :delivery, :transition_at)
ON CONFLICT (key) DO UPDATE SET
  lane = CASE WHEN work.generation > work.completed_generation THEN LEAST(work.lane, excluded.lane)
    ELSE excluded.lane END,
  visible_at = CASE WHEN work.lease_token IS NOT NULL THEN work.visible_at
    ELSE LEAST(COALESCE(work.visible_at, {EARLIEST_RUN}), {EARLIEST_RUN}) END,
  generation = work.generation + 1,
  enqueued_at = LEAST(COALESCE(work.enqueued_at, excluded.enqueued_at), excluded.enqueued_at),
  re_enqueued_at = CASE WHEN work.lease_token IS NOT NULL THEN COALESCE(work.re_enqueued_at, excluded.enqueued_at) END,
  cause_kind = CASE WHEN {KEEPS_CAUSE} THEN work.cause_kind ELSE excluded.cause_kind END,
  cause_id = CASE WHEN {KEEPS_CAUSE} THEN work.cause_id ELSE excluded.cause_id END,
  cause_by = CASE WHEN {KEEPS_CAUSE} THEN work.cause_by ELSE excluded.cause_by END,
  delivery = CASE WHEN {KEEPS_CAUSE} THEN work.delivery ELSE excluded.delivery END,
  transition_at = LEAST(COALESCE(work.transition_at, excluded.transition_at),
    COALESCE(excluded.transition_at, work.transition_at)),
  attempts = CASE WHEN work.dead = 1 THEN 0 ELSE work.attempts END,
  error_code = CASE WHEN work.dead = 1 THEN '' ELSE work.error_code END,
  error_detail = CASE WHEN work.dead = 1 THEN '' ELSE work.error_detail END,
  dead = 0
"""  # noqa: S608 - constants

TAKE = """
UPDATE work SET lease_token = :token, visible_at = NOW() + :lease, enqueued_at = COALESCE(enqueued_at, visible_at),
  re_enqueued_at = NULL
WHERE key IN (SELECT key FROM ready)
RETURNING key, kind, lane, generation, attempts, cause_kind, cause_id, cause_by, error_code, visible_at,
  enqueued_at, delivery, transition_at
"""

# Claim what is due in a lane, the longest due first. Each of the two conditions on `kind` has an index of its own.
_CLAIM = f"""
WITH ready AS MATERIALIZED (
  SELECT key FROM work WHERE {{kind}} AND lane = :lane AND visible_at <= NOW()
  ORDER BY visible_at LIMIT :limit FOR UPDATE SKIP LOCKED
) {TAKE}
"""  # noqa: S608 - constants
CLAIM = _CLAIM.format(kind=IS_SUBJECT)
CLAIM_LOOKUPS = _CLAIM.format(kind=IS_LOOKUP)

# Claim these subjects, unless somebody runs them or they must wait.
CLAIM_KEYS = f"""
WITH ready AS MATERIALIZED (
  SELECT key FROM work WHERE key IN (EACH(:keys)) AND visible_at <= NOW() ORDER BY key FOR UPDATE SKIP LOCKED
) {TAKE}
"""  # noqa: S608 - constants

# Lock the rows that a claim still owns: whether the lease has time left, how much was enqueued by now, and when the
# clock alone changes the subject.
LOCK = """
SELECT key, visible_at > NOW(), generation, transition_at FROM work
WHERE lease_token = :token AND key IN (EACH(:keys)) ORDER BY key FOR UPDATE
"""

# Start a lease anew.
RENEW = "UPDATE work SET visible_at = NOW() + :lease WHERE key = :key"

# When a row that rests runs next. Not before a moment from now, because the clock of the machine that worked it out may
# be ahead of the database's.
NEXT_RUN = """CASE WHEN CAST(:next_due AS double precision) IS NOT NULL
    THEN GREATEST(CAST(:next_due AS double precision), NOW() + :min_schedule_delay) END"""

# A run finished and nothing was enqueued meanwhile: the row rests, or waits for its next run.
COMPLETE = f"""
UPDATE work SET lease_token = NULL, completed_generation = :generation, attempts = 0, dead = 0,
  error_code = :error_code, error_detail = :error_detail, last_finished_at = NOW(), re_enqueued_at = NULL,
  visible_at = {NEXT_RUN},
  lane = :lane, enqueued_at = NULL, cause_kind = '', cause_id = '', cause_by = '', delivery = '',
  transition_at = CAST(:transition_at AS double precision)
WHERE key = :key
"""  # noqa: S608 - constants

# A run ended for good and the subject was enqueued meanwhile: it runs once more, for what came since.
REQUEUE = """
UPDATE work SET lease_token = NULL, completed_generation = :generation, attempts = 0, dead = 0,
  error_code = :error_code, error_detail = :error_detail, last_finished_at = NOW(),
  visible_at = NOW(), enqueued_at = re_enqueued_at, re_enqueued_at = NULL,
  transition_at = CAST(:transition_at AS double precision)
WHERE key = :key
"""

# A run failed and is tried again; a Retry-After is kept even if the subject is enqueued meanwhile.
RETRY = """
UPDATE work SET lease_token = NULL, attempts = attempts + 1, error_code = :error_code, error_detail = :error_detail,
  last_finished_at = NOW(), re_enqueued_at = NULL,
  visible_at = NOW() + :delay, retry_not_before = NOW() + :not_before
WHERE key = :key
"""

# A run failed for good and nothing was enqueued meanwhile: kept and listed.
DEAD_LETTER = f"""
UPDATE work SET lease_token = NULL, completed_generation = :generation, attempts = attempts + 1, dead = 1,
  error_code = :error_code, error_detail = :error_detail, last_finished_at = NOW(),
  re_enqueued_at = NULL, enqueued_at = NULL,
  visible_at = {NEXT_RUN}
WHERE key = :key
"""  # noqa: S608 - constants

# A run did what it may: kept and listed like what failed, but nothing of what enqueued it speaks for what is left.
SET_ASIDE = f"""
UPDATE work SET lease_token = NULL, completed_generation = :generation, attempts = attempts + 1, dead = 1,
  error_code = :error_code, error_detail = :error_detail, last_finished_at = NOW(),
  re_enqueued_at = NULL, enqueued_at = NULL, cause_kind = '', cause_id = '', cause_by = '', delivery = '',
  visible_at = {NEXT_RUN}, transition_at = CAST(:transition_at AS double precision)
WHERE key = :key
"""  # noqa: S608 - constants

# An address is personal data: its row goes as soon as it is looked up.
FORGET = """
DELETE FROM work WHERE key = :key AND lease_token IS NULL AND generation = completed_generation AND dead = 0
"""

# A run was not begun: the row is given back as it was.
RELEASE = "UPDATE work SET lease_token = NULL, visible_at = NOW(), re_enqueued_at = NULL WHERE key = :key"

LEASE_TOKENS = "SELECT DISTINCT lease_token FROM work WHERE lease_token IS NOT NULL"

# Give back all that a process held which is gone.
RELEASE_ALL = """
UPDATE work SET lease_token = NULL, visible_at = NOW(), re_enqueued_at = NULL WHERE lease_token = :token RETURNING key
"""

# Count a write against the pace of its subject: a leaky bucket (GCRA) in which `next_write_at` is the moment of the
# next write, and `burst` what a whole burst takes.
COUNT_WRITE = """
UPDATE work SET next_write_at = GREATEST(LEAST(next_write_at, NOW() + :pace), NOW() - :burst) + :pace WHERE key = :key
"""

# Let a subject that was just written wait for its pace.
WAIT_FOR_PACE = "UPDATE work SET visible_at = next_write_at WHERE key = :key AND visible_at < next_write_at"
