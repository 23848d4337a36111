"""The pure rules: statistics, numerics, versions, libraries, selection, line lengths."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuda_matrix.payload import (
    bench_gemm,
    bench_resnet50,
    checks_device,
    checks_torch,
    checks_training,
    events,
    items,
    libraries,
    numerics,
    samples,
    table,
    timing,
)

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
    ("cv", "n", "device", "status"),
    [
        (0.01, 20, "cuda", "pass"),
        (0.05, 20, "cuda", "warn"),
        (0.11, 20, "cuda", "invalid"),
        (0.11, 20, "cpu", "pass"),
        (0.3, 20, "cpu", "warn"),
        (0.6, 20, "cpu", "invalid"),
        (0.0, 2, "cuda", "warn"),
    ],
)
def test_spread(cv, n, device, status):
    assert samples.judge_spread({"cv": cv, "n": n}, device)[0] == status


GOOD_GEMM = {"frobenius": 3e-7, "max_over_mean": 5e-6, "identity_exact": True, "repeats_equal": True}


@pytest.mark.parametrize(
    ("dtype", "changes", "complaint"),
    [
        ("fp32", {}, ""),
        ("fp32", {"frobenius": 3e-4}, "TF32"),
        ("fp32", {"frobenius": 3e-2}, "above 1e-05"),
        ("fp32", {"frobenius": math.nan}, "above"),
        ("fp32", {"frobenius": math.inf}, "above"),
        ("fp16", {"frobenius": 2.1e-4, "max_over_mean": 2e-3}, ""),
        ("fp16", {"frobenius": 1.2e-4, "max_over_mean": 0.6}, "single elements"),
        ("bf16", {"frobenius": 1.66e-3, "max_over_mean": 2e-2}, ""),
        ("bf16", {"frobenius": 1.5e-2}, "above 0.006"),
        ("fp32", {"identity_exact": False}, "identity"),
        ("fp32", {"repeats_equal": False}, "repeats"),
    ],
)
def test_products_are_judged_by_both_errors(dtype, changes, complaint):
    said = numerics.judge(dtype, {**GOOD_GEMM, **changes})
    assert complaint in said
    assert bool(said) is bool(complaint)


@pytest.mark.parametrize(
    ("losses", "status"),
    [
        ([1.4, 1.0, 0.5], "pass"),
        ([1.4, 1.4, 1.3], "fail"),
        ([1.4, math.nan, 0.1], "fail"),
        ([1.4, math.inf], "fail"),
        ([1.0, 0.8], "fail"),
    ],
)
def test_training_must_fall_and_stay_finite(losses, status):
    assert checks_training.judge(losses, "cpu")["status"] == status


def measured(*rounds):
    return timing.Measurement([list(each) for each in rounds], 1)


@pytest.mark.parametrize(
    ("measurement", "losses", "device", "status", "stable"),
    [
        (measured([0.1] * 5, [0.1] * 5), [1.0, 0.9], "cuda:0", "pass", True),
        (measured([0.1] * 40, [0.108] * 1), [1.0, 0.9], "cuda:0", "warn", False),
        (measured([0.1] * 5), [1.0], "cuda:0", "warn", False),  # one round shows no drift, so nothing is stable
        (measured([0.1, 0.2, 0.3, 0.1, 0.4]), [1.0], "cuda:0", "invalid", False),
        (measured([0.1] * 5, [0.1] * 5), [1.0, math.nan], "cuda:0", "fail", False),
        (measured([0.1] * 5, [0.0] * 5), [1.0, 0.9], "cuda:0", "invalid", False),
        (measured([0.1] * 5, [-0.1] * 5), [1.0, 0.9], "cuda:0", "invalid", False),
        (measured([0.1] * 5, [0.1] * 5), [1.0, 0.9], "cpu", "pass", True),
    ],
)
def test_training_throughput(measurement, losses, device, status, stable):
    result = bench_resnet50.judge(measurement, losses, {"batch": 4, "precision": "fp32"}, device)
    assert (result["status"], result["numbers"]["stable"]) == (status, stable)
    assert result["device"] == device
    if status == "pass":
        assert result["samples"]["median"] == pytest.approx(40)
        assert device in result["summary"]


def test_gemm_throughput_is_work_over_time():
    result = bench_gemm.judge(measured([0.5] * 5, [0.5] * 5), 2.0, {"size": 10}, "cuda:0")
    assert (result["status"], result["samples"]["median"]) == ("pass", 4.0)
    assert bench_gemm.judge(measured([math.inf]), 2.0, {"size": 10}, "cuda:0")["status"] == "invalid"


@pytest.mark.parametrize(
    ("changes", "ran_on", "conflicts", "status", "cause"),
    [
        ({}, "cuda:0", {}, "pass", None),
        ({}, "cpu", {}, "fail", "silent-cpu-fallback"),
        ({"frobenius": math.inf}, "cuda:0", {}, "fail", "numerics-wrong"),
        ({"frobenius": 0.1}, "cuda:0", {}, "fail", "numerics-wrong"),
        ({}, "cuda:0", {"libcudnn": ["/a/libcudnn.so.8", "/b/libcudnn.so.8"]}, "warn", None),
        ({"first_kernel_s": 90.0}, "cuda:0", {}, "warn", None),
    ],
)
def test_first_kernel_verdicts(changes, ran_on, conflicts, status, cause):
    numbers = {"frobenius": 1e-6, "first_kernel_s": 1.0, "device_name": "RTX 4090", "capability": "8.9", **changes}
    verdict = checks_device.judge_gpu(numbers, ran_on, conflicts)
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
    assert checks_torch.judge_expectations({"nccl": "2"}, found)["status"] == "unknown"


@pytest.mark.parametrize(("number", "text"), [(8902, "8.9.2"), (90100, "9.1.0"), (7605, "7.6.5"), (None, None)])
def test_cudnn_numbers(number, text):
    assert checks_torch.dotted(number) == text


MAPS = """\
7f00-7f01 r--p 00000000 08:01 1 /usr/local/cuda-11.8/lib64/libcudart.so.11.8.89
7f01-7f02 r-xp 00000000 08:01 1 /usr/local/cuda-11.8/lib64/libcudart.so.11.8.89
7f02-7f03 r-xp 00000000 08:01 2 /opt/site packages/torch/lib/libcudart-d0da41ae.so.11.0
7f03-7f04 r-xp 00000000 08:01 3 /opt/site/nvidia/cublas/lib/libcublasLt.so.12
7f04-7f05 r-xp 00000000 08:01 4 /opt/site/nvidia/cublas/lib/libcublas.so.12
7f05-7f06 r-xp 00000000 08:01 5 /usr/lib/libssl.so.3
7f06-7f07 rw-p 00000000 00:00 0 [heap]
"""


def test_mapped_libraries_and_two_copies_of_one():
    found = libraries.mapped(MAPS)
    assert sorted(library["soname"] for library in found) == [
        "libcublas.so.12",
        "libcublasLt.so.12",
        "libcudart-d0da41ae.so.11.0",
        "libcudart.so.11.8.89",
    ]
    assert list(libraries.conflicts(found)) == ["libcudart"]


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


@pytest.mark.parametrize(
    ("pattern", "item", "same"),
    [
        ("resnet50", "resnet50.train", True),
        ("resnet50.train", "resnet50.train", True),
        ("gemm.*", "gemm.fp32", True),
        ("gemm.*", "numerics.gemm.fp32", False),
        ("numerics", "numerics.gemm.fp32", True),
        ("numerics.gemm", "numerics.gemm.fp32", True),
        ("numerics.g", "numerics.gemm.fp32", False),
        ("*", "python", True),
    ],
)
def test_globs_match_whole_ids_or_dotted_prefixes(pattern, item, same):
    assert table.matches(item, pattern) is same


def test_a_benchmark_brings_the_checks_that_it_rests_on():
    selected, unmatched = table.select(items.ITEMS, "smoke", [], ["resnet50"])
    assert [item.id for item in selected] == ["torch.import", "first-kernel", "resnet50.train"]
    assert unmatched == []


def test_the_table_is_in_an_order_that_can_be_run():
    seen = set()
    for item in items.ITEMS:
        assert set(item.needs) <= seen, item.id
        assert item.id not in seen
        assert all(item.limit_s(profile) > 0 for profile in table.PROFILES)
        seen.add(item.id)


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
