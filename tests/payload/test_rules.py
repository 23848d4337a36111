"""The pure rules: statistics, numerics, versions, libraries, selection, line lengths."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuda_matrix.payload import (
    checks_device,
    checks_torch,
    checks_training,
    events,
    libraries,
    samples,
    versions,
)
from cuda_matrix.reference import load_items

POSITIVE = st.lists(st.floats(min_value=1e-6, max_value=1e9), min_size=1, max_size=50)


def test_a_summary_of_known_values():
    assert samples.summarise([4.0, 1.0, 3.0, 2.0, 5.0]) == {
        "n": 5,
        "median": 3.0,
        "p5": pytest.approx(1.2),
        "p95": pytest.approx(4.8),
        "cv": pytest.approx(math.sqrt(2.5) / 3),
    }


@given(POSITIVE)
def test_a_summary_is_ordered_and_inside_its_values(values):
    summary = samples.summarise(values)
    slack = 1e-9 * max(values)
    assert min(values) - slack <= summary["p5"] <= summary["median"] + slack
    assert summary["median"] <= summary["p95"] + slack <= max(values) + 2 * slack
    assert summary["cv"] >= 0


@pytest.mark.parametrize(
    ("values", "wrong"),
    [([1.0, 2.0], False), ([], True), ([1.0, 0.0], True), ([-1.0], True), ([math.inf], True), ([math.nan], True)],
)
def test_what_no_duration_can_be(values, wrong):
    assert bool(samples.impossible(values)) is wrong


@pytest.mark.parametrize(
    ("cv", "n", "status"),
    [(0.01, 20, "pass"), (0.05, 20, "warn"), (0.11, 20, "invalid"), (math.nan, 20, "invalid"), (0.0, 2, "warn")],
)
def test_spread(cv, n, status):
    assert samples.judge_spread({"cv": cv, "n": n}, 0.03, 0.10)[0] == status


@given(POSITIVE)
def test_the_middle_half_is_no_wider_than_all(values):
    ordered = sorted(values)
    width = (ordered[-1] - ordered[0]) / samples.median(values)
    assert 0 <= samples.iqr_share(values) <= width * (1 + 1e-9) + 1e-9


def test_the_middle_half_of_known_values():
    assert samples.iqr_share([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2 / 3)
    assert samples.iqr_share([0.0, 0.0]) == samples.iqr_share([-1.0]) == math.inf


TRAINING = dict(next(row.thresholds for row in load_items().items if row.id == "training.cnn"))


def trained(losses, **changes):
    run = checks_training.Run(losses, "cuda:0")
    run.output_dtype = "torch.float16"
    for name, value in changes.items():
        setattr(run, name, value)
    return run


@pytest.mark.parametrize(
    ("losses", "true_losses", "status"),
    [
        ([1.4, 1.0, 0.5], [1.4, 1.0], "pass"),
        ([1.4, 1.0, 0.5], [1.4014, 1.0], "pass"),
        ([1.4, 1.0, 0.5], [1.4, 1.002], "fail"),
        ([1.4, 1.4, 1.3], [1.4], "fail"),
        ([1.4, math.nan, 0.1], [1.4], "fail"),
        ([1.4, math.nan, 0.1], [1.4, 1.0], "fail"),
        ([1.4, math.inf], [1.4], "fail"),
        ([1.0, 0.8], [1.0], "fail"),
    ],
)
def test_training_must_fall_stay_finite_and_be_that_of_float64(losses, true_losses, status):
    assert checks_training.judge(trained(losses), true_losses, {}, TRAINING)["status"] == status


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({}, None),
        ({"skipped": 2}, None),
        ({"skipped": 3}, "fp16: loss scaling skipped 3 of 3 steps"),
        ({"scale": math.inf}, "fp16: the loss scale has become inf"),
        ({"scale": 0.0}, "fp16: the loss scale has become 0.0"),
        ({"overflow_kept": True}, "infinite gradient was applied"),
        ({"without_gradient": ("head.bias",)}, "fp16: no gradient reached head.bias"),
        ({"output_dtype": "torch.float32"}, "fp16: autocast did nothing: the outputs are torch.float32"),
        ({"losses": [1.42, 1.0, 0.5]}, "fp16: the first loss is not float64's"),
        ({"gradient_error": 0.06}, "fp16: the first gradients are not float64's: F = 0.06, above 0.05"),
        ({"gradient_error": math.nan}, "fp16: the first gradients are not float64's"),
        ({"parameter_error": 0.2, "worst_parameter": "a.b"}, "fp16: the first gradient of a.b is not float64's"),
        ({"losses": [1.4, 1.4, 1.4]}, "fp16: in 3 steps the loss does not fall"),
    ],
)
def test_mixed_precision_is_judged_by_itself(changes, complaint):
    losses = [1.4, 1.0, 0.5]
    mixed = {"fp16": trained(**{"losses": losses, "scale": 4096.0, **changes})}
    result = checks_training.judge(trained(losses), losses[:2], mixed, TRAINING, {"bf16": "this card has no bfloat16"})
    assert result["status"] == ("pass" if complaint is None else "fail")
    assert (complaint or "") in result.get("evidence", "")
    assert result["numbers"]["bf16"] == "not tried: this card has no bfloat16"


@pytest.mark.parametrize(
    ("changes", "ran_on", "status", "cause"),
    [
        ({}, "cuda:0", "pass", None),
        ({}, "cpu", "fail", "silent-cpu-fallback"),
        ({"frobenius": math.inf}, "cuda:0", "fail", "numerics-wrong"),
        ({"frobenius": 0.1}, "cuda:0", "fail", "numerics-wrong"),
        ({"first_kernel_s": 90.0}, "cuda:0", "warn", None),
        ({"driver_count": 2}, "cuda:0", "warn", None),
        ({"driver_count": 1}, "cuda:0", "pass", None),
    ],
)
def test_first_kernel_verdicts(changes, ran_on, status, cause):
    numbers = {"frobenius": 1e-6, "first_kernel_s": 1.0, "device_name": "RTX 4090", "capability": "8.9", **changes}
    verdict = checks_device.judge_gpu(
        {"device_count": 1, **numbers}, ran_on, {"frobenius": 1.5e-3, "first_kernel_s": 20}
    )
    assert (verdict["status"], verdict.get("cause")) == (status, cause)


@pytest.mark.parametrize(
    ("expected", "found", "same"),
    [
        ("12.1", "12.1", True),
        ("12", "12.1", True),
        ("12.1", "12.10", False),
        ("2.2.0", "2.2.0+cu121", True),
        ("2.2", "2.2.0+cu121", True),
        ("2.2.0+cu121", "2.2.0+cu121", True),
        ("2.2.0+cu118", "2.2.0+cu121", False),
        ("2.2.1", "2.2.0", False),
        ("none", "none", True),
        ("none", "12.1", False),
        ("12.1", "none", False),
    ],
)
def test_versions_match_by_whole_components(expected, found, same):
    assert checks_torch.same_version(expected, found) is same


def test_expectations():
    found = {"torch": "2.2.0+cu121", "cuda": "12.1"}
    assert checks_torch.judge_expectations({"torch": "2.2.0", "cuda": "12.1"}, found)["status"] == "pass"
    wrong = checks_torch.judge_expectations({"torch": "2.2.0", "cuda": "11.8"}, found)
    assert (wrong["status"], wrong["cause"]) == ("fail", "expectation-mismatch")
    assert wrong["evidence"] == "cuda: expected 11.8, found 12.1"
    absent = checks_torch.judge_expectations({"torch": "2.2.0", "pandas": "2"}, {**found, "pandas": "none"})
    assert (absent["status"], absent["evidence"]) == ("fail", "pandas: expected 2, found none")
    unread = checks_torch.judge_expectations({"cuda": "12.1", "python": "3.11"}, {"python": "3.11.7"}, ["cuda"])
    assert unread["status"] == "skip"
    wrong = checks_torch.judge_expectations({"cuda": "12.1", "python": "3.12"}, {"python": "3.11.7"}, ["cuda"])
    assert wrong["status"] == "fail"


@pytest.mark.parametrize(("number", "text"), [(8902, "8.9.2"), (90100, "9.1.0"), (7605, "7.6.5"), (None, None)])
def test_cudnn_numbers(number, text):
    assert versions.library(number) == text


MAPS = """\
7f00-7f01 r--p 00000000 08:01 1 /usr/local/cuda-11.8/lib64/libcudart.so.11.8.89
7f01-7f02 r-xp 00000000 08:01 1 /usr/local/cuda-11.8/lib64/libcudart.so.11.8.89
7f02-7f03 r-xp 00000000 08:01 2 /opt/site packages/torch/lib/libcudart-d0da41ae.so.11.0
7f03-7f04 r-xp 00000000 08:01 3 /opt/site/nvidia/cublas/lib/libcublasLt.so.12
7f04-7f05 r-xp 00000000 08:01 4 /opt/site/nvidia/cublas/lib/libcublas.so.12
7f05-7f06 r-xp 00000000 08:01 5 /usr/lib/libssl.so.3
7f06-7f07 rw-p 00000000 00:00 0 [heap]
"""


def test_mapped_libraries():
    found = libraries.mapped(MAPS)
    assert sorted(library["soname"] for library in found) == [
        "libcublas.so.12",
        "libcublasLt.so.12",
        "libcudart-d0da41ae.so.11.0",
        "libcudart.so.11.8.89",
    ]


def test_runtimes_on_disk(tmp_path):
    lib = tmp_path / "usr/local/cuda-12.1/lib64"
    wheel = tmp_path / "site-packages/nvidia/cuda_runtime/lib"
    for directory in (lib, wheel, tmp_path / "site-packages/nvidia_cuda_runtime_cu12-12.4.127.dist-info"):
        directory.mkdir(parents=True)
    (lib / "libcudart.so.12.1.105").touch()
    (lib / "libcudart.so.12").symlink_to("libcudart.so.12.1.105")
    (wheel / "libcudart.so.12").touch()
    found = libraries.runtimes([str(tmp_path / "site-packages")], root=str(tmp_path))
    assert [runtime["version"] for runtime in found] == ["12.1.105", "12.4.127"]
    assert libraries.on_path(f"/nonexistent:{lib}").endswith("libcudart.so.12.1.105")
    assert libraries.on_path("") is None


@given(st.text(max_size=40000), st.text(max_size=5000), st.floats())
def test_every_event_is_one_strict_short_line(log, evidence, number):
    line = events.encode({"event": "end", "id": "x", "log": log, "evidence": evidence, "numbers": {"n": number}})
    assert len(line) <= events.LINE_LIMIT
    assert "\n" not in line
    decoded = json.loads(line, parse_constant=pytest.fail)
    assert decoded["id"] == "x"


def test_a_huge_fact_is_cut_to_a_line():
    line = events.encode({"event": "fact", "name": "libraries", "value": [{"path": "é" * 2000}] * 256})
    assert len(line) <= events.LINE_LIMIT
    assert json.loads(line)["value"]
