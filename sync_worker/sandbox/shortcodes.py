"""Renders the shortcodes of a claims template, by the rules of Clerk's page on JWT templates.

A shortcode with an unknown root stays in the token as text: Clerk accepts such a template, and the app then reads the
text instead of a value.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOTS = frozenset({"user", "org", "org_membership", "session"})

_SHORTCODE = re.compile(r"\{\{((?:(?!\}\}).)*)\}\}")
_OPERAND = re.compile(r"\s*(?:'([^']*)'|([^'|]+))\s*")
_PATH = re.compile(r"[A-Za-z_]\w*(\.[\w-]+)*")


def render(template: Any, roots: Mapping[str, Any]) -> Any:
    """Return the claims of a template. A root that is not in `roots`, such as an inactive organization, is null."""
    match template:
        case dict():
            return {name: render(value, roots) for name, value in template.items()}
        case list():
            return [render(value, roots) for value in template]
        case str():
            return _render_text(template, roots)
        case _:
            return template


def _render_text(text: str, roots: Mapping[str, Any]) -> Any:
    whole = _SHORTCODE.fullmatch(text)
    if whole is not None:
        value = _evaluate(whole[1], roots)
        return text if value is _UNKNOWN else value

    def interpolated(found: re.Match[str]) -> str:
        value = _evaluate(found[1], roots)
        return found[0] if value is _UNKNOWN else _as_text(value)

    return _SHORTCODE.sub(interpolated, text)


_UNKNOWN = object()


def _evaluate(expression: str, roots: Mapping[str, Any]) -> Any:
    """Return the first operand that is not null or false, else the last one; `_UNKNOWN` if any has an unknown root."""
    values = [_operand(operand, roots) for operand in _operands(expression)]
    if not values or any(value is _UNKNOWN for value in values):
        return _UNKNOWN
    return next((value for value in values if value is not None and value is not False), values[-1])


def _operands(expression: str) -> list[re.Match[str]]:
    found, at = [], 0
    while match := _OPERAND.match(expression, at):
        found.append(match)
        if match.end() == len(expression):
            return found
        if not expression.startswith("||", match.end()):
            return []
        at = match.end() + 2
    return []


def _operand(found: re.Match[str], roots: Mapping[str, Any]) -> Any:
    if found[1] is not None:
        return found[1]
    text = found[2].strip()
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        return float(text) if "." in text else int(text)
    root, *path = text.split(".")
    if not _PATH.fullmatch(text) or root not in ROOTS:
        return _UNKNOWN
    value = roots.get(root)
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _as_text(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case _:
            return str(value)
