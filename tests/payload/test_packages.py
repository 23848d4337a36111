"""GPU packages beside torch: stand-ins that compute right, and then wrong, on a card that torch pretends to have."""

from __future__ import annotations

import math

import pytest

from cuda_matrix.payload import checks_packages

ATTENTION = """
import torch
def attention(query, key, value):
    query, key, value = (each.transpose(1, 2).float() for each in (query, key, value))
    scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
    later = torch.ones(scores.shape[-1], scores.shape[-1], dtype=torch.bool, device=scores.device).triu(1)
    weights = torch.softmax(scores.masked_fill(later, float("-inf")), dim=-1)
    return (weights @ value).transpose(1, 2).half()
"""
FLASH = ATTENTION + "def flash_attn_func(query, key, value, causal): return attention(query, key, value)\n"
XFORMERS = (
    ATTENTION
    + "class LowerTriangularMask: pass\n"
    + "def memory_efficient_attention(query, key, value, attn_bias): return attention(query, key, value)\n"
)
ADAM = """
import torch
class Adam8bit:
    def __init__(self, parameters, lr):
        self.parameters, self.rate = parameters, lr
    @torch.no_grad()
    def step(self):
        for each in self.parameters:
            each -= self.rate * each.grad.sign()
"""
PACKAGES = {
    "packages.flash-attn": {"flash_attn/__init__.py": FLASH},
    "packages.xformers": {"xformers/__init__.py": "", "xformers/ops.py": XFORMERS},
    "packages.bitsandbytes": {"bitsandbytes/__init__.py": "from . import optim", "bitsandbytes/optim.py": ADAM},
}


@pytest.fixture
def packages(deployed, real_torch):
    """A function that installs stand-ins, changed by a replacement, and runs their checks on a pretended card."""

    def run(old="", new="", pretend=True, installed=PACKAGES):
        for files in installed.values():
            for name, source in files.items():
                path = deployed.site / name
                path.parent.mkdir(exist_ok=True)
                path.write_text(source.replace(old, new) if old else source)
        deployed.use(real_torch)
        if pretend:
            deployed.pretend_cuda()
        return deployed.run(checks=tuple(PACKAGES), benchmarks=(), limit_s=110.0)

    return run


def test_right_packages_pass(packages):
    run = packages()
    assert {run.statuses()[item] for item in PACKAGES} == {"pass"}
    assert run.end("packages.flash-attn")["numbers"]["error"] > 0


@pytest.mark.parametrize(
    ("old", "new", "item", "cause"),
    [
        ("causal): return", "causal): return 1.01 *", "packages.flash-attn", "numerics-wrong"),
        ("attn_bias): return", "attn_bias): return attention(query, key, value).cpu() #", "packages.xformers",
         "silent-cpu-fallback"),
        ("attn_bias): return", "attn_bias): raise NotImplementedError('No operator found')", "packages.xformers", None),
        ("self.rate * each.grad.sign()", "0 * each", "packages.bitsandbytes", None),
        ("self.rate * each.grad.sign()", "3 * self.rate * each.grad.sign()", "packages.bitsandbytes", "numerics-wrong"),
    ],
)  # fmt: skip
def test_each_defect_is_charged_to_its_package(packages, old, new, item, cause):
    run = packages(old, new)
    for name in PACKAGES:
        assert run.statuses()[name] == ("fail" if name == item else "pass")
    assert run.end(item).get("cause") == cause
    assert run.end(item)["evidence"]


def test_packages_that_are_not_there_or_have_no_gpu_are_skipped(packages):
    run = packages(pretend=False, installed={"packages.xformers": PACKAGES["packages.xformers"]})
    assert {run.statuses()[item] for item in PACKAGES} == {"skip"}
    assert run.end("packages.xformers")["summary"] == "needs a GPU"
    assert run.end("packages.bitsandbytes")["summary"] == "bitsandbytes is not installed"


@pytest.mark.parametrize(
    ("numbers", "device", "status"),
    [
        ({"error": 1e-3, "plain_error": 1e-3}, "cuda:0", "pass"),
        ({"error": 2.1e-3, "plain_error": 1e-3}, "cuda:0", "fail"),
        ({"error": math.nan, "plain_error": 1e-3}, "cuda:0", "fail"),
        ({"error": 1e-3, "plain_error": 1e-3}, "cpu", "fail"),
    ],
)
def test_attention_is_judged_by_twice_the_plain_error(numbers, device, status):
    thresholds = {"times_plain": 2, "floor": 1e-5}
    assert checks_packages.judge_attention("x", numbers, thresholds, device)["status"] == status


@pytest.mark.parametrize(
    ("changed", "step", "status"),
    [(1.0, 1.0, "pass"), (0.5, 1.0, "fail"), (1.0, 2.0, "fail"), (1.0, math.nan, "fail"), (math.nan, 1.0, "fail")],
)
def test_a_step_of_the_optimiser(changed, step, status):
    thresholds = {"changed": 0.99, "step_low": 0.5, "step_high": 1.5}
    numbers = {"changed": changed, "step_over_rate": step}
    assert checks_packages.judge_step(numbers, thresholds, "cuda:0")["status"] == status


def test_one_wrong_sum_is_one_too_many():
    assert checks_packages.judge_sum(0, {"wrong_elements": 0}, "cuda:0")["status"] == "pass"
    assert checks_packages.judge_sum(1, {"wrong_elements": 0}, "cuda:0")["cause"] == "numerics-wrong"
