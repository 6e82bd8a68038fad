"""Renders the shortcodes of a claims template as Clerk does, and says which of them Clerk would not resolve. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ROOTS = ("user", "org", "org_membership", "session")
"""The roots that Clerk resolves. A shortcode with another one stays in the token as text."""

_BRACES = re.compile(r"\{\{((?:[^}]|\}(?!\}))*)\}\}")
_OR = re.compile(r"\|\|(?=(?:[^']*'[^']*')*[^']*$)")
"""An `||` outside single quotes."""
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_PATH = re.compile(r"[A-Za-z_]\w*(\.[\w-]+)*")


@dataclass(frozen=True, slots=True)
class Shortcode:
    """One `{{…}}`: what is between the braces, and its operands, tried in order."""

    expression: str

    @property
    def operands(self) -> list[str]:
        """The operands of the `||` expression."""
        return [operand.strip() for operand in _OR.split(self.expression)]

    @property
    def paths(self) -> list[list[str]]:
        """The operands that are paths, such as `["user", "public_metadata", "plan"]`."""
        return [operand.split(".") for operand in self.operands if _literal(operand) is None]

    @property
    def is_resolved(self) -> bool:
        """Whether Clerk resolves it; otherwise it stays in the token as text."""
        return all(_PATH.fullmatch(".".join(path)) and path[0] in ROOTS for path in self.paths)

    def value(self, roots: Mapping[str, Any]) -> Any:
        """Return the first operand that is not null or false, else the last one."""
        values = [_value(operand, roots) for operand in self.operands]
        return next((value for value in values if value is not None and value is not False), values[-1])

    def __str__(self) -> str:
        return f"{{{{{self.expression}}}}}"


def shortcodes(text: str) -> list[Shortcode]:
    """Return the shortcodes in a text."""
    return [Shortcode(found[1]) for found in _BRACES.finditer(text)]


def has_loose_braces(text: str) -> bool:
    """Return whether braces are left that belong to no shortcode."""
    rest = _BRACES.sub("", text)
    return "{{" in rest or "}}" in rest


def render(template: Any, roots: Mapping[str, Any]) -> Any:
    """Return the claims of a template over what Clerk knows, by root. A root that is left out is null.

    A text that is one shortcode becomes its value with its JSON type; inside other text, the value becomes text.
    """
    if isinstance(template, Mapping):
        return {name: render(value, roots) for name, value in template.items()}
    if isinstance(template, Sequence) and not isinstance(template, str):
        return [render(value, roots) for value in template]
    if not isinstance(template, str):
        return template
    if (whole := _BRACES.fullmatch(template)) is not None:
        shortcode = Shortcode(whole[1])
        return shortcode.value(roots) if shortcode.is_resolved else template
    return _BRACES.sub(lambda found: _interpolated(Shortcode(found[1]), roots), template)


def _interpolated(shortcode: Shortcode, roots: Mapping[str, Any]) -> str:
    if not shortcode.is_resolved:
        return str(shortcode)
    value = shortcode.value(roots)
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _literal(operand: str) -> str | float | bool | None:
    if operand in ("true", "false"):
        return operand == "true"
    if _NUMBER.fullmatch(operand):
        return float(operand) if "." in operand else int(operand)
    is_quoted = len(operand) > 1 and operand[0] == operand[-1] == "'"
    return operand[1:-1] if is_quoted else None


def _value(operand: str, roots: Mapping[str, Any]) -> Any:
    literal = _literal(operand)
    if literal is not None:
        return literal
    value: Any = roots
    for name in operand.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
