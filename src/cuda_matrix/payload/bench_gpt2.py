"""Owns the GPT-2 training benchmarks: tokens/s and the share of the card's peak, eager and compiled.

On CUDA: GPT-2 small, bfloat16 or fp16 by the card, AdamW, random tokens. On the CPU: a tiny one in fp32, which proves
the path and ranks nothing. Must not know how the network is built (gpt2), nor how a step is timed.
"""

from __future__ import annotations

import inspect
import math
import time

from . import attention, batches, figures, gpt2, isolated, learning, precisions, samples, scratch, timing
from .context import failed, unknown

SEED = 20240505
EAGER = "gpt2.train"
CPU_BATCH = 2
# From this many bytes of GPU memory on, this many sequences to begin with.
CUDA_BATCHES = ((70e9, 32), (40e9, 16), (20e9, 8), (10e9, 4), (6e9, 2), (0.0, 1))
# From this compute capability on, this precision.
PRECISIONS = (((8, 0), "amp-bf16"), ((7, 0), "amp-fp16"), ((0, 0), "fp32"))
MIXED = {"amp-bf16": "bf16", "amp-fp16": "fp16"}  # the precision of the products
COLD_SHARE = 0.6  # of the item's time that the first compilation may take


def train(context):
    """Eager."""
    import torch

    answer = yield from _benchmark(context, torch, None, compiled=False)
    return answer


def train_compiled(context):
    """Through torch.compile: first in a process of its own with an empty cache, then here with what that has filled."""
    import torch

    # Nothing before the fork may touch CUDA, whose state does not survive one; so the batch is the eager one's, or
    # the child chooses it.
    eager = context.results.get(EAGER) or {}
    with scratch.Folder("gpt2") as folder:
        isolated.set_environment(scratch.compiler_caches(folder))
        cold = _cold(context, torch, (eager.get("numbers") or {}).get("batch"))
        if cold.value is None:
            text = cold.error or cold.said()
            if cold.timed_out:
                return unknown("the time does not suffice to compile", evidence=text, device=context.device)
            cause = {"cause": "gpu-oom"} if batches.does_not_fit(text) else {}
            return failed("the first compilation failed", evidence=text, device=context.device, **cause)
        answer = yield from _benchmark(context, torch, cold.value["batch"], compiled=True)
    return judge_compiled(answer, eager, cold.value, context.thresholds)


class Training(learning.Training):
    """One GPT-2, one batch of random tokens, AdamW."""

    def __init__(self, torch, device, batch: int, compiled: bool):
        self._torch = torch
        self._device = device
        self.size = gpt2.SMALL if device.type == "cuda" else gpt2.TINY
        self.precision = precision(torch, device)
        torch.manual_seed(SEED)
        model = gpt2.gpt2(torch, self.size).to(device)
        tokens = torch.randint(self.size.vocabulary, (batch, self.size.positions + 1)).to(device)
        self._tokens, self._next = tokens[:, :-1].contiguous(), tokens[:, 1:].reshape(-1)
        optimizer, self.fused = adamw(torch, model, device)
        self._forward = torch.compile(model, dynamic=False) if compiled else model
        super().__init__(torch, model, optimizer, model.blocks[0].qkv.weight, scaled=self.precision == "amp-fp16")

    def loss(self):
        mixed = self.precision in MIXED
        dtype = precisions.dtype(self._torch, MIXED[self.precision]) if mixed else None
        with self._torch.autocast(self._device.type, dtype=dtype, enabled=mixed):
            logits = self._forward(self._tokens)
            self.output_dtype = str(logits.dtype)
            return self._torch.nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]), self._next)

    def begin(self) -> float:
        """The first step, whose loss is noted; how many seconds longer it took than a later one."""
        seconds = []
        for number in range(3):
            started = time.perf_counter()
            self.step()
            if number == 0:
                self.note_loss()  # waits for the device
            elif self._device.type == "cuda":
                self._torch.cuda.synchronize(self._device)
            seconds.append(time.perf_counter() - started)
        return max(0.0, seconds[0] - min(seconds[1:]))

    def numbers(self) -> dict:
        """What a reader must know of it."""
        return {
            "precision": self.precision,
            "tokens_per_sequence": self.size.positions,
            "layers": self.size.layers,
            "parameters": gpt2.count(self.model),
            "fused_optimizer": self.fused,
            "fused_attention": attention.has_fused(self._torch),
            "first_loss": self.losses[0],
            "even_loss": math.log(self.size.vocabulary),
            "last_loss": self.losses[-1],
            "output_dtype": self.output_dtype,
        }


def precision(torch, device) -> str:
    """The fastest that this card trains in."""
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
    return next(name for least, name in PRECISIONS if capability >= least)


def adamw(torch, model, device):
    """(AdamW as nanoGPT sets it, whether its step is one kernel): fused from torch 2.0 on, on a GPU."""
    settings = {"lr": 3e-4, "betas": (0.9, 0.95), "weight_decay": 0.1}
    fused = device.type == "cuda" and "fused" in inspect.signature(torch.optim.AdamW).parameters
    if fused:
        try:
            return torch.optim.AdamW(model.parameters(), fused=True, **settings), True
        except RuntimeError:  # this torch has it, but not for this device
            pass
    return torch.optim.AdamW(model.parameters(), **settings), False


def _cold(context, torch, batch):
    """What a fresh process with an empty cache answers: {seconds, batch, first_loss}; half the batch where it must."""
    ends = time.monotonic() + COLD_SHARE * context.limit_s
    while True:
        answer = isolated.call(lambda batch=batch: _first_step(context, torch, batch), ends - time.monotonic())
        too_large = answer.value is None and batches.does_not_fit(answer.error)
        if not too_large or not batch or batch == 1:
            return answer
        batch //= 2


def _first_step(context, torch, batch):
    device = torch.device(context.device)
    batch = batch or batches.chosen(torch, device, CUDA_BATCHES, CPU_BATCH)
    training = Training(torch, device, batch, compiled=True)
    return {"seconds": training.begin(), "batch": batch, "first_loss": training.losses[0]}


def _benchmark(context, torch, batch, compiled):
    device = torch.device(context.device)
    if device.type == "cpu":
        torch.set_num_threads(timing.CPU_THREADS)
    first_batch = batch or batches.chosen(torch, device, CUDA_BATCHES, CPU_BATCH)
    batch, found = yield from batches.fitted(
        torch, device, first_batch, lambda batch: _attempt(context, torch, batch, compiled)
    )
    numbers = {"batch": batch, "batch_halved": batch != first_batch}
    if found is None:
        text = "one sequence does not fit into the GPU's memory"
        return failed(text, evidence=text, cause="gpu-oom", device=str(device), numbers=numbers)
    measurement, training, more = found
    numbers.update(training.numbers(), **more)
    ran_on = str(next(training.model.parameters()).device)
    what = "batch {batch}, {precision}".format(**numbers)
    answer = figures.judged(context, measurement, batch * training.size.positions, numbers, ran_on, what)
    flop = training.size.flop_per_token(numbers["parameters"])
    answer = with_mfu(context, answer, flop)
    asked = "torch." + precisions.DTYPES[MIXED.get(training.precision, "fp32")]
    wrong, cause = learning.autocast_complaint(training.output_dtype, asked), "training-diverged"
    if not wrong:
        wrong, cause = judge_losses(training.losses, numbers["even_loss"], training.weights_moved(), context.thresholds)
    return learning.judged(answer, wrong, cause)


def _attempt(context, torch, batch, compiled):
    device = torch.device(context.device)
    if compiled:
        torch._dynamo.reset()  # a batch that did not fit must not make this one's shapes dynamic
    memory = batches.PeakMemory(torch, device)
    training = Training(torch, device, batch, compiled)
    more = {"compile_warm_s" if compiled else "first_step_s": round(training.begin(), 2)}
    measurement = yield from timing.measured(context, torch, training.step, after_round=training.note_loss)
    more["peak_memory_gb"] = memory.gb()
    return measurement, training, more


def judge_losses(losses, even_loss: float, weights_moved: bool, thresholds):
    """(what is wrong with the losses or "", its cause): an untrained network guesses evenly, a trained one better."""
    wrong = learning.complaint(losses, weights_moved)
    if wrong:
        return wrong, "training-diverged"
    most = thresholds["first_loss_off"]
    if abs(losses[0] - even_loss) > most:
        text = (
            f"the untrained network's loss is {losses[0]:.3f}, more than {most:g} off ln(vocabulary) = {even_loss:.3f}"
        )
        return text, "numerics-wrong"
    if not losses[-1] < losses[0]:
        return f"the loss does not fall: {losses[0]:.4g} → {losses[-1]:.4g}", "training-diverged"
    return "", ""


def with_mfu(context, answer: dict, flop_per_token: float) -> dict:
    """Add TFLOP/s of the model, and the share of the card's peak: nominal (mfu), and at the measured clock."""
    if "samples" not in answer or answer["device"] == "cpu":
        return answer
    numbers = answer["numbers"]
    numbers["model_tflops"] = round(answer["samples"]["median"] * flop_per_token / 1e12, 2)
    peak = figures.card_peak(context.card, MIXED.get(numbers["precision"], "fp32"))
    if peak is not None:
        numbers["mfu"] = round(numbers["model_tflops"] / peak.value, 4)
        peak = figures.Peak(peak.value * 1e12 / flop_per_token, peak.mhz, peak.certain)
    return figures.against_peak(context, answer, peak)


def judge_compiled(answer: dict, eager: dict, cold: dict, thresholds) -> dict:
    """The compiled benchmark's result, with its compile times and against the eager one's speed and first loss."""
    numbers = answer["numbers"]
    numbers["compile_cold_s"] = round(cold["seconds"], 2)
    before = eager.get("numbers") or {}
    if before.get("batch") == numbers["batch"] and eager.get("samples") and answer.get("samples"):
        numbers["speedup"] = round(answer["samples"]["median"] / eager["samples"]["median"], 3)
        answer["summary"] += ", {speedup:.2f} times eager".format(**numbers)
        most = thresholds["first_loss_from_eager"]
        difference = numbers["first_loss"] - before.get("first_loss", numbers["first_loss"])
        if not (samples.finite(difference) and abs(difference) <= most):
            text = f"the compiled network's first loss is {difference:+.3g} off the eager one's"
            return learning.judged(answer, text, "numerics-wrong")
    return answer
