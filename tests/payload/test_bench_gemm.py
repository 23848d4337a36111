"""The GEMM benchmarks: their judgement by numbers, and real products of a real torch, right and broken."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from bench_lab import CARD, FIXED_CLOCK, SIZE, benchmarks
from cuda_matrix.payload import bench_gemm, products, timing
from cuda_matrix.reference import load_items

THRESHOLDS = {row.id: dict(row.thresholds) for row in load_items().items}
GOOD = {
    "fp32": (3e-7, 5e-6),
    "tf32": (3e-4, 2e-3),
    "fp16": (2.1e-4, 2e-3),
    "bf16": (1.7e-3, 2e-2),
    "fp8": (2e-3, 1e-2),
    "int8": (0.0, 0.0),
}


def context(name, device="cuda:0", card=None):
    unit = "TOP/s" if name == "int8" else "TFLOP/s"
    return SimpleNamespace(
        device=device, thresholds=THRESHOLDS[f"gemm.{name}"], unit=unit, higher_is_better=True, card=card
    )


def judged(name, frobenius, largest, device="cuda:0", ran_on=None):
    measurement = timing.Measurement([[1e-3] * 20] * 3)
    numbers = {"size": 256, "frobenius": frobenius, "max_over_mean": largest}
    return bench_gemm.judge(context(name, device), measurement, numbers, ran_on or device, name)


@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_right_product_passes_with_its_numbers(name):
    result = judged(name, *GOOD[name])
    assert result["status"] == "pass"
    assert result["samples"]["median"] == pytest.approx(2 * 256**3 / 1e9)
    assert result["numbers"]["frobenius"] == GOOD[name][0]
    assert result["thresholds"]["frobenius"] == THRESHOLDS[f"gemm.{name}"]["frobenius"]
    assert result["numbers"]["peak"].startswith("not judged")


# One lost term of the sum, one zeroed element, TF32 where it is off, a product of nothing.
@pytest.mark.parametrize(
    ("name", "frobenius", "largest"),
    [
        *[(name, 1.5e-2 if name != "fp8" else 4e-2, 0.3) for name in GOOD],
        *[(name, GOOD[name][0] + 1e-7, 0.6) for name in GOOD if name != "fp8"],
        ("fp32", 3e-4, 2e-3),
        ("int8", 1e-9, 1e-9),
        *[(name, math.inf, math.inf) for name in GOOD],
        *[(name, math.nan, math.nan) for name in GOOD],
    ],
)
def test_a_wrong_product_fails_however_fast_it_was(name, frobenius, largest):
    result = judged(name, frobenius, largest)
    assert (result["status"], result["cause"]) == ("fail", "numerics-wrong")
    assert "above" in result["evidence"]
    assert "samples" not in result


def test_half_precision_on_a_cpu_may_be_summed_in_half_precision():
    assert judged("bf16", 3.6e-2, 0.5, "cpu")["status"] == "pass"
    assert judged("bf16", 0.5, 0.5, "cpu")["status"] == "fail"
    assert judged("fp32", 3.6e-2, 0.5, "cpu")["status"] == "fail"


def test_tf32_that_was_not_used_is_said():
    result = judged("tf32", 3e-7, 5e-6)
    assert result["status"] == "warn"
    assert "not used" in result["summary"]


def test_a_product_that_ran_elsewhere_fails():
    result = judged("fp32", *GOOD["fp32"], ran_on="cpu")
    assert (result["status"], result["cause"]) == ("fail", "silent-cpu-fallback")


class Torch:
    """What a torch of some age and a card of some generation have."""

    def __init__(self, capability=(9, 0), memory=24e9, **attributes):
        self.__dict__.update(attributes)
        properties = SimpleNamespace(total_memory=memory)
        self.cuda = SimpleNamespace(
            get_device_capability=lambda _device: capability, get_device_properties=lambda _device: properties
        )


NEW = {"_scaled_mm": 1, "float8_e4m3fn": 1, "_int_mm": 1}
GPU, CPU = SimpleNamespace(type="cuda"), SimpleNamespace(type="cpu")


@pytest.mark.parametrize(
    ("name", "torch", "device", "words"),
    [
        *[(name, Torch(**NEW), GPU, "") for name in GOOD],
        ("tf32", Torch((7, 5), **NEW), GPU, "needs compute capability 8.0"),
        ("bf16", Torch((7, 5), **NEW), GPU, "needs compute capability 8.0"),
        ("fp8", Torch((8, 6), **NEW), GPU, "needs compute capability 8.9"),
        ("fp8", Torch((8, 9), **NEW), GPU, ""),
        ("int8", Torch((7, 0), **NEW), GPU, "needs compute capability 7.2"),
        ("fp16", Torch((7, 0), **NEW), GPU, ""),
        ("fp8", Torch(), GPU, "no torch._scaled_mm"),
        ("fp8", Torch(_scaled_mm=1), GPU, "no torch.float8_e4m3fn"),
        ("int8", Torch(), GPU, "no torch._int_mm"),
        *[(name, Torch(**NEW), CPU, "needs a GPU") for name in ("tf32", "fp8", "int8")],
        *[(name, Torch(), CPU, "") for name in ("fp32", "fp16", "bf16")],
    ],
)
def test_what_a_card_or_a_torch_lacks(name, torch, device, words):
    said = bench_gemm.lacking(torch, device, name)
    assert words in said
    assert bool(said) is bool(words)


@pytest.mark.parametrize(
    ("memory", "name", "size"),
    [
        (80e9, "fp16", 16384),
        (80e9, "fp32", 8192),
        (80e9, "fp8", 8192),
        (24e9, "bf16", 8192),
        (4e9, "int8", 4096),
        (1e9, "fp32", 2048),
    ],
)
def test_the_size_fits_the_memory(memory, name, size):
    assert bench_gemm._size(Torch(memory=memory), GPU, name) == size


def test_six_products_fit_into_the_memory_that_they_are_chosen_for():
    width = {"fp32": (4, 4), "tf32": (4, 4), "fp16": (2, 2), "bf16": (2, 2), "fp8": (1, 2), "int8": (1, 4)}
    for memory in (60e9, 8e9, 2e9, 1e9):
        sizes = {name: bench_gemm._size(Torch(memory=memory), GPU, name) for name in width}
        # two operands, the right one perhaps twice, and two products, since a new one is made before the old one goes
        used = sum(sizes[name] ** 2 * (3 * operand + 2 * product) for name, (operand, product) in width.items())
        assert used < 0.8 * memory


def test_real_products_on_a_cpu(deployed, real_torch):
    items = benchmarks(deployed, real_torch, "gemm.fp32", "gemm.fp16", "gemm.bf16", "gemm.tf32", device="cpu")
    run = deployed.run(profile="standard")
    for item in items[:3]:
        end = run.end(item)
        assert end["status"] in ("pass", "warn", "invalid"), end  # a shared CPU may be noisy; the product is right
        assert end["numbers"]["cpu_threads"] == 1
        assert end["samples"]["median"] > 0
        assert "on cpu" in end["summary"]
        assert end["numbers"]["frobenius"] <= 0.1
    assert run.end("gemm.tf32")["status"] == "skip"


ALL = [f"gemm.{name}" for name in GOOD]


def test_all_precisions_interleaved_on_a_card(deployed, real_torch):
    """A pretended card, a fixed clock: the products are real, and their figure is the clock's."""
    benchmarks(deployed, real_torch, *ALL, source=FIXED_CLOCK, cards=[CARD])
    run = deployed.run(profile="standard")
    assert run.statuses() == {**dict.fromkeys(ALL, "pass"), "torch.import": "pass", "first-kernel": "pass"}
    for item in ALL:
        end = run.end(item)
        assert end["device"] == "cuda:0"
        assert end["samples"]["median"] == pytest.approx(2 * SIZE**3 / 1e9, rel=1e-6)
        assert end["numbers"]["share_of_peak"] == pytest.approx(
            2 * SIZE**3 / 1e9 / (CARD["peak_tflops"]["fp16"] / 2), abs=1e-3
        )
        assert end["numbers"]["sm_clock_mhz"] == 1000
    # The neighbours' switches are not heard: TF32 is on for one and off for the others.
    assert run.end("gemm.fp32")["numbers"]["frobenius"] < 1e-5
    assert run.end("gemm.tf32")["numbers"]["frobenius"] > 1e-4


BROKEN = """
    matmul = torch.matmul
    def broken(left, right, out=None):
        if out is None:
            return matmul(left, right)
        if out.dtype == torch.float16:
            return out  # nothing is computed
        matmul(left, right, out=out)
        if out.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32:
            out[:, 7] = 0.0
        return out
    torch.matmul = broken
    int_mm, calls = torch._int_mm, []
    def forgetful(left, right):
        calls.append(1)
        return int_mm(left, right) if len(calls) < 4 else int_mm(left, right).bitwise_and_(-2)
    torch._int_mm = forgetful
"""


def test_products_that_go_wrong_while_they_are_timed_are_seen_and_no_neighbour_is_blamed(deployed, real_torch):
    benchmarks(deployed, real_torch, *ALL, source=FIXED_CLOCK + BROKEN, cards=[CARD])
    statuses = deployed.run(profile="standard").statuses()
    wrong = {"gemm.fp16", "gemm.tf32", "gemm.int8"}
    assert {item: statuses[item] for item in ALL} == {item: "fail" if item in wrong else "pass" for item in ALL}


def test_errors_of_nothing_are_infinite():
    product = products.Product.__new__(products.Product)
    product.rows = []
    assert product.errors() == (math.inf, math.inf)
    product.rows = [None]
    assert product.errors() == (math.inf, math.inf)
