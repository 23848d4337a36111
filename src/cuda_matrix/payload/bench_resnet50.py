"""Owns the ResNet-50 benchmarks: images/s of training (optimiser step included) and of inference, on synthetic images.

On CUDA: 224×224 images; mixed precision in fp16 with loss scaling and channels_last, TF32, or strict fp32. The batch is
chosen by memory, and halved where it does not fit. On the CPU: fp32, tiny images and batch: it proves the code path and
ranks nothing. Must not know how the network is built (resnet), nor how a step is timed.
"""

from __future__ import annotations

import copy

from . import batches, figures, learning, numerics, precisions, resnet, timing
from .context import failed, skipped

SEED = 20240504
CUDA_SIDE = 224  # pixels
CPU_SIDE, CPU_BATCH = 64, 2
# From this many bytes of GPU memory on, this batch to begin with.
CUDA_BATCHES = ((40e9, 256), (20e9, 128), (10e9, 64), (6e9, 32), (0.0, 8))
AMP_FROM = (7, 0)  # compute capability with tensor cores; older cards train in fp32
REFERENCE_IMAGES = 2  # that inference is compared on


def train(context):
    """Mixed precision: the headline."""
    return _benchmark(context, "amp-fp16", _train)


def train_tf32(context):
    """fp32 tensors, products and convolutions on tensor cores in TF32."""
    return _benchmark(context, "tf32", _train)


def train_fp32(context):
    """IEEE single precision, TF32 off."""
    return _benchmark(context, "fp32", _train)


def infer(context):
    """Mixed precision, no gradients."""
    return _benchmark(context, "amp-fp16", _infer)


def infer_tf32(context):
    """TF32, no gradients."""
    return _benchmark(context, "tf32", _infer)


def infer_fp32(context):
    """IEEE single precision, no gradients."""
    return _benchmark(context, "fp32", _infer)


class Setting:
    """Where a network runs and how: device, precision (amp-fp16, tf32, fp32), layout, size of the images."""

    def __init__(self, torch, device, precision: str):
        self.torch = torch
        self.device = device
        self.precision = precision
        self.channels_last = device.type == "cuda" and precision != "fp32"  # what tensor cores want
        self.layout = torch.channels_last if self.channels_last else torch.contiguous_format
        self.side = CUDA_SIDE if device.type == "cuda" else CPU_SIDE

    def turn_switches(self):
        """Let cuDNN try its algorithms; TF32 only where it is what is measured."""
        self.torch.backends.cudnn.benchmark = True
        precisions.set_tf32(self.torch, self.precision == "tf32")

    def network(self):
        """A seeded ResNet-50."""
        self.torch.manual_seed(SEED)
        return resnet.resnet50(self.torch).to(device=self.device, memory_format=self.layout)

    def images(self, batch):
        """Random images, on the device."""
        return self.torch.randn(batch, 3, self.side, self.side).to(device=self.device, memory_format=self.layout)

    def autocast(self):
        """The context in which the forward pass runs; does nothing where the precision is not mixed."""
        mixed = self.precision == "amp-fp16"
        return self.torch.autocast(self.device.type, dtype=self.torch.float16 if mixed else None, enabled=mixed)

    def output_dtype(self) -> str:
        """The dtype that the network's outputs must have."""
        return "torch.float16" if self.precision == "amp-fp16" else "torch.float32"

    def numbers(self):
        """What a reader must know of the setting."""
        found = {"image_side": self.side, "precision": self.precision, "channels_last": self.channels_last}
        if self.device.type == "cpu":
            found["cpu_threads"] = timing.CPU_THREADS
        return found


class Training(learning.Training):
    """One network, one batch of synthetic images, SGD with momentum."""

    def __init__(self, setting: Setting, batch: int):
        torch = setting.torch
        self._setting = setting
        model = setting.network()
        self._images = setting.images(batch)
        self._labels = (torch.arange(batch) % resnet.CLASSES).to(setting.device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
        super().__init__(torch, model, optimizer, next(model.parameters()), scaled=setting.precision == "amp-fp16")

    def loss(self):
        with self._setting.autocast():
            outputs = self.model(self._images)
            self.output_dtype = str(outputs.dtype)
            return self._setting.torch.nn.functional.cross_entropy(outputs, self._labels)


class Inference:
    """One network with settled statistics, one batch of images: `step` looks at them once."""

    def __init__(self, setting: Setting, batch: int):
        self._setting = setting
        self._torch = setting.torch
        self.model = setting.network()
        self._images = setting.images(batch)
        # A fresh network's statistics are not those of its activations; one pass over the images settles them.
        for module in self.model.modules():
            if isinstance(module, self._torch.nn.BatchNorm2d):
                module.momentum = 1.0
        self.step()
        self.model.eval()

    def step(self):
        """Forward, without gradients."""
        with self._torch.no_grad(), self._setting.autocast():
            return self.model(self._images)

    def seen(self) -> dict:
        """What the outputs are like, and how far they are from fp32 on the CPU: `judge_outputs` reads it."""
        first, second = self.step(), self.step()
        whole = first.float()
        with self._torch.no_grad():
            reference = copy.deepcopy(self.model).to("cpu", memory_format=self._torch.contiguous_format)
            images = self._images[:REFERENCE_IMAGES].to("cpu", memory_format=self._torch.contiguous_format)
            expected = reference(images)
        return {
            "output_dtype": str(first.dtype),
            "finite": bool(whole.isfinite().all()),
            "constant": bool((whole == whole[0, 0]).all()) or (len(whole) > 1 and bool((whole == whole[0]).all())),
            "repeats_equal": self._torch.equal(first, second),
            "frobenius": numerics.frobenius(whole[:REFERENCE_IMAGES].cpu(), expected),
        }


def _benchmark(context, precision, measure):
    import torch

    device = torch.device(context.device)
    reason, precision = usable(torch, device, precision)
    if reason:
        return skipped(reason, device=str(device))
    setting = Setting(torch, device, precision)
    setting.turn_switches()
    first_batch = batches.chosen(torch, device, CUDA_BATCHES, CPU_BATCH)
    batch, found = yield from batches.fitted(torch, device, first_batch, lambda batch: measure(context, setting, batch))
    numbers = {"batch": batch, "batch_halved": batch != first_batch, **setting.numbers()}
    if found is None:
        text = "one image does not fit into the GPU's memory"
        return failed(text, evidence=text, cause="gpu-oom", device=str(device), numbers=numbers)
    measurement, more, ran_on, wrong = found
    numbers.update(more)
    what = "batch {batch}, {precision}".format(**numbers)
    answer = figures.judged(context, measurement, batch, numbers, ran_on, what)
    if measure is _infer:
        answer["thresholds"]["frobenius"] = context.thresholds["frobenius_" + precision]
    return learning.judged(answer, wrong, "training-diverged" if measure is _train else "numerics-wrong")


def usable(torch, device, precision):
    """(why this precision cannot be measured here or "", the precision that will be)."""
    if device.type == "cpu":
        return ("TF32 needs a GPU" if precision == "tf32" else ""), "fp32"
    if precisions.too_old(torch, device, precision):
        return precisions.needs(torch, device, precision), precision
    if precision == "amp-fp16" and torch.cuda.get_device_capability(device) < AMP_FROM:
        return "", "fp32"
    return "", precision


def _train(context, setting, batch):
    """(measurement, numbers, device, what is wrong with the training)."""
    memory = batches.PeakMemory(setting.torch, setting.device)
    training = Training(setting, batch)
    measurement = yield from timing.measured(context, setting.torch, training.step, after_round=training.note_loss)
    more = {"peak_memory_gb": memory.gb(), "last_loss": training.losses[-1], "output_dtype": training.output_dtype}
    ran_on = str(next(training.model.parameters()).device)
    wrong = learning.autocast_complaint(training.output_dtype, setting.output_dtype())
    wrong = wrong or learning.complaint(training.losses, training.weights_moved())
    return measurement, more, ran_on, wrong


def _infer(context, setting, batch):
    """(measurement, numbers, device, what is wrong with the outputs)."""
    memory = batches.PeakMemory(setting.torch, setting.device)
    inference = Inference(setting, batch)
    measurement = yield from timing.measured(context, setting.torch, inference.step)
    peak_gb = memory.gb()
    seen = inference.seen()
    most = context.thresholds["frobenius_" + setting.precision]
    wrong = learning.autocast_complaint(seen["output_dtype"], setting.output_dtype()) or judge_outputs(seen, most)
    return measurement, {"peak_memory_gb": peak_gb, **seen}, str(inference.step().device), wrong


def judge_outputs(seen: dict, most: float) -> str:
    """What is wrong with the outputs of inference, or ""."""
    if not seen["finite"]:
        return "the outputs are not finite"
    if seen["constant"]:
        return "the outputs are constant: they do not depend on the images"
    if not seen["repeats_equal"]:
        return "the same batch twice gives two outputs"
    if not seen["frobenius"] <= most:
        return "the outputs are {:.2g} off fp32 on the CPU (relative Frobenius error), above {:.2g}".format(
            seen["frobenius"], most
        )
    return ""
