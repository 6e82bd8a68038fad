"""Answers of Sanity and Clerk, changed on their way: cut off, of another type, of another service, of none.

The changes are made from real answers, so that each hits what the worker really reads.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Place = tuple[str | int, ...]

OTHERS: tuple[Any, ...] = (None, True, 7, -0.5, "", "another", [], [None], {}, {"another": None})
"""One of each JSON type, and the empty ones."""
GONE = object()
HTML = b"<!doctype html><html><body><h1>Please sign in</h1></body></html>"
SANITY_ERROR = {"error": {"type": "queryError", "description": "query timed out"}}
CLERK_ERROR = {"errors": [{"code": "internal_clerk_error", "message": "x", "long_message": "x"}]}
STATUSES = (100, 201, 202, 203, 204, 205, 206, 207, 226, 301, 302, 304, 307, 308, 400, 401, 402, 403, 404, 405, 406)
MORE_STATUSES = (408, 409, 410, 413, 414, 415, 418, 421, 422, 423, 425, 429, 451, 500, 501, 502, 503, 504, 520, 599)


@dataclass(frozen=True)
class Tampering:
    """One change of an answer. `at` is the place in its JSON, when it is about one."""

    name: str
    change: Callable[[httpx.Response, bytes], httpx.Response]
    at: Place = ()
    value: Any = None

    def __str__(self) -> str:
        return self.name


def tamperings(answer: Any) -> Iterator[Tampering]:
    """Yield all changes of one answer."""
    yield from _statuses()
    yield from _bodies(answer)
    for path in _places(answer):
        for value in (GONE, *OTHERS):
            if value is GONE or not _same(value, _get(answer, path)):
                yield _replacing(path, value)


def _statuses() -> Iterator[Tampering]:
    for status in (*STATUSES, *MORE_STATUSES):
        yield Tampering(f"status {status}", _with(status=status))
        yield Tampering(f"status {status} without a body", _with(status=status, body=b""))
        yield Tampering(f"status {status} with HTML", _with(status=status, body=HTML, content_type="text/html"))
    for after in ("-1", "nan", "inf", "soon", "99999999999999999999", "Wed, 21 Oct 2015 07:28:00 GMT", "\xff"):
        yield Tampering(f"Retry-After {after}", _with(status=503, headers={"retry-after": after.encode("latin-1")}))


def _bodies(answer: Any) -> Iterator[Tampering]:
    body = json.dumps(answer).encode()
    for what, other in {
        "nothing": b"",
        "spaces": b"  \r\n",
        "HTML": HTML,
        "bytes": bytes(range(256)),
        "null": b"null",
        "true": b"true",
        "a number": b"7",
        "a text": b'"x"',
        "a list": b"[]",
        "a list of nulls": b"[null, null]",
        "a list of lists": b"[[], [[]]]",
        "an object": b"{}",
        "an error of Sanity": json.dumps(SANITY_ERROR).encode(),
        "an error of Clerk": json.dumps(CLERK_ERROR).encode(),
        "the answer twice": body + body,
        "the answer and HTML": body + HTML,
        "the answer in UTF-16": body.decode().encode("utf-16"),
        "the answer after a byte order mark": b"\xef\xbb\xbf" + body,
        "the answer as JSON with a comment": b"/**/" + body,
        "the answer as lines": json.dumps(answer, indent=1).replace(" ", "\n").encode(),
        "deep nesting": b"[" * 100_000,
        "a number beyond all": b"9" * 10_000,
    }.items():
        yield Tampering(what, _with(body=other))
    for end in _cuts(body):
        yield Tampering(f"cut off after {end} of {len(body)}", _with(body=body[:end]))
    for encoding in ("gzip", "deflate", "br", "zstd", "gzip, gzip", "nonsense"):
        yield Tampering(f"said to be {encoding}", _with(headers={"content-encoding": encoding.encode()}))
    yield Tampering("longer than said", _with(headers={"content-length": b"5"}))


def _cuts(body: bytes) -> list[int]:
    """Return where to cut: around what gives the text its shape, evenly over its length."""
    items = [place for place, byte in enumerate(body) if byte in b'{}[]:,"']
    chosen = items[:4] + items[:: max(1, len(items) // 12)] + items[-4:]
    return sorted({end for place in chosen for end in (place, place + 1) if 0 < end < len(body)})


def _places(value: Any, path: Place = ()) -> Iterator[Place]:
    """Yield every place in a JSON value below its root; of the items of a list, those of the first and the last."""
    match value:
        case dict():
            children: Iterable[str | int] = value.keys()
        case list():
            children = sorted({0, len(value) - 1}) if value else ()
        case _:
            return
    for child in children:
        yield (*path, child)
        yield from _places(value[child], (*path, child))


def _replacing(path: Place, value: Any) -> Tampering:
    def change(response: httpx.Response, body: bytes) -> httpx.Response:
        try:
            whole = json.loads(body)
            holder = _get(whole, path[:-1])
            if value is GONE:
                del holder[path[-1]]
            else:
                holder[path[-1]] = value
        except (ValueError, LookupError, TypeError):
            return _answer(response, body)  # a later answer of this route may have no such place
        return _answer(response, json.dumps(whole).encode())

    said = "missing" if value is GONE else json.dumps(value)
    return Tampering(f"{'.'.join(map(str, path))} is {said}", change, path, value)


def _with(
    *, status: int = 0, body: bytes | None = None, content_type: str = "", headers: dict[str, bytes] | None = None
) -> Callable[[httpx.Response, bytes], httpx.Response]:
    def change(response: httpx.Response, real: bytes) -> httpx.Response:
        more = {**({"content-type": content_type.encode()} if content_type else {}), **(headers or {})}
        return _answer(response, real if body is None else body, status or response.status_code, more)

    return change


def _answer(
    response: httpx.Response, body: bytes, status: int = 0, headers: dict[str, bytes] | None = None
) -> httpx.Response:
    kept = {k.lower(): v for k, v in response.headers.raw if k.lower() not in (b"content-length", b"transfer-encoding")}
    more = {name.encode(): value for name, value in (headers or {}).items()}
    return httpx.Response(
        status or response.status_code, headers=list({**kept, **more}.items()), stream=httpx.ByteStream(body)
    )


def _get(value: Any, path: Place) -> Any:
    for step in path:
        value = value[step]
    return value


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other
