"""The GPT-2 benchmarks: FLOP and MFU by numbers, the judgement of losses, and a tiny GPT-2 of a real torch."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from bench_lab import CARD, FIXED_CLOCK
from bench_models import run
from cuda_matrix.payload import bench_gpt2, gpt2
from cuda_matrix.reference import load_items

EAGER, COMPILED = "gpt2.train", "gpt2.train.compiled"
THRESHOLDS = {row.id: dict(row.thresholds) for row in load_items().items}
EVEN = math.log(50304)


def test_the_flop_of_a_token_are_those_of_the_paper():
    # 6 · (124,475,904 - 1024·768) + 12 · 12 · 768 · 1024
    assert gpt2.SMALL.flop_per_token(124_475_904) == pytest.approx(855.4e6, rel=1e-3)


def speed(tokens_per_s, **numbers):
    return {
        "status": "pass",
        "summary": "s",
        "device": "cuda:0",
        "samples": {"median": tokens_per_s},
        "numbers": {"precision": "amp-bf16", "batch": 16, "first_loss": EVEN, **numbers},
        "thresholds": {},
    }


def test_mfu_is_against_the_nominal_peak_and_the_share_against_the_measured_clock():
    card = {**CARD, "peak_tflops": {"bf16": 100.0}}
    context = SimpleNamespace(card=card, thresholds={})
    # 50 TFLOP/s of a model on a card of 100 at 2000 MHz, which ran at 1600 MHz.
    answer = bench_gpt2.with_mfu(context, speed(50e12 / 855e6, sm_clock_mhz=1600), 855e6)
    assert answer["numbers"]["model_tflops"] == pytest.approx(50.0)
    assert answer["numbers"]["mfu"] == pytest.approx(0.5)
    assert answer["numbers"]["share_of_peak"] == pytest.approx(50 / 80, rel=1e-3)
    assert answer["status"] == "pass"


def test_without_the_cards_peak_there_is_no_mfu():
    answer = bench_gpt2.with_mfu(SimpleNamespace(card=None, thresholds={}), speed(1e5), 855e6)
    assert "mfu" not in answer["numbers"]
    assert answer["numbers"]["peak"].startswith("not judged")


@pytest.mark.parametrize(
    ("losses", "moved", "said", "cause"),
    [
        ([EVEN + 0.1, 9.0], True, "", ""),
        ([EVEN + 0.6, 9.0], True, "untrained", "numerics-wrong"),
        ([EVEN - 0.6, 9.0], True, "untrained", "numerics-wrong"),
        ([EVEN, EVEN], True, "does not fall", "training-diverged"),
        ([EVEN, math.nan], True, "not finite", "training-diverged"),
        ([EVEN, 9.0], False, "weights", "training-diverged"),
    ],
)
def test_losses(losses, moved, said, cause):
    wrong, why = bench_gpt2.judge_losses(losses, EVEN, moved, THRESHOLDS[EAGER])
    assert said in wrong
    assert (bool(wrong), why) == (bool(said), cause)


COLD = {"seconds": 30.123, "batch": 16, "first_loss": EVEN}


@pytest.mark.parametrize(
    ("eager", "speedup", "status"),
    [
        (speed(100.0), 1.5, "pass"),
        (speed(300.0), 0.5, "pass"),
        (speed(100.0, batch=8), None, "pass"),
        ({}, None, "pass"),
        (speed(100.0, first_loss=EVEN + 0.1), 1.5, "fail"),
        (speed(100.0, first_loss=math.nan), 1.5, "fail"),
    ],
)
def test_compiled_against_eager(eager, speedup, status):
    result = bench_gpt2.judge_compiled(speed(150.0), eager, COLD, THRESHOLDS[COMPILED])
    assert result["status"] == status
    assert result["numbers"].get("speedup") == speedup
    assert result["numbers"]["compile_cold_s"] == 30.12
    assert result.get("cause") == ("numerics-wrong" if status == "fail" else None)


NO_STEP = "    torch.optim.AdamW.step = lambda self, *arguments: None\n"
# Logits that are much too sure of themselves: as if the network's scale were lost.
WRONG_NUMBERS = """
    norm = torch.nn.functional.layer_norm
    torch.nn.functional.layer_norm = lambda *arguments: norm(*arguments) * 50
"""


@pytest.mark.parametrize(
    ("source", "status", "cause"),
    [("", "pass", None), (NO_STEP, "fail", "training-diverged"), (WRONG_NUMBERS, "fail", "numerics-wrong")],
    ids=["right", "no step", "wrong numbers"],
)
def test_a_tiny_one_on_a_cpu(deployed, real_torch, source, status, cause):
    result = run(deployed, real_torch, EAGER, source=source)
    end = result.end(EAGER)
    assert (end["status"], end.get("cause")) == (status, cause)
    if status == "pass":
        numbers = end["numbers"]
        assert numbers["last_loss"] < numbers["first_loss"]
        assert numbers["first_loss"] == pytest.approx(numbers["even_loss"], abs=0.5)
        assert (end["unit"], end["device"]) == ("tokens/s", "cpu")


# torch.compile that compiles nothing: what is proved is the way through the two processes, and their figures.
PRETENDED_COMPILER = """
    import time
    def compile(model, **settings):
        assert settings == {"dynamic": False}
        first = [True]
        def forward(tokens):
            if first:
                first.clear()
                time.sleep(0.5)
            BREAK
            return model(tokens)
        return forward
    torch.compile = compile
"""


@pytest.mark.parametrize(
    ("broken", "status"),
    [("", "pass"), ('raise RuntimeError("LLVM ERROR: cannot select")', "fail")],
    ids=["right", "raises"],
)
def test_compiling_in_a_fresh_process_and_again(deployed, real_torch, broken, status):
    source = PRETENDED_COMPILER.replace("BREAK", broken)
    result = run(deployed, real_torch, EAGER, COMPILED, source=source)
    assert result.statuses()[EAGER] == "pass"
    end = result.end(COMPILED)
    assert end["status"] == status, end
    if status == "pass":
        assert end["numbers"]["compile_cold_s"] >= 0.4
        assert end["numbers"]["compile_warm_s"] >= 0.4
        assert end["numbers"]["speedup"] > 0
    else:
        assert "LLVM ERROR" in end["evidence"]


# The fused optimiser is a CUDA kernel, which a pretended card does not have.
NOT_FUSED = (
    "    bench_gpt2.adamw = lambda torch, model, device: (torch.optim.AdamW(model.parameters(), lr=3e-4), False)\n"
)


def test_on_a_card_in_bfloat16_with_its_share_of_the_peak(deployed, real_torch):
    card = {**CARD, "peak_tflops": {"bf16": 1.0}}
    result = run(deployed, real_torch, EAGER, device="cuda:0", cards=[card], source=FIXED_CLOCK + NOT_FUSED)
    end = result.end(EAGER)
    assert end["status"] in ("pass", "warn"), end
    assert (end["device"], end["numbers"]["precision"]) == ("cuda:0", "amp-bf16")
    assert end["numbers"]["share_of_peak"] == pytest.approx(2 * end["numbers"]["mfu"], rel=0.05)


def test_autocast_that_does_nothing(deployed, real_torch):
    source = """
    import contextlib
    torch.autocast = lambda *arguments, **settings: contextlib.nullcontext()
"""
    result = run(deployed, real_torch, EAGER, device="cuda:0", source=FIXED_CLOCK + NOT_FUSED + source)
    end = result.end(EAGER)
    assert (end["status"], end["numbers"]["output_dtype"]) == ("fail", "torch.float32")
    assert end["evidence"] == "autocast did nothing: the outputs are torch.float32, not torch.bfloat16"
