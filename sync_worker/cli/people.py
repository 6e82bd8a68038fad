"""People and organizations by name: beside the ids that a command prints, and in place of one that it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sync_worker.runtime.wiring import Store
    from sync_worker.settings import Settings


async def names_of(settings: Settings, store: Store, keys: Iterable[str]) -> Mapping[str, str]:
    """Return the names of subjects, as far as Clerk answers. They are for the screen: never log or store them."""
    from sync_worker.runtime.wiring import open_services

    async with open_services(settings, store, dry_run=True) as services:
        return await services.names.of(keys)
