"""What a projection must yield: rows become entitlements, or refusals that name document, field and reason.

Why it exists: the GROQ files belong to the customer and the documents to editors, so every row is untrusted.
A wrong row widens nobody's access and holds up nobody else. Fetching rows is `sanity`; merging them is `policy`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from sync_worker.domain.entitlements import Entitlement, MergeRule, Refusal
from sync_worker.domain.entitlements import Field as OwnedField
from sync_worker.domain.subjects import Kind, Subject
from sync_worker.errors import InvalidSubject

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sync_worker.domain.entitlements import Value

STRING_LIMIT = 1000
"""Characters of one value; nobody's plan is longer, and rich text is not an entitlement."""
NEVER = datetime.min.replace(tzinfo=UTC)


def _trimmed(value: object) -> object:
    """Spaces around an id are an editor's slip; GROQ splits at spaces alike. An empty text is none."""
    return (value.strip(" ") or None) if isinstance(value, str) else value


Text = Annotated[Annotated[str, Field(max_length=STRING_LIMIT)] | None, BeforeValidator(_trimmed)]


class SubjectFields(BaseModel):
    """The fields that say whom a row is for. A person and an organization together name a membership."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    clerkUserId: Text = None  # noqa: N815 - the names of the contract
    clerkOrganizationId: Text = None  # noqa: N815
    userEmail: Text = None  # noqa: N815
    userExternalId: Text = None  # noqa: N815

    def subject(self) -> Subject:
        """Return the one subject that is named. Raises InvalidSubject with the field and the reason.

        Of several ways to name a person the most exact counts: the Clerk id, the external id, then the e-mail address.
        """
        organization = _identified(Kind.ORGANIZATION, "clerkOrganizationId", self.clerkOrganizationId)
        user = _identified(Kind.USER, "clerkUserId", self.clerkUserId)
        if user is not None:
            return user if organization is None else Subject.membership(organization.id, user.id)
        member_of = "" if organization is None else f"{organization.id}/"
        named = (
            _identified(Kind.EXTERNAL, "userExternalId", self.userExternalId, member_of)
            or _identified(Kind.EMAIL, "userEmail", self.userEmail, member_of)
            or organization
        )
        if named is None:
            raise InvalidSubject("clerkUserId: names nobody")
        return named


class Row(SubjectFields):
    """One entitlement as the projection returns it; owned fields are in `model_extra`, by name."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    id: str = Field(alias="_id", min_length=1)
    revision: str = Field(alias="_rev", default="")
    updatedAt: Annotated[AwareDatetime | None, Field(alias="_updatedAt", strict=False)] = None  # noqa: N815
    startsAt: Annotated[AwareDatetime | None, Field(strict=False)] = None  # noqa: N815
    endsAt: Annotated[AwareDatetime | None, Field(strict=False)] = None  # noqa: N815
    status: Annotated[str, Field(max_length=STRING_LIMIT)] | None = None


def read_row(raw: object, fields: Sequence[OwnedField]) -> tuple[Subject | None, Entitlement | Refusal]:
    """Read one row. The subject is known even of a refused row, where its ids are good."""
    document = str(raw.get("_id", "?")) if isinstance(raw, dict) else "?"
    try:
        subject = SubjectFields.model_validate(raw).subject()
    except (ValidationError, InvalidSubject) as error:
        return None, _refusal(document, error)
    try:
        row = Row.model_validate(raw)
        values = _values(row.model_extra or {}, fields)
    except (ValidationError, _WrongValueError) as error:
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


class _WrongValueError(ValueError):
    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field, self.reason = field, reason


def _values(extra: Mapping[str, Any], fields: Iterable[OwnedField]) -> dict[str, Value]:
    read = {f.name: (_strings if f.rule is MergeRule.UNION else _scalar)(f.name, extra.get(f.name)) for f in fields}
    return {name: value for name, value in read.items() if value is not None}


def _scalar(name: str, value: object) -> Value | None:
    value = _trimmed(value)
    if value is not None and not isinstance(value, str | int | float | bool):
        raise _WrongValueError(name, f"must be a text, a number or a boolean, not {json_type(value)}")
    if isinstance(value, str) and len(value) > STRING_LIMIT:
        raise _WrongValueError(name, f"is longer than {STRING_LIMIT} characters")
    _refuse_half_characters(name, value)
    return value


def _strings(name: str, value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise _WrongValueError(name, f"must be a list of texts, not {json_type(value)}")
    items = [_trimmed(item) for item in value]
    texts = [item for item in items if isinstance(item, str)]
    if len(texts) + items.count(None) != len(items):
        raise _WrongValueError(name, "must be a list of texts")
    _refuse_half_characters(name, *texts)
    return tuple(sorted(set(texts)))


def _refuse_half_characters(name: str, *values: object) -> None:
    """Refuse what no database and no request can hold: JSON can escape half of a character."""
    if any("\ud800" <= character <= "\udfff" for text in values if isinstance(text, str) for character in text):
        raise _WrongValueError(name, "holds half of a character")


def json_type(value: object) -> str:
    """Name the type of a JSON value, for people."""
    return _JSON_TYPES.get(type(value), type(value).__name__)


_JSON_TYPES = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
}


_WHAT = {
    Kind.USER: "a Clerk user id",
    Kind.ORGANIZATION: "a Clerk organization id",
    Kind.EMAIL: "an e-mail address",
    Kind.EXTERNAL: "an external id",
}


def _identified(kind: Kind, field: str, value: str | None, member_of: str = "") -> Subject | None:
    if value is None:
        return None
    wrong = InvalidSubject(f"{field}: is not {_WHAT[kind]}")
    try:
        subject = Subject.of_kind(kind, member_of + value)
    except InvalidSubject:
        raise wrong from None
    if subject.organization_id != member_of.rstrip("/"):
        raise wrong
    return subject


def _refusal(document: str, error: Exception) -> Refusal:
    match error:
        case ValidationError():
            first = error.errors(include_url=False, include_input=False)[0]
            return Refusal(document, ".".join(str(part) for part in first["loc"]) or "row", first["msg"])
        case _WrongValueError():
            return Refusal(document, error.field, error.reason)
        case InvalidSubject():
            field, _, reason = error.detail.partition(": ")
            return Refusal(document, field, reason)
        case _:
            raise error
