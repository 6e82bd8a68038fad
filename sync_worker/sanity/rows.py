"""Validates the rows of the projection: each becomes an entitlement, or a refusal with document, field and reason.

Rows are untrusted: the GROQ files belong to the customer, the documents to editors. An invalid row grants nothing and
does not delay any other row.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from sync_worker.domain.entitlements import UNRESOLVED_FIELD, Entitlement, MergeRule, Refusal, Unresolved
from sync_worker.domain.entitlements import Field as ManagedField
from sync_worker.domain.subjects import Kind, Subject
from sync_worker.domain.text import escaped, invisible_character
from sync_worker.errors import InvalidSubject
from sync_worker.formatting import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sync_worker.domain.entitlements import Scalar, Value

STRING_LIMIT = 1000
"""The maximum length of a string, in characters. Rich text is not an entitlement."""
TOO_LONG = f"is longer than {STRING_LIMIT} characters; shorten it"
NEVER = datetime.min.replace(tzinfo=UTC)
LATEST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""The last second whose time as a float is still in the year 9999."""
UNUSABLE = "unusable"
"""The type of our own errors among pydantic's; their reason is in the context."""
_DATE = r"\d{4}-\d{2}-\d{2}"
_MOMENT = re.compile(
    rf"(?P<date>{_DATE})|{_DATE}[Tt ]([01]\d|2[0-3]):\d{{2}}:\d{{2}}(\.\d+)?(?P<zone>[Zz]|[+-]\d{{2}}:\d{{2}})?",
    re.ASCII,
)


def _unusable(reason: str) -> PydanticCustomError:
    return PydanticCustomError(UNUSABLE, UNUSABLE, {"reason": reason})


def _trimmed(value: object) -> object:
    """Strip spaces, as the GROQ queries do; an empty string becomes None."""
    return (value.strip(" ") or None) if isinstance(value, str) else value


def _text(value: object) -> object:
    value = _trimmed(value)
    if isinstance(value, str) and (invisible := _invisible(value)):
        raise _unusable(invisible)
    return value


def _document_id(value: object) -> object:
    if isinstance(value, str) and (problem := _problem_of_text(value)):
        raise _unusable(problem)
    return value


def _invisible(value: str) -> str:
    """Return the reason to refuse a text with a character that nobody sees; empty when there is none."""
    character = invisible_character(value)
    if not character:
        return ""
    position = value.index(character) + 1
    return f"contains the invisible character {escaped(character)} in position {position}; type the text again"


def _moment(value: object) -> object:
    """Return the time that RFC 3339 text with a zone, or a date, stands for. Numbers are not times."""
    value = _trimmed(value)
    if value is None:
        return None
    found = _MOMENT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise _unusable(_NOT_A_TIME)
    if not found["date"] and not found["zone"]:
        raise _unusable("has no time zone; write a time such as 2026-05-01T12:00:00Z")
    try:
        moment = datetime.fromisoformat(found[0].upper())
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise _unusable("is not between the years 1 and 9999 in UTC; correct the year") from None
    except ValueError:
        raise _unusable(_NOT_A_TIME) from None
    return min(moment, LATEST)


Text = Annotated[Annotated[str, Field(max_length=STRING_LIMIT)] | None, BeforeValidator(_text)]
Moment = Annotated[datetime | None, BeforeValidator(_moment)]


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

    id: Annotated[str, Field(alias="_id", min_length=1), BeforeValidator(_document_id)]
    revision: str = Field(alias="_rev", default="")
    updatedAt: Annotated[Moment, Field(alias="_updatedAt")] = None  # noqa: N815
    startsAt: Moment = None  # noqa: N815
    endsAt: Moment = None  # noqa: N815
    status: Text = None


def read_row(raw: object, fields: Sequence[ManagedField]) -> tuple[Subject | None, Entitlement | Refusal]:
    """Validate one row. A refused row still has a subject if its ids are valid."""
    named = raw.get("_id") if isinstance(raw, dict) else None
    document = printable(named[:STRING_LIMIT]) if named and isinstance(named, str) else "?"
    try:
        subject = SubjectFields.model_validate(raw).subject()
    except (ValidationError, InvalidSubject) as error:
        return None, _refusal(document, error)
    try:
        row = Row.model_validate(raw)
        values, dropped = _values(row.model_extra or {}, fields)
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
        unresolved=_unresolved(row.id, (row.model_extra or {}).get(UNRESOLVED_FIELD), dropped, values),
    )


def _unresolved(
    document: str, counted: object, dropped: Sequence[str], values: Mapping[str, Value]
) -> Unresolved | None:
    """Return what the query counted together with what was dropped here. A diagnostic never refuses a row."""
    number = counted if isinstance(counted, int) and not isinstance(counted, bool) and counted > 0 else 0
    if not number and not dropped:
        return None
    left = (f"{len(v)} {name}" if isinstance(v, tuple) else name for name, v in values.items() if v != ())
    return Unresolved(document, number + len(dropped), "".join(dropped[:1]), ", ".join(left))


class _InvalidValueError(ValueError):
    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field, self.reason = field, reason


def _values(extra: Mapping[str, Any], fields: Iterable[ManagedField]) -> tuple[dict[str, Value], list[str]]:
    """Return the values of a row, and why items of its lists were dropped. Raises _InvalidValueError."""
    values: dict[str, Value] = {}
    dropped: list[str] = []
    for field in fields:
        value = extra.get(field.name)
        if value is not None and field.rule is MergeRule.UNION:
            values[field.name], problems = _strings(field.name, value)
            dropped += problems
        elif (value := _trimmed(value)) is not None:
            values[field.name] = _scalar(field.name, value)
    return values, dropped


def _scalar(name: str, value: object) -> Scalar:
    if not isinstance(value, str | int | float | bool):
        raise _InvalidValueError(name, f"must be a string, a number or a boolean, not {json_type(value)}")
    if isinstance(value, str) and (problem := _problem_of_text(value)):
        raise _InvalidValueError(name, problem)
    return value


def _strings(name: str, value: object) -> tuple[tuple[str, ...], list[str]]:
    """Return the usable strings of a list, and why each other item is dropped: one slug must not cost all access."""
    if not isinstance(value, list):
        raise _InvalidValueError(name, f"must be a list of strings, not {json_type(value)}")
    strings: set[str] = set()
    dropped: list[str] = []
    for item in map(_trimmed, value):
        problem = _problem_of_text(item) if isinstance(item, str) else f"must be a string, not {json_type(item)}"
        if isinstance(item, str) and not problem:
            strings.add(item)
        elif item is not None:
            dropped.append(f"{name}: an item {problem}")
    return tuple(sorted(strings)), dropped


def _problem_of_text(text: str) -> str:
    """Return why a text cannot be a value; empty if it can."""
    return TOO_LONG if len(text) > STRING_LIMIT else _invisible(text)


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
    if kind is Kind.EMAIL and (surplus := _surplus(value)):
        raise InvalidSubject(f"{field}: {surplus}; write the address alone")
    invalid = InvalidSubject(f"{field}: {_EXPECTED_ID[kind]}")
    try:
        subject = Subject.of_kind(kind, member_of + value)
    except InvalidSubject:
        raise invalid from None
    if subject.organization_id != member_of.rstrip("/"):
        raise invalid
    return subject


def _surplus(address: str) -> str:
    """Return what was pasted along with an e-mail address; empty if nothing was."""
    if address.lower().startswith("mailto:"):
        return 'starts with "mailto:"'
    if address[-1] in ".,;:":
        return f"ends with {address[-1]!r}"
    found = next((character for character in address if character in '<>()[],;:"'), "")
    return f"contains {found!r}" if found else ""


def _reason(error_type: str) -> str:
    """Return what is wrong with a field and what to write, for a type of pydantic's errors."""
    return _REASONS.get(error_type, "is not valid; correct the field, or what entitlement.groq returns for it")


_NOT_A_TIME = "is not a date and time; write one such as 2026-05-01T12:00:00Z, or a date such as 2026-05-01"
_REASONS = {
    "model_type": "is not an object; entitlement.groq must return one object per entitlement",
    "missing": "is missing; entitlement.groq must return it",
    "string_type": "must be a string; correct the field, or what entitlement.groq returns for it",
    "string_too_short": "is empty; entitlement.groq must return it",
    "string_too_long": TOO_LONG,
    "string_unicode": "contains a character that is not Unicode; type the text again",
}


def _refusal(document: str, error: Exception) -> Refusal:
    match error:
        case ValidationError():
            first = error.errors(include_url=False, include_input=False)[0]
            reason = first["ctx"]["reason"] if first["type"] == UNUSABLE else _reason(first["type"])
            return Refusal(document, ".".join(str(part) for part in first["loc"]) or "row", reason)
        case _InvalidValueError():
            return Refusal(document, error.field, error.reason)
        case InvalidSubject():
            field, _, reason = error.detail.partition(": ")
            return Refusal(document, field, reason)
        case _:
            raise error
