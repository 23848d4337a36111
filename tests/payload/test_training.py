"""Training: a network that does not learn, that learns something else than on the CPU, or that AMP spoils, is seen."""

from __future__ import annotations

from textwrap import indent

import pytest

CHECKS = ("training.cnn", "training.transformer")
GOOD = dict.fromkeys(("torch.import", "first-kernel", *CHECKS), "pass")


@pytest.fixture
def training(deployed, real_torch):
    """A function that runs both checks, on the CPU or on a pretended card, after some lines have broken torch."""

    def run(lines="", card=None, checks=CHECKS):
        deployed.use(real_torch)
        if card is not None:
            deployed.pretend_cuda(**card)
        if lines:
            deployed.mutate("def mutate(torch):\n" + indent(lines, "    "))
        return deployed.run(checks=checks, benchmarks=(), gpu_required=card is not None, limit_s=110.0)

    return run


def test_both_networks_learn(training):
    run = training()
    assert run.statuses() == GOOD
    for item in CHECKS:
        numbers = run.end(item)["numbers"]
        assert numbers["last_loss"] < 0.8 * numbers["first_loss"]
        assert numbers["curve_difference"] <= 1e-3
        assert numbers["fp16"].startswith("not tried")


NO_STEP = "torch.optim.{}.step = lambda self, closure=None: None"
LOST_GRADIENT = """
def forward(self, images):
    weight = self.weight.detach() if self.in_channels == 3 else self.weight
    return torch.nn.functional.conv2d(images, weight, None, self.stride, self.padding)
torch.nn.Conv2d.forward = forward
"""
NAN_LOSS = """
true = torch.nn.BatchNorm2d.forward
torch.nn.BatchNorm2d.forward = lambda self, images: true(self, images) * float("nan")
"""
WRONG_IN_FP32 = """
true = torch.nn.Conv2d.forward
def forward(self, images):
    result = true(self, images)
    return result + 0.01 * result.roll(1, -1) if images.dtype == torch.float32 else result
torch.nn.Conv2d.forward = forward
"""
LOST_ROWS = """
true = torch.nn.Embedding.forward
torch.nn.Embedding.forward = lambda self, tokens: true(self, tokens).detach()
"""


@pytest.mark.parametrize(
    ("lines", "item", "words"),
    [
        (NO_STEP.format("SGD"), "training.cnn", "fp32: in 20 steps the loss does not fall"),
        (NO_STEP.format("AdamW"), "training.transformer", "fp32: in 20 steps the loss does not fall"),
        (LOST_GRADIENT, "training.cnn", "no gradient reached 0.weight"),
        (LOST_ROWS, "training.transformer", "no gradient reached tokens.weight"),
        (NAN_LOSS, "training.cnn", "the loss is not finite"),
        (WRONG_IN_FP32, "training.cnn", "the first losses are not float64's"),
    ],
    ids=["sgd-does-not-step", "adamw-does-not-step", "lost-gradient", "lost-embedding", "nan", "wrong-convolution"],
)
def test_a_network_that_does_not_learn_as_it_should(training, lines, item, words):
    run = training(lines)
    assert run.statuses() == {**GOOD, item: "fail"}
    end = run.end(item)
    assert words in end["evidence"]
    assert end["cause"] == "training-diverged"


# Losses fall all the same: AdamW hides the size of a gradient, and so does mixed precision's share of 0.8.
DISPATCHED = """
from torch.utils._python_dispatch import TorchDispatchMode
class Wrong(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.__name__.split(".")[0]
        CHANGE
        return out
mode = Wrong()
mode.__enter__()
"""
FIRST = "(next(o for o in out if o is not None) if isinstance(out, tuple) else out)"
EMBEDDING_TWICE = "if name == 'embedding_dense_backward' and out.dtype != torch.float64: out = out * 2"
TRANSPOSED_LEFT = (
    "if name == 'mm' and out.dtype == torch.float32 and args[0].stride(0) == 1 < args[0].stride(1): out = out * 1.05"
)
HALVED_CONVOLUTION = (
    f"if name == 'convolution_backward' and {FIRST}.dtype == torch.bfloat16:"
    " out = tuple(o if o is None else o * 0.5 for o in out)"
)
HALVED_PRODUCT = "if name == 'mm' and out.dtype == torch.bfloat16: out = out * 0.5"


@pytest.mark.parametrize(
    ("change", "item", "words"),
    [
        (EMBEDDING_TWICE, "training.transformer", "fp32: the first gradient of tokens.weight is not float64's: F = 1"),
        (TRANSPOSED_LEFT, "training.transformer", "fp32: the first gradients are not float64's"),
        (HALVED_CONVOLUTION, "training.cnn", "bf16: the first gradient"),
        (HALVED_PRODUCT, "training.transformer", "bf16: the first gradients are not float64's"),
    ],
    ids=["embedding-twice", "transposed-left", "bf16-convolution-halved", "bf16-product-halved"],
)
def test_a_wrong_gradient_with_which_the_loss_falls(training, change, item, words):
    run = training(DISPATCHED.replace("CHANGE", change), checks=(item,))
    assert {**run.statuses(), item: ""} == {"torch.import": "pass", "first-kernel": "pass", item: ""}
    end = run.end(item)
    assert end["status"] == "fail", end
    assert words in end["evidence"]
    assert "does not fall" not in end["evidence"]


NO_AUTOCAST = """
import contextlib
torch.autocast = lambda *arguments, **settings: contextlib.nullcontext()
"""


@pytest.mark.parametrize("card", [None, {"capability": (8, 6)}], ids=["cpu", "card"])
def test_autocast_that_does_nothing(training, card):
    run = training(NO_AUTOCAST, card=card)
    assert run.statuses() == {**GOOD, **dict.fromkeys(CHECKS, "fail")}
    for item in CHECKS:
        assert "bf16: autocast did nothing: the outputs are torch.float32" in run.end(item)["evidence"]
        assert ("fp16: autocast did nothing" in run.end(item)["evidence"]) is (card is not None)


def test_loss_scaling_on_a_pretended_card(training):
    run = training(card={"capability": (8, 6)})
    assert run.statuses() == GOOD
    for item in CHECKS:
        end = run.end(item)
        assert end["device"] == "cuda:0"
        assert end["numbers"]["fp16.skipped_steps"] == 0
        assert end["numbers"]["bf16.last_loss"] < 0.8 * end["numbers"]["bf16.first_loss"]


def test_a_card_without_bfloat16(training):
    end = training(card={"capability": (7, 5)}, checks=CHECKS[:1]).end("training.cnn")
    assert end["status"] == "pass"
    assert end["numbers"]["bf16"] == "not tried: this card has no bfloat16"


BLIND_TO_OVERFLOW = """
def unscale(gradients, found_inf, inverse_scale):
    for gradient in gradients:
        gradient.mul_(inverse_scale)
torch._amp_foreach_non_finite_check_and_unscale_ = unscale
"""
SKIPS_EVERY_STEP = """
kind = getattr(torch.amp, "GradScaler", torch.cuda.amp.GradScaler)
true = kind.scale
kind.scale = lambda self, loss: true(self, loss) * float("inf")
"""


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (BLIND_TO_OVERFLOW, "fp16: a step with an infinite gradient was applied"),
        (SKIPS_EVERY_STEP, "fp16: loss scaling skipped 20 of 20 steps"),
    ],
    ids=["blind", "skips"],
)
def test_loss_scaling_that_does_not_work(training, lines, words):
    end = training(lines, card={"capability": (8, 6)}, checks=CHECKS[:1]).end("training.cnn")
    assert end["status"] == "fail"
    assert words in end["evidence"]
