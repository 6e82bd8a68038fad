"""Parses Clerk's users, organizations and memberships into what is observed of them.

Only the needed fields are read and validated, so that a malformed detail of one user does not cost a page of 500.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from sync_worker.domain.entitlements import Observed
from sync_worker.domain.ownership import read_markers
from sync_worker.domain.subjects import Kind, Subject
from sync_worker.errors import InvalidSubject, RequestRefused, UnreadableAnswer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

STRICT = ConfigDict(extra="ignore", strict=True, frozen=True)


def as_list(answer: object) -> list[Any]:
    """Return the response if it is a list. Raises UnreadableAnswer otherwise."""
    if not isinstance(answer, list):
        raise UnreadableAnswer("Clerk's response is not the expected list")
    return answer


def rows_of(answer: object) -> list[Any]:
    """Return the rows of a list, which some routes wrap in an object. Raises UnreadableAnswer where there is none."""
    return as_list(answer.get("data") if isinstance(answer, dict) else answer)


async def organization_rows(requested: Awaitable[object]) -> list[Any]:
    """Return the rows of a list of organizations or memberships; none if the instance has organizations disabled."""
    try:
        return rows_of(await requested)
    except RequestRefused as error:
        if "organization_not_enabled_in_instance" in error.detail:
            return []
        raise


def total_of(answer: object) -> int:
    """Return the total count of a response. Raises UnreadableAnswer without one."""
    count = answer.get("total_count") if isinstance(answer, dict) else None
    if not isinstance(count, int) or isinstance(count, bool):
        raise UnreadableAnswer("Clerk's response has no total count")
    return count


def add(found: dict[Subject, Observed], kind: Kind, item: object) -> None:
    """Add an organization or user from a list, by its id."""
    _add_as(found, _subject_of(kind, item), item)


def add_user(found: dict[Subject, Observed], item: object) -> None:
    """Add a user from a list, with the addresses by which an entitlement can name them."""
    subject = _subject_of(Kind.USER, item)
    _add_as(found, subject, item)
    try:
        found[subject] = replace(found[subject], addresses=addresses_of(item))
    except UnreadableAnswer as error:
        found[subject] = Observed(subject, unreadable=error.detail, possible_addresses=_possible_addresses(item))


def _subject_of(kind: Kind, item: object) -> Subject:
    """Return the subject of a list item. An invalid id must never reach the work queue."""
    try:
        return Subject.parse(f"{kind}:{item['id']}" if isinstance(item, dict) else "")
    except (KeyError, InvalidSubject):
        raise UnreadableAnswer(f"Clerk listed an object without a valid {kind} id") from None


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
    def is_verified(self) -> bool:
        return self.verification is not None and self.verification.status == "verified" and not self.reserved


class _Addressed(BaseModel):
    model_config = STRICT
    email_addresses: list[_Email]
    primary_email_address_id: str | None
    external_id: str | None


def addresses_of(user: object) -> tuple[Subject, ...]:
    """Return the addresses by which an entitlement can name a user: those that nobody else can claim.

    An e-mail address must be primary, verified and not reserved. Raises UnreadableAnswer for a malformed user: an
    address that cannot be read must not count as one that the user gave up.
    """
    try:
        fields = _Addressed.model_validate(user)
    except ValidationError as error:
        names = {".".join(map(str, e["loc"])) for e in error.errors(include_url=False, include_input=False)}
        raise UnreadableAnswer(f"Clerk listed a user with malformed addresses: {', '.join(sorted(names))}") from None
    primary = fields.primary_email_address_id
    emails = (e for e in fields.email_addresses if primary and e.id == primary and e.is_verified)
    candidates = [(Kind.EMAIL, email.email_address) for email in emails]
    if fields.external_id is not None:
        candidates.append((Kind.EXTERNAL, fields.external_id))
    found = (_address(kind, value) for kind, value in candidates)
    return tuple(address for address in found if address is not None)


def _possible_addresses(user: Any) -> tuple[Subject, ...]:
    """Return the addresses that a malformed user may have: whatever looks like one."""
    emails, external_ids = _texts_in(user.get("email_addresses")), _texts_in(user.get("external_id"))
    candidates = [*((Kind.EMAIL, text) for text in emails), *((Kind.EXTERNAL, text) for text in external_ids)]
    found = (_address(kind, text) for kind, text in candidates)
    return tuple(address for address in found if address is not None)


def _texts_in(value: object) -> list[str]:
    texts: list[str] = []
    rest = [value]
    while rest:
        one = rest.pop()
        if isinstance(one, str):
            texts.append(one)
        elif isinstance(one, dict | list):
            rest.extend(one.values() if isinstance(one, dict) else one)
    return texts


def uncounted(users: Iterable[object], address: Subject) -> dict[Subject, str]:
    """Return the users who have an e-mail address that does not count for them, each with the reason."""
    reasons = ((_subject_of(Kind.USER, user), _why_not_counted(user, address)) for user in users)
    return {subject: reason for subject, reason in reasons if reason}


def _why_not_counted(user: object, address: Subject) -> str:
    """Return why an e-mail address that a user has does not count; empty if the user does not have it, or it counts."""
    try:
        fields = _Addressed.model_validate(user)
    except ValidationError:
        return ""
    having = [e for e in fields.email_addresses if _address(Kind.EMAIL, e.email_address) == address]
    if not having or any(e.id == fields.primary_email_address_id and e.is_verified for e in having):
        return ""
    if any(email.reserved for email in having):
        return "it is reserved by a sign-up that is not finished"
    if not any(email.is_verified for email in having):
        return "it is not verified"
    return "it is not the primary address"


def _address(kind: Kind, value: str) -> Subject | None:
    try:
        subject = Subject.of_kind(kind, value)
    except InvalidSubject:
        return None
    return None if subject.organization_id else subject


def _add_as(found: dict[Subject, Observed], subject: Subject, item: Any) -> None:
    """Add a list item as `subject`. One whose metadata is not an object is unreadable, and costs no other one."""
    public, private = item.get("public_metadata") or {}, item.get("private_metadata") or {}
    if not isinstance(public, dict) or not isinstance(private, dict):
        found[subject] = Observed(subject, unreadable=f"Clerk listed {subject} with metadata that is not an object")
        return
    found[subject] = Observed(subject, public, private, read_markers(private))


def add_membership(found: dict[Subject, Observed], item: Any) -> None:
    """Add a membership from a list, by the ids of its organization and user."""
    try:
        subject = membership_of(item, item["public_user_data"]["user_id"])
    except (KeyError, TypeError):
        raise UnreadableAnswer("Clerk listed a membership without its user") from None
    _add_as(found, subject, item)


def membership_of(item: Any, user: str) -> Subject:
    """Return the membership that a list item of this user stands for. The item need not contain the user."""
    try:
        return Subject.parse(f"{Kind.MEMBERSHIP}:{item['organization']['id']}/{user}")
    except (KeyError, TypeError, InvalidSubject):
        raise UnreadableAnswer("Clerk listed a membership without valid ids") from None
