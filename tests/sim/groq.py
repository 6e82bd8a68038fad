"""The GROQ files in plain Python, because groq-js is too slow for a hundred thousand events.

`test_groq.py` compares these functions with groq-js on random datasets, so that they cannot drift from `groq/*.groq`.
`Documents` are published ones, by id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sync_worker.sandbox.documents import AUTHOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Document = dict[str, Any]
Documents = dict[str, Document]
Parameters = dict[str, Any]

SUBJECT_FIELDS = ("clerkUserId", "clerkOrganizationId", "userEmail", "userExternalId")
TYPES = ("entitlement", "plan", "cohort", "course")


def published(documents: Mapping[str, Document]) -> Documents:
    """Return what the perspective `published` shows."""
    return {id_: document for id_, document in documents.items() if not id_.startswith(("drafts.", "versions."))}


def by_subject(documents: Documents, parameters: Parameters, _page: int) -> Document:
    def wanted(document: Document) -> bool:
        named_otherwise = any(document.get(f) is not None for f in ("clerkUserId", "userEmail", "userExternalId"))
        return (
            document.get("clerkUserId") in parameters["users"]
            or (document.get("clerkOrganizationId") in parameters["organizations"] and not named_otherwise)
            or document.get("userEmail") in parameters["emails"]
            or document.get("userExternalId") in parameters["externalIds"]
            or document["_id"] in parameters["documents"]
        )

    entitlements = _of_type(documents, "entitlement")
    addressed = [one for one in entitlements if any(one.get(f) is not None for f in ("userEmail", "userExternalId"))]
    return {
        "entitlements": [entitlement(documents, one) for one in entitlements if wanted(one)],
        "revisions": _revisions(documents, parameters["documents"]),
        "visible": len(entitlements),
        "addressed": len(addressed),
        "addressedMembers": sum(one.get("clerkOrganizationId") is not None for one in addressed),
    }


def by_address(documents: Documents, parameters: Parameters, _page: int) -> Document:
    def wanted(document: Document) -> bool:
        email = document.get("userEmail")
        return names(email.lower() if isinstance(email, str) else None, parameters["emails"]) or names(
            document.get("userExternalId"), parameters["externalIds"]
        )

    return {"entitlements": [{"_id": one["_id"]} for one in _of_type(documents, "entitlement") if wanted(one)]}


def everything(documents: Documents, parameters: Parameters, page: int) -> Document:
    left = [one for one in _of_type(documents, "entitlement") if one["_id"] > parameters["after"]]
    return {"entitlements": [entitlement(documents, one) for one in left[:page]], "remaining": len(left)}


def affected(documents: Documents, parameters: Parameters, page: int) -> Document:
    requested = set(parameters["documents"])
    left = [
        one
        for one in _of_type(documents, "entitlement")
        if one["_id"] > parameters["after"] and (one["_id"] in requested or requested & references(one))
    ]
    return {
        "entitlements": [_fields(one, ("_id", *SUBJECT_FIELDS)) for one in left[:page]],
        "remaining": len(left),
        "between": [one["_id"] for one in _of_type(documents, "plan", "cohort") if requested & references(one)],
        "revisions": _revisions(documents, parameters["expected"]),
        "visible": len(_of_type(documents, "entitlement")),
    }


def changed(documents: Documents, parameters: Parameters, page: int) -> Document:
    since, after, before = (str(parameters[name]) for name in ("since", "after", "before"))

    def wanted(document: Document) -> bool:
        at, id_ = str(document["_updatedAt"]), str(document["_id"])
        return at < before and (at > since or (at == since and id_ > after))

    found = sorted(filter(wanted, _of_type(documents, *TYPES)), key=lambda one: (one["_updatedAt"], one["_id"]))
    return {"changed": [_fields(one, ("_id", "_type", "_rev", "_updatedAt", *SUBJECT_FIELDS)) for one in found[:page]]}


def entitlement(documents: Documents, document: Document) -> Document:
    """Return one row, as `groq/entitlement.groq` projects it."""
    plan, cohorts = document.get("plan"), _list(document.get("cohorts"))
    refers = isinstance(plan, dict) and plan.get("_ref") is not None
    target = _target(documents, plan)
    teams = [_target(documents, one) for one in cohorts if one is not None]
    courses = [one for holder in (document, *teams, target) for one in _list(holder.get("courses")) if one is not None]
    slugs = [_slug(_target(documents, one)) for one in courses]
    return {
        **_fields(document, ("_id", "_rev", "_updatedAt", *SUBJECT_FIELDS)),
        "plan": _slug(target) if refers else plan,
        "role": document.get("role"),
        "courseSlugs": [slug for slug in slugs if slug is not None],
        "unresolved": slugs.count(None) + teams.count({}) + (refers and _slug(target) is None),
        **_fields(document, ("startsAt", "endsAt", "status")),
    }


def webhook(before: Document | None, after: Document | None) -> Document | None:
    """Return what the webhook sends of one document's change; None when its filter does not match."""
    document = after or before
    assert document is not None
    types = {side["_type"] for side in (before, after) if side is not None}
    if types.isdisjoint(TYPES) or document["_id"].startswith(("drafts.", "versions.")):
        return None
    return {
        "v": 1,
        "operation": "update" if before and after else "create" if after else "delete",
        "projectId": "sandbox",
        "dataset": "production",
        "id": document["_id"],
        "type": document["_type"],
        "rev": document["_rev"],
        "updatedAt": document["_updatedAt"],
        "before": before and _fields(before, ("_type", *SUBJECT_FIELDS)),
        "after": after and _fields(after, ("_type", *SUBJECT_FIELDS)),
        "by": AUTHOR,
    }


def names(value: object, ids: Sequence[str]) -> bool:
    """Return whether one of the words of `value` is among `ids`."""
    return isinstance(value, str) and any(word in ids for word in value.split(" "))


def references(value: object) -> set[str]:
    """Return the ids that a document refers to, at any depth."""
    if isinstance(value, dict):
        own = {value["_ref"]} if isinstance(value.get("_ref"), str) else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


MEANINGS: dict[str, Callable[[Documents, Parameters, int], Document]] = {
    "by_subject": by_subject,
    "by_address": by_address,
    "everything": everything,
    "affected": affected,
    "changed": changed,
}
"""What answers each query of `Queries`, by the name of its file. The last argument is the page."""


def _of_type(documents: Documents, *types: str) -> list[Document]:
    return [documents[id_] for id_ in sorted(documents) if documents[id_]["_type"] in types]


def _revisions(documents: Documents, ids: Sequence[str]) -> list[Document]:
    return [_fields(documents[id_], ("_id", "_rev", "_updatedAt")) for id_ in documents if id_ in ids]


def _fields(document: Document, fields: Iterable[str]) -> Document:
    return {field: document.get(field) for field in fields}


def _target(documents: Documents, reference: object) -> Document:
    """Return the document that a reference leads to; an empty one where it leads nowhere."""
    return documents.get(str(reference.get("_ref")), {}) if isinstance(reference, dict) else {}


def _slug(document: Document) -> Any:
    slug = document.get("slug")
    return slug.get("current") if isinstance(slug, dict) else None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
