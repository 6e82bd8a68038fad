"""What an OpenAPI 3.0 file says of one request and its answer, and where the two differ from it.

Only the part of JSON Schema that Clerk's file uses is built. A keyword that is not known here is an error, so that
nothing in the file goes unchecked in silence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from tests.wire import Exchange

Schema = dict[str, Any]
METHODS = frozenset({"get", "put", "post", "patch", "delete"})
ANNOTATIONS = frozenset({"description", "example", "deprecated", "default", "title", "nullable", "discriminator"})
MOST_VALUES = re.compile(r"Accepts up to (\d+)")
"""Only their descriptions give the limits of list filters."""

TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
}


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


FORMATS: Mapping[str, Callable[[Any], bool]] = {
    "int32": lambda value: -(2**31) <= value < 2**31,
    "int64": lambda value: -(2**63) <= value < 2**63,
    "float": lambda _: True,
    "double": lambda _: True,
    "date": lambda value: re.fullmatch(r"\d{4}-\d\d-\d\d", value) is not None,
    "date-time": _is_time,
    "email": lambda value: "@" in value,
}


@dataclass(frozen=True)
class Operation:
    """One method of one path; parameters are the path's and its own."""

    method: str
    path: str
    parameters: Sequence[Schema]
    body: Schema | None
    responses: Mapping[str, Schema]

    def fits(self, path: str) -> bool:
        """Return whether `path` is of this operation's shape."""
        return re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", self.path), path) is not None


class Specification:
    """One OpenAPI document."""

    def __init__(self, document: Schema) -> None:
        self.document = document
        self.operations = [
            self._operation(method.upper(), path, item)
            for path, item in document["paths"].items()
            for method in METHODS & item.keys()
        ]

    def find(self, method: str, path: str) -> Operation | None:
        """Return the operation of a request; a path without placeholders goes before one with them."""
        fitting = [o for o in self.operations if o.method == method and o.fits(path)]
        return min(fitting, key=lambda operation: operation.path.count("{"), default=None)

    def problems(self, exchange: Exchange) -> list[str]:
        """Return all that is wrong with one request and its answer."""
        operation = self.find(exchange.method, exchange.path)
        if operation is None:
            return [f"{exchange.method} {exchange.path} is not in the specification"]
        found = [
            *self._query(operation, exchange.query),
            *self._body(operation, exchange.sent),
            *self._answer(operation, exchange),
        ]
        return [f"{exchange}: {problem}" for problem in found]

    def schema_problems(self, schema: Schema, value: Any, at: str = "$") -> Iterator[str]:
        """Yield where `value` differs from `schema`."""
        schema = self._resolved(schema)
        if value is None and schema.get("nullable"):
            return
        for keyword, argument in schema.items():
            if keyword in ANNOTATIONS or keyword.startswith("x-"):
                continue
            if keyword not in _KEYWORDS:
                message = f"the specification uses {keyword!r}, which is not built here"
                raise NotImplementedError(message)
            yield from _KEYWORDS[keyword](self, argument, value, schema, at)

    def _query(self, operation: Operation, query: Iterable[tuple[str, str]]) -> Iterator[str]:
        declared = {p["name"]: p for p in operation.parameters if p["in"] == "query"}
        given: dict[str, list[str]] = {}
        for name, text in query:
            given.setdefault(name, []).append(text)
        for name, texts in given.items():
            if name not in declared:
                yield f"there is no parameter {name}"
                continue
            parameter = declared[name]
            schema = self._resolved(parameter["schema"])
            most = MOST_VALUES.search(parameter.get("description", ""))
            if most and len(texts) > int(most[1]):
                yield f"{name} takes {most[1]} values, not {len(texts)}"
            yield from self.schema_problems(schema, _read(texts, schema), f"?{name}")
        yield from (f"{name} is required" for name, p in declared.items() if p.get("required") and name not in given)

    def _body(self, operation: Operation, sent: Any) -> Iterator[str]:
        if operation.body is None:
            if sent is not None:
                yield "it takes no body"
        elif sent is not None:
            yield from self.schema_problems(operation.body["content"]["application/json"]["schema"], sent, "body")
        elif operation.body.get("required"):
            yield "it needs a body"

    def _answer(self, operation: Operation, exchange: Exchange) -> Iterator[str]:
        response = operation.responses.get(str(exchange.status))
        if response is None:
            yield f"status {exchange.status} is not documented"
            return
        schema = self._resolved(response).get("content", {}).get("application/json", {}).get("schema")
        if schema is not None:
            yield from self.schema_problems(schema, exchange.answered, "answer")

    def _operation(self, method: str, path: str, item: Schema) -> Operation:
        operation = item[method.lower()]
        parameters = [*item.get("parameters", ()), *operation.get("parameters", ())]
        body = operation.get("requestBody")
        return Operation(
            method,
            path,
            [self._resolved(parameter) for parameter in parameters],
            self._resolved(body) if body else None,
            operation["responses"],
        )

    def _resolved(self, schema: Schema) -> Schema:
        """Follow references. In OpenAPI 3.0 whatever is beside a reference is ignored."""
        while "$ref" in schema:
            found: Any = self.document
            for part in schema["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            schema = found
        return schema


def _read(texts: Sequence[str], schema: Schema) -> Any:
    """Read a parameter's texts as its type says; what cannot be read stays a text, and so does not fit."""
    match schema.get("type"):
        case "array":
            return list(texts)
        case "integer" if re.fullmatch(r"-?\d+", texts[0]):
            return int(texts[0])
        case "boolean" if texts[0] in ("true", "false"):
            return texts[0] == "true"
        case _:
            return texts[0]


def _of_type(_: Specification, argument: str, value: Any, _schema: Schema, at: str) -> Iterator[str]:
    if not TYPES[argument](value):
        yield f"{at} is {value!r:.80}, not of type {argument}"


def _one_of_these(_: Specification, argument: list[Any], value: Any, schema: Schema, at: str) -> Iterator[str]:
    if value not in argument and schema.get("x-speakeasy-unknown-values") != "allow":
        yield f"{at} is {value!r:.80}, not one of {argument}"


def _properties(spec: Specification, argument: Schema, value: Any, _schema: Schema, at: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name in argument.keys() & value.keys():
            yield from spec.schema_problems(argument[name], value[name], f"{at}.{name}")


def _required(_: Specification, argument: list[str], value: Any, _schema: Schema, at: str) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (f"{at}.{name} is missing" for name in argument if name not in value)


def _others(spec: Specification, argument: Schema | bool, value: Any, schema: Schema, at: str) -> Iterator[str]:
    if not isinstance(value, dict):
        return
    others = value.keys() - schema.get("properties", {}).keys()
    if argument is False:
        yield from (f"{at}.{name} is not allowed" for name in sorted(others))
    elif isinstance(argument, dict):
        for name in others:
            yield from spec.schema_problems(argument, value[name], f"{at}.{name}")


def _items(spec: Specification, argument: Schema, value: Any, _schema: Schema, at: str) -> Iterator[str]:
    if isinstance(value, list):
        for place, item in enumerate(value):
            yield from spec.schema_problems(argument, item, f"{at}[{place}]")


def _all_of(spec: Specification, argument: list[Schema], value: Any, _schema: Schema, at: str) -> Iterator[str]:
    for schema in argument:
        yield from spec.schema_problems(schema, value, at)


def _any_of(spec: Specification, argument: list[Schema], value: Any, _schema: Schema, at: str) -> Iterator[str]:
    tried = [list(spec.schema_problems(schema, value, at)) for schema in argument]
    if all(tried):
        yield f"{at} fits none of {len(argument)} schemas; of the first: {'; '.join(tried[0])}"


def _one_of(spec: Specification, argument: list[Schema], value: Any, schema: Schema, at: str) -> Iterator[str]:
    """Check the one that the discriminator names; without one, exactly one must fit."""
    discriminator = schema.get("discriminator", {})
    if "mapping" in discriminator:
        named = value.get(discriminator["propertyName"]) if isinstance(value, dict) else None
        if named not in discriminator["mapping"]:
            yield f"{at}.{discriminator['propertyName']} is {named!r}, which names no schema"
        else:
            yield from spec.schema_problems({"$ref": discriminator["mapping"][named]}, value, at)
        return
    fitting = sum(not list(spec.schema_problems(one, value, at)) for one in argument)
    if fitting != 1:
        yield f"{at} fits {fitting} of {len(argument)} schemas, not one"


def _pattern(_: Specification, argument: str, value: Any, _schema: Schema, at: str) -> Iterator[str]:
    if isinstance(value, str) and not re.search(argument, value):
        yield f"{at} is {value!r:.80}, which does not match {argument}"


def _minimum(_: Specification, argument: float, value: Any, _schema: Schema, at: str) -> Iterator[str]:
    if TYPES["number"](value) and value < argument:
        yield f"{at} is {value}, less than {argument}"


def _maximum(_: Specification, argument: float, value: Any, _schema: Schema, at: str) -> Iterator[str]:
    if TYPES["number"](value) and value > argument:
        yield f"{at} is {value}, more than {argument}"


def _format(_: Specification, argument: str, value: Any, schema: Schema, at: str) -> Iterator[str]:
    if TYPES[schema["type"]](value) and not FORMATS[argument](value):
        yield f"{at} is {value!r:.80}, not a {argument}"


_KEYWORDS: Mapping[str, Callable[[Specification, Any, Any, Schema, str], Iterator[str]]] = {
    "type": _of_type,
    "enum": _one_of_these,
    "properties": _properties,
    "required": _required,
    "additionalProperties": _others,
    "items": _items,
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "pattern": _pattern,
    "minimum": _minimum,
    "maximum": _maximum,
    "format": _format,
}
