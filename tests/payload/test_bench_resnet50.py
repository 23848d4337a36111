"""The ResNet-50 benchmarks: their judgement by numbers, and a small ResNet of a real torch, right and broken."""

from __future__ import annotations

import math

import pytest

from bench_models import run
from cuda_matrix.payload import batches, bench_resnet50, learning

TRAIN, INFER = "resnet50.train", "resnet50.infer"
SEEN = {"finite": True, "constant": False, "repeats_equal": True, "frobenius": 0.03}


def speed(status="pass"):
    return {"status": status, "summary": "s", "device": "cuda:0", "numbers": {"stable": True}, "thresholds": {"a": 1}}


@pytest.mark.parametrize(
    ("losses", "moved", "said"),
    [
        ([7.0, 6.0], True, ""),
        ([6.0, 7.0], True, ""),
        ([7.0, math.nan], True, "not finite"),
        ([math.inf, 1.0], True, "not finite"),
        ([7.0, 7.0], False, "not changed the weights"),
    ],
)
def test_training_must_train(losses, moved, said):
    wrong = learning.complaint(losses, moved)
    assert said in wrong
    assert bool(wrong) is bool(said)
    result = learning.judged(speed(), wrong)
    assert result["status"] == ("fail" if said else "pass")
    if said:
        assert (result["cause"], result["numbers"]["stable"]) == ("training-diverged", False)
        assert "samples" not in result


def test_work_on_the_wrong_device_is_worse_than_training_that_does_not_learn():
    answer = {**speed("fail"), "cause": "silent-cpu-fallback"}
    assert learning.judged(answer, "the loss is not finite") is answer


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"finite": False}, "not finite"),
        ({"constant": True}, "constant"),
        ({"repeats_equal": False}, "twice"),
        ({"frobenius": 0.2}, "off fp32"),
        ({"frobenius": math.nan}, "off fp32"),
    ],
)
def test_outputs_of_inference(changes, said):
    wrong = bench_resnet50.judge_outputs({**SEEN, **changes}, 0.15)
    assert said in wrong
    assert bool(wrong) is bool(said)


@pytest.mark.parametrize(
    ("text", "memory"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("CUDA error: an illegal memory access was encountered", False),
    ],
)
def test_what_says_that_memory_does_not_suffice(text, memory):
    assert batches.does_not_fit(text) is memory


def ends(attempt):
    rounds = batches.fitted(None, type("Device", (), {"type": "cpu"}), 8, attempt)
    while True:
        try:
            next(rounds)
        except StopIteration as stop:
            return stop.value


@pytest.mark.parametrize(("fits", "result"), [(8, (8, "done")), (3, (2, "done")), (0, (1, None))])
def test_the_batch_is_halved_until_it_fits(fits, result):
    def attempt(batch):
        yield
        if batch > fits:
            message = "CUDA out of memory"
            raise RuntimeError(message)
        return "done"

    assert ends(attempt) == result


def test_another_error_is_not_taken_for_a_lack_of_memory():
    def attempt(_batch):
        yield
        message = "CUDA error: device-side assert triggered"
        raise RuntimeError(message)

    with pytest.raises(RuntimeError, match="assert"):
        ends(attempt)


def test_all_of_them_on_a_cpu(deployed, real_torch):
    ids = (TRAIN, TRAIN + ".tf32", TRAIN + ".fp32", INFER, INFER + ".tf32", INFER + ".fp32")
    result = run(deployed, real_torch, *ids, profile="full")
    statuses = {item: result.statuses()[item] for item in ids}
    assert statuses == {item: "skip" if item.endswith("tf32") else "pass" for item in ids}
    numbers = result.end(TRAIN)["numbers"]
    assert {"batch", "batch_halved", "precision", "channels_last", "peak_memory_gb", "rounds"} <= set(numbers)
    assert {"drift", "stable", "last_loss"} <= set(numbers)
    assert (numbers["batch"], numbers["batch_halved"], numbers["precision"]) == (4, False, "fp32")
    assert result.end(TRAIN)["unit"] == "images/s"
    assert result.end(INFER)["numbers"]["frobenius"] < 1e-3


# Only the first training step does not fit.
OUT_OF_MEMORY = """
    step = torch.optim.SGD.step
    def once(self, *arguments):
        torch.optim.SGD.step = step
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
    torch.optim.SGD.step = once
"""
NAN_LOSS = """
    cross_entropy = torch.nn.functional.cross_entropy
    torch.nn.functional.cross_entropy = lambda *arguments: cross_entropy(*arguments) * float("nan")
"""
NO_STEP = "    torch.optim.SGD.step = lambda self, *arguments: None\n"
CONSTANT = """
    linear = torch.nn.functional.linear
    def constant(*arguments):
        found = linear(*arguments)
        return found if torch.is_grad_enabled() else found * 0
    torch.nn.functional.linear = constant
"""


@pytest.mark.parametrize(
    ("source", "statuses", "cause"),
    [
        (NAN_LOSS, ("fail", "pass"), "training-diverged"),
        (NO_STEP, ("fail", "pass"), "training-diverged"),
        (CONSTANT, ("pass", "fail"), "numerics-wrong"),
    ],
    ids=["NaN", "no step", "constant"],
)
def test_each_break_fails_exactly_its_benchmark(deployed, real_torch, source, statuses, cause):
    result = run(deployed, real_torch, TRAIN, INFER, source=source)
    assert tuple(result.statuses()[item] for item in (TRAIN, INFER)) == statuses
    failed = result.end(TRAIN if statuses[0] == "fail" else INFER)
    assert failed["cause"] == cause
    assert failed["evidence"]


def test_autocast_that_does_nothing(deployed, real_torch):
    source = """
    import contextlib
    torch.autocast = lambda *arguments, **settings: contextlib.nullcontext()
"""
    result = run(deployed, real_torch, TRAIN, TRAIN + ".tf32", INFER, device="cuda:0", source=source)
    assert result.end(TRAIN + ".tf32")["status"] in ("pass", "warn")
    for item in (TRAIN, INFER):
        end = result.end(item)
        assert end["status"] == "fail"
        assert end["evidence"] == "autocast did nothing: the outputs are torch.float32, not torch.float16"


def test_on_a_card_in_mixed_precision_and_a_batch_that_does_not_fit_at_first(deployed, real_torch):
    ids = (TRAIN, TRAIN + ".tf32", INFER)
    result = run(deployed, real_torch, *ids, device="cuda:0", source=OUT_OF_MEMORY)
    assert {result.statuses()[item] for item in ids} <= {"pass", "warn"}, result.ends()
    numbers = result.end(TRAIN)["numbers"]
    assert (numbers["batch"], numbers["batch_halved"]) == (2, True)
    assert (numbers["precision"], numbers["channels_last"]) == ("amp-fp16", True)
    assert result.end(TRAIN)["device"] == "cuda:0"
    tf32 = result.end(TRAIN + ".tf32")["numbers"]
    assert (tf32["batch"], tf32["batch_halved"], tf32["precision"]) == (2, True, "tf32")
