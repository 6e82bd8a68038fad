"""Who access is for: the five kinds of subject, and the patterns that their ids must match."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from string import ascii_lowercase, ascii_uppercase

from sync_worker.errors import InvalidSubject

USER_ID = re.compile(r"user_\w+", re.ASCII)
ORGANIZATION_ID = re.compile(r"org_\w+", re.ASCII)
_UNFIT = r"\s\x00-\x1f\x7f-\x9f\ud800-\udfff"
"""Spaces of any sort, control characters and halves of characters: in no address, and some databases take none."""
EMAIL = re.compile(rf"[^@/{_UNFIT}]+@[^@/{_UNFIT}]+")
EXTERNAL_ID = re.compile(rf"(?!(?a:{ORGANIZATION_ID.pattern})/)[^{_UNFIT}]{{1,256}}")
_FOLDED = str.maketrans(ascii_uppercase, ascii_lowercase)
"""Only ASCII is folded: a letter that merely looks like another must not open somebody else's access."""


class Kind(StrEnum):
    """What sort of subject it is; the prefix of its key."""

    USER = "user"
    ORGANIZATION = "org"
    MEMBERSHIP = "membership"
    EMAIL = "email"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """Whom access is for: `user:user_…`, `org:org_…`, `membership:org_…/user_…`, `email:…` or `external:…`.

    The last two are addresses of a user, still to be resolved; `email:org_…/…` is that user's membership.
    """

    kind: Kind
    id: str

    @classmethod
    def parse(cls, text: str) -> Subject:
        """Read a subject from its key.

        A bare `user_…`, `org_…` or e-mail address is understood too, because that is what people paste.
        Raises InvalidSubject when the id could not be part of a Clerk address.
        """
        prefix, colon, rest = text.strip().partition(":")
        if not colon:
            prefix, rest = _kind_of(prefix), prefix
        if prefix not in set(Kind):
            raise InvalidSubject(repr(text))
        return cls.exactly(Kind(prefix), rest)

    @classmethod
    def exactly(cls, kind: Kind, text: str) -> Subject:
        """Return the subject of a kind whose id is all of `text`. Raises InvalidSubject like `parse`."""
        if not _SHAPES[kind].fullmatch(text):
            raise InvalidSubject(repr(f"{kind}:{text}"))
        return cls(kind, _folded(text) if kind is Kind.EMAIL else text)

    @classmethod
    def membership(cls, organization_id: str, user_id: str) -> Subject:
        """Return the subject of one user's membership in one organization."""
        return cls(Kind.MEMBERSHIP, f"{organization_id}/{user_id}")

    @property
    def is_address(self) -> bool:
        """Whether it names somebody by an address that Clerk must be asked about."""
        return self.kind in (Kind.EMAIL, Kind.EXTERNAL)

    @property
    def address(self) -> Subject:
        """The address alone, without the organization whose membership is meant."""
        organization = self.organization_id
        return Subject(self.kind, self.id.removeprefix(f"{organization}/")) if organization else self

    def for_user(self, user_id: str) -> Subject:
        """Return the subject that this address stands for when `user_id` has it: the user, or the membership."""
        organization = self.organization_id
        return Subject.membership(organization, user_id) if organization else Subject(Kind.USER, user_id)

    @property
    def organization_id(self) -> str:
        """The organization part of a membership, or of an address within one; else empty."""
        first, slash, _ = self.id.partition("/")
        return first if slash and ORGANIZATION_ID.fullmatch(first) else ""

    @property
    def user_id(self) -> str:
        """The user part of a membership."""
        return self.id.rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}"


def _kind_of(text: str) -> str:
    if "@" in text:
        return Kind.EMAIL
    return Kind.ORGANIZATION if text.startswith("org_") else Kind.USER


def _folded(email: str) -> str:
    """Fold an address, but not the id of the organization before it."""
    organization, slash, address = email.rpartition("/")
    return organization + slash + address.translate(_FOLDED)


_OF_MEMBER = f"((?a:{ORGANIZATION_ID.pattern})/)?"
_SHAPES = {
    Kind.USER: USER_ID,
    Kind.ORGANIZATION: ORGANIZATION_ID,
    Kind.MEMBERSHIP: re.compile(f"{ORGANIZATION_ID.pattern}/{USER_ID.pattern}", re.ASCII),
    Kind.EMAIL: re.compile(_OF_MEMBER + EMAIL.pattern),
    Kind.EXTERNAL: re.compile(_OF_MEMBER + EXTERNAL_ID.pattern),
}
