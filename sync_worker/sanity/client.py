"""Sanity's Content Lake: what is published, read as one snapshot.

Why it exists: it is the only room that knows Sanity's HTTP API, its errors and its two stores. Queries read an index
that lags behind the document store; `/data/doc` reads the store itself. Everything is asked of the live host, with
`perspective=published` and a pinned version. What rows mean is `rows`; whether a read is fresh enough is `converge`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

import httpx

from sync_worker.domain.freshness import DocumentRevision, Stored
from sync_worker.domain.subjects import Kind
from sync_worker.errors import (
    ConfigurationError,
    CredentialsRefused,
    RateLimited,
    ServiceUnavailable,
    UnreadableAnswer,
)
from sync_worker.transport import ServiceTransport, read_json

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from sync_worker.domain.subjects import Subject
    from sync_worker.domain.timings import Timings

SERVICE = "Sanity"
GET_LIMIT = 11_264
"""Characters of an encoded query beyond which the official client sends a POST; the server takes 15 KB of headers."""
DOCUMENTS_A_CALL = 100
TAG = "sync-worker"
_INCLUDE = re.compile(r"^[ \t]*// include ([\w.-]+\.groq)[ \t]*$", re.MULTILINE)
_COMMENT = re.compile(r"^[ \t]*//.*\n?", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One answer: raw rows, the witnesses that it shows, and how many entitlements there are at all.

    `addressed` is how many of those name somebody by e-mail address or external id, `addressed_members` how many of
    these a member of an organization.
    """

    rows: tuple[Mapping[str, Any], ...]
    revisions: Mapping[str, DocumentRevision]
    visible: int
    addressed: int
    addressed_members: int


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a walk in the order of `_id`. `between` are documents that lead to further entitlements.

    `remaining` counts the rows from here on, this page included; `visible` all there are, where the query tells.
    """

    rows: tuple[Mapping[str, Any], ...]
    remaining: int
    between: tuple[str, ...] = ()
    revisions: Mapping[str, DocumentRevision] | None = None
    visible: int | None = None

    @property
    def last(self) -> bool:
        """Whether no page follows."""
        return len(self.rows) >= self.remaining

    @property
    def cursor(self) -> str:
        """The id to go on after."""
        return str(self.rows[-1]["_id"]) if self.rows else ""


class Source(Protocol):
    """Where entitlements are published."""

    async def by_subject(self, subjects: Collection[Subject], expected_revisions: Collection[str]) -> Snapshot:
        """Read all that decides the access of `subjects`, and the documents `witnesses`, in one snapshot.

        `subjects` are users, organizations, memberships, and addresses without organization.
        """

    async def everything(self, after: str) -> Page:
        """Read the page of all entitlements whose ids come after `after`."""

    async def affected(self, documents: Collection[str], after: str, expected_revisions: Collection[str]) -> Page:
        """Read a page of the entitlements that name one of `documents` or are one of them."""

    async def changed(self, since: str, after: str, before: str) -> tuple[Mapping[str, Any], ...]:
        """Read what was published from (`since`, `after`) until `before`: `_updatedAt` times, and an id for ties."""

    async def stored(self, ids: Collection[str]) -> Stored:
        """Ask the strongly consistent store for single documents."""


@dataclass(frozen=True, slots=True)
class Queries:
    """The GROQ texts, composed from the files of one folder."""

    by_subject: str
    everything: str
    affected: str
    changed: str
    webhook_filter: str
    webhook_projection: str

    @classmethod
    def load(cls, folder: Path) -> Queries:
        """Read the files. Raises ConfigurationError that names a file that is missing or includes a missing one."""

        def text(name: str) -> str:
            try:
                raw = (folder / name).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"{folder / name} cannot be read: {error}") from None
            included = _INCLUDE.sub(lambda match: text(match[1]), raw)
            return _COMMENT.sub("", included).strip()

        return cls(*(text(f"{name}.groq") for name in cls.__slots__))


class Sanity:
    """The Source over HTTP."""

    def __init__(self, client: httpx.AsyncClient, queries: Queries, *, base: str, dataset: str) -> None:
        self._client = client
        self._queries = queries
        self._base = base
        self._dataset = dataset

    async def by_subject(self, subjects: Collection[Subject], expected_revisions: Collection[str]) -> Snapshot:
        """See Source. One query, however many subjects; at most 100 are meant."""
        parameters = {
            "users": sorted({s.id if s.kind is Kind.USER else s.user_id for s in subjects if s.kind in _WITH_USER}),
            "organizations": sorted({s.id for s in subjects if s.kind is Kind.ORGANIZATION}),
            "emails": sorted({s.id.lower() for s in subjects if s.kind is Kind.EMAIL}),  # as GROQ's lower() makes them
            "externalIds": sorted({s.id for s in subjects if s.kind is Kind.EXTERNAL}),
            "witnesses": sorted(expected_revisions),
        }
        result = _object(await self._query(self._queries.by_subject, parameters))
        counts = (_count(result, name) for name in ("visible", "addressed", "addressedMembers"))
        return Snapshot(_rows(result), _revisions(result), *counts)

    async def everything(self, after: str) -> Page:
        """See Source."""
        return _page(_object(await self._query(self._queries.everything, {"after": after})))

    async def affected(self, documents: Collection[str], after: str, expected_revisions: Collection[str]) -> Page:
        """See Source."""
        parameters = {"documents": sorted(documents), "after": after, "witnesses": sorted(expected_revisions)}
        return _page(_object(await self._query(self._queries.affected, parameters)))

    async def changed(self, since: str, after: str, before: str) -> tuple[Mapping[str, Any], ...]:
        """See Source. At most 500 rows; the next page goes on after the last."""
        result = _object(await self._query(self._queries.changed, {"since": since, "after": after, "before": before}))
        return _rows(result, "changed")

    async def stored(self, ids: Collection[str]) -> Stored:
        """See Source. `omitted[].reason` is "existence" or "permission"; only the first proves absence."""
        documents: dict[str, DocumentRevision] = {}
        missing: set[str] = set()
        wanted = sorted(ids)
        for start in range(0, len(wanted), DOCUMENTS_A_CALL):
            part = ",".join(quote(i, safe="") for i in wanted[start : start + DOCUMENTS_A_CALL])
            url = f"{self._base}/data/doc/{self._dataset}/{part}"
            answer = _object(read_json(SERVICE, await self._client.get(url, params={"tag": TAG})))
            documents.update(_revisions_of(answer.get("documents")))
            omitted = _objects(answer.get("omitted") or [])
            missing.update(str(gone.get("id")) for gone in omitted if gone.get("reason") == "existence")
        return Stored(documents, frozenset(missing - documents.keys()))

    async def _query(self, query: str, parameters: Mapping[str, Sequence[str] | str]) -> object:
        options = {"perspective": "published", "returnQuery": "false", "tag": TAG}
        url = f"{self._base}/data/query/{self._dataset}"
        encoded = {"query": query, **{f"${name}": json.dumps(value) for name, value in parameters.items()}, **options}
        if len(str(httpx.QueryParams(encoded))) < GET_LIMIT:
            response = await self._client.get(url, params=encoded)
        else:
            response = await self._client.post(url, params=options, json={"query": query, "params": parameters})
        answer = _object(read_json(SERVICE, response))
        if "result" not in answer:
            raise UnreadableAnswer("Sanity answered a query without a result")
        return answer["result"]


_WITH_USER = frozenset({Kind.USER, Kind.MEMBERSHIP})


def error_from_response(response: httpx.Response, retry_after: float | None) -> Exception | None:
    """Return the error that an answer of Sanity stands for (shapes: Sanity's HTTP reference); None when it is good."""
    status = response.status_code
    if response.is_success:
        return None
    detail = f"Sanity answered {status}: {description(response)}"
    if status in (401, 403):
        return CredentialsRefused(f"{detail} (SANITY_READ_TOKEN)")
    if status == 429:  # noqa: PLR2004 - a status code is its own name
        return RateLimited(detail, retry_after=retry_after)
    if status >= 500 or status in (408, 409, 425):  # noqa: PLR2004
        return ServiceUnavailable(detail, retry_after=retry_after)
    return ConfigurationError(f"{detail} (SANITY_PROJECT_ID, SANITY_DATASET and the GROQ files decide what is asked)")


def timeout(timings: Timings) -> httpx.Timeout:
    """Return how long requests to Sanity may take."""
    return httpx.Timeout(timings.sanity_timeout, connect=timings.sanity_connect_timeout)


def open_sanity(
    transport: ServiceTransport, queries: Queries, *, url: str, version: str, dataset: str
) -> tuple[Sanity, httpx.AsyncClient]:
    """Return the Source and the client to close."""
    client = httpx.AsyncClient(transport=transport, timeout=timeout(transport.timings))
    return Sanity(client, queries, base=f"{url}/v{version}", dataset=dataset), client


def reads_only(request: httpx.Request) -> bool:
    """Tell whether a request only reads: a long query is a POST, but changes nothing."""
    return request.method == "GET" or (request.method == "POST" and "/data/query/" in request.url.path)


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UnreadableAnswer(f"Sanity answered {type(value).__name__} where an object was asked for")
    return value


def _rows(result: Mapping[str, Any], name: str = "entitlements") -> tuple[Mapping[str, Any], ...]:
    rows = result.get(name)
    if not isinstance(rows, list) or not all(isinstance(row, dict) and _is_id(row.get("_id")) for row in rows):
        raise UnreadableAnswer(f'the query did not yield "{name}" as a list of rows with an _id')
    return tuple(rows)


def _is_id(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _count(result: Mapping[str, Any], name: str) -> int:
    count = result.get(name)
    if not isinstance(count, int) or isinstance(count, bool):
        raise UnreadableAnswer(f'the query did not yield "{name}" as a number')
    return count


def _revisions(result: Mapping[str, Any]) -> dict[str, DocumentRevision]:
    return _revisions_of(result.get("witnesses"))


def _revisions_of(documents: object) -> dict[str, DocumentRevision]:
    found = _objects(documents)
    if not all(_is_id(document.get("_id")) for document in found):
        raise UnreadableAnswer("a document came without an _id")
    return {d["_id"]: DocumentRevision(str(d.get("_rev") or ""), str(d.get("_updatedAt") or "")) for d in found}


def _objects(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise UnreadableAnswer(f"Sanity answered {type(value).__name__} where a list was asked for")
    return [_object(item) for item in value]


def _page(result: Mapping[str, Any]) -> Page:
    """Read a page. A page that is empty although rows remain was cut short, and must not pass for the end."""
    rows = _rows(result)
    remaining = _count(result, "remaining")
    if len(rows) < remaining and not rows:
        raise UnreadableAnswer(f"a page came empty although {remaining} entitlements remain")
    between = result.get("between") or []
    if not isinstance(between, list) or not all(map(_is_id, between)):
        raise UnreadableAnswer('the query did not yield "between" as a list of ids')
    return Page(
        rows=rows,
        remaining=remaining,
        between=tuple(between),
        revisions=_revisions(result) if "witnesses" in result else None,
        visible=_count(result, "visible") if "visible" in result else None,
    )


def description(response: httpx.Response) -> str:
    """Return what an answer says is wrong, in its own words."""
    body = _body(response)
    error = body.get("error")
    if isinstance(error, dict):
        return str(error.get("description") or error.get("type") or error)[:300]
    return str(body.get("message") or error or response.reason_phrase)[:300]


def error_code(response: httpx.Response) -> str:
    """Return the code of an error, such as SIO-401-ANF; empty without one."""
    return str(_body(response).get("errorCode") or "")


def _body(response: httpx.Response) -> dict[str, Any]:
    try:
        body = read_json(SERVICE, response)
    except UnreadableAnswer:
        return {}
    return body if isinstance(body, dict) else {}
