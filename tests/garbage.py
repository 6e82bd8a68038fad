"""How processes that run tests collect garbage."""

from __future__ import annotations

import gc


def collect_rarely() -> None:
    """Let the collector look rarely, and not at what lives until the end: it took up to a twelfth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)
