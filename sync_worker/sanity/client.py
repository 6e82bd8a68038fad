"""The client of Sanity's Content Lake, which reads published entitlements.

Queries read an index that lags behind the document store; `/data/doc` reads the store itself. All requests go to the
live API, not the CDN, with `perspective=published` and a pinned version.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import httpx

from sync_worker.domain.freshness import DocumentRevision, Stored
from sync_worker.domain.revisions import microseconds
from sync_worker.domain.subjects import Kind
from sync_worker.domain.work import editor
from sync_worker.errors import (
    ConfigurationError,
    CredentialsRefused,
    GroqInvalid,
    RateLimited,
    ServiceUnavailable,
    UnreadableAnswer,
    WrongResult,
)
from sync_worker.sanity.groq_files import load_query, place_of
from sync_worker.sanity.source import Page, Snapshot
from sync_worker.sanity.transaction_log import deleted_by, transactions_of
from sync_worker.transport import ServiceTransport, read_json

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from sync_worker.domain.subjects import Subject
    from sync_worker.domain.timings import Timings

SERVICE = "Sanity"
GET_LIMIT = 11_264
"""The length of an encoded query, in characters, from which it is sent as a POST, as in Sanity's own client."""
DOCUMENTS_PER_CALL = 100
TAG = "sync-worker"
_QUERY_ERROR = re.compile(r"query|\bparam\b", re.IGNORECASE)
TRANSACTIONS = 1000
"""Transactions in one page of the log."""


@dataclass(frozen=True, slots=True)
class Queries:
    """The GROQ queries, composed from the files of one directory."""

    by_subject: str
    by_address: str
    everything: str
    affected: str
    changed: str
    webhook_filter: str
    webhook_projection: str
    folder: Path | None = field(default=None, compare=False)

    @classmethod
    def load(cls, folder: Path) -> Queries:
        """Read the files. Raises GroqInvalid that names a file that cannot be read."""
        return cls(**{name: load_query(folder, f"{name}.groq") for name in NAMES}, folder=folder)

    def located(self, name: str, error: GroqInvalid) -> GroqInvalid:
        """Return the error with the file, and with the line if Sanity says at which position it is."""
        if self.folder is None or error.position is None:
            return GroqInvalid(f"{name}.groq: {error.detail}")
        place = place_of(self.folder, f"{name}.groq", error.position)
        return GroqInvalid(f"{name}.groq: {error.detail}; see {place}")


NAMES = tuple(one.name for one in fields(Queries) if one.name != "folder")


class Sanity:
    """The Source, through Sanity's HTTP API."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        queries: Queries,
        *,
        base: str,
        dataset: str,
        perspective: str = "published",
        hidden: Collection[str] = (),
    ) -> None:
        self._client = client
        self._queries = queries
        self._base = base
        self._dataset = dataset
        self._perspective = perspective
        self._hidden = hidden

    def seen_as(self, perspective: str, hidden: Collection[str] = ()) -> Sanity:
        """Return the same source under another perspective, without the `hidden` documents. For previews only."""
        base, dataset = self._base, self._dataset
        return Sanity(self._client, self._queries, base=base, dataset=dataset, perspective=perspective, hidden=hidden)

    async def by_subject(self, subjects: Collection[Subject], documents: Collection[str]) -> Snapshot:
        """See Source. One query for all subjects, at most 100."""
        parameters = {
            "users": sorted({s.id if s.kind is Kind.USER else s.user_id for s in subjects if s.kind in _WITH_USER}),
            "organizations": sorted({s.id for s in subjects if s.kind is Kind.ORGANIZATION}),
            **_addresses(subjects),
            "documents": sorted(documents),
        }
        result = _object(await self._run("by_subject", parameters))
        counts = (_count(result, name) for name in ("visible", "addressed", "addressedMembers"))
        rows = {str(row["_id"]): row for row in _rows(result)}  # a row may be found in several ways
        return Snapshot(tuple(rows[id_] for id_ in sorted(rows)), _revisions(result), *counts)

    async def by_address(self, addresses: Collection[Subject]) -> frozenset[str]:
        """See Source."""
        result = _object(await self._run("by_address", _addresses(addresses)))
        return frozenset(str(row["_id"]) for row in _rows(result))

    async def everything(self, after: str) -> Page:
        """See Source."""
        return _page(_object(await self._run("everything", {"after": after}))).without(self._hidden)

    async def affected(self, documents: Collection[str], after: str, expected_revisions: Collection[str]) -> Page:
        """See Source."""
        parameters = {"documents": sorted(documents), "after": after, "expected": sorted(expected_revisions)}
        return _page(_object(await self._run("affected", parameters)))

    async def changed(self, since: str, after: str, before: str) -> tuple[Mapping[str, Any], ...]:
        """See Source. Returns at most 500 rows; continue after the last one."""
        result = _object(await self._run("changed", {"since": since, "after": after, "before": before}))
        return _rows(result, "changed")

    async def deleted(self, since: str, until: str) -> Mapping[str, str]:
        """See Source. Pages overlap by one transaction; a line that cannot be read makes the whole log unreadable."""
        url = f"{self._base}/data/history/{self._dataset}/transactions"
        begin = {"fromTime": since}
        deleted: dict[str, str] = {}
        last = ""
        while True:
            options = {"excludeContent": "true", "toTime": until, "limit": str(TRANSACTIONS), "tag": TAG}
            transactions = transactions_of(await self._client.get(url, params={**options, **begin}))
            for transaction in transactions:
                deleted |= dict.fromkeys(deleted_by(transaction), editor(transaction.get("author")))
            if len(transactions) < TRANSACTIONS or transactions[-1]["id"] == last:
                return {id_: by for id_, by in deleted.items() if not id_.startswith(("drafts.", "versions."))}
            last = transactions[-1]["id"]
            begin = {"fromTransaction": last}

    async def stored(self, ids: Collection[str]) -> Stored:
        """See Source. A document counts as missing only if it was omitted for "existence", not for "permission"."""
        documents: dict[str, DocumentRevision] = {}
        missing: set[str] = set()
        in_order = sorted(ids)
        for start in range(0, len(in_order), DOCUMENTS_PER_CALL):
            batch = ",".join(quote(i, safe="") for i in in_order[start : start + DOCUMENTS_PER_CALL])
            url = f"{self._base}/data/doc/{self._dataset}/{batch}"
            result = _object(read_json(SERVICE, await self._client.get(url, params={"tag": TAG})))
            documents.update(_revisions_of(result.get("documents")))
            omitted = _objects(result.get("omitted") or [])
            missing.update(str(one.get("id")) for one in omitted if one.get("reason") == "existence")
        return Stored(documents, frozenset(missing - documents.keys()))

    async def lookup(self, query: str, parameters: Mapping[str, Sequence[str] | str]) -> Mapping[str, Any]:
        """Run the query of a single command. It must return an object."""
        return _object(await self._query(query, parameters))

    async def _run(self, name: str, parameters: Mapping[str, Sequence[str] | str]) -> object:
        """Run a query of the GROQ files. An error in its text names the file and the line."""
        try:
            return await self._query(getattr(self._queries, name), parameters)
        except GroqInvalid as error:
            raise self._queries.located(name, error) from None

    async def _query(self, query: str, parameters: Mapping[str, Sequence[str] | str]) -> object:
        options = {"perspective": self._perspective, "returnQuery": "false", "tag": TAG}
        url = f"{self._base}/data/query/{self._dataset}"
        encoded = {"query": query, **{f"${name}": json.dumps(value) for name, value in parameters.items()}, **options}
        if sum(_encoded_length(name) + _encoded_length(value) for name, value in encoded.items()) < GET_LIMIT:
            response = await self._client.get(url, params=encoded)
        else:
            response = await self._client.post(url, params=options, json={"query": query, "params": parameters})
        body = _object(read_json(SERVICE, response))
        if "result" not in body:
            raise UnreadableAnswer("Sanity's response to a query has no result")
        return body["result"]


@lru_cache(maxsize=64)
def _encoded_length(text: str) -> int:
    """Return the characters of a name or value in a URL, with what follows it. Queries are always the same texts."""
    return len(quote_plus(text)) + 1


_WITH_USER = frozenset({Kind.USER, Kind.MEMBERSHIP})


def error_from_response(response: httpx.Response, retry_after: float | None) -> Exception | None:
    """Return the error for a response from Sanity, or None for a 2xx."""
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
    error = _body(response).get("error")
    if status == 400 and isinstance(error, dict) and _QUERY_ERROR.search(f"{error.get('type')} {error}"):  # noqa: PLR2004
        position = error.get("start")
        return GroqInvalid(detail, position=position if isinstance(position, int) else None)
    return ConfigurationError(f"{detail} (check SANITY_PROJECT_ID, SANITY_DATASET and SANITY_API_URL)")


def timeout(timings: Timings) -> httpx.Timeout:
    """Return the timeouts of requests to Sanity."""
    return httpx.Timeout(timings.sanity_timeout, connect=timings.sanity_connect_timeout)


def open_sanity(
    transport: ServiceTransport, queries: Queries, *, url: str, version: str, dataset: str
) -> tuple[Sanity, httpx.AsyncClient]:
    """Return the Source, and the HTTP client that the caller must close."""
    client = httpx.AsyncClient(transport=transport, timeout=timeout(transport.timings))
    return Sanity(client, queries, base=f"{url}/v{version}", dataset=dataset), client


def reads_only(request: httpx.Request) -> bool:
    """Return whether a request only reads. A long query is a POST too."""
    return request.method == "GET" or (request.method == "POST" and "/data/query/" in request.url.path)


def _addresses(subjects: Collection[Subject]) -> dict[str, list[str]]:
    return {
        "emails": sorted({s.id.lower() for s in subjects if s.kind is Kind.EMAIL}),  # as GROQ's lower() makes them
        "externalIds": sorted({s.id for s in subjects if s.kind is Kind.EXTERNAL}),
    }


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UnreadableAnswer("Sanity's response is not the expected object")
    return value


def _rows(result: Mapping[str, Any], name: str = "entitlements") -> tuple[Mapping[str, Any], ...]:
    rows = result.get(name)
    if not isinstance(rows, list) or not all(isinstance(row, dict) and _is_id(row.get("_id")) for row in rows):
        raise WrongResult(f'the query did not return "{name}" as a list of rows with an _id')
    return tuple(rows)


def _is_id(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _count(result: Mapping[str, Any], name: str) -> int:
    count = result.get(name)
    if not isinstance(count, int) or isinstance(count, bool):
        raise WrongResult(f'the query did not return "{name}" as a number')
    return count


def _revisions(result: Mapping[str, Any]) -> dict[str, DocumentRevision]:
    if not isinstance(result.get("revisions"), list):
        raise WrongResult('the query did not return "revisions" as a list')
    return _revisions_of(result.get("revisions"))


def _revisions_of(documents: object) -> dict[str, DocumentRevision]:
    found = _objects(documents)
    if not all(_is_id(document.get("_id")) for document in found):
        raise UnreadableAnswer("Sanity returned a document without an _id")
    return {
        d["_id"]: DocumentRevision(
            str(d.get("_rev") or ""), microseconds(str(d.get("_updatedAt"))), str(d.get("_type") or "")
        )
        for d in found
    }


def _objects(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise UnreadableAnswer("Sanity's response is not the expected list")
    return [_object(item) for item in value]


def _page(result: Mapping[str, Any]) -> Page:
    """Parse a page. Raises UnreadableAnswer for an empty page while rows remain: it must not end the iteration."""
    rows = _rows(result)
    remaining = _count(result, "remaining")
    if len(rows) < remaining and not rows:
        raise UnreadableAnswer(f"Sanity returned an empty page while {remaining} entitlements remain")
    between = result.get("between") or []
    if not isinstance(between, list) or not all(map(_is_id, between)):
        raise WrongResult('the query did not return "between" as a list of ids')
    return Page(
        rows=rows,
        remaining=remaining,
        between=tuple(between),
        revisions=_revisions(result) if "revisions" in result else None,
        visible=_count(result, "visible") if "visible" in result else None,
    )


def description(response: httpx.Response) -> str:
    """Return the description of an error response."""
    return described(_body(response)) or response.reason_phrase


def described(body: Mapping[str, Any]) -> str:
    """Return the description of an error, as a response or an event of the stream has it; empty if it has none."""
    error = body.get("error")
    if isinstance(error, dict):
        return str(error.get("description") or error.get("type") or error)[:300]
    return str(body.get("message") or error or "")[:300]


def error_code(response: httpx.Response) -> str:
    """Return the code of an error response, such as SIO-401-ANF; empty if it has none."""
    return str(_body(response).get("errorCode") or "")


def _body(response: httpx.Response) -> dict[str, Any]:
    try:
        body = read_json(SERVICE, response)
    except UnreadableAnswer:
        return {}
    return body if isinstance(body, dict) else {}
