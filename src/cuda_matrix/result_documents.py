"""Owns how bytes become a plan or a result, and why they do not.

Must not know where the bytes lie (result_files, ledger). They may come from anybody: version and schema are checked.
"""

from __future__ import annotations

from pydantic import ValidationError
from pydantic_core import from_json

from cuda_matrix.plan import PLAN_VERSION, Plan
from cuda_matrix.result import RESULT_VERSION, CellResult

PLAN_LIMIT_BYTES = 256 << 20  # 100,000 cells, each with its prediction
RESULT_LIMIT_BYTES = 8 << 20


class UnreadableError(Exception):
    """Why one document is not used; its text is for the reader of the report."""


class NewerError(UnreadableError):
    """A later version of this program wrote it: it may well be whole, and must not be replaced."""


def json_object(data: bytes) -> dict[str, object]:
    """Any JSON object. Raises UnreadableError."""
    try:
        document = from_json(data)
    except ValueError as error:
        msg = f"is not complete JSON: {error}"
        raise UnreadableError(msg) from error
    if not isinstance(document, dict):
        msg = "is not a JSON object"
        raise UnreadableError(msg)
    return document


def check_version(document: dict[str, object], key: str, known: int) -> None:
    """Raises UnreadableError where this program does not read that version, NewerError where it is a later one."""
    if key not in document:
        msg = f"has no {key}"
        raise UnreadableError(msg)
    found = document[key]
    if isinstance(found, bool) or found != known:
        msg = f"has {key} {str(found)[:40]}; this program reads {known}"
        raise NewerError(msg) if type(found) is int and found > known else UnreadableError(msg)


def parse_plan(data: bytes) -> Plan:
    """One plan. Raises UnreadableError."""
    check_version(json_object(data), "plan_version", PLAN_VERSION)
    try:
        return Plan.model_validate_json(data)
    except ValidationError as error:
        raise UnreadableError(first_error(error)) from error


def parse_result(data: bytes) -> CellResult:
    """One result. Raises UnreadableError."""
    check_version(json_object(data), "result_version", RESULT_VERSION)
    try:
        return CellResult.model_validate_json(data)
    except ValidationError as error:
        raise UnreadableError(first_error(error)) from error


def first_error(error: ValidationError) -> str:
    """Where and why, without what was in it."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"does not fit the schema: {place}: {first['msg']}" if place else f"does not fit the schema: {first['msg']}"
