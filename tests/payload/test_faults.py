"""Faults on the card and its memory: an assertion, too large an allocation, and words that do not keep their value."""

from __future__ import annotations

import json

import pytest

from cuda_matrix.payload import checks_faults, checks_memory
from cuda_matrix.payload.isolated import Answer

CHECKS = ("first-kernel", "faults.assert", "faults.oom", "memory.patterns")
GOOD = dict.fromkeys(("torch.import", *CHECKS), "pass")


@pytest.fixture
def faults(deployed, real_torch):
    """A function that runs the checks on a pretended card with little free memory."""

    def run(mutation="", **settings):
        deployed.use(real_torch)
        deployed.pretend_cuda(**{"memory_gb": 8, "used_gb": 7.5, **settings})
        if mutation:
            deployed.mutate(mutation)
        return deployed.run(checks=CHECKS, benchmarks=(), gpu_required=True, profile="standard")

    return run


def test_a_good_card_passes(faults):
    run = faults()
    assert run.statuses() == GOOD
    assert run.end("faults.assert")["numbers"] == {"raised": True, "error_type": "RuntimeError", "works_after": True}
    assert run.end("faults.oom")["numbers"]["error_type"] == "OutOfMemoryError"
    assert run.end("faults.oom")["numbers"]["asked_gb"] == round(2**50 / 1e9, 1)
    memory = run.end("memory.patterns")["numbers"]
    assert memory["patterns"] == "00 FF AA 55 address"
    assert memory["share"] == pytest.approx(0.75, abs=0.01)


NO_ASSERT = """
def mutate(torch):
    true = torch.nn.functional.embedding
    torch.nn.functional.embedding = lambda index, table, *rest, **keys: true(index.clamp(max=15), table)
"""
WRONG_ERROR = """
def mutate(torch):
    def embedding(*rest, **keys):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    torch.nn.functional.embedding = embedding
"""
HANG = """
def mutate(torch):
    import time
    torch.nn.functional.embedding = lambda *rest, **keys: time.sleep(3600)
"""
SEGFAULT = """
def mutate(torch):
    import os, signal
    torch.nn.functional.embedding = lambda *rest, **keys: os.kill(os.getpid(), signal.SIGSEGV)
"""
# The allocator hands out what the card does not have.
OVERCOMMIT = """
def mutate(torch):
    true = torch.empty
    def empty(*size, **keys):
        if keys.get("dtype") is torch.uint8 and isinstance(size[0], int):
            size = (min(size[0], 1024),)
        return true(*size, **keys)
    torch.empty = empty
"""
# The driver puts what the card lacks into the system's memory, as in WSL2: some times the card's are granted.
SYSTEM_MEMORY = """
def mutate(torch):
    true = torch.empty
    def empty(*size, **keys):
        if keys.get("dtype") is torch.uint8 and isinstance(size[0], int) and size[0] < 16 * 8e9:
            size = (min(size[0], 1024),)
        return true(*size, **keys)
    torch.empty = empty
"""
OTHER_ERROR = """
def mutate(torch):
    true = torch.empty
    def empty(*size, **keys):
        if keys.get("dtype") is torch.uint8:
            raise RuntimeError("CUDA error: invalid argument")
        return true(*size, **keys)
    torch.empty = empty
"""
# After an out of memory, the process computes wrongly.
SPOILT = """
def mutate(torch):
    true = torch.empty
    def empty(*size, **keys):
        try:
            return true(*size, **keys)
        except RuntimeError:
            true_product = torch.Tensor.__matmul__
            torch.Tensor.__matmul__ = lambda left, right: true_product(left, right) * (0 if left.is_cuda else 1)
            raise
    torch.empty = empty
"""
# Bit 40 of one word is stuck at 1.
STUCK_BIT = """
def mutate(torch):
    true = torch.Tensor.fill_
    def fill(tensor, value):
        true(tensor, value)
        if tensor.dtype is torch.int64 and tensor.numel() > 100000:
            tensor[77777] = int(tensor[77777]) | (1 << 40)
        return tensor
    torch.Tensor.fill_ = fill
"""


@pytest.mark.parametrize(
    ("mutation", "broken", "words"),
    [
        (NO_ASSERT, "faults.assert", "nothing was raised"),
        (WRONG_ERROR, "faults.assert", "an illegal memory access was encountered"),
        (OVERCOMMIT, "faults.oom", "were allocated without an error"),
        (OTHER_ERROR, "faults.oom", "invalid argument"),
        (SPOILT, "faults.oom", "a product is wrong"),
        (STUCK_BIT, "memory.patterns", "pattern 00: byte 622216: 0x0000010000000000, not 0x0000000000000000"),
    ],
)
def test_each_fault_fails_its_check_alone(faults, mutation, broken, words):
    run = faults(mutation)
    assert run.statuses() == {**GOOD, broken: "fail"}
    assert words in run.end(broken)["evidence"]


def test_a_driver_that_grants_the_systems_memory_too_raises_in_the_end(faults):
    assert faults(SYSTEM_MEMORY).statuses() == GOOD


def test_a_hang_instead_of_an_error_is_a_failure(faults, deployed):
    table = json.loads(deployed._sources["items.json"])
    for row in table["items"]:
        if row["id"] == "faults.assert":
            row["limits_s"]["standard"] = 10
    deployed._sources["items.json"] = json.dumps(table).encode()
    run = faults(HANG)
    assert run.statuses() == {**GOOD, "faults.assert": "fail"}
    assert run.end("faults.assert")["summary"] == "an index out of range hangs instead of raising"


def test_a_segfault_instead_of_an_error_is_a_failure(faults):
    run = faults(SEGFAULT)
    assert run.statuses() == {**GOOD, "faults.assert": "fail"}
    assert "Segmentation fault" in run.end("faults.assert")["evidence"]


def test_without_a_card_nothing_is_claimed(deployed, real_torch):
    deployed.use(real_torch)
    run = deployed.run(checks=CHECKS, benchmarks=(), profile="standard")
    assert run.statuses() == {**dict.fromkeys(CHECKS, "skip"), "torch.import": "pass", "first-kernel": "pass"}


ASSERTED = Answer(error="RuntimeError: CUDA error: device-side assert triggered")


@pytest.mark.parametrize(
    ("fault", "after", "status"),
    [
        (ASSERTED, Answer({"error_of_product": 1e-6}), "pass"),
        (ASSERTED, Answer({"error_of_product": 0.5}), "fail"),
        (ASSERTED, Answer({"error_of_product": None}), "fail"),
        (ASSERTED, Answer(error="RuntimeError: no CUDA-capable device is detected"), "fail"),
        (Answer({"raised": False, "value": 8.0}), Answer({"error_of_product": 1e-6}), "fail"),
    ],
)
def test_verdicts_on_an_assertion(fault, after, status):
    verdict = checks_faults.judge_assert(fault, after, 0.01, "cuda:0")
    assert verdict["status"] == status
    assert status == "pass" or verdict["evidence"]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, "pass"),
        ({"left_bytes": 512}, "fail"),
        ({"error_of_product": 0.2}, "fail"),
        ({"raised": False}, "fail"),
    ],
)
def test_verdicts_on_too_large_an_allocation(changes, status):
    answer = {
        "asked_gb": 48.0,
        "raised": True,
        "is_out_of_memory": True,
        "error_type": "OutOfMemoryError",
        "left_bytes": 0,
        "error_of_product": 1e-7,
        **changes,
    }
    assert checks_faults.judge_oom(Answer(answer), 0.01, "cuda:0")["status"] == status


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, "pass"),
        ({"mismatches": 1, "first": "pattern 00: byte 8: 0x1, not 0x0"}, "fail"),
        ({"done": ["00", "FF"]}, "unknown"),
        ({"tested_bytes": 500}, "warn"),
    ],
)
def test_verdicts_on_memory(changes, status):
    seen = {"free_bytes": 1000, "tested_bytes": 750, "done": ["00", "FF", "AA", "55", "address"], "mismatches": 0}
    thresholds = {"mismatches": 0, "share": 0.75, "share_reached": 0.95}
    verdict = checks_memory.judge_patterns({**seen, "first": None, **changes}, thresholds, "cuda:0")
    assert verdict["status"] == status
