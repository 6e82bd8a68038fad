"""What the program reads from Clerk and writes to it, whatever the implementation: the port."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Mapping, Sequence

    from sync_worker.domain.entitlements import Change, Observed
    from sync_worker.domain.subjects import Subject


@dataclass(frozen=True, slots=True)
class AddressOwners:
    """The ids of the users who have an address, by address. An address without a user is not included.

    Of `unreadable` addresses it is not known who has them, for a reason: a user who may have one cannot be read.
    """

    users: Mapping[Subject, Collection[str]] = field(default_factory=dict)
    unreadable: Mapping[Subject, str] = field(default_factory=dict)


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

    def sweep(self) -> AsyncGenerator[Sequence[Observed], None]:
        """Read all subjects, page by page and in no order; close it when you stop early. Users come before members."""
