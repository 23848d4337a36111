"""The soak: what it makes of its windows, and seconds of real training, right and broken."""

from __future__ import annotations

import math

import pytest

from bench_models import run
from cuda_matrix.payload import bench_soak
from cuda_matrix.reference import load_items

(THRESHOLDS,) = [dict(row.thresholds) for row in load_items().items if row.id == "soak.train"]
SOAK = "soak.train"


def record(windows=40, **changes):
    made = bench_soak.Record()
    made.rates = [100.0] * windows
    made.losses = [5.0] * windows
    made.memory = {name: [1000.0] * windows for name in bench_soak.MEMORIES}
    made.weights_moved = True
    made.seconds = 3600.0
    made.ecc_errors = 0
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def growing(name, to):
    memory = {each: [1000.0] * 40 for each in bench_soak.MEMORIES}
    memory[name] = [1000.0 + to * number / 39 for number in range(40)]
    return memory


@pytest.mark.parametrize(
    ("made", "status", "cause", "said"),
    [
        (record(), "pass", None, "stayed"),
        (record(rates=[100.0] * 20 + [94.0] * 20), "warn", None, "-6.0%"),
        (record(rates=[200.0] * 4 + [100.0] * 36), "pass", None, ""),  # warm-up is no drift
        (record(windows=9), "warn", None, "too short to say stable"),
        (record(products_changed=1), "fail", "numerics-wrong", "product"),
        (record(losses=[5.0] * 39 + [math.nan]), "fail", "training-diverged", "not finite"),
        (record(weights_moved=False), "fail", "training-diverged", "weights"),
        (record(memory=growing("device", 30)), "fail", None, "device"),
        (record(memory=growing("device", 10)), "pass", None, ""),
        (record(memory=growing("reserved", 400)), "fail", None, "reserved"),
        (record(memory=growing("process", 400)), "fail", None, "process"),
        (record(ecc_errors=2), "fail", "gpu-ecc", "2 uncorrectable"),
        (record(ecc_errors=None), "pass", None, ""),
        (record(ended_by="OutOfMemoryError: CUDA out of memory"), "fail", "gpu-oom", "ended after 1 h"),
        (record(ended_by="RuntimeError: CUDA error: unknown"), "fail", None, "unknown"),
        (record(windows=0), "invalid", None, "nothing"),
        (record(rates=[100.0] * 39 + [math.inf]), "invalid", None, "inf"),
    ],
)
def test_what_the_windows_say(made, status, cause, said):
    result = bench_soak.judge(made, {}, THRESHOLDS, "cuda:0")
    assert (result["status"], result.get("cause")) == (status, cause)
    assert said in result["summary"]
    assert result["numbers"]["stable"] is (None if "too short" in result["summary"] else status == "pass")
    assert result["numbers"]["hours"] == 1.0
    if status == "fail":
        assert result["evidence"]


def test_counters_that_cannot_be_read_are_unknown():
    assert (
        bench_soak.judge(record(ecc_errors=None), {}, THRESHOLDS, "cuda:0")["numbers"]["ecc_uncorrected_new"]
        == "unknown"
    )


@pytest.mark.parametrize(("seconds", "status", "stable"), [(599.0, "warn", None), (600.0, "pass", True)])
def test_minutes_are_too_short_to_say_stable(seconds, status, stable):
    result = bench_soak.judge(record(seconds=seconds), {}, THRESHOLDS, "cuda:0")
    assert (result["status"], result["numbers"]["stable"]) == (status, stable)
    assert result["thresholds"]["stable_from_s"] == 600
    unstable = record(seconds=seconds, rates=[100.0] * 20 + [94.0] * 20)
    assert bench_soak.judge(unstable, {}, THRESHOLDS, "cuda:0")["numbers"]["stable"] is False


@pytest.mark.parametrize(
    ("before", "after", "count"), [(2, 2, 0), (2, 5, 3), (5, 2, None), (None, 2, None), (2, None, None)]
)
def test_a_counter_that_fell_has_counted_nothing(before, after, count):
    assert bench_soak.appeared(before, after) == count
    assert bench_soak.complaint(record(ecc_errors=count), {}, {})[1] == ("gpu-ecc" if count else None)
    assert bench_soak.complaint(record(ecc_errors=-3), {}, {}) == ("", None)


@pytest.mark.parametrize(("limit_s", "least", "most"), [(20, 15, 18), (3600, 3500, 3515), (2592000, 2591900, 2591920)])
def test_it_leaves_time_for_its_judgement(limit_s, least, most):
    assert least <= bench_soak.budget_s(limit_s) <= most


STEP = """
    real, steps = torch.optim.SGD.step, []
    def step(self, *arguments, **settings):
        steps.append(1)
        BREAK
        return real(self, *arguments, **settings)
    torch.optim.SGD.step = step
"""
# 200 MB a second, however many steps the machine makes of it; no more than a slow one can fill in its time.
LEAK = """
    import time
    leaked, began = [], []
""" + STEP.replace(
    "BREAK",
    """began.append(time.monotonic())
        while 32 * len(leaked) < min(200 * (time.monotonic() - began[0]), 2000):
            leaked.append(bytearray(b"x") * (32 << 20))""",
)
DRIFT = """
    import time
    began = []
""" + STEP.replace(
    "BREAK",
    """began.append(time.monotonic())
        time.sleep(0.2 if time.monotonic() - began[0] > 1.2 else 0.0)""",
)
CHANGED = """
    matmul, calls = torch.matmul, []
    def changed(left, right):
        calls.append(1)
        return matmul(left, right) + (1e-6 if len(calls) == 7 else 0)
    torch.matmul = changed
"""
NAN = """
    cross_entropy = torch.nn.functional.cross_entropy
    torch.nn.functional.cross_entropy = lambda *arguments: cross_entropy(*arguments) * float("nan")
"""


# The first optimiser of a process imports this: seconds, of which the test's soak has few.
WARM = "    import torch._dynamo\n"


@pytest.mark.parametrize(
    ("source", "status", "said"),
    [
        ("", "pass", "stayed"),
        (LEAK, "fail", "memory grows: process"),
        (DRIFT, "warn", "not stable"),
        (CHANGED, "fail", "1 of"),
        (NAN, "fail", "not finite"),
    ],
    ids=["right", "leak", "drift", "product", "NaN"],
)
def test_seconds_of_it_on_a_cpu(deployed, real_torch, source, status, said):
    enough = {"stable_from_s": 1}.items()  # the table asks for ten minutes
    for limit_s in (6.0, 20.0):  # a machine that others use may be too slow for the first
        ran = run(deployed, real_torch, SOAK, source=WARM + source, profile="soak", limit_s=limit_s, thresholds=enough)
        end = ran.end(SOAK)
        if end["status"] != "timeout":
            break
    if not source and "not stable" in end["summary"]:  # a machine that others use may drift by itself, in three seconds
        status, said = "warn", "not stable"
    assert end["status"] == status, end
    assert said in end["summary"]
    assert end["numbers"]["stable"] is (status == "pass")
    assert end["numbers"]["windows"] >= bench_soak.LEAST_WINDOWS


def test_seconds_by_the_tables_own_thresholds_are_too_short(deployed, real_torch):
    end = run(deployed, real_torch, SOAK, source=WARM, profile="soak", limit_s=6.0).end(SOAK)
    assert end["status"] == "warn"
    assert end["numbers"]["stable"] is None or "not stable" in end["summary"]  # a machine that others use may drift
    assert "stable" in end["summary"]
