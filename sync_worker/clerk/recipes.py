"""JWT templates for the services that an app passes tokens to, and how they differ from those in Clerk. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sync_worker.clerk.claims import default_template

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sync_worker.domain.entitlements import Layout

HASURA = "https://hasura.io/jwt/claims"


class Recipe(StrEnum):
    """A service that reads the token, or `plain` for one of your own."""

    CONVEX = "convex"
    HASURA = "hasura"
    SUPABASE = "supabase"
    PLAIN = "plain"

    @classmethod
    def named(cls, template: str) -> Recipe:
        """Return the recipe with the name of a template, else `plain`."""
        return cls(template) if template in set(cls) else cls.PLAIN


@dataclass(frozen=True, slots=True)
class ClaimDifference:
    """One claim of a template that differs; nested claims are joined with dots. None stands for no claim."""

    claim: str
    current: Any
    expected: Any


def recipe_claims(recipe: Recipe, layout: Layout) -> dict[str, Any]:
    """Return the claims of a recipe: what the service requires, and the public managed keys."""
    access = dict(default_template(layout).claims)
    match recipe:
        case Recipe.CONVEX:
            # Convex compares `aud` with applicationID, and its clients expect a template of this name.
            return {"aud": "convex", "name": "{{user.full_name}}", "email": "{{user.primary_email_address}}", **access}
        case Recipe.SUPABASE:
            # Supabase takes `role` for the role in Postgres, so our role must not be there.
            return {"role": "authenticated", "app_metadata": access}
        case Recipe.HASURA:
            user = {
                "x-hasura-default-role": "user",
                "x-hasura-allowed-roles": ["user"],
                "x-hasura-user-id": "{{user.id}}",
            }
            # Hasura refuses a session variable that is not text, so a list stays outside of its namespace.
            plan = {"x-hasura-plan": access["plan"].replace("}}", " || 'none'}}")} if "plan" in access else {}
            return {HASURA: {**user, **plan}, **access}
        case Recipe.PLAIN:
            return access


def merged(current: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return `wanted` with the claims of `current` that it does not name: a change replaces all claims."""
    result = dict(current)
    for name, value in wanted.items():
        inner = result.get(name)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        result[name] = merged(inner or {}, value) if both else value
    return result


def differences(current: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[ClaimDifference, ...]:
    """Return the claims of `wanted` that `current` does not have like that."""
    mine = dict(_leaves(current))
    return tuple(
        ClaimDifference(claim, mine.get(claim), value) for claim, value in _leaves(wanted) if mine.get(claim) != value
    )


def _leaves(claims: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in claims.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
