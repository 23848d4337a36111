"""What a record of a logger says, wherever it keeps that, and what is no record."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cuda_matrix.json_records import JSON_LIMIT, said_in_record


@pytest.mark.parametrize(
    ("record", "lines"),
    [
        ({"log": "a\n", "stream": "stderr"}, "a\n"),
        ({"level": "error", "err": "second", "msg": "first"}, "first\nsecond"),
        ({"msg": "same", "message": "same"}, "same"),
        ({"message": "Back-off", "reason": "OOMKilled", "kind": "Event"}, "Back-off\nOOMKilled"),
        ({"severity": "ERROR", "jsonPayload": {"message": "deep"}}, "deep"),
        ({"hits": [{"_source": {"message": "one"}}, {"_source": {"message": "two"}}]}, "one\ntwo"),
        ({"msg": "top", "inner": {"msg": "deep"}}, "top"),
        ({"stack": ["one", "two"]}, "one\ntwo"),
        (["one", "two"], "one\ntwo"),
        ([{"msg": "one"}, {"msg": "two"}], "one\ntwo"),
        ({"MESSAGE": [27, 91, 51, 49, 109, 195, 169]}, "\x1b[31mé"),
        ({"MESSAGE": [1, 256]}, None),
        ({"a": 1}, None),
        ({"log": 5}, None),
        ({"log": ""}, None),
        ([1, 2], None),
        ("one\ntwo", "one\ntwo"),
        ("one", None),
        ([], None),
        ({"a": {"b": {"c": {"d": {"e": {"f": {"g": {"msg": "too deep"}}}}}}}}, None),
    ],
)
def test_what_a_record_says(record: Any, lines: str | None) -> None:
    assert said_in_record(json.dumps(record)) == lines


@pytest.mark.parametrize("text", ["", "{", "{}", "{x}", "[" * 50_000 + "]", "plain", '"msg"', '{"msg": "x"} and more'])
def test_what_is_no_record(text: str) -> None:
    assert said_in_record(text) is None


def test_a_record_is_bounded() -> None:
    assert said_in_record(json.dumps({"msg": "x" * JSON_LIMIT})) is None
    many = said_in_record(json.dumps([{"msg": str(number)} for number in range(2_000)]))
    assert many is not None
    assert len(many.split("\n")) == 200
