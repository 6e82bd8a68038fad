"""People and organizations by name: what a picker shows. Nothing of it is stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sync_worker.clerk.objects import as_list, organization_rows
from sync_worker.domain.text import invisible_character
from sync_worker.formatting import masked
from sync_worker.transport import read_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx

SERVICE = "Clerk"
SHOWN = 10
"""Matches of one search."""
IDS_PER_CALL = 100
LONGEST_SEARCH = 100
"""Characters."""


def is_searchable(text: str) -> bool:
    """Return whether a text can be part of a name: neither empty nor too long, and without invisible characters."""
    return 0 < len(text) <= LONGEST_SEARCH and not invisible_character(text)


@dataclass(frozen=True, slots=True)
class Listing:
    """A person or an organization as a picker shows it. The e-mail address is masked; `image` is an https URL."""

    id: str
    name: str
    email: str = ""
    image: str = ""


class Directory:
    """Searches users and organizations, and names those whose ids are known. It only reads.

    Errors: RetryableError, RequestRefused, CredentialsRefused, UnreadableAnswer. An entry that cannot be read is left
    out.
    """

    def __init__(self, client: httpx.AsyncClient, base: str) -> None:
        self._client = client
        self._base = base

    async def search_people(self, text: str) -> list[Listing]:
        """Return the users who have `text` in their name, username, e-mail address or id."""
        return await self._people(query=text, limit=SHOWN)

    async def people(self, ids: Sequence[str]) -> list[Listing]:
        """Return the users with these ids, a hundred at most; those who do not exist are left out."""
        return await self._people(user_id=ids, limit=IDS_PER_CALL)

    async def search_organizations(self, text: str) -> list[Listing]:
        """Return the organizations with `text` in their name or slug, or as their id."""
        return await self._organizations(query=text, limit=SHOWN)

    async def organizations(self, ids: Sequence[str]) -> list[Listing]:
        """Return the organizations with these ids, a hundred at most; those that do not exist are left out."""
        return await self._organizations(organization_id=ids, limit=IDS_PER_CALL)

    async def _people(self, **parameters: Sequence[str] | str | int) -> list[Listing]:
        return _listings(_Person, as_list(await self._get("/users", **parameters)))

    async def _organizations(self, **parameters: Sequence[str] | str | int) -> list[Listing]:
        return _listings(_Organization, await organization_rows(self._get("/organizations", **parameters)))

    async def _get(self, path: str, **parameters: Sequence[str] | str | int) -> Any:
        return read_json(SERVICE, await self._client.get(self._base + path, params=parameters))


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)
    id: str
    image_url: str | None = None

    @property
    def image(self) -> str:
        return self.image_url if self.image_url and self.image_url.startswith("https://") else ""


class _Organization(_Entry):
    name: str

    @property
    def listing(self) -> Listing:
        return Listing(self.id, self.name, image=self.image)


class _Email(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)
    id: str = ""
    email_address: str


class _Person(_Entry):
    first_name: str | None = None
    last_name: str | None = None
    username: str | None = None
    primary_email_address_id: str | None = None
    email_addresses: list[_Email] = Field(default_factory=list)

    @property
    def listing(self) -> Listing:
        names = [part.strip() for part in (self.first_name, self.last_name) if part and part.strip()]
        primary = (e.email_address for e in self.email_addresses if e.id == self.primary_email_address_id)
        local, at, domain = next(primary, "").rpartition("@")
        email = f"{local[:1]}***@{domain}" if at else ""
        return Listing(self.id, masked(" ".join(names) or self.username or ""), email, self.image)


def _listings(kind: type[_Person | _Organization], items: Sequence[object]) -> list[Listing]:
    found = []
    for item in items:
        try:
            found.append(kind.model_validate(item).listing)
        except ValidationError:
            continue
    return found
