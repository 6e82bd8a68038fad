"""Names of users and organizations, shown beside their ids. They are kept in memory for minutes, and nowhere else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sync_worker.clerk.directory import IDS_PER_CALL
from sync_worker.domain.subjects import Kind, Subject
from sync_worker.errors import InvalidSubject, SyncWorkerError
from sync_worker.transport import current_lane

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from sync_worker.clerk.directory import Directory, Listing
    from sync_worker.domain.clock import Clock
    from sync_worker.domain.timings import Timings

LANE = 2
"""Names use the lowest lane: they never take a call that queued work needs."""
KEPT = 10_000


class Names:
    """Names subjects, as far as Clerk answers in time. It raises nothing: without a name, the id has to do."""

    def __init__(self, directory: Directory, clock: Clock, timings: Timings) -> None:
        self._directory = directory
        self._clock = clock
        self._timings = timings
        self._kept: dict[str, tuple[float, str]] = {}

    async def of(self, keys: Iterable[str]) -> Mapping[str, str]:
        """Return the names of those keys that are subjects with a name, a hundred new ones for one call."""
        subjects = {key: subject for key in keys if (subject := _subject(key)) is not None}
        ids = dict.fromkeys(id_ for subject in subjects.values() for id_ in _ids(subject) if id_ and self._is_new(id_))
        users = [id_ for id_ in ids if id_.startswith("user_")]
        organizations = [id_ for id_ in ids if id_.startswith("org_")]
        await asyncio.gather(
            self._look_up(users, self._directory.people), self._look_up(organizations, self._directory.organizations)
        )
        return {key: name for key, subject in subjects.items() if (name := self._name(subject))}

    def _is_new(self, id_: str) -> bool:
        until, _ = self._kept.get(id_, (0.0, ""))
        return until <= self._clock.monotonic()

    async def _look_up(self, ids: Sequence[str], find: Callable[[Sequence[str]], Awaitable[list[Listing]]]) -> None:
        if not ids:
            return
        lane = current_lane.set(LANE)
        try:
            async with asyncio.timeout(self._timings.page_patience):
                for some in (ids[start : start + IDS_PER_CALL] for start in range(0, len(ids), IDS_PER_CALL)):
                    found = {one.id: one.name or one.email for one in await find(some)}
                    self._keep({id_: found.get(id_, "") for id_ in some})
        except (SyncWorkerError, TimeoutError):
            return
        finally:
            current_lane.reset(lane)

    def _keep(self, found: Mapping[str, str]) -> None:
        until = self._clock.monotonic() + self._timings.names_kept
        for id_, name in found.items():
            self._kept.pop(id_, None)
            self._kept[id_] = (until, name)
        while len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]

    def _name(self, subject: Subject) -> str:
        organization, user = (self._kept.get(id_, (0.0, ""))[1] for id_ in _ids(subject))
        return f"{user} in {organization}".strip() if user and organization else user or organization


def _subject(key: str) -> Subject | None:
    try:
        subject = Subject.parse(key)
    except InvalidSubject:
        return None
    return None if subject.is_address else subject


def _ids(subject: Subject) -> tuple[str, str]:
    """Return the ids of its organization and its user; one of them may be empty."""
    match subject.kind:
        case Kind.USER:
            return "", subject.id
        case Kind.ORGANIZATION:
            return subject.id, ""
        case _:
            return subject.organization_id, subject.user_id
