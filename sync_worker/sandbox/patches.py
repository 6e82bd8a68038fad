"""Sanity's patch operations on one document.

Paths are the common subset of JSONMatch: `a.b`, `a[0]`, `a[-1]`, `a[_key=="x"]`. Recursive paths, slices and
`diffMatchPatch` are errors. A patch returns a new document.
"""

from __future__ import annotations

import copy
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Step = str | int | tuple[str, Any]
"""An attribute, an index, or (attribute, value) of an array element."""

_STEP = re.compile(
    r"""\.?(?P<name>[A-Za-z_]\w*)
      | \[ \s* (?P<index>-?\d+) \s* \]
      | \[ \s* (?P<quoted>['"][^'"]+['"]) \s* \]
      | \[ \s* (?P<key>\w+) \s* == \s* (?P<value>"[^"]*"|'[^']*'|-?\d+) \s* \]""",
    re.VERBOSE,
)


class InvalidPatch(Exception):
    """A patch that cannot be applied; the message says why."""


def parse_path(text: str) -> list[Step]:
    """Parse a path. Raises InvalidPatch for a path outside of the subset."""
    steps: list[Step] = []
    position = 0
    while position < len(text):
        match = _STEP.match(text, position)
        if match is None:
            message = f"path {text!r} is not supported at position {position}"
            raise InvalidPatch(message)
        steps.append(_step(match))
        position = match.end()
    return steps


def _step(match: re.Match[str]) -> Step:
    if match["index"]:
        return int(match["index"])
    if match["key"]:
        value = match["value"]
        return match["key"], int(value) if value.lstrip("-").isdigit() else value[1:-1]
    return match["name"] or match["quoted"][1:-1]


def apply_patch(document: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the patched document; operations apply in Sanity's order. Raises InvalidPatch."""
    changed: dict[str, Any] = copy.deepcopy(dict(document))
    unknown = set(patch) - {*_OPERATIONS, "unset", "insert", "id", "query", "params", "ifRevisionID"}
    if unknown:
        message = f"the sandbox does not support these patch operations: {', '.join(sorted(unknown))}"
        raise InvalidPatch(message)
    for name, change in _OPERATIONS.items():
        for path, operand in patch.get(name, {}).items():
            _update(changed, parse_path(path), change, copy.deepcopy(operand))
    for path in patch.get("unset", []):
        _unset(changed, parse_path(path))
    if "insert" in patch:
        _insert(changed, patch["insert"])
    return changed


_MISSING = object()


def _add(old: Any, value: Any) -> Any:
    return old + value if isinstance(old, (int, float)) else _MISSING


_OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "set": lambda _, value: value,
    "setIfMissing": lambda old, value: value if old is _MISSING or old is None else old,
    "inc": _add,
    "dec": lambda old, value: _add(old, -value),
}


def _position(container: Any, step: Step) -> Any:
    """Return the key or index of a step in a container, or None if it does not exist."""
    if isinstance(container, dict):
        return step if isinstance(step, str) else None
    if not isinstance(container, list):
        return None
    if isinstance(step, int):
        index = step if step >= 0 else len(container) + step
        return index if 0 <= index < len(container) else None
    if isinstance(step, tuple):
        name, value = step
        return next((i for i, item in enumerate(container) if isinstance(item, dict) and item.get(name) == value), None)
    return None


def _child(container: Any, step: Step) -> Any:
    position = _position(container, step)
    if position is None or (isinstance(container, dict) and position not in container):
        return _MISSING
    return container[position]


def _update(document: dict[str, Any], steps: list[Step], change: Callable[[Any, Any], Any], operand: Any) -> None:
    container: Any = document
    for step, following in pairwise(steps):
        child = _child(container, step)
        if child is _MISSING and isinstance(container, dict) and isinstance(step, str) and isinstance(following, str):
            child = container[step] = {}
        container = child
    position = _position(container, steps[-1])
    if position is None:
        return
    value = change(_child(container, steps[-1]), operand)
    if value is not _MISSING:
        container[position] = value


def _unset(document: dict[str, Any], steps: list[Step]) -> None:
    container: Any = document
    for step in steps[:-1]:
        container = _child(container, step)
    if _child(container, steps[-1]) is not _MISSING:
        del container[_position(container, steps[-1])]


def _insert(document: dict[str, Any], insert: Mapping[str, Any]) -> None:
    where = next((word for word in ("before", "after", "replace") if word in insert), None)
    if where is None or not isinstance(insert.get("items"), list):
        message = "insert needs items, and one of before, after or replace"
        raise InvalidPatch(message)
    *parents, last = parse_path(insert[where])
    container: Any = document
    for step in parents:
        container = _child(container, step)
    if not isinstance(container, list):
        message = f"there is no array at {insert[where]!r}"
        raise InvalidPatch(message)
    items = copy.deepcopy(insert["items"])
    # In an empty array, -1 is the end: clients append this way.
    position = 0 if not container and last in (0, -1) else _position(container, last)
    if position is None:
        message = f"there is no element {insert[where]!r}"
        raise InvalidPatch(message)
    start = position + (where == "after" and bool(container))
    container[start : position + 1 if where == "replace" else start] = items
