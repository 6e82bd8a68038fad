"""Clerk's metadata: how a change is merged, and how large it may become.

Clerk documents a deep merge in which null removes a key. Arrays are replaced whole, as in RFC 7396.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sync_worker.sandbox import clerk_errors as errors

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_BYTES = 8192
"""The size limit of one field, measured on the merged result."""

METADATA = ("public_metadata", "private_metadata")
USER_METADATA = (*METADATA, "unsafe_metadata")


def merge(current: Any, patch: Any) -> Any:
    """Return the JSON merge patch of a value (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(current) if isinstance(current, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def merged_fields(record: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata fields of a record after a merge. Raises ClerkError 422."""
    for name, value in body.items():
        if not isinstance(value, dict):
            raise errors.invalid_value(name, "must be an object")
    return _sized({name: merge(record[name], value) for name, value in body.items()})


def replaced_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata fields after a replacement; null is stored as null. Raises ClerkError 422."""
    for name, value in body.items():
        if value is not None and not isinstance(value, dict):
            raise errors.invalid_value(name, "must be an object")
    return _sized(dict(body))


def _sized(fields: dict[str, Any]) -> dict[str, Any]:
    for name, value in fields.items():
        if len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()) > MOST_BYTES:
            raise errors.metadata_too_large(name, MOST_BYTES)
    return fields
