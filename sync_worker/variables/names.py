"""Finds variables of the environment that look like settings but are not: misspelt, or named as in another program."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

PREFIXES = ("SANITY_", "CLERK_")
NEAR = 0.85
"""How alike two names are, from 0 to 1, before one counts as a misspelling of the other."""
SHORT = 4
"""Names of so few letters resemble too many others."""
OURS = frozenset({"SANITY_MANAGE_TOKEN"})
"""Read by single commands, so not a setting."""
ALIASES = {
    **dict.fromkeys(
        ("SANITY_API_TOKEN", "SANITY_API_READ_TOKEN", "SANITY_TOKEN", "SANITY_VIEWER_TOKEN", "SANITY_AUTH_TOKEN"),
        "SANITY_READ_TOKEN",
    ),
    **dict.fromkeys(
        ("SANITY_PROJECT", "SANITY_STUDIO_PROJECT_ID", "SANITY_API_PROJECT_ID", "NEXT_PUBLIC_SANITY_PROJECT_ID"),
        "SANITY_PROJECT_ID",
    ),
    **dict.fromkeys(
        ("SANITY_STUDIO_DATASET", "SANITY_API_DATASET", "NEXT_PUBLIC_SANITY_DATASET"),
        "SANITY_DATASET",
    ),
    **dict.fromkeys(
        ("SANITY_SECRET", "SANITY_HOOK_SECRET", "SANITY_REVALIDATE_SECRET", "SANITY_WEBHOOK_SIGNING_SECRET"),
        "SANITY_WEBHOOK_SECRET",
    ),
    **dict.fromkeys(("CLERK_API_KEY", "CLERK_API_SECRET", "CLERK_KEY", "CLERK_SECRET"), "CLERK_SECRET_KEY"),
    **dict.fromkeys(
        ("CLERK_WEBHOOK_SIGNING_SECRET", "CLERK_SIGNING_SECRET", "SVIX_SECRET"),
        "CLERK_WEBHOOK_SECRET",
    ),
    **dict.fromkeys(("POSTGRES_URL", "POSTGRESQL_URL"), "DATABASE_URL"),
}
"""What other programs call it, and what we do."""


def unknown(names: Iterable[str], settings: Collection[str]) -> dict[str, str]:
    """Return the variables among `names` that look like settings, each with the setting that was meant, if known.

    A name of another program counts outside our prefixes only while the setting itself is missing.
    """
    given = {name.upper() for name in names}
    found = {}
    for name in sorted(given - set(settings) - OURS):
        meant = ALIASES.get(name) or _nearest(name, settings)
        if name.startswith(PREFIXES) or (meant and not (name in ALIASES and meant in given)):
            found[name] = meant
    return found


def alias_of(setting: str, names: Iterable[str]) -> str:
    """Return the variable among `names` by which another program knows a setting; empty if there is none."""
    return next((name for name in names if ALIASES.get(name.upper()) == setting), "")


def sentence(name: str, meant: str) -> str:
    """Return what to say of one unknown variable."""
    return f"{name} is not a setting" + (f"; did you mean {meant}?" if meant else "")


def _nearest(name: str, settings: Collection[str]) -> str:
    candidates = [setting for setting in settings if len(setting) > SHORT]
    return next(iter(get_close_matches(name, candidates, 1, NEAR)), "")
