"""What the program reads from Clerk and writes to it, whatever stands behind: the port."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Protocol

from sync_worker.domain.subjects import Subject

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sync_worker.domain.entitlements import Change, Observed

AddressOwners = Mapping[Subject, Collection[str]]
"""The ids of the users who have an address, by address. An address without a user is not included."""


class Target(Protocol):
    """The target that stores access."""

    async def observe(self, subjects: Collection[Subject]) -> Mapping[Subject, Observed]:
        """Read what is stored for `subjects`; those that do not exist are left out."""

    async def find(self, addresses: Collection[Subject]) -> AddressOwners:
        """Look up the current owners of these addresses."""

    async def uncounted(self, address: Subject) -> Mapping[Subject, str]:
        """Return the users who have an e-mail address that does not count for them, each with the reason."""

    async def memberships(self, user_id: str) -> tuple[Subject, ...]:
        """List the memberships of a user."""

    async def apply(self, change: Change) -> None:
        """Write one change."""

    def sweep(self) -> AsyncIterator[Sequence[Observed]]:
        """Read all subjects, page by page."""
