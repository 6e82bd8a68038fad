"""Validates the rows of the projection: each becomes an entitlement, or a refusal with document, field and reason.

Rows are untrusted: the GROQ files belong to the customer, the documents to editors. An invalid row grants nothing and
does not delay any other row.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from sync_worker.domain.entitlements import Entitlement, MergeRule, Refusal
from sync_worker.domain.entitlements import Field as ManagedField
from sync_worker.domain.subjects import Kind, Subject
from sync_worker.errors import InvalidSubject

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sync_worker.domain.entitlements import Value

STRING_LIMIT = 1000
"""The maximum length of a string, in characters. Rich text is not an entitlement."""
TOO_LONG = f"is longer than {STRING_LIMIT} characters; shorten it"
INVALID_CHARACTER = "contains an invalid character; type the text again"
NEVER = datetime.min.replace(tzinfo=UTC)


def _trimmed(value: object) -> object:
    """Strip spaces, as the GROQ queries do; an empty string becomes None."""
    return (value.strip(" ") or None) if isinstance(value, str) else value


Text = Annotated[Annotated[str, Field(max_length=STRING_LIMIT)] | None, BeforeValidator(_trimmed)]


class SubjectFields(BaseModel):
    """The fields that name the subject of a row. A user together with an organization is a membership."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    clerkUserId: Text = None  # noqa: N815 - the names are those of the projection
    clerkOrganizationId: Text = None  # noqa: N815
    userEmail: Text = None  # noqa: N815
    userExternalId: Text = None  # noqa: N815

    def subject(self) -> Subject:
        """Return the subject of the row. Raises InvalidSubject with the field and the reason.

        If a user is named in several ways, the Clerk id wins over the external id, and that over the e-mail address.
        """
        organization = _parse_id(Kind.ORGANIZATION, "clerkOrganizationId", self.clerkOrganizationId)
        user = _parse_id(Kind.USER, "clerkUserId", self.clerkUserId)
        if user is not None:
            return user if organization is None else Subject.membership(organization.id, user.id)
        member_of = "" if organization is None else f"{organization.id}/"
        named = (
            _parse_id(Kind.EXTERNAL, "userExternalId", self.userExternalId, member_of)
            or _parse_id(Kind.EMAIL, "userEmail", self.userEmail, member_of)
            or organization
        )
        if named is None:
            raise InvalidSubject(f"clerkUserId: is empty; fill in one of {', '.join(SubjectFields.model_fields)}")
        return named


class Row(SubjectFields):
    """One entitlement as the projection returns it. The managed fields are in `model_extra`, by name."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    id: str = Field(alias="_id", min_length=1)
    revision: str = Field(alias="_rev", default="")
    updatedAt: Annotated[AwareDatetime | None, Field(alias="_updatedAt", strict=False)] = None  # noqa: N815
    startsAt: Annotated[AwareDatetime | None, Field(strict=False)] = None  # noqa: N815
    endsAt: Annotated[AwareDatetime | None, Field(strict=False)] = None  # noqa: N815
    status: Annotated[str, Field(max_length=STRING_LIMIT)] | None = None


def read_row(raw: object, fields: Sequence[ManagedField]) -> tuple[Subject | None, Entitlement | Refusal]:
    """Validate one row. A refused row still has a subject if its ids are valid."""
    document = str(raw.get("_id", "?")) if isinstance(raw, dict) else "?"
    try:
        subject = SubjectFields.model_validate(raw).subject()
    except (ValidationError, InvalidSubject) as error:
        return None, _refusal(document, error)
    try:
        row = Row.model_validate(raw)
        values = _values(row.model_extra or {}, fields)
    except (ValidationError, _InvalidValueError) as error:
        return subject, _refusal(document, error)
    return subject, Entitlement(
        id=row.id,
        revision=row.revision,
        updated_at=row.updatedAt or NEVER,
        subject=subject,
        values=values,
        starts_at=row.startsAt,
        ends_at=row.endsAt,
        status=row.status,
    )


class _InvalidValueError(ValueError):
    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field, self.reason = field, reason


def _values(extra: Mapping[str, Any], fields: Iterable[ManagedField]) -> dict[str, Value]:
    read = {f.name: (_strings if f.rule is MergeRule.UNION else _scalar)(f.name, extra.get(f.name)) for f in fields}
    return {name: value for name, value in read.items() if value is not None}


def _scalar(name: str, value: object) -> Value | None:
    value = _trimmed(value)
    if value is not None and not isinstance(value, str | int | float | bool):
        raise _InvalidValueError(name, f"must be a string, a number or a boolean, not {json_type(value)}")
    if isinstance(value, str) and len(value) > STRING_LIMIT:
        raise _InvalidValueError(name, TOO_LONG)
    _refuse_surrogates(name, value)
    return value


def _strings(name: str, value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise _InvalidValueError(name, f"must be a list of strings, not {json_type(value)}")
    items = [_trimmed(item) for item in value]
    strings = [item for item in items if isinstance(item, str)]
    if len(strings) + items.count(None) != len(items):
        raise _InvalidValueError(name, "must be a list of strings only")
    _refuse_surrogates(name, *strings)
    return tuple(sorted(set(strings)))


def _refuse_surrogates(name: str, *values: object) -> None:
    """Refuse lone surrogates: JSON can escape them, but they cannot be encoded as UTF-8."""
    if any("\ud800" <= character <= "\udfff" for value in values if isinstance(value, str) for character in value):
        raise _InvalidValueError(name, INVALID_CHARACTER)


def json_type(value: object) -> str:
    """Return the JSON type of a value, with its article."""
    return _JSON_TYPES.get(type(value), type(value).__name__)


_JSON_TYPES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
}


_EXPECTED_ID = {
    Kind.USER: "is not a Clerk user id; write one such as user_2abc",
    Kind.ORGANIZATION: "is not a Clerk organization id; write one such as org_2abc",
    Kind.EMAIL: "is not an e-mail address; write a single address without spaces",
    Kind.EXTERNAL: "is not an external id; write at most 256 characters without spaces",
}


def _parse_id(kind: Kind, field: str, value: str | None, member_of: str = "") -> Subject | None:
    if value is None:
        return None
    invalid = InvalidSubject(f"{field}: {_EXPECTED_ID[kind]}")
    try:
        subject = Subject.of_kind(kind, member_of + value)
    except InvalidSubject:
        raise invalid from None
    if subject.organization_id != member_of.rstrip("/"):
        raise invalid
    return subject


def _reason(error_type: str) -> str:
    """Return what is wrong with a field and what to write, for a type of pydantic's errors."""
    return _REASONS.get(error_type, "is not valid; correct the field, or what entitlement.groq returns for it")


_NOT_A_TIME = "is not a date and time; write one such as 2026-05-01T12:00:00Z"
_REASONS = {
    "model_type": "is not an object; entitlement.groq must return one object per entitlement",
    "missing": "is missing; entitlement.groq must return it",
    "string_type": "must be a string; correct the field, or what entitlement.groq returns for it",
    "string_too_short": "is empty; entitlement.groq must return it",
    "string_too_long": TOO_LONG,
    "string_unicode": INVALID_CHARACTER,
    "timezone_aware": "has no time zone; write a time such as 2026-05-01T12:00:00Z",
    "datetime_type": _NOT_A_TIME,
    "datetime_parsing": _NOT_A_TIME,
    "datetime_from_date_parsing": _NOT_A_TIME,
}


def _refusal(document: str, error: Exception) -> Refusal:
    match error:
        case ValidationError():
            first = error.errors(include_url=False, include_input=False)[0]
            return Refusal(document, ".".join(str(part) for part in first["loc"]) or "row", _reason(first["type"]))
        case _InvalidValueError():
            return Refusal(document, error.field, error.reason)
        case InvalidSubject():
            field, _, reason = error.detail.partition(": ")
            return Refusal(document, field, reason)
        case _:
            raise error
