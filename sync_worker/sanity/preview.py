"""Reads entitlements as if drafts or releases were published, to see beforehand what that would change."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from sync_worker.errors import ConfigurationError, UnreadableAnswer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sync_worker.sanity.client import Sanity

DRAFTS = "drafts"
NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
OPEN_STATES = {"active", "scheduled", "scheduling", "unscheduling"}
QUERY = """{
  "releases": releases::all()[name in $releases]{
    name, state, publishAt, "intendedPublishAt": metadata.intendedPublishAt
  },
  "versions": *[_id in path("versions.**") && string::split(_id, ".")[1] in $releases]{
    _id, "unpublishes": coalesce(_system.delete, false)
  }
}"""
"""Types and fields of Sanity's own. Versions that unpublish a document carry no fields besides."""
_VERSION = re.compile(r"versions\.([^.]+)\.(.+)")


class _Release(BaseModel):
    model_config = ConfigDict(extra="ignore")
    name: str
    state: str
    publishAt: AwareDatetime | None = None  # noqa: N815 - Sanity's name
    intendedPublishAt: AwareDatetime | None = None  # noqa: N815


class _Result(BaseModel):
    releases: list[_Release]
    versions: list[dict[str, object]]


async def preview(source: Sanity, perspective: str) -> tuple[Sanity, datetime | None]:
    """Return the source under a perspective, and when the last of its releases is to be published, if that is known.

    The perspective is `drafts`, or names of releases separated by commas, of which the first wins. Raises
    ConfigurationError for any other, and for a release that does not exist or is not open.
    """
    names = [name.strip() for name in perspective.split(",")]
    if not all(NAME.fullmatch(name) for name in names):
        raise ConfigurationError("--perspective takes drafts, or names of releases separated by commas.")
    releases = [name for name in names if name != DRAFTS]
    if not releases:
        return source.seen_as(DRAFTS), None
    found = _parsed(await source.seen_as("raw").lookup(QUERY, {"releases": releases}))
    states = {release.name: release.state for release in found.releases}
    for name in releases:
        if name not in states:
            raise ConfigurationError(f"No release is called {name}. Its name is the end of its document id.")
        if states[name] not in OPEN_STATES:
            raise ConfigurationError(f"The release {name} is {states[name]}, so it cannot be published.")
    moments = [release.publishAt or release.intendedPublishAt for release in found.releases]
    gone = _unpublished(releases, found.versions)
    return source.seen_as(",".join(names), gone), max((m for m in moments if m is not None), default=None)


def _unpublished(releases: Sequence[str], versions: Sequence[dict[str, object]]) -> frozenset[str]:
    """Return the documents that are unpublished by the first release that has a version of them."""
    by_document: dict[str, dict[str, bool]] = {}
    for version in versions:
        match = _VERSION.fullmatch(str(version.get("_id")))
        if match is not None:
            by_document.setdefault(match[2], {})[match[1]] = version.get("unpublishes") is True
    decided = {
        document: next((of[name] for name in releases if name in of), False) for document, of in by_document.items()
    }
    return frozenset(document for document, is_gone in decided.items() if is_gone)


def _parsed(result: object) -> _Result:
    try:
        return _Result.model_validate(result)
    except ValidationError:
        raise UnreadableAnswer("Sanity did not list the releases and their versions as expected") from None
