"""What Clerk answers, as far as it is needed: users, organizations and memberships become what is observed of them.

Why it exists: Clerk's objects are large and sometimes odd, and one odd user must not cost a page of 500. So only what
matters here is read, and judged: whose metadata it is, our marker in it, and which addresses are certainly that user's.
Asking for them is `clerk`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from sync_worker.domain.diff import DEFAULT_SLOTS, MARKER_KEY
from sync_worker.domain.entitlements import Marker, Observed, Slot
from sync_worker.domain.subjects import Kind, Subject
from sync_worker.errors import InvalidSubject, UnreadableAnswer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


STRICT = ConfigDict(extra="ignore", strict=True, frozen=True)


def as_list(answer: object) -> list[Any]:
    """Return an answer that must be a list. Raises UnreadableAnswer."""
    if not isinstance(answer, list):
        raise UnreadableAnswer(f"Clerk answered {type(answer).__name__} where a list was asked for")
    return answer


def total_of(answer: object) -> int:
    """Return how many Clerk counts. Raises UnreadableAnswer."""
    count = answer.get("total_count") if isinstance(answer, dict) else None
    if not isinstance(count, int) or isinstance(count, bool):
        raise UnreadableAnswer("Clerk answered without the total that was asked for")
    return count


def add(found: dict[Subject, Observed], kind: Kind, item: object) -> None:
    """Add one list item, under its id."""
    _add_as(found, _named(kind, item), item)


def add_user(found: dict[Subject, Observed], item: object) -> None:
    """Add one user, under the id, with the addresses that an entitlement can name."""
    subject = _named(Kind.USER, item)
    _add_as(found, subject, item)
    found[subject] = replace(found[subject], addresses=addresses_of(item))


def _named(kind: Kind, item: object) -> Subject:
    """Return whom a list item is. What is no id of Clerk must not get into the work set, where nothing could use it."""
    try:
        return Subject.parse(f"{kind}:{item['id']}" if isinstance(item, dict) else "")
    except (KeyError, InvalidSubject):
        raise UnreadableAnswer(f"Clerk listed something without the id of a {kind}") from None


class _Verification(BaseModel):
    model_config = STRICT
    status: str


class _Email(BaseModel):
    model_config = STRICT
    id: str = ""
    email_address: str
    reserved: bool = False
    verification: _Verification | None

    @property
    def proven(self) -> bool:
        return self.verification is not None and self.verification.status == "verified" and not self.reserved


class _Addressed(BaseModel):
    model_config = STRICT
    email_addresses: list[_Email]
    primary_email_address_id: str | None
    external_id: str | None


def addresses_of(user: object) -> tuple[Subject, ...]:
    """Return the addresses by which an entitlement can name a user: those that nobody else can claim.

    An e-mail address must be the primary one, verified, and not reserved: the others may be somebody else's. Raises
    UnreadableAnswer, because what an odd answer does not show would pass for an address that was given up.
    """
    try:
        read = _Addressed.model_validate(user)
    except ValidationError as error:
        places = {".".join(map(str, e["loc"])) for e in error.errors(include_url=False, include_input=False)}
        raise UnreadableAnswer(f"Clerk listed a user with odd addresses: {', '.join(sorted(places))}") from None
    primary = read.primary_email_address_id
    named = [(Kind.EMAIL, e.email_address) for e in read.email_addresses if primary and e.id == primary and e.proven]
    if read.external_id is not None:
        named.append((Kind.EXTERNAL, read.external_id))
    found = (_address(kind, value) for kind, value in named)
    return tuple(address for address in found if address is not None)


def _address(kind: Kind, value: str) -> Subject | None:
    try:
        subject = Subject.of_kind(kind, value)
    except InvalidSubject:
        return None
    return None if subject.organization_id else subject


def _add_as(found: dict[Subject, Observed], subject: Subject, item: Any) -> None:
    """Add one list item as `subject`. Metadata that is no object is an answer that we cannot trust."""
    public, private = item.get("public_metadata") or {}, item.get("private_metadata") or {}
    if not isinstance(public, dict) or not isinstance(private, dict):
        raise UnreadableAnswer(f"Clerk listed {subject} with metadata that is not an object")
    found[subject] = Observed(subject, public, private, read_marker(private))


def add_membership(found: dict[Subject, Observed], item: Any) -> None:
    """Add one membership, under the ids of its organization and its user."""
    try:
        subject = membership_of(item, item["public_user_data"]["user_id"])
    except (KeyError, TypeError):
        raise UnreadableAnswer("Clerk listed a membership without its user") from None
    _add_as(found, subject, item)


def membership_of(item: Any, user: str) -> Subject:
    """Return which membership of a user a list item is; a list of one user's need not say whose they are."""
    try:
        return Subject.parse(f"{Kind.MEMBERSHIP}:{item['organization']['id']}/{user}")
    except (KeyError, TypeError, InvalidSubject):
        raise UnreadableAnswer("Clerk listed a membership without its organization or its user") from None


def read_marker(private: Mapping[str, object]) -> Marker | None:
    """Read our marker. One that somebody damaged still says that the subject is ours."""
    raw = private.get(MARKER_KEY)
    if not isinstance(raw, dict):
        return None
    sources, slots = raw.get("sources"), raw.get("slots")
    return Marker(
        sources=tuple(str(s) for s in sources) if isinstance(sources, list) else (),
        fingerprint=str(raw.get("fingerprint", "")),
        at=str(raw.get("at", "")),
        slots=tuple(_slots(slots)) if isinstance(slots, list) else DEFAULT_SLOTS,
    )


def _slots(texts: Iterable[object]) -> Iterable[Slot]:
    for text in texts:
        try:
            yield Slot.parse(str(text))
        except ValueError:
            continue
