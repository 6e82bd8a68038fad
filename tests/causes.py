"""Causes by their text, as logs and the ledger show them."""

from __future__ import annotations

from sync_worker.domain.work import Cause, CauseKind


def cause_of(text: str) -> Cause:
    kind, _, id_ = text.partition(":")
    return Cause(CauseKind(kind), id_)
