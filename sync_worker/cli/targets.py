"""Resolves command arguments to subjects: an e-mail address or an external id becomes the user who has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sync_worker.runtime.wiring import Store
    from sync_worker.settings import Settings


async def keys_of(settings: Settings, store: Store, texts: Sequence[str]) -> list[str]:
    """Return the keys of these arguments in the work queue and the ledger, without duplicates.

    Addresses are looked up in Clerk. Raises InvalidSubject, and NoSuchSubject for an address that no user has.
    """
    from sync_worker.diagnostics.explainer import parse_target
    from sync_worker.errors import NoSuchSubject
    from sync_worker.runtime.wiring import open_services
    from sync_worker.storage.work_items import FANOUT
    from sync_worker.sync.address_resolution import known_owners

    targets = [parse_target(text) for text in texts]
    addresses = [target for target in targets if not isinstance(target, str) and target.is_address]
    keys: list[str] = []
    if addresses:
        async with open_services(settings, store, dry_run=True) as services:
            by_address = await services.target.find(addresses)
    for target in targets:
        if isinstance(target, str):
            keys.append(FANOUT + target)
        elif not target.is_address:
            keys.append(str(target))
        elif found := known_owners(target, by_address):
            keys += map(str, found)
        else:
            raise NoSuchSubject("No user has this address as primary and verified.")
    return list(dict.fromkeys(keys))
