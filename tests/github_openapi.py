"""Whether GitHub would understand a request: checked against its published descriptions.

REST: OpenAPI (npm: @octokit/openapi); GraphQL: its schema (npm: @octokit/graphql-schema).
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from jsonschema import Draft202012Validator

DESCRIPTION = "node_modules/@octokit/openapi/generated/api.github.com.json"
GRAPHQL_SCHEMA = "node_modules/@octokit/graphql-schema/schema.graphql"


class Operation(NamedTuple):
    path: re.Pattern[str]
    parameters: dict[tuple[str, str], dict[str, Any]]
    body: dict[str, Any] | None
    body_required: bool


class OpenApi:
    """One description; `complaints` says what is wrong with a request, nothing where it is right."""

    def __init__(self, file: Path) -> None:
        self._document = json.loads(file.read_text(encoding="utf-8"))
        self._operations: dict[tuple[str, str], Operation] = {}  # method and template, as they are asked for
        self._templates = [(template, _pattern(template)) for template in self._document["paths"]]

    def complaints(self, method: str, target: str, body: bytes) -> list[str]:
        address = urlsplit(target)
        operation = self._find(method, address.path)
        if operation is None:
            return [f"{method} {address.path}: GitHub has no such operation"]
        found = [*_query_complaints(operation, address.query), *_path_complaints(operation, address.path)]
        found += _body_complaints(operation, body)
        return [f"{method} {address.path}: {text}" for text in found]

    def _find(self, method: str, path: str) -> Operation | None:
        verb = method.lower()
        paths = self._document["paths"]
        fitting = [one for one in self._templates if one[1].fullmatch(path) and verb in paths[one[0]]]
        if not fitting:
            return None
        template, pattern = min(fitting, key=lambda one: (one[0].count("{"), -len(one[0])))  # the most exact one
        if (method, template) not in self._operations:
            item = paths[template]
            self._operations[method, template] = self._operation(pattern, item[verb], item)
        return self._operations[method, template]

    def _operation(self, pattern: re.Pattern[str], operation: dict[str, Any], item: dict[str, Any]) -> Operation:
        listed = [self._resolved(one) for one in [*item.get("parameters", []), *operation.get("parameters", [])]]
        body = self._resolved(operation.get("requestBody", {}))
        schema = body.get("content", {}).get("application/json", {}).get("schema")
        return Operation(
            path=pattern,
            parameters={(one["in"], one["name"]): self._plain(one["schema"]) for one in listed if "schema" in one},
            body=None if schema is None else self._plain(schema),
            body_required=bool(body.get("required")),
        )

    def _resolved(self, part: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in part:
            names, part = part["$ref"].removeprefix("#/").split("/"), self._document
            for name in names:
                part = part[name]
        return part

    def _plain(self, schema: Any) -> Any:
        """Without references; `nullable` of OpenAPI 3.0 as JSON Schema says it."""
        if isinstance(schema, list):
            return [self._plain(one) for one in schema]
        if not isinstance(schema, dict):
            return schema
        schema = self._resolved(schema)
        plain = {name: self._plain(value) for name, value in schema.items() if name not in {"example", "examples"}}
        if plain.pop("nullable", False):
            return {"anyOf": [plain, {"type": "null"}]}
        # A misspelt name would else go unseen: GitHub ignores it.
        if plain.get("type") == "object" and "properties" in plain:
            plain.setdefault("additionalProperties", False)
        return plain


def _pattern(template: str) -> re.Pattern[str]:
    """A ref and a path hold slashes, all other parameters do not: GitHub's description cannot say so."""
    return re.compile(
        re.sub(
            r"\\{(\w+)\\}",
            lambda found: f"(?P<{found[1]}>{'.+' if found[1] in {'ref', 'path', 'branch', 'basehead'} else '[^/]+'})",
            re.escape(template),
        )
    )


@cache
def github_openapi(folder: Path) -> OpenApi:
    """That of github.com, from where `npm install` put it."""
    return OpenApi(folder / DESCRIPTION)


def graphql_complaints(folder: Path, query: str, variables: dict[str, Any]) -> list[str]:
    """What is wrong with an operation or its variables. Reading the schema takes 2 s: not for every request."""
    from graphql import build_schema, parse, validate
    from graphql.execution.values import get_variable_values

    schema = build_schema((folder / GRAPHQL_SCHEMA).read_text(encoding="utf-8"), assume_valid=True)
    document = parse(query)
    errors = validate(schema, document)
    if not errors:
        definitions = document.definitions[0].variable_definitions or ()  # type: ignore[attr-defined]
        given = get_variable_values(schema, definitions, variables)
        errors = given if isinstance(given, list) else []
    return [error.message for error in errors]


def _query_complaints(operation: Operation, query: str) -> list[str]:
    found = []
    for name, text in parse_qsl(query, keep_blank_values=True):
        schema = operation.parameters.get(("query", name))
        if schema is None:
            found.append(f"no query parameter {name!r}")
        else:
            found += [f"query {name}={text}: {problem}" for problem in _problems(schema, _typed(schema, text))]
    return found


def _path_complaints(operation: Operation, path: str) -> list[str]:
    match = operation.path.fullmatch(path)
    assert match
    return [
        f"path {name}={text}: {problem}"
        for name, text in match.groupdict().items()
        for schema in [operation.parameters.get(("path", name), {})]
        for problem in _problems(schema, _typed(schema, unquote(text)))
    ]


def _body_complaints(operation: Operation, body: bytes) -> list[str]:
    if not body:
        return ["a body is required"] if operation.body_required else []
    if operation.body is None:
        return ["takes no body"]
    return [f"body {problem}" for problem in _problems(operation.body, json.loads(body))]


def _typed(schema: dict[str, Any], text: str) -> Any:
    if schema.get("type") in {"integer", "number"} and re.fullmatch(r"-?\d+", text):
        return int(text)
    if schema.get("type") == "boolean" and text in {"true", "false"}:
        return text == "true"
    return text


def _problems(schema: dict[str, Any], value: Any) -> list[str]:
    found = Draft202012Validator(schema).iter_errors(value)
    return [f"{'/'.join(str(part) for part in one.absolute_path)}: {one.message[:300]}" for one in found]
