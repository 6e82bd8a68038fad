from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from sync_worker.sandbox.documents import DocumentStore, MutationError, Transaction

TIME = "2026-01-01T00:00:00Z"
LATER = "2026-01-02T00:00:00Z"


class Store:
    """A store with readable ids."""

    def __init__(self) -> None:
        self.store = DocumentStore()
        self.ids = (f"id-{number}" for number in count(1))

    def run(self, *mutations: dict[str, Any], tx: str = "tx", time: str = TIME) -> Transaction:
        transaction = self.store.prepare(mutations, tx, time, lambda: next(self.ids))
        self.store.commit(transaction)
        return transaction

    def __getitem__(self, id_: str) -> dict[str, Any]:
        return self.store.documents[id_]


@pytest.fixture
def store() -> Store:
    return Store()


def course(id_: str = "c", **fields: Any) -> dict[str, Any]:
    return {"create": {"_id": id_, "_type": "course", **fields}}


def test_all_documents_of_a_transaction_get_its_id_as_revision(store: Store) -> None:
    store.run(course("a"), course("b"), tx="tx-1")
    assert {store["a"]["_rev"], store["b"]["_rev"]} == {"tx-1"}


def test_an_update_keeps_the_creation_time(store: Store) -> None:
    store.run(course())
    store.run({"patch": {"id": "c", "set": {"title": "x"}}}, tx="tx-2", time=LATER)
    assert (store["c"]["_createdAt"], store["c"]["_updatedAt"], store["c"]["_rev"]) == (TIME, LATER, "tx-2")


def test_a_document_that_is_written_twice_is_one_change(store: Store) -> None:
    store.run(course())
    transaction = store.run({"patch": {"id": "c", "set": {"n": 1}}}, {"patch": {"id": "c", "inc": {"n": 1}}}, tx="tx-2")
    (change,) = transaction.changes
    assert change.before is not None
    assert change.after is not None
    assert change.operation == "update"
    assert "n" not in change.before
    assert change.after["n"] == 2


def test_created_and_deleted_in_one_transaction_is_no_change(store: Store) -> None:
    assert store.run(course(), {"delete": {"id": "c"}}).changes == ()


@pytest.mark.parametrize(
    ("mutation", "operation"),
    [
        ({"createOrReplace": {"_id": "c", "_type": "course"}}, "update"),
        ({"createOrReplace": {"_id": "new", "_type": "course"}}, "create"),
        ({"createIfNotExists": {"_id": "c", "_type": "course", "title": "ignored"}}, "none"),
        ({"createIfNotExists": {"_id": "new", "_type": "course"}}, "create"),
        ({"delete": {"id": "c"}}, "delete"),
        ({"delete": {"id": "nobody"}}, "none"),
    ],
)
def test_results_name_what_was_done(store: Store, mutation: dict[str, Any], operation: str) -> None:
    store.run(course())
    assert store.run(mutation).results[0]["operation"] == operation


def test_an_id_is_made_up_or_completed(store: Store) -> None:
    transaction = store.run({"create": {"_type": "course"}}, {"create": {"_id": "drafts.", "_type": "course"}})
    assert [result["id"] for result in transaction.results] == ["id-1", "drafts.id-2"]


@pytest.mark.parametrize(
    ("mutation", "status", "type_"),
    [
        (course(), 409, "documentAlreadyExistsError"),
        ({"patch": {"id": "nobody", "set": {"a": 1}}}, 409, "documentNotFoundError"),
        ({"patch": {"id": "c", "ifRevisionID": "old", "set": {"a": 1}}}, 409, "documentRevisionIDDoesNotMatchError"),
        ({"patch": {"id": "c", "set": {"..": 1}}}, 400, "invalidPatchError"),
        ({"create": {"_id": "x"}}, 400, "validationError"),
        ({"rename": {"id": "c"}}, 400, "invalidMutationError"),
        ({"delete": {"id": "c"}}, 409, "documentHasExistingReferencesError"),
        (course("e", ref={"_ref": "nobody"}), 409, "documentReferenceDoesNotExistError"),
    ],
)
def test_a_refused_mutation_leaves_nothing_behind(
    store: Store, mutation: dict[str, Any], status: int, type_: str
) -> None:
    store.run(course(), {"create": {"_id": "holder", "_type": "t", "courses": [{"_key": "k", "_ref": "c"}]}})
    before = dict(store.store.documents)
    with pytest.raises(MutationError) as caught:
        store.run(course("first"), mutation, tx="tx-2")
    assert caught.value.status == status
    assert caught.value.body["error"]["type"] == "mutationError"
    assert caught.value.body["error"]["items"][0]["error"]["type"] == type_
    assert store.store.documents == before


def test_if_revision_id_passes_when_it_is_right(store: Store) -> None:
    store.run(course(), tx="tx-1")
    store.run({"patch": {"id": "c", "ifRevisionID": "tx-1", "set": {"a": 1}}})
    assert store["c"]["a"] == 1


def test_a_weak_reference_may_dangle(store: Store) -> None:
    store.run(course(), {"create": {"_id": "e", "_type": "t", "course": {"_ref": "c", "_weak": True}}})
    store.run({"delete": {"id": "c"}})
    assert "c" not in store.store.documents


def test_a_document_can_go_together_with_the_one_that_refers_to_it(store: Store) -> None:
    store.run(course(), {"create": {"_id": "e", "_type": "t", "course": {"_ref": "c"}}})
    store.run({"delete": {"id": "c"}}, {"delete": {"id": "e"}})
    assert store.store.documents == {}


def test_a_document_can_go_once_the_reference_is_gone(store: Store) -> None:
    store.run(course(), {"create": {"_id": "e", "_type": "t", "course": {"_ref": "c"}}})
    store.run({"patch": {"id": "e", "unset": ["course"]}})
    store.run({"delete": {"id": "c"}})
    assert set(store.store.documents) == {"e"}
