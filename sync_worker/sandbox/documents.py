"""The document store: applies transactions of mutations to documents.

`/data/doc` reads it directly; the query index follows it. Documents are replaced, never changed, so that a `Change` can
keep both sides. Error bodies are those that the official client reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sync_worker.sandbox.patches import InvalidPatch, apply_patch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Document = dict[str, Any]
Mutation = dict[str, Any]

AUTHOR = "p-sandbox"
"""The user of the sandbox's own token."""


class MutationError(Exception):
    """A whole transaction was refused. `status` and `body` are the response of the service."""

    def __init__(self, status: int, type_: str, description: str, index: int) -> None:
        self.status = status
        item = {"index": index, "error": {"type": type_, "description": description}}
        self.body: dict[str, Any] = {
            "error": {
                "type": "mutationError",
                "description": f"The mutation(s) failed: {description}",
                "items": [item],
            }
        }
        super().__init__(description)


@dataclass(frozen=True, slots=True)
class Change:
    """One document in one transaction. `before` is None for a create, `after` for a delete."""

    id: str
    before: Document | None
    after: Document | None

    @property
    def operation(self) -> str:
        """`create`, `update` or `delete`, as in webhooks."""
        if self.before is None:
            return "create"
        return "delete" if self.after is None else "update"


@dataclass(frozen=True, slots=True)
class Transaction:
    """One transaction. `time` is RFC 3339 in UTC with whole seconds, as Sanity writes it.

    `results` are those of `mutations`, in the same order; `author` is the id of the user whose token was used.
    """

    id: str
    time: str
    changes: tuple[Change, ...]
    results: tuple[Mapping[str, str], ...]
    mutations: tuple[Mutation, ...] = ()
    author: str = AUTHOR

    def mutations_of(self, id_: str) -> list[Mutation]:
        """Return the mutations of one document."""
        pairs = zip(self.mutations, self.results, strict=True)
        return [mutation for mutation, result in pairs if result["id"] == id_]


def strong_references(value: Any) -> Iterable[str]:
    """Yield the ids of all strong references in a value."""
    if isinstance(value, dict):
        target = value.get("_ref")
        if isinstance(target, str):
            if not value.get("_weak"):
                yield target
            return
        for member in value.values():
            yield from strong_references(member)
    elif isinstance(value, list):
        for element in value:
            yield from strong_references(element)


@dataclass
class DocumentStore:
    """All documents of one dataset by id, drafts and versions included."""

    documents: dict[str, Document] = field(default_factory=dict)
    _referrers: dict[str, set[str]] = field(default_factory=dict)

    def prepare(
        self,
        mutations: Sequence[Mutation],
        transaction_id: str,
        time: str,
        new_id: Callable[[], str],
        author: str = AUTHOR,
    ) -> Transaction:
        """Return the transaction without committing it. Raises MutationError."""
        staged: dict[str, Document | None] = {}
        results = []
        for index, mutation in enumerate(mutations):
            if len(mutation) != 1:
                raise MutationError(400, "invalidMutationError", "a mutation has exactly one key", index)
            ((name, body),) = mutation.items()
            step = _Step(self.documents, staged, transaction_id, time, new_id, index)
            if name not in _MUTATIONS:
                raise MutationError(400, "invalidMutationError", f"unknown mutation {name!r}", index)
            results.append(_MUTATIONS[name](step, body))
        changes = tuple(
            Change(id_, self.documents.get(id_), after)
            for id_, after in staged.items()
            if after is not None or id_ in self.documents
        )
        self._check_references(staged)
        return Transaction(transaction_id, time, changes, tuple(results), tuple(mutations), author)

    def _check_references(self, staged: Mapping[str, Document | None]) -> None:
        def exists(id_: str) -> bool:
            return staged[id_] is not None if id_ in staged else id_ in self.documents

        for id_, after in staged.items():
            if after is None:
                for source in self._referrers.get(id_, ()):
                    if source not in staged and source != id_:
                        description = (
                            f'Document "{id_}" cannot be deleted as there are references to it from "{source}"'
                        )
                        raise MutationError(409, "documentHasExistingReferencesError", description, 0)
                continue
            for target in strong_references(after):
                if not exists(target):
                    description = f'Document "{id_}" references non-existent document "{target}"'
                    raise MutationError(409, "documentReferenceDoesNotExistError", description, 0)

    def commit(self, transaction: Transaction) -> None:
        """Commit a prepared transaction."""
        for change in transaction.changes:
            for target in set(strong_references(change.before)):
                self._referrers.get(target, set()).discard(change.id)
            for target in set(strong_references(change.after)):
                self._referrers.setdefault(target, set()).add(change.id)
            if change.after is None:
                self.documents.pop(change.id, None)
            else:
                self.documents[change.id] = change.after

    def clear(self) -> None:
        """Remove all documents."""
        self.documents.clear()
        self._referrers.clear()


@dataclass(frozen=True, slots=True)
class _Step:
    """One mutation of a transaction; it sees the effects of earlier ones."""

    documents: Mapping[str, Document]
    staged: dict[str, Document | None]
    transaction_id: str
    time: str
    new_id: Callable[[], str]
    index: int

    def refuse(self, status: int, type_: str, description: str) -> MutationError:
        return MutationError(status, type_, description, self.index)

    def current(self, id_: str) -> Document | None:
        return self.staged[id_] if id_ in self.staged else self.documents.get(id_)

    def save(self, document: Mapping[str, Any], before: Document | None, operation: str) -> dict[str, str]:
        if not isinstance(document.get("_type"), str):
            raise self.refuse(400, "validationError", "Document does not have a type")
        id_ = document.get("_id") or self.new_id()
        # An id that ends with a dot is a prefix to complete, such as "drafts.".
        id_ = id_ + self.new_id() if id_.endswith(".") else id_
        created = document.get("_createdAt") or (before or {}).get("_createdAt") or self.time
        system = {"_id": id_, "_createdAt": created, "_updatedAt": self.time, "_rev": self.transaction_id}
        self.staged[id_] = {**document, **system}
        return {"id": id_, "operation": operation}

    def create(self, document: Document) -> dict[str, str]:
        id_ = document.get("_id")
        if id_ and self.current(id_) is not None:
            description = f'Document by ID "{id_}" already exists'
            raise self.refuse(409, "documentAlreadyExistsError", description)
        return self.save(document, None, "create")

    def create_or_replace(self, document: Document) -> dict[str, str]:
        before = self.current(document.get("_id", ""))
        return self.save(document, before, "update" if before else "create")

    def create_if_not_exists(self, document: Document) -> dict[str, str]:
        id_ = document.get("_id", "")
        if self.current(id_) is not None:
            return {"id": id_, "operation": "none"}
        return self.save(document, None, "create")

    def patch(self, patch: Mapping[str, Any]) -> dict[str, str]:
        id_ = patch.get("id", "")
        before = self.current(id_)
        if before is None:
            raise self.refuse(409, "documentNotFoundError", f'The document with the ID "{id_}" was not found')
        if patch.get("ifRevisionID", before["_rev"]) != before["_rev"]:
            description = f'document "{id_}" has unexpected revision ID ("{before["_rev"]}")'
            raise self.refuse(409, "documentRevisionIDDoesNotMatchError", description)
        try:
            return self.save(apply_patch(before, patch), before, "update")
        except InvalidPatch as error:
            raise self.refuse(400, "invalidPatchError", str(error)) from error

    def delete(self, delete: Mapping[str, Any]) -> dict[str, str]:
        id_ = delete.get("id", "")
        operation = "none" if self.current(id_) is None else "delete"
        self.staged[id_] = None
        return {"id": id_, "operation": operation}


_MUTATIONS: dict[str, Callable[[_Step, Any], dict[str, str]]] = {
    "create": _Step.create,
    "createOrReplace": _Step.create_or_replace,
    "createIfNotExists": _Step.create_if_not_exists,
    "patch": _Step.patch,
    "delete": _Step.delete,
}
