from __future__ import annotations

from typing import Any

import pytest

from sync_worker.sandbox.patches import InvalidPatch, apply_patch

DOCUMENT: dict[str, Any] = {
    "plan": "starter",
    "count": 1,
    "nested": {"deep": {"value": 1}},
    "tags": ["a", "b", "c"],
    "courses": [{"_key": "x", "_ref": "c1"}, {"_key": "y", "_ref": "c2"}],
}


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({"set": {"plan": "pro"}}, {"plan": "pro"}),
        ({"set": {"nested.deep.value": 2}}, {"nested": {"deep": {"value": 2}}}),
        ({"set": {"fresh.path": 1}}, {"fresh": {"path": 1}}),
        ({"set": {"tags[-1]": "z"}}, {"tags": ["a", "b", "z"]}),
        (
            {"set": {'courses[_key=="y"]._ref': "c9"}},
            {"courses": [DOCUMENT["courses"][0], {"_key": "y", "_ref": "c9"}]},
        ),
        ({"set": {'courses[_key=="none"]._ref': "c9"}}, {}),
        ({"set": {"['plan']": "pro"}}, {"plan": "pro"}),
        ({"setIfMissing": {"plan": "pro", "role": "student"}}, {"role": "student"}),
        ({"inc": {"count": 2}}, {"count": 3}),
        ({"dec": {"count": 2}}, {"count": -1}),
        ({"inc": {"plan": 1, "nobody": 1}}, {}),
        ({"unset": ["tags[0]", "nothing.here"]}, {"tags": ["b", "c"]}),
        ({"unset": ['courses[_key=="x"]']}, {"courses": [DOCUMENT["courses"][1]]}),
        ({"insert": {"before": "tags[0]", "items": ["z"]}}, {"tags": ["z", "a", "b", "c"]}),
        ({"insert": {"after": "tags[-1]", "items": ["z"]}}, {"tags": ["a", "b", "c", "z"]}),
        ({"insert": {"replace": "tags[1]", "items": ["y", "z"]}}, {"tags": ["a", "y", "z", "c"]}),
    ],
)
def test_a_patch_changes_what_it_names_and_nothing_else(patch: dict[str, Any], expected: dict[str, Any]) -> None:
    assert apply_patch(DOCUMENT, patch) == {**DOCUMENT, **expected}


def test_unset_removes_the_field() -> None:
    assert "plan" not in apply_patch(DOCUMENT, {"unset": ["plan"]})


def test_append_works_on_an_empty_array() -> None:
    assert apply_patch({"tags": []}, {"insert": {"after": "tags[-1]", "items": ["a", "b"]}}) == {"tags": ["a", "b"]}


def test_the_document_before_the_patch_is_not_touched() -> None:
    before = {"nested": {"list": [1]}}
    apply_patch(before, {"set": {"nested.list[0]": 2}})
    assert before == {"nested": {"list": [1]}}


def test_set_comes_before_set_if_missing_and_unset_after_both() -> None:
    patch = {"unset": ["a"], "setIfMissing": {"a": 1, "b": 1}, "set": {"b": 2}}
    assert apply_patch({}, patch) == {"b": 2}


@pytest.mark.parametrize(
    "patch",
    [
        {"diffMatchPatch": {"plan": "@@"}},
        {"set": {"..plan": 1}},
        {"set": {"tags[1:2]": 1}},
        {"insert": {"items": ["a"]}},
        {"insert": {"after": "plan[-1]", "items": ["a"]}},
        {"insert": {"after": "tags[9]", "items": ["a"]}},
    ],
)
def test_what_is_not_understood_is_refused(patch: dict[str, Any]) -> None:
    with pytest.raises(InvalidPatch):
        apply_patch(DOCUMENT, patch)
