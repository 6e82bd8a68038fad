"""Who access is for: the five kinds of subject, and the patterns that their ids must match."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from string import ascii_lowercase, ascii_uppercase

from sync_worker.domain.text import invisible_character
from sync_worker.errors import InvalidSubject

USER_ID = re.compile(r"user_\w+", re.ASCII)
ORGANIZATION_ID = re.compile(r"org_\w+", re.ASCII)
_FORBIDDEN = r"\s\x00-\x1f\x7f-\x9f\ud800-\udfff"
"""Whitespace, control characters and lone surrogates: no address contains them, and some databases reject them."""
EMAIL = re.compile(rf"[^@/{_FORBIDDEN}]+@[^@/{_FORBIDDEN}]+")
EXTERNAL_ID = re.compile(rf"(?!(?a:{ORGANIZATION_ID.pattern})/)[^{_FORBIDDEN}]{{1,256}}")
_LOWERCASE = str.maketrans(ascii_uppercase, ascii_lowercase)
"""Only ASCII is lowercased: a letter that merely looks like another must not grant somebody else's access."""


class Kind(StrEnum):
    """The kind of a subject: the prefix of its key."""

    USER = "user"
    ORGANIZATION = "org"
    MEMBERSHIP = "membership"
    EMAIL = "email"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """Who access is for: `user:user_…`, `org:org_…`, `membership:org_…/user_…`, `email:…` or `external:…`.

    The last two are addresses that have to be resolved to a user. `email:org_…/…` is that user's membership.
    """

    kind: Kind
    id: str

    @classmethod
    def parse(cls, text: str) -> Subject:
        """Parse a subject key. A bare `user_…`, `org_…` or e-mail address is accepted too.

        Raises InvalidSubject when the id is not valid for its kind.
        """
        prefix, colon, rest = text.strip().partition(":")
        if not colon:
            prefix, rest = _kind_of(prefix), prefix
        if prefix not in set(Kind):
            raise InvalidSubject(repr(text))
        return cls.of_kind(Kind(prefix), rest)

    @classmethod
    def of_kind(cls, kind: Kind, text: str) -> Subject:
        """Return the subject of this kind with `text` as its id. Raises InvalidSubject when the id is not valid."""
        if not _PATTERNS[kind].fullmatch(text) or invisible_character(text):
            raise InvalidSubject(repr(f"{kind}:{text}"))
        return cls(kind, _lowercased(text) if kind is Kind.EMAIL else text)

    @classmethod
    def membership(cls, organization_id: str, user_id: str) -> Subject:
        """Return the subject of one user's membership in one organization."""
        return cls(Kind.MEMBERSHIP, f"{organization_id}/{user_id}")

    @property
    def is_address(self) -> bool:
        """Whether the subject is an e-mail address or external id that has to be resolved in Clerk."""
        return self.kind in (Kind.EMAIL, Kind.EXTERNAL)

    @property
    def address(self) -> Subject:
        """The address without its organization."""
        organization = self.organization_id
        return Subject(self.kind, self.id.removeprefix(f"{organization}/")) if organization else self

    def for_user(self, user_id: str) -> Subject:
        """Return the subject that this address resolves to if it belongs to `user_id`: the user, or the membership."""
        organization = self.organization_id
        return Subject.membership(organization, user_id) if organization else Subject(Kind.USER, user_id)

    @property
    def organization_id(self) -> str:
        """The organization of a membership, or of an address in an organization; empty otherwise."""
        first, slash, _ = self.id.partition("/")
        return first if slash and ORGANIZATION_ID.fullmatch(first) else ""

    @property
    def user_id(self) -> str:
        """The user, or that of a membership."""
        return self.id.rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}"


def _kind_of(text: str) -> str:
    if "@" in text:
        return Kind.EMAIL
    return Kind.ORGANIZATION if text.startswith("org_") else Kind.USER


def _lowercased(email: str) -> str:
    """Lowercase an address, but not the organization id before it."""
    organization, slash, address = email.rpartition("/")
    return organization + slash + address.translate(_LOWERCASE)


_ORGANIZATION_PREFIX = f"((?a:{ORGANIZATION_ID.pattern})/)?"
_PATTERNS = {
    Kind.USER: USER_ID,
    Kind.ORGANIZATION: ORGANIZATION_ID,
    Kind.MEMBERSHIP: re.compile(f"{ORGANIZATION_ID.pattern}/{USER_ID.pattern}", re.ASCII),
    Kind.EMAIL: re.compile(_ORGANIZATION_PREFIX + EMAIL.pattern),
    Kind.EXTERNAL: re.compile(_ORGANIZATION_PREFIX + EXTERNAL_ID.pattern),
}
