"""Attention: every backend alone against float64; a wrong scale, a leaking mask and a lost gradient are seen."""

from __future__ import annotations

from textwrap import indent

import pytest

from cuda_matrix.payload import checks_attention
from cuda_matrix.reference import load_reference

CHECKS = ("attention.sdpa", "training.transformer")  # its neighbour uses attention too, and judges something else
GOOD = dict.fromkeys(("torch.import", "first-kernel", *CHECKS), "pass")
# `attend` is torch's own; the lines in between replace it.
MUTATION = """
def mutate(torch):
    attend = torch.nn.functional.scaled_dot_product_attention
    def broken(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, **keys):
LINES
    torch.nn.functional.scaled_dot_product_attention = broken
"""


@pytest.fixture
def attention(deployed, real_torch):
    """A function that runs the checks, with torch's attention replaced by some lines."""

    def run(lines="", **request):
        deployed.use(real_torch)
        if lines:
            deployed.mutate(MUTATION.replace("LINES", indent(lines, " " * 8)))
        return deployed.run(checks=CHECKS, benchmarks=(), limit_s=110.0, **request)

    return run


def test_right_attention_passes(attention):
    run = attention()
    assert run.statuses() == GOOD
    end = run.end("attention.sdpa")
    assert end["device"] == "cpu"
    assert "math" in end["summary"]
    assert 0 <= end["numbers"]["math.fp32.of_bound"] <= 1


ODD_EDGE = """
result = attend(query, key, value, attn_mask, dropout_p, is_causal).clone()
if is_causal and query.shape[-2] % 2:
    result[..., -1:, :] = result[..., :1, :]
return result
"""
RAISES = """
if attn_mask is None:
    raise RuntimeError("CUDA error: no kernel image is available for execution on the device")
return attend(query, key, value, attn_mask, dropout_p, is_causal)
"""


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("return attend(query * 1.02, key, value, attn_mask, dropout_p, is_causal)", "output is off by"),
        ("return attend(query, key, value, attn_mask, dropout_p, False)", "causal: output is off by"),
        (ODD_EDGE, "33x33"),
        (
            "return attend(query, key.detach(), value, attn_mask, dropout_p, is_causal) + 0 * key.sum()",
            "gradient is off",
        ),
        ("return attend(query, key, value, attn_mask, dropout_p, is_causal) * float('nan')", "output is off by inf"),
        (RAISES, "no kernel image is available"),
    ],
    ids=["scale", "mask-leaks", "odd-length", "lost-gradient", "nan", "raises"],
)
def test_wrong_attention_fails_and_says_where(attention, lines, words):
    run = attention(lines)
    end = run.end("attention.sdpa")
    assert end["status"] == "fail"
    assert end["cause"] == "numerics-wrong"
    assert words in end["evidence"]
    if words != "output is off by inf":  # NaN everywhere breaks the transformer as well, rightly
        assert run.statuses() == {**GOOD, "attention.sdpa": "fail"}


def test_a_pretended_card(deployed, real_torch):
    deployed.use(real_torch)
    deployed.pretend_cuda()
    end = deployed.run(checks=("attention.sdpa",), benchmarks=(), gpu_required=True, limit_s=110.0).end(
        "attention.sdpa"
    )
    assert (end["status"], end["device"]) == ("pass", "cuda:0")


THRESHOLDS = next(row for row in load_reference().items.items if row.id == "attention.sdpa").thresholds


def found(**numbers):
    findings = checks_attention.Findings()
    for name, value in numbers.items():
        findings.worst(name, value)
    findings.worked = {"math", "flash"}
    return findings


def test_absent_backends_are_said_and_not_judged():
    findings = found(plain=1e-7)
    findings.note("cudnn.fp32", "absent: No available kernel")
    end = checks_attention.judge(findings, "cuda:0", THRESHOLDS, has_fused=True)
    assert end["status"] == "pass"
    assert end["summary"].endswith("not available here: mem-efficient, cudnn")
    assert end["numbers"]["cudnn.fp32"] == "absent: No available kernel"


def test_a_torch_without_fused_attention_is_judged_by_the_plain_formula():
    end = checks_attention.judge(found(plain=1e-7), "cpu", THRESHOLDS, has_fused=False)
    assert end["status"] == "pass"
    assert "no fused attention" in end["summary"]


def test_the_yardstick_is_the_plain_formula():
    bounds = checks_attention.Bounds(THRESHOLDS, "cuda")
    assert bounds.of("flash", (1e-3, 1e-3)) == (pytest.approx(2.01e-3), pytest.approx(6e-3))
    assert bounds.of("math", (1e-3, 1e-3))[0] == pytest.approx(4.01e-3)
    assert bounds.plain("bf16") < checks_attention.Bounds(THRESHOLDS, "cpu").plain("bf16")
    assert bounds.plain("fp32") == checks_attention.Bounds(THRESHOLDS, "cpu").plain("fp32")
