"""What decides the device: the first kernel, machine code or compilation, and proof that the card did the work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cuda_matrix.payload import checks_arch, checks_device
from cuda_matrix.payload.checks_arch import Attempt
from cuda_matrix.payload.isolated import Answer
from cuda_matrix.reference import load_items

LAB = Path(__file__).resolve().parents[1] / "lab"
CHECKS = ("first-kernel", "arch.execution", "silent-cpu")
GOOD = dict.fromkeys(("torch.import", *CHECKS), "pass")
(THRESHOLDS,) = [dict(row.thresholds) for row in load_items().items if row.id == "silent-cpu"]


@pytest.fixture(scope="session")
def nvml_double(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("doubles")
    subprocess.run([sys.executable, str(LAB / "build.py"), str(folder)], check=True)
    return folder


@pytest.fixture
def card(deployed, real_torch):
    """A function that runs the checks of the device on a pretended card."""

    def run(mutation="", checks=CHECKS, env=None, **settings):
        deployed.use(real_torch)
        deployed.pretend_cuda(**{"memory_gb": 8, "used_gb": 7.5, **settings})
        if mutation:
            deployed.mutate(mutation)
        return deployed.run(checks=checks, benchmarks=(), gpu_required=True, env=env)

    return run


def test_a_good_card_passes_and_leaves_its_numbers(card):
    run = card()
    assert run.statuses() == GOOD
    numbers = run.end("first-kernel")["numbers"]
    assert (numbers["device_name"], numbers["capability"]) == ("NVIDIA GeForce RTX 3090", "8.6")
    assert numbers["jit_bytes"] == 0
    assert run.facts()["device_capability"] == "8.6"
    arch = run.end("arch.execution")
    assert arch["summary"] == "machine code for this card is in the build (compute capability 8.6, sm_86 in its list)"
    proof = run.end("silent-cpu")
    assert proof["numbers"]["event_s"] > 0
    # NVML is not there: that is said, and no proof.
    assert "not told by NVML: utilisation, energy, clock (NVML cannot be loaded" in proof["summary"]


# What a card does for which the build has only PTX: the driver compiles it, unless that is forbidden.
PTX_ONLY = """
def mutate(torch):
    import os
    torch._C._cuda_getArchFlags = lambda: "sm_50 compute_80"
    true = torch.Tensor.to
    def to(tensor, *place, **keys):
        if os.environ.get("CUDA_DISABLE_PTX_JIT") == "1" and place and str(place[0]).startswith("cuda"):
            raise RuntimeError("CUDA error: PTX JIT compilation was disabled")
        path = os.environ.get("CUDA_CACHE_PATH")
        if path and place and str(place[0]).startswith("cuda"):
            assert os.listdir(path) in ([], ["compiled"]), "the cache was not empty"
            with open(os.path.join(path, "compiled"), "w") as stream:
                stream.write("x" * 1234)
        return true(tensor, *place, **keys)
    torch.Tensor.to = to
"""
NO_KERNEL = """
def mutate(torch):
    import os
    true = torch.Tensor.sort
    def sort(tensor, *rest, **keys):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\\nCompile with ...")
    torch.Tensor.sort = sort
"""
OLD_DRIVER = NO_KERNEL.replace("no kernel image is available for execution on the device", "TEXT").replace(
    "TEXT", "the provided PTX was compiled with an unsupported toolchain."
)
WRONG_SCAN = """
def mutate(torch):
    true = torch.Tensor.cumsum
    torch.Tensor.cumsum = lambda tensor, *rest, **keys: true(tensor, *rest, **keys) * (2 if tensor.is_cuda else 1)
"""
# A first attempt that fails for another reason, and a second one that would be right: chance, and no compiler's work.
ONCE = """
def mutate(torch):
    import os
    true = torch.Tensor.cumsum
    def cumsum(tensor, *rest, **keys):
        found = true(tensor, *rest, **keys)
        if os.environ.get("CUDA_DISABLE_PTX_JIT") == "1" and tensor.is_cuda:
            BREAK
        return found
    torch.Tensor.cumsum = cumsum
"""


def test_kernels_that_the_driver_compiles_are_a_warning_with_their_seconds(card):
    run = card(PTX_ONLY)
    assert run.statuses() == {**GOOD, "arch.execution": "warn"}
    end = run.end("arch.execution")
    assert end["evidence"] == "RuntimeError: CUDA error: PTX JIT compilation was disabled"
    assert "only compute_80 in its list" in end["summary"]
    assert end["numbers"]["jit_bytes"] == 1234
    assert end["numbers"]["jit_s"] >= 0
    assert run.end("first-kernel")["numbers"]["jit_bytes"] == 1234


@pytest.mark.parametrize(
    ("mutation", "cause", "words"),
    [
        (NO_KERNEL, "arch-no-kernel", "no kernel image is available"),
        (OLD_DRIVER, "ptx-toolchain", "unsupported toolchain"),
        (WRONG_SCAN, "numerics-wrong", "the kernels' results are wrong"),
        (ONCE.replace("BREAK", "found = found * 2"), "numerics-wrong", "the kernels' results are wrong"),
        (ONCE.replace("BREAK", "os.kill(os.getpid(), 11)"), None, "Segmentation fault"),
        (ONCE.replace("BREAK", "raise RuntimeError('CUDA error: misaligned address')"), None, "misaligned address"),
    ],
)
def test_a_build_whose_kernels_do_not_run_is_a_failure_of_that_check_alone(card, mutation, cause, words):
    run = card(mutation)
    assert run.statuses() == {**GOOD, "arch.execution": "fail"}
    end = run.end("arch.execution")
    assert end.get("cause") == cause
    assert words in end["evidence"]


WRONG_FIRST = """
def mutate(torch):
    true = torch.Tensor.__matmul__
    def product(left, right):
        return true(left, right) * (0.99 if left.is_cuda and left.shape[0] == 1000 else 1)
    torch.Tensor.__matmul__ = product
"""
# What asks for the card stays on the host, and says so.
ON_THE_HOST = """
def mutate(torch):
    true = torch.randn
    def randn(*size, **keys):
        keys.pop("device", None)
        return true(*size, **keys)
    torch.randn = randn
"""
NO_TIME = """
def mutate(torch):
    torch.cuda.Event.elapsed_time = lambda begin, end: 0.0
"""
TOO_LONG = """
def mutate(torch):
    true = torch.cuda.Event.elapsed_time
    torch.cuda.Event.elapsed_time = lambda begin, end: true(begin, end) * 2 + 50
"""
TOO_FAST = """
def mutate(torch):
    torch.cuda.Event.elapsed_time = lambda begin, end: 1e-3
"""
TOO_SHORT = """
def mutate(torch):
    true = torch.cuda.Event.elapsed_time
    torch.cuda.Event.elapsed_time = lambda begin, end: true(begin, end) * 0.3
"""
NO_MEMORY = """
def mutate(torch):
    torch.cuda.memory_allocated = lambda *device: 0
"""
# The driver's count stays what it was at first.
NO_GROWTH = (
    NO_MEMORY
    + """
    first, true = [], torch.cuda.mem_get_info
    def same(*device):
        first.append(true(*device))
        return first[0]
    torch.cuda.mem_get_info = same
"""
)
LOST_TERM = """
def mutate(torch):
    true = torch.matmul
    torch.matmul = lambda left, right, **keys: true(left, right, **keys).mul_(1.01)
"""


def test_a_wrong_first_product_blocks_what_rests_on_it(card):
    run = card(WRONG_FIRST)
    assert run.statuses() == {**GOOD, "first-kernel": "fail", "silent-cpu": "skip"}
    assert run.end("first-kernel")["cause"] == "numerics-wrong"


@pytest.mark.parametrize(
    ("mutation", "cause", "words"),
    [
        (ON_THE_HOST, "silent-cpu-fallback", "the result lies on cpu"),
        (NO_TIME, "silent-cpu-fallback", "CUDA events measured 0.0 s"),
        (TOO_LONG, "silent-cpu-fallback", "CUDA events measured"),
        (TOO_FAST, "silent-cpu-fallback", "TFLOP/s is more than this card can do"),
        (TOO_SHORT, "silent-cpu-fallback", "CUDA events measured only"),
        (NO_MEMORY, "silent-cpu-fallback", "allocated_bytes is 0"),
        (LOST_TERM, "numerics-wrong", "the products are wrong"),
    ],
)
def test_work_that_the_card_did_not_do_is_named(card, mutation, cause, words):
    run = card(mutation)
    assert run.statuses() == {**GOOD, "silent-cpu": "fail"}
    end = run.end("silent-cpu")
    assert (end["cause"], words in end["evidence"]) == (cause, True)


@pytest.mark.parametrize(
    ("counters", "status", "words"),
    [
        ("utilisation 97\n", "pass", "NVML (utilisation"),
        ("utilisation 0\nenergy_rate 20000\n", "fail", "NVML saw nothing of a second of products"),
        ("utilisation !3\nenergy !3\n", "pass", "not told by NVML: utilisation, energy"),
    ],
)
def test_what_nvml_sees_of_the_products(card, nvml_double, tmp_path, counters, status, words):
    (tmp_path / "nvml").write_text(counters)
    env = {"LD_LIBRARY_PATH": str(nvml_double), "CM_FAKE_NVML": str(tmp_path / "nvml")}
    run = card(env=env)
    assert run.statuses() == {**GOOD, "silent-cpu": status}
    end = run.end("silent-cpu")
    assert words in end["summary"] + end.get("evidence", "")


@pytest.mark.parametrize(
    ("mutation", "status", "words"), [(NO_MEMORY, "pass", "events, memory"), (NO_GROWTH, "fail", "used_bytes is 0")]
)
def test_an_allocator_that_counts_nothing_is_judged_by_the_driver(card, mutation, status, words):
    run = card(mutation, env={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})
    assert run.statuses() == {**GOOD, "silent-cpu": status}
    end = run.end("silent-cpu")
    assert words in end.get("evidence", end["summary"])
    assert end["numbers"]["allocated_bytes"] is None


HANG = """
def mutate(torch):
    import time
    from cuda_matrix_payload import checks_device, nvml
    checks_device._ANSWER_S = 0.5
    nvml.QUESTION = lambda *_: time.sleep(3600)
"""


@pytest.mark.parametrize("question", ["Library.call", "open_library"])
def test_a_driver_that_does_not_answer_costs_no_verdict(card, nvml_double, tmp_path, question):
    (tmp_path / "nvml").write_text("utilisation 97\n")
    env = {"LD_LIBRARY_PATH": str(nvml_double), "CM_FAKE_NVML": str(tmp_path / "nvml")}
    run = card(HANG.replace("QUESTION", question), checks=("first-kernel", "silent-cpu"), env=env)
    end = run.end("silent-cpu")
    assert (end["status"], end["numbers"]["nvml"]) == ("pass", "NVML does not answer")
    assert "not told by NVML: utilisation, energy, clock (NVML does not answer)" in end["summary"]


def test_a_driver_that_hangs_at_its_end_has_told_what_it_told(card, nvml_double, tmp_path):
    (tmp_path / "nvml").write_text("utilisation 97\n")
    env = {"LD_LIBRARY_PATH": str(nvml_double), "CM_FAKE_NVML": str(tmp_path / "nvml")}
    run = card(HANG.replace("QUESTION", "Library.close"), checks=("first-kernel", "silent-cpu"), env=env)
    assert (run.end("silent-cpu")["status"], run.end("silent-cpu")["numbers"]["utilisation"]) == ("pass", 97)


SEEN = {
    "ran_on": "cuda:0",
    "event_s": 0.08,
    "wall_s": 0.08,
    "tflops": 17.0,
    "allocated_bytes": 200,
    "used_bytes": 300,
    "expected_bytes": 200,
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"event_s": 0.03}, "measured only 0.0300 s"),
        ({"event_s": 1e-3, "wall_s": 4e-3}, ""),  # a small card's products: mostly the host's calls
        ({"event_s": 0.09}, "measured 0.0900 s"),
        ({"tflops": 30.0}, "30 TFLOP/s is more than this card can do (25)"),
        ({"allocated_bytes": 0}, "allocated_bytes is 0"),
        ({"allocated_bytes": None}, ""),
        ({"allocated_bytes": None, "used_bytes": 0}, "used_bytes is 0"),
    ],
)
def test_what_contradicts_the_claim_that_a_card_did_it(changes, words):
    found = checks_device.contradiction({**SEEN, **changes}, THRESHOLDS, 19.5)
    assert words in found
    assert bool(words) is bool(found)


@pytest.mark.parametrize(
    ("on", "environment", "uncertain", "peak"),
    [
        (False, {}, [], 19.5),
        (True, {}, [], 156),
        (RuntimeError, {}, [], 156),
        (False, {"NVIDIA_TF32_OVERRIDE": "1"}, [], 156),
        (False, {"NVIDIA_TF32_OVERRIDE": "0"}, [], 19.5),
        (False, {}, ["fp32"], 156),
    ],
)
def test_single_precision_is_compared_with_its_own_peak(monkeypatch, on, environment, uncertain, peak):
    def tf32_on(_torch, _device):
        if on is RuntimeError:
            raise on
        return on

    monkeypatch.setattr(checks_device.precisions, "tf32_on", tf32_on)
    for name in checks_device._FASTER:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    card = {"peak_tflops": {"fp32": 19.5, "tf32": 156}, "uncertain": uncertain}
    assert checks_device._peak(None, None, card) == peak
    assert checks_device._peak(None, None, None) is None


def test_on_the_cpu_nothing_is_claimed(deployed, real_torch):
    deployed.use(real_torch)
    run = deployed.run(checks=CHECKS, benchmarks=())
    skipped = dict.fromkeys(("arch.execution", "silent-cpu"), "skip")
    assert run.statuses() == {"torch.import": "pass", "first-kernel": "pass", **skipped}
    assert run.end("first-kernel")["device"] == "cpu"


def test_a_needed_card_that_is_not_there_fails_and_is_not_replaced(deployed, real_torch):
    deployed.use(real_torch)
    run = deployed.run(checks=CHECKS, benchmarks=(), gpu_required=True)
    assert run.statuses()["first-kernel"] == "fail"
    assert "Found no NVIDIA driver on your system" in run.end("first-kernel")["evidence"]
    assert (run.statuses()["arch.execution"], run.statuses()["silent-cpu"]) == ("skip", "skip")


@pytest.mark.parametrize(
    ("name", "card", "kind", "serves"),
    [
        ("sm_86", (8, 6), "sm", True),
        ("sm_80", (8, 6), "sm", True),
        ("sm_89", (8, 6), "sm", False),
        ("sm_80", (9, 0), "sm", False),
        ("sm_90a", (9, 0), "sm", True),
        ("sm_100a", (10, 3), "sm", False),
        ("sm_100f", (10, 3), "sm", True),
        ("sm_120", (12, 0), "sm", True),
        ("compute_80", (12, 0), "compute", True),
        ("compute_90", (8, 6), "compute", False),
        ("compute_90a", (10, 0), "compute", False),
        ("compute_100f", (12, 0), "compute", False),
        ("sm_86", (8, 6), "compute", False),
        ("gfx90a", (8, 6), "sm", False),
    ],
)
def test_which_entry_of_the_list_serves_a_card(name, card, kind, serves):
    assert checks_arch.serves(name, card, kind) is serves


def test_kernels_that_never_end_are_unknown_and_no_failure():
    slow = Attempt(Answer(error="no answer within 24 s", timed_out=True))
    assert checks_arch.judge_execution(slow, None, ["sm_80"])["status"] == "unknown"
    lacking = Attempt(
        Answer(error="RuntimeError: CUDA error: no kernel image is available for execution on the device")
    )
    assert checks_arch.judge_execution(lacking, slow, ["sm_80"])["status"] == "unknown"


def test_a_list_that_promises_nothing_does_not_decide():
    native = Attempt(Answer({"available": True, "right": True, "kernels_s": 0.1, "capability": "12.0"}))
    verdict = checks_arch.judge_execution(native, None, ["sm_80", "sm_90"])
    assert verdict["status"] == "pass"
    assert "none of sm_80 sm_90 serves it" in verdict["summary"]
    assert json.dumps(verdict)
