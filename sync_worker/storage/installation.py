"""The installation that a database belongs to: both services, and where the managed keys are.

It is recorded once, and again by each release. A process with other settings must not write: it would move or revoke
everybody's keys, back and forth with those that run under the recorded ones.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sync_worker.errors import ConfigurationError
from sync_worker.storage.state import REMEMBER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sync_worker.storage.database import Database, Transaction

STATE = "installation"
"""The name of the row of `state`."""

RECORD_FIRST = "INSERT INTO state (name, value, at) VALUES (?, ?, NOW()) ON CONFLICT (name) DO NOTHING"
RECORDED = "SELECT value FROM state WHERE name = ?"


@dataclass(frozen=True, slots=True)
class InstallationRecord:
    """The recorded settings, and those of this process, by variable. Errors: DatabaseUnavailable."""

    db: Database
    settings: Mapping[str, str]

    async def record(self, **known: str) -> None:
        """Record the settings of this process, with what else is `known`: everybody's keys move to them."""
        value = json.dumps({**self.settings, **known}, sort_keys=True)
        await self.db.run(lambda tx: tx.execute(REMEMBER, (STATE, value)))

    async def ensure(self, **known: str) -> None:
        """Raise ConfigurationError when other settings are recorded. Where nothing is, these are recorded."""
        mine = {**self.settings, **known}
        rows = await self.db.read(lambda tx: tx.execute(RECORDED, (STATE,)))
        if not rows or not mine.keys() <= json.loads(rows[0][0]).keys():
            rows = await self.db.run(lambda tx: _add(tx, mine))
        recorded: dict[str, str] = json.loads(rows[0][0])
        for variable, value in mine.items():
            if recorded.get(variable, value) != value:
                raise ConfigurationError(
                    f"{variable}: this database belongs to {_shown(recorded[variable])}, and this process has "
                    f"{_shown(value)}. Correct the setting, or run `sync-worker release` with the new one everywhere; "
                    "`sync-worker reconcile --dry-run` shows what that would change"
                )


def _add(tx: Transaction, settings: Mapping[str, str]) -> list[tuple[str]]:
    """Record what is not recorded yet."""
    tx.execute(RECORD_FIRST, (STATE, "{}"))
    ((value,),) = tx.execute(RECORDED + " FOR UPDATE", (STATE,))
    merged = json.dumps({**settings, **json.loads(value)}, sort_keys=True)
    tx.execute(REMEMBER, (STATE, merged))
    return [(merged,)]


def _shown(value: str) -> str:
    return repr(value) if value else "none"
