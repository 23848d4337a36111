"""What is warned of, at its edges; how warnings are shown is tested with the verbs."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from cuda_matrix.config import Config
from cuda_matrix.reference import load_reference
from cuda_matrix.review import left_out, remarks, unknown_causes, unmatched_items

UNTIL = {"policy": {"expect_fail": [{"cell": "a@g", "until": "2027-01-31", "reason": "abc"}]}}


def config(ref: str = "a:1", gpu: str | None = None, **rest: Any) -> Config:
    image = {"id": "a", "ref": ref}
    return Config.model_validate(
        {"version": 1, "images": [image], "runners": {"g": {"labels": ["x"], "gpu": gpu}}, **rest}
    )


def remarked(made: Config, today: date = date(2027, 1, 31)) -> list[str]:
    return [finding.message for finding in remarks(made, load_reference().cards, today)]


@pytest.mark.parametrize(
    "ref", ["a:1", "host:5000/a:latest-1", "a@sha256:" + "0" * 64, "a:latest@sha256:" + "0" * 64, "a{t}", "a:{t}"]
)
def test_references_that_stay(ref: str) -> None:
    assert remarked(config(ref)) == []


@pytest.mark.parametrize(
    ("ref", "words"),
    [
        ("a", "no tag"),
        ("host:5000/a", "no tag"),
        ("a:latest", "'latest'"),
        ("a:Nightly", "'Nightly'"),
        ("pytorch-cuda:v2.9-lts", "'v2.9-lts'"),
    ],
)
def test_references_that_move(ref: str, words: str) -> None:
    (found,) = remarked(config(ref))
    assert words in found


@pytest.mark.parametrize(
    "gpu", [None, "RTX 3090", "rtx3090", "NVIDIA GeForce RTX 4090", "A800", "NVIDIA A100-SXM4-80GB"]
)
def test_known_cards(gpu: str | None) -> None:
    assert remarked(config(gpu=gpu)) == []


@pytest.mark.parametrize(("gpu", "near"), [("RTX 4900", "RTX 4090"), ("GeForce RTX 3900", "RTX 3090"), ("A101", "A10")])
def test_unknown_cards(gpu: str, near: str) -> None:
    (found,) = remarked(config(gpu=gpu))
    assert near in found.partition("did you mean")[2]


def test_the_last_day_is_still_good() -> None:
    assert remarked(config(**UNTIL)) == []
    (found,) = remarked(config(**UNTIL), date(2027, 2, 1))
    assert "2027-01-31 has passed" in found


def test_a_cause_that_is_none() -> None:
    entry = {**UNTIL["policy"]["expect_fail"][0], "cause": "driver-to-old"}
    (found,) = unknown_causes(config(policy={"expect_fail": [entry]}), load_reference().catalogue.causes)
    assert "did you mean 'driver-too-old'" in found.message


def test_no_failure_is_no_cause_of_one() -> None:
    entry = {**UNTIL["policy"]["expect_fail"][0], "cause": "none"}
    (found,) = unknown_causes(config(policy={"expect_fail": [entry]}), load_reference().catalogue.causes)
    assert found.path == ("policy", "expect_fail", 0, "cause")
    assert "leave `cause` out" in found.message


@pytest.mark.parametrize(
    ("field", "glob"), [("checks", "gemm.*"), ("benchmarks", "numerics"), ("checks", "first_kernal")]
)
def test_globs_that_name_nothing_of_the_payload(field: str, glob: str) -> None:
    (found,) = unmatched_items(config(payload={field: [glob]}), load_reference().items)
    assert found.path == ("payload", field, 0)


def test_globs_of_the_payload() -> None:
    payload = {"checks": ["numerics", "*.driver", "torch*"], "benchmarks": ["resnet50", "gemm.fp32"]}
    assert list(unmatched_items(config(payload=payload), load_reference().items)) == []


@pytest.mark.parametrize(
    ("name", "said"), [("pytorch", True), ("torchvision", False), ("numpy", False), ("cuda", False)]
)
def test_an_expected_name_that_is_nearly_a_known_one_is_remarked(name: str, said: bool) -> None:
    image = {"id": "x", "ref": "x:1", "expect": {name: "1.0"}}
    assert any("did you mean" in text for text in remarked(config(images=[image]))) is said


def test_a_glob_of_another_profile_is_remarked() -> None:
    made = config(
        payload={"profile": "smoke", "checks": ["numerics", "services"], "benchmarks": ["gpt2.train", "gemm"]}
    )
    found = [(each.path, each.message) for each in left_out(made, load_reference().items)]
    assert [path for path, _ in found] == [("payload", "checks", 1), ("payload", "benchmarks", 0)]
    assert "it is in full" in found[0][1]
