"""How large a test is: small enough for every commit, and at its full size in `make test-full`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

full_size = pytest.mark.full("the same at its full size")


def sizes(quick: int, full: int) -> list[int | ParameterSet]:
    """Return the values of a parameter: `quick` for every commit, `full` for the full run."""
    return [quick, pytest.param(full, marks=full_size)]


def examples(full: int, *, share: int = 5) -> int:
    """Return how many examples hypothesis is to draw: one in `share` of `full` for every commit."""
    return full if settings.get_current_profile_name() == "full" else max(10, full // share)


def the_rest(values: Any, *, quick: Any) -> list[Any]:
    """Return the values of a parameter, all but those in `quick` left to the full run."""
    return [value if value in quick else pytest.param(value, marks=full_size) for value in values]
