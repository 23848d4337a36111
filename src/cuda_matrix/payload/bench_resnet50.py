"""Owns the training benchmark: images/s of ResNet-50 on synthetic images, optimiser step included.

On CUDA: 224×224, mixed precision in fp16 with loss scaling, channels_last, SGD with momentum; the batch is chosen by
memory, and halved where it does not fit. On the CPU: fp32, tiny images and batch: it proves the code path and ranks
nothing.
"""

from __future__ import annotations

import gc
import resource

from . import resnet, samples, timing
from .context import failed, result

SEED = 20240504
CUDA_SIDE = 224  # pixels
CPU_SIDE, CPU_BATCH = 64, 2
# From this many bytes of GPU memory on, this batch to begin with.
CUDA_BATCHES = ((40e9, 256), (20e9, 128), (10e9, 64), (6e9, 32), (0.0, 8))
AMP_FROM = (7, 0)  # compute capability with tensor cores; older cards train in fp32


class Training:
    """One network, one batch of synthetic images, one optimiser: `step` trains once."""

    def __init__(self, torch, device, batch: int, amp: bool):
        self._torch = torch
        layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        side = CUDA_SIDE if device.type == "cuda" else CPU_SIDE
        torch.manual_seed(SEED)
        self.model = resnet.resnet50(torch).to(device=device, memory_format=layout)
        self._images = torch.randn(batch, 3, side, side).to(device=device, memory_format=layout)
        self._labels = (torch.arange(batch) % resnet.CLASSES).to(device)
        self._optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
        self._scaler = _scaler(torch) if amp else None
        self._loss = None
        self.losses = []  # one per call of `note_loss`

    def step(self):
        """Forward, backward, update. Nothing here waits for the device."""
        self._optimizer.zero_grad(set_to_none=True)
        if self._scaler is None:
            self._loss = self._forward()
            self._loss.backward()
            self._optimizer.step()
        else:
            with self._torch.autocast("cuda", dtype=self._torch.float16):
                self._loss = self._forward()
            self._scaler.scale(self._loss).backward()
            self._scaler.step(self._optimizer)
            self._scaler.update()

    def _forward(self):
        return self._torch.nn.functional.cross_entropy(self.model(self._images), self._labels)

    def note_loss(self):
        """Keep the loss of the last step; waits for the device, so only between rounds."""
        self.losses.append(float(self._loss.detach()))


def train(context):
    """Measure; the batch is halved while it does not fit into the card's memory."""
    import torch

    device = torch.device(context.device)
    budget = timing.BUDGETS[context.profile]
    amp = False
    batch = CPU_BATCH
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        amp = torch.cuda.get_device_capability(device) >= AMP_FROM
        memory = torch.cuda.get_device_properties(device).total_memory
        batch = next(size for least, size in CUDA_BATCHES if memory >= least)
    else:
        torch.set_num_threads(timing.CPU_THREADS)
    first_batch = batch
    while True:
        measured = _attempt(torch, device, batch, amp, budget)
        if measured is not None or batch == 1:
            break
        batch //= 2
    numbers = {
        "batch": batch,
        "batch_halved": first_batch != batch,
        "image_side": CUDA_SIDE if device.type == "cuda" else CPU_SIDE,
        "precision": "amp-fp16" if amp else "fp32",
        "channels_last": device.type == "cuda",
        "rounds": budget.rounds,
    }
    if device.type == "cpu":
        numbers["cpu_threads"] = timing.CPU_THREADS
    if measured is None:
        text = "one image does not fit into the GPU's memory"
        return failed(text, evidence=text, cause="gpu-oom", device=str(device), numbers=numbers)
    measurement, losses, peak_gb, ran_on = measured
    numbers.update(peak_memory_gb=round(peak_gb, 3), steps_per_sample=measurement.steps, last_loss=losses[-1])
    return judge(measurement, losses, numbers, ran_on)


def judge(measurement, losses, numbers, ran_on):
    """The result for samples in seconds per step, and the loss after each round."""
    keys = {"device": ran_on, "numbers": numbers}
    numbers["stable"] = False
    if not all(samples.finite(loss) for loss in losses):
        text = f"the loss is not finite: {losses}"
        return failed("the loss is not finite", evidence=text, cause="training-diverged", **keys)
    wrong = samples.impossible(measurement.all)
    if wrong:
        return result("invalid", wrong, evidence=wrong, **keys)
    rates = [[numbers["batch"] / seconds for seconds in each] for each in measurement.rounds]
    summary = samples.summarise([rate for each in rates for rate in each])
    numbers["drift"] = samples.drift(rates)
    numbers["stable"] = len(rates) > 1 and abs(numbers["drift"]) <= samples.STABLE_DRIFT
    device_type = ran_on.partition(":")[0]
    status, remark = samples.judge_spread(summary, device_type)
    if status == "pass" and device_type == "cuda" and not numbers["stable"]:
        status = "warn"
        remark = "not stable: the last round's median is {:+.1%} off the first's".format(numbers["drift"])
    text = "{:.4g} images/s on {}, batch {batch}, {precision}".format(summary["median"], ran_on, **numbers)
    if remark:
        text += ": " + remark
    thresholds = {**samples.bounds(device_type), "drift": samples.STABLE_DRIFT}
    return result(status, text, samples=summary, thresholds=thresholds, **keys)


def _attempt(torch, device, batch, amp, budget):
    """(measurement, losses, peak memory in 1e9 bytes, device), or None where the memory does not suffice."""
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        training = Training(torch, device, batch, amp)
        measurement = timing.measure(torch, device, training.step, budget, training.note_loss)
    except RuntimeError as error:  # torch.cuda.OutOfMemoryError is one, and is newer than some images
        if device.type != "cuda" or "out of memory" not in str(error):
            raise
        training = measurement = None
    if measurement is None:  # outside `except`: the exception's traceback would keep the tensors alive
        gc.collect()
        torch.cuda.empty_cache()
        return None
    if device.type == "cuda":
        peak_gb = torch.cuda.max_memory_allocated(device) / 1e9
    else:  # growth of the process, which began as a copy of one with torch in it
        peak_gb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) * 1024 / 1e9
    return measurement, training.losses, peak_gb, str(next(training.model.parameters()).device)


def _scaler(torch):
    """Loss scaling, by its new name where there is one (torch 2.3)."""
    new = getattr(torch.amp, "GradScaler", None)
    return new("cuda") if new is not None else torch.cuda.amp.GradScaler()
