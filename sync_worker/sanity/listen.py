"""The client of Sanity's listen endpoint: server-sent events about published documents, one connection at a time.

The endpoint may drop events, repeat them and deliver them out of order, so each is only a poke. It answers a query that
it cannot evaluate with status 200, and then with `channelError`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import httpx
from httpx_sse import SSEError, aconnect_sse

from sync_worker.errors import ServiceUnavailable, UnreadableAnswer
from sync_worker.sanity.client import TAG, described, error_from_response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

FILTER = "*[_type in $types]"
EVERYTHING = "*"


class Signal(StrEnum):
    """What an event of the stream says."""

    WELCOME = "welcome"
    """The stream begins here: what happened before is not in it."""
    RESUMED = "welcomeback"
    """The stream goes on where it ended."""
    RESET = "reset"
    """The stream cannot go on where it ended."""
    MUTATION = "mutation"
    FAILED = "channelError"
    """The query cannot be evaluated, or the token may not listen."""
    ERROR = "error"
    """The same, if it has data."""
    DISCONNECT = "disconnect"
    """Stay away."""


@dataclass(frozen=True, slots=True)
class ListenEvent:
    """One event. A mutation has the document before and after; None where it did not exist or did not match."""

    signal: Signal
    id: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def failure(self) -> str:
        """Why Sanity ends the stream for good; empty for any other event."""
        if self.signal not in {Signal.FAILED, Signal.DISCONNECT} and not (self.signal is Signal.ERROR and self.data):
            return ""
        return described(self.data) or str(self.data.get("reason") or self.signal)

    @property
    def before(self) -> Mapping[str, Any] | None:
        """The document before the mutation."""
        return _object(self.data.get("previous"))

    @property
    def after(self) -> Mapping[str, Any] | None:
        """The document after the mutation; None when it was deleted."""
        return None if self.data.get("transition") == "disappear" else _object(self.data.get("result"))


@dataclass(frozen=True, slots=True)
class Listen:
    """Opens the stream for documents of `types`, or for all if there are none."""

    client: httpx.AsyncClient
    base: str
    dataset: str
    types: Sequence[str]

    async def events(self, last_id: str) -> AsyncIterator[ListenEvent]:
        """Yield events until the connection ends. Comments keep it alive and are not yielded.

        Raises ServiceUnavailable when the connection breaks or is silent for too long, UnreadableAnswer for what is no
        stream, and the error of any response but a 2xx.
        """
        parameters = {
            "query": FILTER if self.types else EVERYTHING,
            "includeResult": "true",
            "includePreviousRevision": "true",
            "includeMutations": "false",
            "visibility": "query",
            "enableResume": "true",
            "tag": TAG,
        } | ({"$types": json.dumps(list(self.types))} if self.types else {})
        headers = {"Last-Event-ID": last_id} if last_id else {}
        url = f"{self.base}/data/listen/{self.dataset}"
        try:
            async with aconnect_sse(self.client, "GET", url, params=parameters, headers=headers) as stream:
                await _raise_for_status(stream.response)
                async for event in stream.aiter_sse():
                    if event.event in set(Signal):
                        yield ListenEvent(Signal(event.event), event.id, _object(_json(event.data)) or {})
        except SSEError:
            raise UnreadableAnswer("Sanity's answer to a listener is no event stream") from None
        except httpx.HTTPError as error:
            raise ServiceUnavailable(f"the listener's connection ended: {type(error).__name__}") from None


async def _raise_for_status(response: httpx.Response) -> None:
    if not response.is_success:
        await response.aread()
    if error := error_from_response(response, None):
        raise error


def _json(text: str) -> object:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None


def _object(value: object) -> Mapping[str, Any] | None:
    return value if isinstance(value, dict) else None
