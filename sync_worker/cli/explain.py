"""`explain`: why a subject has its access, or whether a document has reached Clerk."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from sync_worker.cli.output import AsJson, CommandFailed, echo, print_json
from sync_worker.cli.setup import begin
from sync_worker.cli.tables import print_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sync_worker.clerk.directory import Listing
    from sync_worker.diagnostics.explain_document import DocumentExplanation
    from sync_worker.diagnostics.explanation import ExplainedKey, Explanation
    from sync_worker.settings import Settings


SHOWN = 8
"""Characters of a revision shown in the table."""


def explain(
    target: Annotated[
        str,
        typer.Argument(
            help="user:user_…, org:org_…, membership:org_…/user_…, an e-mail address, external:…, a document id, or "
            "part of a name."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Explain why a subject has its access.

    For a document id: whether the document has reached Clerk. For a name: who has it, if several people do. Changes
    nothing.

    Example: sync-worker explain "ada love"
    """
    from sync_worker.diagnostics.explain_document import DocumentExplanation
    from sync_worker.diagnostics.serialize import document_json, subject_json

    explained, names = asyncio.run(_explain(begin(), target, with_names=not as_json))
    if isinstance(explained, list):
        _refuse_several(explained, as_json=as_json)
    if isinstance(explained, DocumentExplanation):
        if as_json:
            subjects = [
                {**subject_json(one), "state": explained.state(one).value, "reason": explained.reason(one)}
                for one in explained.subjects
            ]
            print_json({**document_json(explained), "subjects": subjects})
        else:
            _show_document(explained, names)
    elif as_json:
        print_json(subject_json(explained))
    else:
        _show_subject(explained, names)


async def _explain(
    settings: Settings, text: str, *, with_names: bool
) -> tuple[Explanation | DocumentExplanation | list[Listing], Mapping[str, str]]:
    """Return the explanation, or several matches of a name."""
    from sync_worker.diagnostics.explain_document import DocumentExplanation
    from sync_worker.diagnostics.look_up import LookUp
    from sync_worker.runtime.wiring import Runtime, explainer_of, open_services, open_store

    runtime = Runtime.system()
    async with open_store(settings, runtime) as store, open_services(settings, store, dry_run=True) as services:
        explainer = explainer_of(settings, store, services, runtime.timings.explain_patience)
        target = await LookUp(explainer, services.directory).find(text)
        if isinstance(target, list):
            return target, {}
        explained = await (explainer.document(target) if isinstance(target, str) else explainer.subject(target))
        subjects = explained.subjects if isinstance(explained, DocumentExplanation) else [explained]
        return explained, await services.names.of([str(one.subject) for one in subjects]) if with_names else {}


def _refuse_several(found: list[Listing], *, as_json: bool) -> NoReturn:
    """List the people and organizations of a name, and end the command."""
    if not as_json:
        print_table(("id", "name", "e-mail"), ((one.id, one.name, one.email) for one in found), empty="")
    ids = ", ".join(one.id for one in found)
    raise CommandFailed(f"{len(found)} have this name; run `sync-worker explain ID` with one of {ids}.")


def _show_document(one: DocumentExplanation, names: Mapping[str, str]) -> None:
    _echo(f"{one.facts.id}: {one.verdict.state}")
    _echo(one.verdict.headline)
    _echo_next(one.verdict.next_step)
    for subject in one.subjects:
        echo()
        _show_subject(subject, names)


def _show_subject(one: Explanation, names: Mapping[str, str]) -> None:
    """Print the verdict, the published rows, and what Clerk has."""
    name = names.get(str(one.subject))
    _echo(f"{f'{name} · ' if name else ''}{one.subject}: {one.verdict.state}")
    _echo(one.verdict.headline)
    _echo_next(one.verdict.next_step)
    echo()
    _show_rows(one)
    for name, value in _facts(one):
        _echo(f"{name:<20} {value}")


def _show_rows(one: Explanation) -> None:
    from sync_worker.formatting import at, masked

    rows = [
        (
            row.document,
            f"{row.revision[:SHOWN]}…" if len(row.revision) > SHOWN else row.revision,
            at(row.published, one.facts.now) if row.published else "",
            row.status,
            masked(row.reason),
        )
        for row in one.rows
    ]
    if rows:
        print_table(("document", "revision", "published", "status", "reason"), rows, empty="")
        echo()


def _facts(one: Explanation) -> Iterator[tuple[str, str]]:
    """Yield what is published, what Clerk has, and the state of the work in between."""
    from sync_worker.diagnostics.serialize import work_state
    from sync_worker.formatting import describe, rfc3339

    facts, marker, applied = one.facts, one.marker, one.applied
    yield "published access", describe(one.access.values)
    if one.access.next_transition is not None:
        yield "changes next", rfc3339(one.access.next_transition.timestamp()) or ""
    if not one.subject.is_address:
        yield "in Clerk", describe(one.clerk_values) if facts.observed else "not read" if facts.problem else "not found"
    for key in one.keys:
        yield f"  {describe({key.name: key.value})}:", _whose(key)
    if marker is not None:
        yield "marker", f"{marker.at}, from {', '.join(marker.documents) or 'no document'}"
    if one.drift is not None:
        yield "drift", one.drift.value
    if applied is not None:
        documents = ", ".join(applied.documents) or "no document"
        yield "last written", f"{rfc3339(applied.settled_at)}: {applied.kind}, from {documents}"
    yield from _beside(one)
    state = work_state(facts.work, facts.now) if facts.work else "idle"
    if facts.work is not None and state not in {"idle", "scheduled"}:
        yield "in the queue", f"{state} {facts.work.error_detail}"
    for changeset in facts.held:
        yield "held in", changeset


def _beside(one: Explanation) -> Iterator[tuple[str, str]]:
    """Yield what was measured of tokens, and what Clerk Billing says."""
    from sync_worker.formatting import rfc3339

    if one.in_token is not None:
        yield "in a real token", f"since {rfc3339(one.in_token)}"
    if one.billing is not None:
        yield "Clerk Billing", str(one.billing)


def _whose(key: ExplainedKey) -> str:
    """Return whose a key is, since when, by which documents, and what the app had in it."""
    from sync_worker.formatting import describe, rfc3339

    if not key.managed:
        return "not managed: it is left alone"
    since = f" since {rfc3339(key.since)}" if key.since else ""
    documents = f", from {', '.join(key.documents)}" if key.documents else ""
    former = f"; the app had {describe({key.name: key.former})}" if key.former is not None else ""
    return f"managed{since}{documents}{former}"


def _echo(text: str) -> None:
    from sync_worker.formatting import masked

    echo(masked(text))


def _echo_next(step: str) -> None:
    if step:
        _echo(f"Next step: {step}")
