"""Reading Clerk's error answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx


def codes(answer: httpx.Response) -> tuple[int, str, str | None]:
    """Return status, code and parameter of the only error, whose envelope must be whole."""
    (error,) = answer.json()["errors"]
    assert error["message"]
    assert error["long_message"]
    assert answer.json()["clerk_trace_id"]
    return answer.status_code, error["code"], error.get("meta", {}).get("param_name")
