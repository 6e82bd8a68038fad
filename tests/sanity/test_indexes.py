"""Every filter of the queries is a lookup in an index: it compares attributes, and computes nothing over them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sync_worker import sandbox
from sync_worker.sanity.client import Queries
from sync_worker.settings import packaged_groq
from tests.node import evaluate

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio
INDEXED = {"defined", "references"}
"""The functions that Sanity's index serves. A function over any other attribute reads every document of its type."""
SCANS = {"by_address"}
"""It runs after a sign-up or a change of an address alone: nothing else finds what an editor wrote in another case."""
FOLDERS = {"ours": packaged_groq(), "the example": packaged_groq() / "examples" / "memberships"}
READ = ("by_subject", "by_address", "everything", "affected", "changed")


async def filters_of(query: str) -> list[Any]:
    """Return the conditions of all filters over documents, as groq-js parses them."""
    script = """
      const {parse} = await import('groq-js')
      const found = []
      const walk = (node) => {
        if (node === null || typeof node !== 'object') return
        if (node.type === 'Filter' && node.base.type === 'Everything') found.push(node.expr)
        Object.values(node).forEach(walk)
      }
      walk(parse(given, {params: {}}))
      return found
    """
    found: list[Any] = await evaluate(script, query, packages=Path(sandbox.__file__).parent)
    return found


def computed(node: Any) -> Iterator[str]:
    """Yield the functions of a condition that compute over an attribute."""
    if isinstance(node, list):
        for child in node:
            yield from computed(child)
    if not isinstance(node, dict):
        return
    is_function = node.get("type") in {"FuncCall", "PipeFuncCall"}
    if is_function and node.get("name") not in INDEXED and has_attribute(node.get("args")):
        yield str(node["name"])
    for child in node.values():
        yield from computed(child)


def has_attribute(node: Any) -> bool:
    if isinstance(node, list):
        return any(map(has_attribute, node))
    if not isinstance(node, dict):
        return False
    return node.get("type") == "AccessAttribute" or any(map(has_attribute, node.values()))


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("name", READ)
async def test_a_filter_computes_nothing_over_an_attribute(folder: str, name: str) -> None:
    filters = await filters_of(getattr(Queries.load(FOLDERS[folder]), name))
    assert filters
    assert bool([*computed(filters)]) is (name in SCANS)


@pytest.mark.parametrize(
    "text",
    [
        'count(string::split(clerkUserId, " ")[@ in $users]) > 0',
        'count(string::split(clerkOrganizationId, " ")[@ in $organizations]) > 0',
        'count(string::split(lower(userEmail), " ")[@ in $emails]) > 0',
        'count(string::split(userExternalId, " ")[@ in $externalIds]) > 0',
    ],
)
async def test_the_check_finds_a_function_over_an_attribute(text: str) -> None:
    (condition,) = await filters_of(f'*[_type == "entitlement" && ({text})]')
    assert "count" in {*computed(condition)}
