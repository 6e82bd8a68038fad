"""The reader of OpenAPI files finds what is wrong; otherwise the contract tests would prove nothing."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.contract.openapi import Schema, Specification
from tests.wire import Exchange

THING = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "id": {"type": "string", "pattern": "^t_"},
        "size": {"type": "integer", "format": "int32", "minimum": 0, "maximum": 9, "nullable": True},
        "kind": {"type": "string", "enum": ["a", "b"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "free": {"type": "object", "additionalProperties": {"type": "boolean"}},
        "proof": {
            "oneOf": [{"$ref": "#/components/schemas/code"}, {"$ref": "#/components/schemas/link"}],
            "discriminator": {
                "propertyName": "object",
                "mapping": {"code": "#/components/schemas/code", "link": "#/components/schemas/link"},
            },
        },
        "either": {"anyOf": [{"type": "string"}, {"type": "boolean"}]},
        "one": {"oneOf": [{"type": "integer"}, {"type": "number"}]},
        "both": {"allOf": [{"required": ["a"]}, {"required": ["b"]}], "nullable": True},
        "at": {"type": "string", "format": "date-time"},
    },
    "required": ["id"],
}
CODE = {"type": "object", "properties": {"object": {"type": "string"}, "tries": {"type": "integer"}}}
LINK = {"type": "object", "properties": {"object": {"type": "string"}}, "required": ["url"]}
DOCUMENT: Schema = {
    "paths": {
        "/things": {
            "get": {
                "parameters": [
                    {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 5}},
                    {
                        "name": "id",
                        "in": "query",
                        "schema": {"type": "array", "items": {"type": "string"}},
                        "description": "Accepts up to 2 ids.",
                    },
                    {"name": "big", "in": "query", "required": True, "schema": {"type": "boolean"}},
                ],
                "responses": {"200": {"$ref": "#/components/responses/things"}},
            },
        },
        "/things/count": {"get": {"responses": {"200": {"description": "a number"}}}},
        "/things/{id}": {
            "patch": {
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/thing"}}},
                },
                "responses": {"200": {"description": "done"}},
            },
        },
    },
    "components": {
        "schemas": {"thing": THING, "code": CODE, "link": LINK},
        "responses": {
            "things": {
                "content": {
                    "application/json": {"schema": {"type": "array", "items": {"$ref": "#/components/schemas/thing"}}}
                }
            }
        },
    },
}
SPECIFICATION = Specification(DOCUMENT)


def exchange(method: str, path: str, **given: Any) -> Exchange:
    return Exchange(
        method,
        path,
        tuple(given.get("query", ())),
        given.get("sent"),
        given.get("status", 200),
        httpx.Headers(),
        given.get("answered"),
    )


def problems(value: Any) -> list[str]:
    return list(SPECIFICATION.schema_problems({"$ref": "#/components/schemas/thing"}, value))


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"size": None},
        {"size": 9, "kind": "b", "tags": []},
        {"free": {"x": True}},
        {"proof": {"object": "code", "tries": 1}},
        {"proof": {"object": "link", "url": "x"}},
        {"either": True},
        {"one": 1.5},
        {"both": None},
        {"both": {"a": 1, "b": 2}},
        {"at": "2026-05-01T12:00:00Z"},
    ],
)
def test_what_fits_has_no_problems(more: dict[str, Any]) -> None:
    assert problems({"id": "t_1", **more}) == []


@pytest.mark.parametrize(
    ("value", "reported"),
    [
        (None, "not of type object"),
        ([], "not of type object"),
        ({}, "$.id is missing"),
        ({"id": "x"}, "does not match"),
        ({"id": None}, "$.id is None"),
        ({"id": "t_1", "size": True}, "not of type integer"),
        ({"id": "t_1", "size": -1}, "less than 0"),
        ({"id": "t_1", "size": 10}, "more than 9"),
        ({"id": "t_1", "size": 2**31}, "not a int32"),
        ({"id": "t_1", "kind": "c"}, "not one of"),
        ({"id": "t_1", "tags": ["x", 1]}, "$.tags[1] is 1"),
        ({"id": "t_1", "free": {"x": "y"}}, "$.free.x"),
        ({"id": "t_1", "unknown": 1}, "$.unknown is not allowed"),
        ({"id": "t_1", "proof": {"object": "code", "tries": "1"}}, "$.proof.tries"),
        ({"id": "t_1", "proof": {"object": "link"}}, "$.proof.url is missing"),
        ({"id": "t_1", "proof": {"object": "word"}}, "names no schema"),
        ({"id": "t_1", "proof": 1}, "names no schema"),
        ({"id": "t_1", "either": 1}, "fits none"),
        ({"id": "t_1", "one": 1}, "fits 2 of 2"),
        ({"id": "t_1", "both": {"a": 1}}, "$.both.b is missing"),
        ({"id": "t_1", "at": "yesterday"}, "not a date-time"),
    ],
)
def test_what_does_not_fit_is_reported_with_its_place(value: Any, reported: str) -> None:
    assert any(reported in problem for problem in problems(value)), problems(value)


@pytest.mark.parametrize(
    ("wrong", "reported"),
    [
        (exchange("GET", "/nothing"), "is not in the specification"),
        (exchange("POST", "/things"), "is not in the specification"),
        (exchange("GET", "/things", answered=[]), "big is required"),
        (exchange("GET", "/things", query=[("big", "yes")], answered=[]), "?big is 'yes'"),
        (exchange("GET", "/things", query=[("limit", "6")], answered=[]), "?limit is 6"),
        (exchange("GET", "/things", query=[("limit", "many")], answered=[]), "?limit is 'many'"),
        (exchange("GET", "/things", query=[("id", "x")] * 3, answered=[]), "id takes 2 values, not 3"),
        (exchange("GET", "/things", query=[("cursor", "x")], answered=[]), "there is no parameter cursor"),
        (exchange("GET", "/things", answered=[{}]), "answer[0].id is missing"),
        (exchange("GET", "/things", status=202), "status 202 is not documented"),
        (exchange("GET", "/things", sent={}), "it takes no body"),
        (exchange("PATCH", "/things/t_1", sent={"id": "t_1", "x": 1}), "body.x is not allowed"),
        (exchange("PATCH", "/things/t_1"), "it needs a body"),
    ],
)
def test_a_wrong_exchange_is_reported_with_what_is_wrong(wrong: Exchange, reported: str) -> None:
    found = SPECIFICATION.problems(wrong)
    assert any(reported in problem for problem in found), found


def test_a_right_exchange_has_no_problems() -> None:
    query = [("big", "true"), ("limit", "5"), ("id", "x"), ("id", "y")]
    assert SPECIFICATION.problems(exchange("GET", "/things", query=query, answered=[{"id": "t_1"}])) == []
    assert SPECIFICATION.problems(exchange("PATCH", "/things/t_1", sent={"id": "t_1"})) == []


def test_a_path_without_placeholders_goes_before_one_with_them() -> None:
    found = SPECIFICATION.find("GET", "/things/count")
    assert found is not None
    assert found.path == "/things/count"


def test_a_keyword_that_is_not_built_is_an_error_and_not_passed_over() -> None:
    with pytest.raises(NotImplementedError, match="multipleOf"):
        list(SPECIFICATION.schema_problems({"multipleOf": 2}, 3))
