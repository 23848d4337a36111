"""The benchmarks of single operations, of the DataLoader and of NCCL: judgement by numbers, and a real torch."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench_models import run
from cuda_matrix.payload import bench_dataloader, bench_nccl, bench_ops
from cuda_matrix.reference import load_items

OPS = ("ops.sdpa", "ops.layernorm", "ops.softmax", "ops.embedding")
THRESHOLDS = {row.id: dict(row.thresholds) for row in load_items().items}


@pytest.mark.parametrize(
    ("output", "gradients", "said"),
    [
        (1e-3, 1e-3, ""),
        (3e-2, 1e-3, "output"),
        (1e-3, 3e-2, "gradients"),
        (math.nan, 1e-3, "output"),
        (1e-3, math.inf, "gradients"),
    ],
)
def test_errors_of_an_operation(output, gradients, said):
    wrong = bench_ops.judge_errors({"error_output": output, "error_gradients": gradients}, 2e-2)
    assert said in wrong
    assert bool(wrong) is bool(said)


def test_the_work_of_one_pass():
    work = {name: operation.work for name, operation in bench_ops.OPERATIONS.items()}
    assert work["sdpa"]((1, 1, 1000, 50), 2) == ("tflops", pytest.approx(3.5 * 4 * 1e6 * 50 / 2 / 1e12))
    assert work["layernorm"]((1000, 1000), 2) == ("gb_per_s", pytest.approx(0.01))
    assert work["embedding"]((1000, 500, 1000), 4) == ("gb_per_s", pytest.approx(0.018))


WRONG_GRADIENT = """
    norm = torch.nn.functional.layer_norm
    torch.nn.functional.layer_norm = lambda rows, *rest: norm(rows, *rest) + 0.1 * (rows - rows.detach())
"""


@pytest.mark.parametrize("source", ["", WRONG_GRADIENT], ids=["right", "a wrong gradient"])
def test_the_operations_on_a_cpu(deployed, real_torch, source):
    result = run(deployed, real_torch, *OPS, source=source)
    broken = "ops.layernorm" if source else ""
    assert {item: result.statuses()[item] for item in OPS} == {
        item: "fail" if item == broken else "pass" for item in OPS
    }
    assert result.end("ops.softmax")["numbers"]["gb_per_s"] > 0
    assert result.end("ops.sdpa")["numbers"]["tflops"] > 0
    assert result.end("ops.embedding")["unit"] == "ms"
    if broken:
        assert result.end(broken)["cause"] == "numerics-wrong"
        assert "gradients" in result.end(broken)["evidence"]


def test_the_operations_on_a_card(deployed, real_torch):
    result = run(deployed, real_torch, *OPS, device="cuda:0")
    assert {result.statuses()[item] for item in OPS} <= {"pass", "warn"}, result.ends()
    assert {result.end(item)["numbers"]["precision"] for item in OPS} == {"bf16"}


@pytest.mark.parametrize(
    ("consumer", "feeds"),
    [
        ({"device": "cuda:0", "samples": {"median": 639.0}}, True),
        ({"device": "cuda:0", "samples": {"median": 641.0}}, False),
        ({"device": "cpu", "samples": {"median": 1.0}}, "not compared: resnet50.train has no speed on a GPU here"),
        ({}, "not compared: resnet50.train has no speed on a GPU here"),
    ],
)
def test_whether_a_loader_feeds_training(consumer, feeds):
    rounds = [[bench_dataloader.BATCH / 640.0] * 5] * 3
    result = bench_dataloader.judge(rounds, {"workers": 4}, consumer, THRESHOLDS["dataloader.rate"])
    assert (result["status"], result["numbers"]["feeds_training"]) == ("pass", feeds)
    assert result["samples"]["median"] == pytest.approx(640)


DAMAGED = """
    collate = torch.utils.data._utils.collate.default_collate
    torch.utils.data._utils.collate.default_collate = torch.utils.data.dataloader._utils.collate.default_collate = (
        lambda batch: [each * 0 if each.ndim == 4 else each for each in collate(batch)]
    )
"""


@pytest.mark.parametrize(("source", "status"), [("", "pass"), (DAMAGED, "fail")], ids=["right", "damaged"])
def test_a_loader_on_this_machine(deployed, real_torch, source, status):
    end = run(deployed, real_torch, "dataloader.rate", source=source).end("dataloader.rate")
    assert end["status"] == status, end
    if status == "pass":
        assert end["numbers"]["workers"] >= 1
        assert end["samples"]["median"] > 0
    else:
        assert "not what was stored" in end["evidence"]


def context():
    return SimpleNamespace(
        device="cuda:0", thresholds=THRESHOLDS["nccl.busbw"], unit="GB/s", higher_is_better=True, card=None
    )


def found(**changes):
    seconds = {32 << 20: [[1e-3] * 5] * 3, 128 << 20: [[2e-3] * 5] * 3}
    return {"seconds": seconds, "steps": dict.fromkeys(seconds, 9), "wrong": 0, "error": "", "late": False, **changes}


def test_bus_bandwidth_is_that_of_the_best_size():
    result = bench_nccl.judge(context(), found(), 4)
    assert result["status"] == "pass"
    assert result["samples"]["median"] == pytest.approx((128 << 20) / 2e-3 * 2 * 3 / 4 / 1e9)
    assert result["numbers"]["bytes"] == 128 << 20


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"wrong": 3}, "numerics-wrong"),
        ({"error": "rank 1: NCCL error"}, None),
        ({"error": "not ended", "late": True}, "nccl-timeout"),
    ],
)
def test_sums_that_are_wrong_or_do_not_come(changes, cause):
    result = bench_nccl.judge(context(), found(**changes), 4)
    assert (result["status"], result.get("cause")) == ("fail", cause)


RANKS = """
import json, sys
sys.path.insert(0, sys.argv[1])
from payload import bench_nccl
print(json.dumps(bench_nccl.reports("gloo", 2, [1 << 20, 1 << 22], float(sys.argv[2]))))
"""


def ranks(site: Path, limit_s: float):
    source = Path(bench_nccl.__file__).parent.parent
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(site)}
    command = [sys.executable, "-c", RANKS, str(source), str(limit_s)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


def test_two_ranks_reduce_right_and_are_timed(real_torch):
    report = ranks(real_torch, 50)
    assert (report["error"], report["wrong"], report["late"]) == ("", 0, False)
    assert sorted(report["seconds"]) == ["1048576", "4194304"]
    assert [len(each) for each in report["seconds"]["1048576"]] == [5, 5, 5]


def test_ranks_that_do_not_end_are_ended(real_torch):
    report = ranks(real_torch, 0.3)
    assert report["late"]
    assert report["error"]
