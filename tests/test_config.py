from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from cuda_matrix.config import Config, ReportOptions
from cuda_matrix.plan import Plan
from cuda_matrix.schemas import config_schema

SMALL: dict[str, Any] = {"version": 1, "images": [{"id": "a", "ref": "a"}], "runners": {"g": {"labels": ["x"]}}}


def test_defaults_are_the_hardened_ones() -> None:
    container = Config.model_validate(SMALL).container
    assert (container.network, container.gpus, container.shm_size, container.entrypoint) == (
        "none",
        "all",
        8 << 30,
        "override",
    )


@pytest.mark.parametrize(
    ("section", "key", "given", "expected"),
    [
        ("payload", "timeout", "20m", 1200.0),
        ("payload", "timeout", "1.5h", 5400.0),
        ("container", "shm_size", "512m", 512 << 20),
        ("container", "memory", "64GiB", 64 << 30),
        ("container", "memory", "64m", 64 << 20),
        ("container", "shm_size", "4096b", 4096),
        ("container", "gpus", [0, 1], (0, 1)),
    ],
)
def test_units(section: str, key: str, given: Any, expected: Any) -> None:
    found = Config.model_validate({**SMALL, section: {key: given}})
    assert getattr(getattr(found, section), key) == expected


@pytest.mark.parametrize(
    ("section", "key", "given"),
    [
        ("payload", "timeout", "20"),
        ("payload", "timeout", "0s"),
        ("payload", "timeout", "-5m"),
        ("container", "shm_size", "0g"),
        ("container", "shm_size", "8"),
        ("container", "shm_size", "8i"),
        ("container", "memory", "4"),
        ("container", "memory", "63m"),
        ("container", "memory", "8b"),
        ("runners", "g", {"labels": ["x"], "driver": "seven"}),
        ("runners", "g", {"labels": ["x"], "driver": "550"}),
        ("runners", "g", {"labels": ["x"], "driver": "550.54.15.1"}),
        ("runners", "g", {"labels": ["x"], "driver": "550.54.15-open"}),
        ("container", "gpus", []),
        ("container", "gpus", [0, 0]),
        ("container", "gpus", [-1]),
        ("container", "gpus", [True]),
        ("policy", "regression", {"throughput": "5"}),
        ("policy", "expect_fail", [{"cell": "a", "until": "2027-02-30", "reason": "abc"}]),
        ("policy", "expect_fail", [{"cell": "a", "until": "2027-01-31", "reason": ""}]),
        ("runners", "g", {"labels": ["x"], "driver": 550.54}),
        ("runners", "../g", {"labels": ["x"]}),
    ],
)
def test_what_is_refused(section: str, key: str, given: Any) -> None:
    with pytest.raises(ValidationError):
        Config.model_validate({**SMALL, section: {**SMALL.get(section, {}), key: given}})


def test_a_plan_is_read_back_as_it_was_written() -> None:
    made = Config.model_validate({**SMALL, "payload": {"timeout": "90s"}, "container": {"gpus": [0]}})
    plan = Plan(
        images={}, runners={}, cells=(), lanes=(), payload=made.payload, container=made.container, policy=made.policy
    )
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_the_schema_is_for_one_file_of_several() -> None:
    schema = config_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "required" not in schema
    assert set(schema["properties"]) == set(Config.model_fields)
    assert schema["additionalProperties"] is False


def defaults(schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, subschema) wherever a default is given."""
    if isinstance(schema, dict):
        if "default" in schema and path[-1:] != ("properties",):
            yield path, schema
        for key, below in schema.items():
            if key != "default":
                yield from defaults(below, (*path, key))


def test_every_default_of_the_schema_is_one_that_it_allows() -> None:
    schema = config_schema()
    found = dict(defaults(schema))
    assert {("$defs", "PayloadOptions", "properties", "timeout"), ("properties", "container")} <= set(found)
    for path, part in found.items():
        errors = jsonschema.Draft202012Validator({**part, "$defs": schema["$defs"]}).iter_errors(part["default"])
        assert [error.message for error in errors] == [], path


@pytest.mark.parametrize(
    ("section", "key"), [("payload", "timeout"), ("container", "shm_size"), ("container", "memory")]
)
def test_defaults_of_the_schema_mean_what_is_used(section: str, key: str) -> None:
    name = {"payload": "PayloadOptions", "container": "ContainerOptions"}[section]
    written = config_schema()["$defs"][name]["properties"][key]["default"]
    used = Config.model_validate({**SMALL, section: {key: written}})
    assert getattr(getattr(used, section), key) == getattr(getattr(Config.model_validate(SMALL), section), key)


@pytest.mark.parametrize(
    ("written", "meant"), [("reports", "reports"), ("./docs//gpu/", "docs/gpu"), ("a/b c/d.e", "a/b c/d.e")]
)
def test_the_folder_of_the_report_has_one_spelling(written: str, meant: str) -> None:
    assert ReportOptions(dir=written).dir == meant


@pytest.mark.parametrize(
    "folder",
    [
        "/etc",
        "..",
        "a/../../b",
        ".git/x",
        ".github/workflows",
        ".",
        "a\nb",
        "a\\b",
        "",
        "docs/.git",
        ".github ",
        ".GIT./x",
    ],
)
def test_a_report_outside_of_its_folder_is_refused(folder: str) -> None:
    with pytest.raises(ValidationError):
        ReportOptions(dir=folder)


@pytest.mark.parametrize(
    "branch", ["a..b", "/a", "a/", "a.lock", "a//b", "a b", "-a", "a~1", "a^", "a:b", "refs/../x", "refs/heads/x"]
)
def test_a_branch_that_git_would_not_have_is_refused(branch: str) -> None:
    assert ReportOptions(branch="gpu/reports-1.x").branch == "gpu/reports-1.x"
    with pytest.raises(ValidationError):
        ReportOptions(branch=branch)
