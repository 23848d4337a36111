"""The numerics checks: the rules that numbers are judged by, and every check on a PyTorch that computes wrongly."""

from __future__ import annotations

import math
from textwrap import indent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuda_matrix.payload import checks_conv, checks_math, numerics
from cuda_matrix.protocol import payload_sources
from cuda_matrix.reference import load_items, load_reference

ROWS = {item.id: item for item in load_items().items}
ERRORS = st.floats(min_value=0, max_value=10)


def thresholds(item: str) -> dict[str, float]:
    return dict(ROWS[item].thresholds)


# Pure rules.

GOOD = {"frobenius": 3e-7, "max_over_mean": 5e-6, "identity_exact": True, "repeats_equal": True}


@pytest.mark.parametrize(
    ("dtype", "changes", "complaint"),
    [
        ("fp32", {}, ""),
        ("fp32", {"frobenius": 3e-4}, "TF32"),
        ("fp32", {"frobenius": 3e-2}, "above 1e-05"),
        ("fp32", {"frobenius": 2e-5}, "above 1e-05"),
        ("fp32", {"frobenius": math.nan}, "above"),
        ("fp32", {"frobenius": math.inf}, "above"),
        ("fp32", {"max_over_mean": 2e-4}, "single elements"),
        ("fp32", {"identity_exact": False}, "identity"),
        ("fp32", {"repeats_equal": False}, "repeats"),
        ("fp32", {"fp64_error": 1e-15}, ""),
        ("fp32", {"fp64_error": 1e-9}, "float64"),
        ("fp32", {"fp64_error": math.nan}, "float64"),
        ("tf32", {"frobenius": 2.9e-4, "max_over_mean": 2e-3}, ""),
        ("tf32", {"frobenius": 7e-5, "max_over_mean": 2e-3}, "too small for TF32"),
        ("tf32", {"frobenius": 2e-3, "max_over_mean": 2e-3}, "above 0.0015"),
        ("tf32", {"frobenius": 2.9e-4, "max_over_mean": 0.5}, "single elements"),
        ("fp16", {"frobenius": 2.1e-4, "max_over_mean": 2e-3}, ""),
        ("fp16", {"frobenius": 1.2e-4, "max_over_mean": 0.6}, "single elements"),
        ("bf16", {"frobenius": 1.66e-3, "max_over_mean": 2e-2}, ""),
        ("bf16", {"frobenius": 1.5e-2}, "above 0.006"),
        ("fp8", {"frobenius": 1.7e-3, "max_over_mean": 2e-2, "sqnr_db": 28.5}, ""),
        ("fp8", {"frobenius": 4.4e-2, "max_over_mean": 0.2, "sqnr_db": 25.5}, "above 0.03"),
        ("fp8", {"frobenius": 1.7e-3, "max_over_mean": 2e-2, "sqnr_db": 20.0}, "noise"),
        ("int8", {"wrong_elements": 0}, ""),
        ("int8", {"wrong_elements": 1}, "1 elements"),
        ("int8", {"wrong_elements": 0, "repeats_equal": False}, "repeats"),
    ],
)
def test_products_are_judged_by_both_errors(dtype, changes, complaint):
    said, remark = numerics.judge(dtype, {**GOOD, **changes}, thresholds(f"numerics.gemm.{dtype}"))
    assert complaint in said
    assert bool(said) is bool(complaint)
    assert remark == ""


def test_tf32_that_is_on_and_not_used_is_a_remark():
    assert numerics.judge("tf32", GOOD, thresholds("numerics.gemm.tf32")) == ("", "TF32 not used")


@given(ERRORS, ERRORS, st.booleans(), st.booleans())
def test_a_product_passes_exactly_when_nothing_is_beyond_its_limit(frobenius, largest, exact, equal):
    limits = numerics.Limits(1e-3, 1e-2)
    measured = {
        "frobenius": frobenius,
        "max_over_mean": largest,
        "identity_exact": exact,
        "repeats_equal": equal,
    }
    right = frobenius <= 1e-3 and largest <= 1e-2 and exact and equal
    assert (numerics.judge_product(measured, limits) == "") is right


@given(st.sampled_from(["fp16", "bf16"]), st.integers(min_value=1, max_value=255))
def test_half_precision_on_a_cpu_is_wide_and_still_sees_a_lost_term(dtype, terms):
    own = thresholds(f"numerics.gemm.{dtype}")
    strict = numerics.Limits(own["frobenius"], own["max_over_mean"])
    wide = numerics.cpu_half_limits(strict, own["cpu_root_term_" + dtype], own["cpu_max_over_frobenius"], terms)
    assert wide.frobenius >= strict.frobenius
    assert wide.max_over_mean >= strict.max_over_mean
    assert 0.3 * own["cpu_root_term_" + dtype] * math.sqrt(terms) < wide.frobenius < 1 / math.sqrt(terms)


@pytest.mark.parametrize(("terms", "seen"), [(64, 0.010), (512, 0.026), (1000, 0.036)])
def test_what_torch_113_was_seen_to_do_without_avx512_is_inside_the_rule(terms, seen):
    own = thresholds("numerics.gemm.bf16")
    strict = numerics.Limits(own["frobenius"], own["max_over_mean"])
    assert seen < numerics.cpu_half_limits(strict, own["cpu_root_term_bf16"], 10, terms).frobenius
    assert seen > strict.frobenius, "a card is not allowed this"


@given(st.floats(min_value=1e-12, max_value=1e3))
def test_decibels_fall_with_the_error(error):
    assert numerics.decibels(error) > numerics.decibels(error * 1.01)
    assert numerics.decibels(0.0) == math.inf
    assert numerics.decibels(math.inf) == -math.inf


IEEE, TF32 = 4e-7, 2.9e-4


@pytest.mark.parametrize(
    ("found", "on", "off", "override", "complaint", "remarks"),
    [
        ((False, IEEE), (True, TF32), (False, IEEE), None, "", []),
        ((True, TF32), (True, TF32), (False, IEEE), None, "", []),
        (
            (False, IEEE),
            (True, IEEE),
            (False, IEEE),
            "0",
            "",
            ["switched on, TF32 is not used: NVIDIA_TF32_OVERRIDE=0"],
        ),
        ((False, IEEE), (True, IEEE), (False, IEEE), None, "", ["switched on, TF32 is not used"]),
        ((False, TF32), (True, TF32), (False, TF32), None, "torch reports TF32 off", []),
        ((False, TF32), (True, TF32), (False, TF32), "1", "NVIDIA_TF32_OVERRIDE=1", []),
        ((True, TF32), (True, TF32), (False, IEEE), "0", "NVIDIA_TF32_OVERRIDE=0 forbids", []),
        ((True, TF32), (True, TF32), (True, TF32), None, "", []),
        ((False, 0.1), (True, TF32), (False, IEEE), None, "neither", []),
        ((False, math.nan), (True, TF32), (False, IEEE), None, "neither", []),
    ],
)
def test_tf32_is_what_the_switches_say(found, on, off, override, complaint, remarks):
    observed = [{"flag": flag, "frobenius": error} for flag, error in (found, on, off)]
    said, noted = numerics.judge_switches(observed, override, thresholds("numerics.tf32-truth"))
    assert complaint in said
    assert bool(said) is bool(complaint)
    assert noted == remarks


LIMITS = {
    (precision, part): numerics.Limits(1e-3, 1e-2) for precision in ("fp32", "fp16") for part in checks_conv.PARTS
}


def convolution(library: str, output: float = 1e-4, **more: Any) -> dict[str, Any]:
    errors = dict.fromkeys(checks_conv.PARTS, (1e-4, 1e-3)) | {"output": (output, 1e-3)}
    one = {"precision": "fp32", "layout": "channels_last", "library": library, "case": "3x3", "ran_on": "cuda:0"}
    return {**one, **({} if more else {"errors": errors}), **more}


@pytest.mark.parametrize(
    ("tried", "status", "cause", "summary"),
    [
        ([convolution("cuDNN"), convolution("native")], "pass", None, "2 convolutions"),
        (
            [convolution("cuDNN", 0.5), convolution("native")],
            "fail",
            "numerics-wrong",
            "with cuDNN disabled all are right",
        ),
        ([convolution("cuDNN"), convolution("native", 0.5)], "fail", "numerics-wrong", "only without cuDNN"),
        (
            [convolution("cuDNN", 0.5), convolution("native", 0.5)],
            "fail",
            "numerics-wrong",
            "2 of 2 convolutions are wrong",
        ),
        ([convolution("cuDNN", math.nan)], "fail", "numerics-wrong", "1 of 1"),
        (
            [convolution("cuDNN", raised="RuntimeError: CUDNN_STATUS_X"), convolution("native")],
            "fail",
            None,
            "only with cuDNN",
        ),
        ([convolution("native", lacking="RuntimeError: not implemented for 'Half'")], "skip", None, "not implemented"),
        (
            [convolution("cuDNN"), convolution("native", ran_on="cpu", errors={})],
            "fail",
            "silent-cpu-fallback",
            "lies on cpu",
        ),
    ],
)
def test_convolutions_name_the_library_that_is_at_fault(tried, status, cause, summary):
    verdict = checks_conv.judge(tried, LIMITS, "cuda:0")
    assert (verdict["status"], verdict.get("cause")) == (status, cause)
    assert summary in verdict["summary"]


@given(ERRORS, ERRORS)
def test_a_library_passes_exactly_when_everything_is_inside_its_limits(frobenius, largest):
    found = {"right": (1e-7, 1e-6), "other": (frobenius, largest)}
    own = thresholds("numerics.fft")
    verdict = checks_math.judge("transforms", found, own, ("cpu", "cpu"))
    right = frobenius <= own["frobenius"] and largest <= own["max_over_mean"]
    assert (verdict["status"] == "pass") is right
    assert right or "other" in verdict["evidence"]


RANDOM = {
    "draws": 65536,
    "same_seed_same": True,
    "other_seed_other": True,
    "next_draw_other": True,
    "finite": True,
    "in_range": True,
    "chi_square": 63.0,
    "distinct": 0.998,
    "uniform_mean": 0.5001,
    "normal_mean": 0.001,
    "normal_variance": 1.001,
    "correlation": 0.001,
    "dropped": 0.2501,
    "kept_value": 1 / 0.75,
}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({}, None),
        ({"same_seed_same": False}, "the same seed"),
        ({"other_seed_other": False}, "another seed"),
        ({"next_draw_other": False}, "repeats the first"),
        ({"finite": False}, "NaN"),
        ({"in_range": False}, "outside"),
        ({"chi_square": 141.0}, "chi-square"),
        ({"chi_square": 2.0}, "chi-square"),
        ({"chi_square": math.nan}, "chi-square"),
        ({"distinct": 0.5}, "repeats"),
        ({"uniform_mean": 0.49}, "uniform_mean"),
        ({"normal_mean": 0.05}, "normal_mean"),
        ({"normal_variance": 1.1}, "normal_variance"),
        ({"correlation": 0.1}, "correlation"),
        ({"dropped": 0.2}, "dropped"),
        ({"kept_value": 1.0}, "dropout scales"),
    ],
)
def test_random_numbers_are_judged_by_every_figure(changes, complaint):
    wrong = checks_math.judge_random({**RANDOM, **changes}, thresholds("numerics.rng"))
    assert len(wrong) == (complaint is not None)
    assert complaint is None or complaint in wrong[0]


# Real PyTorch, broken: exactly the check that guards the thing fails.

CHECKS = tuple(item for item in ROWS if item.startswith("numerics."))
# Torch 2.2 has neither integer nor FP8 products on a CPU: right ones to break. The rest helps the breaks below.
TOOLS = """
def mutate(torch):
    plain = torch.Tensor.__matmul__

    def scaled(left, right, scale_a, scale_b, out_dtype):
        return plain(left.float() * scale_a, right.float() * scale_b).to(out_dtype)

    def integers(left, right):
        return plain(left.double(), right.double()).int()

    changes = {}

    def product(left, right):
        if left.layout == torch.sparse_csr:
            return changes.get("csr", plain)(left, right)
        ours = left.shape[1] in (256, 193, 128, 113)  # of the numerics checks alone: by their inner dimensions
        return (changes.get(left.dtype, plain) if ours else plain)(left, right)

    torch.Tensor.__matmul__ = product

    def products(dtype, change):
        changes[getattr(torch, dtype, dtype)] = change

    def zeroed(left, right):
        out = plain(left, right)
        out[3, 5] = 0
        return out

    def lost(left, right):
        return plain(left[:, 1:], right[1:])

    def rounded(x):
        return ((x.contiguous().view(torch.int32) + 4096) & ~8191).view(torch.float32)

    def in_tf32(left, right):
        return plain(rounded(left), rounded(right))

    def nan(left, right):
        out = plain(left, right)
        out[-1, -1] = float("nan")
        return out

    calls = []

    def unsteady(left, right):
        out = plain(left, right)
        calls.append(1)
        if len(calls) % 5 == 0:  # among the repeats; elsewhere too small to be seen
            out[7, 7] *= 1.000001
        return out

    torch._int_mm, torch._scaled_mm = integers, scaled
"""
BREAKS = {
    "zeroed-fp32": ("numerics.gemm.fp32", "F =", "products('float32', zeroed)"),
    "zeroed-fp16": ("numerics.gemm.fp16", "", "products('float16', zeroed)"),
    "zeroed-bf16": ("numerics.gemm.bf16", "", "products('bfloat16', zeroed)"),
    "lost-fp32": ("numerics.gemm.fp32", "F =", "products('float32', lost)"),
    "lost-fp16": ("numerics.gemm.fp16", "F =", "products('float16', lost)"),
    "lost-bf16": ("numerics.gemm.bf16", "F =", "products('bfloat16', lost)"),
    "tf32": ("numerics.gemm.fp32", "computed in TF32 although TF32 is off", "products('float32', in_tf32)"),
    "unsteady": ("numerics.gemm.fp32", "repeats of one product differ", "products('float32', unsteady)"),
    "nan": ("numerics.gemm.fp16", "F = inf", "products('float16', nan)"),
    "left-transposed": (
        "numerics.gemm.fp32",
        "F = 0.3",
        "products('float32', lambda a, b: plain(a, b) * (1.3 if a.stride(0) == 1 else 1))",
    ),
    "right-transposed": (
        "numerics.gemm.bf16",
        "F = 0.3",
        "products('bfloat16', lambda a, b: plain(a, b) * (1.3 if b.stride(0) == 1 else 1))",
    ),
    "linear": (
        "numerics.gemm.fp16",
        "F =",
        """
right_linear = torch.nn.functional.linear
def linear(x, weight, bias=None):
    ours = x.dtype == torch.float16 and bias is not None
    return right_linear(x, weight, None if ours else bias)
torch.nn.functional.linear = linear
""",
    ),
    "bmm": (
        "numerics.gemm.fp32",
        "F = 0.0",
        "right_bmm = torch.bmm; torch.bmm = lambda a, b: right_bmm(a, b) * (1.01 if a.dtype == torch.float32 else 1)",
    ),
    "int8-columns": (
        "numerics.gemm.int8",
        "elements of an integer product are wrong",
        "torch._int_mm = lambda left, right: integers(left, right) + (right.stride(0) == 1)",
    ),
    "int8": (
        "numerics.gemm.int8",
        "elements of an integer product are wrong",
        "torch._int_mm = lambda left, right: integers(left[:, 1:], right[1:])",
    ),
    "fp8-lost": (
        "numerics.gemm.fp8",
        "F =",
        "torch._scaled_mm = lambda left, right, **keys: scaled(left[:, 1:], right[1:], **keys)",
    ),
    "fp8-scale": (
        "numerics.gemm.fp8",
        "F =",
        "torch._scaled_mm = lambda a, b, **keys: scaled(a, b, **dict(keys, scale_a=keys['scale_a'] * 1.1))",
    ),
    "conv-flipped": (
        "numerics.conv2d",
        "output: F =",
        """
right = torch.nn.functional.conv2d
def conv2d(image, weight, **keys):
    return right(image, weight if weight.dtype == torch.float64 else weight.flip(2, 3), **keys)
torch.nn.functional.conv2d = conv2d
""",
    ),
    "conv-gradient": (
        "numerics.conv2d",
        "weight gradient: F = inf",
        """
right = torch.nn.functional.conv2d
def conv2d(image, weight, **keys):
    return right(image, weight if weight.dtype == torch.float64 else weight.detach(), **keys)
torch.nn.functional.conv2d = conv2d
""",
    ),
    "fft-scale": (
        "numerics.fft",
        "fft_512: F =",
        "right = torch.fft.fft; torch.fft.fft = lambda x: right(x) * 1.001",
    ),
    "fft-back": (
        "numerics.fft",
        "irfft_360: F =",
        "right = torch.fft.irfft; torch.fft.irfft = lambda x, n: right(x, n=n) * n",
    ),
    "solve-pivot": (
        "numerics.linalg",
        "solve: F =",
        """
right = torch.linalg.solve
def solve(a, b):
    x = right(a, b)
    x[[0, 1]] = x[[1, 0]]
    return x
torch.linalg.solve = solve
""",
    ),
    "cholesky": (
        "numerics.linalg",
        "cholesky: F =",
        "right = torch.linalg.cholesky; torch.linalg.cholesky = lambda a: right(a.flip(0, 1)).flip(0, 1)",
    ),
    "eigh": (
        "numerics.linalg",
        "eigh: F =",
        "right = torch.linalg.eigh; torch.linalg.eigh = lambda a: (right(a)[0].flip(0), right(a)[1])",
    ),
    "svd": (
        "numerics.linalg",
        "svd: F =",
        "right = torch.linalg.svd; torch.linalg.svd = lambda a: (right(a)[0], right(a)[1] * 1.001, right(a)[2])",
    ),
    "sparse-row": (
        "numerics.sparse",
        "csr_product: F =",
        """
def product(left, right):
    out = plain(left, right)
    out[17] = 0
    return out
products("csr", product)
""",
    ),
    "sparse-gradient": (
        "numerics.sparse",
        "sparse_gradient: F =",
        "right = torch.sparse.mm; torch.sparse.mm = lambda a, b: (right(a, b) + right(a.detach(), b)) / 2",
    ),
    "rng-repeats": (
        "numerics.rng",
        "the generator repeats",
        """
right = torch.rand
def rand(*shape, **keys):
    out = right(*shape, **keys)
    return out[:1024].repeat(len(out) // 1024) if out.dim() == 1 else out
torch.rand = rand
""",
    ),
    "rng-deaf": (
        "numerics.rng",
        "another seed gives the same numbers",
        "right = torch.manual_seed; torch.manual_seed = lambda seed: right(7)",
    ),
    "rng-biased": (
        "numerics.rng",
        "normal_variance",
        "right = torch.randn; torch.randn = lambda *s, **k: right(*s, **k) * (1.05 if s == (65536,) else 1)",
    ),
}


# What is broken together; the other checks are the neighbours that must still pass.
ROUNDS = (
    ("zeroed-fp32", "lost-fp16", "conv-flipped", "fft-scale", "rng-repeats"),
    ("lost-fp32", "zeroed-bf16", "solve-pivot", "sparse-row", "int8"),
    ("tf32", "nan", "eigh", "conv-gradient", "rng-deaf"),
    ("unsteady", "lost-bf16", "svd", "fp8-lost", "fft-back"),
    ("zeroed-fp16", "cholesky", "sparse-gradient", "fp8-scale", "rng-biased", "bmm"),
    ("left-transposed", "right-transposed", "linear", "int8-columns"),
)


@pytest.fixture
def broken(deployed, real_torch):
    """A function that runs checks with a few more lines in the mutation."""

    def run(lines: str = "", checks: tuple[str, ...] = CHECKS, **request: Any):
        deployed.use(real_torch)
        deployed.mutate(TOOLS + indent(lines.strip() + "\n", "    "))
        return deployed.run(checks=checks, benchmarks=(), **request)

    return run


def bad(run: Any) -> set[str]:
    return {item for item, status in run.statuses().items() if status not in ("pass", "skip")}


def test_right_numbers_pass(broken):
    run = broken()
    assert run.statuses() == {
        **dict.fromkeys(("torch.import", "first-kernel", *CHECKS), "pass"),
        **dict.fromkeys(("numerics.gemm.tf32", "numerics.tf32-truth"), "skip"),
    }
    assert all(run.end(item)["device"] == "cpu" for item in CHECKS)
    assert "the CPU's own wide limits" in run.end("numerics.gemm.bf16")["summary"]
    assert run.end("numerics.gemm.bf16")["thresholds"]["frobenius"] == pytest.approx(2**-8 * math.sqrt(128))
    assert run.end("numerics.gemm.fp32")["thresholds"]["frobenius"] == 1e-5


def test_every_break_is_tried():
    assert sorted(name for names in ROUNDS for name in names) == sorted(BREAKS)
    assert {item for item, _, _ in BREAKS.values()} == {*CHECKS} - {"numerics.gemm.tf32", "numerics.tf32-truth"}


@pytest.mark.parametrize("names", ROUNDS, ids=" ".join)
def test_wrong_numbers_fail_exactly_their_checks(broken, names):
    each = [
        f"def broken_{n}():\n{indent(BREAKS[name][2].strip(), '    ')}\nbroken_{n}()" for n, name in enumerate(names)
    ]
    run = broken("\n".join(each), limit_s=110.0)
    assert bad(run) == {BREAKS[name][0] for name in names}
    for name in names:
        item, evidence, _ = BREAKS[name]
        end = run.end(item)
        assert (end["status"], end["cause"]) == ("fail", "numerics-wrong")
        assert evidence in end["evidence"]
        assert end["numbers"]
        assert end["thresholds"]


# The same on a card, which a CPU pretends to be, at smaller sizes.

TF32_CHECKS = ("numerics.gemm.fp32", "numerics.gemm.tf32", "numerics.tf32-truth")


@pytest.fixture
def on_card(deployed, broken):
    """A function that runs checks on a pretended card."""
    source = payload_sources(load_reference())["cuda_matrix_payload/checks_gemm.py"].decode()
    for size in ("CUDA_SQUARE = (1024, 1024, 1024)", '"smoke": (2048, 2048, 2048)'):
        assert size in source
    source = source.replace("(1024, 1024, 1024)", "(256, 256, 256)").replace("(2048, 2048, 2048)", "(1100, 256, 300)")
    deployed.module("checks_gemm", source)

    def run(checks: tuple[str, ...], lines: str = "", capability: tuple[int, int] = (9, 0), **more: Any):
        deployed.pretend_cuda(capability=capability, name="NVIDIA H100 80GB HBM3")
        return broken(lines, checks, gpu_required=True, limit_s=110.0, **more)

    return run


def test_a_card_that_computes_rightly(on_card):
    run = on_card(CHECKS)
    assert set(run.statuses().values()) == {"pass"}, run.statuses()
    assert {run.end(item)["device"] for item in CHECKS} == {"cuda:0"}
    assert 1e-4 < run.end("numerics.gemm.tf32")["numbers"]["frobenius"] < 1.5e-3
    assert run.end("numerics.gemm.bf16")["thresholds"]["frobenius"] == 6e-3, "the CPU's rule is for no card"
    assert run.end("numerics.gemm.fp32")["numbers"]["fp64_error"] <= 1e-12
    assert run.end("numerics.conv2d")["numbers"]["combinations"] == 24


def test_a_card_gets_no_cpu_limits(on_card):
    lines = "products('bfloat16', lambda a, b: plain(a, b) * (1 + 0.02 * torch.sign(plain(a, b))))"
    run = on_card(("numerics.gemm.fp16", "numerics.gemm.bf16"), lines)
    assert bad(run) == {"numerics.gemm.bf16"}
    assert "above 0.006" in run.end("numerics.gemm.bf16")["evidence"]


def test_tf32_that_comes_although_it_is_off(on_card):
    run = on_card(TF32_CHECKS, "products('float32', in_tf32)")
    assert bad(run) == {"numerics.gemm.fp32"}, "the truth is measured with another product"
    lines = """
def product(left, right):
    return (in_tf32 if left.dtype == torch.float32 and left.shape == (1024, 512) else plain)(left, right)
torch.Tensor.__matmul__ = product
"""
    run = on_card(TF32_CHECKS, lines)
    assert bad(run) == {"numerics.tf32-truth"}
    assert "torch reports TF32 off" in run.end("numerics.tf32-truth")["evidence"]


def test_repeats_that_a_fixed_workspace_makes_equal_are_a_warning(on_card):
    lines = "import os\nif 'CUBLAS_WORKSPACE_CONFIG' not in os.environ:\n    products('float32', unsteady)"
    end = on_card(("numerics.gemm.fp32",), lines).end("numerics.gemm.fp32")
    assert (end["status"], end["numbers"]["repeats_equal_with_fixed_workspace"]) == ("warn", True)
    assert "CUBLAS_WORKSPACE_CONFIG=:4096:8" in end["summary"]


def test_repeats_that_differ_with_a_fixed_workspace_too_fail(on_card):
    end = on_card(("numerics.gemm.fp32",), "products('float32', unsteady)").end("numerics.gemm.fp32")
    assert (end["status"], end["numbers"]["repeats_equal_with_fixed_workspace"]) == ("fail", False)


def test_a_convolution_that_only_cudnn_gets_wrong(on_card):
    lines = """
right = torch.nn.functional.conv2d
def conv2d(image, weight, **keys):
    wrong = weight.dtype != torch.float64 and torch.backends.cudnn.enabled
    return right(image, weight.flip(2, 3) if wrong else weight, **keys)
torch.nn.functional.conv2d = conv2d
"""
    run = on_card(("numerics.conv2d", "numerics.fft"), lines)
    assert bad(run) == {"numerics.conv2d"}
    assert "with cuDNN disabled all are right" in run.end("numerics.conv2d")["summary"]


def test_torch_up_to_24_returns_two_tensors_of_an_fp8_product(on_card):
    lines = """
def old(left, right, *, bias=None, out_dtype=None, scale_a=None, scale_b=None, scale_result=None, use_fast_accum=False):
    return scaled(left, right, scale_a, scale_b, out_dtype), torch.zeros(1)
torch._scaled_mm = old
"""
    assert on_card(("numerics.gemm.fp8",), lines).end("numerics.gemm.fp8")["status"] == "pass"


@pytest.mark.parametrize(
    ("item", "capability", "text"),
    [
        ("numerics.gemm.fp8", (8, 6), "needs compute capability 8.9"),
        ("numerics.gemm.tf32", (7, 5), "needs compute capability 8.0"),
        ("numerics.tf32-truth", (7, 5), "needs compute capability 8.0"),
    ],
)
def test_a_card_from_before_a_precision_is_skipped(on_card, item, capability, text):
    end = on_card((item,), capability=capability).end(item)
    assert end["status"] == "skip"
    assert text in end["summary"]


def test_a_result_that_lies_on_the_cpu_is_no_pass(on_card):
    lines = "torch._int_mm = lambda left, right: plain(left.cpu().double(), right.cpu().double()).int()"
    run = on_card(("numerics.gemm.int8", "numerics.gemm.fp16"), lines)
    assert bad(run) == {"numerics.gemm.int8"}
    assert run.end("numerics.gemm.int8")["cause"] == "silent-cpu-fallback"
