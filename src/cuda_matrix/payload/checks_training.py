"""Owns the training checks: a small CNN and a two-layer transformer learn a made-up problem, in every precision.

The loss must fall, the first step's gradient of every parameter and the first losses must be those of float64 on the
CPU, autocast must have done something, and fp16 must work with loss scaling. Must not know how fast any of it is.
"""

from __future__ import annotations

import math

from . import learning, numerics, precisions, samples
from .context import exception_line, failed, passed

SEED = 20240502
STEPS = 20
CURVE_STEPS = 5  # later steps amplify rounding: they prove nothing about a single operation
# Small enough that no gradient of these networks overflows: every skipped step is then a defect.
INITIAL_SCALE = 4096.0
CNN_BATCH, CNN_CLASSES, CNN_SIDE = 32, 4, 32  # images, classes, pixels
TEXT_BATCH, TEXT_LENGTH, TEXT_TOKENS, TEXT_WIDTH = 16, 12, 17, 32  # sequences, tokens in each, vocabulary, features


def cnn(context):
    """Convolutions, batch normalisation, SGD with momentum: the brighter quadrant of a noisy image."""
    return _check(context, _Images)


def transformer(context):
    """Embeddings, two encoder layers with a causal mask, AdamW: the next term of an arithmetic sequence."""
    return _check(context, _Sequences)


def _check(context, task):
    import torch

    device = torch.device(context.device)
    precisions.set_tf32(torch, False)  # the first losses shall be float64's
    plain = train(torch, task(torch), device, STEPS)
    true = train(torch, task(torch, torch.float64), torch.device("cpu"), CURVE_STEPS)
    _compare_gradients(plain, true, context.thresholds)
    mixed, notes = {}, {}
    for name in ("fp16", "bf16"):
        notes[name] = _why_not(torch, device, name)
        if notes[name]:
            continue
        try:
            mixed[name] = train(torch, task(torch), device, STEPS, name)
        except RuntimeError as error:
            if device.type != "cpu" or "not implemented for" not in str(error):
                raise
            notes[name] = exception_line(error)
            continue
        _compare_gradients(mixed[name], true, context.thresholds)
    plain.in_tf32 = precisions.tf32_on(torch, device)  # torch 1.13 cannot always switch it off
    return judge(plain, true.losses, mixed, context.thresholds, notes)


class Run:
    """What one training run has shown. `scale`, `skipped` and `overflow_kept` only with loss scaling."""

    def __init__(self, losses, ran_on: str, without_gradient=()):
        self.losses = losses
        self.ran_on = ran_on
        self.without_gradient = tuple(without_gradient)
        self.scale = None
        self.skipped = 0
        self.overflow_kept = False  # a step with an infinite gradient was applied instead of skipped
        self.output_dtype = ""  # of the network's outputs
        self.in_tf32 = False  # fp32 is computed in TF32, and nothing can be done about it
        self.gradients = {}  # the first step's, by the parameter's name: float64 on the CPU
        # Relative Frobenius errors of them against float64's: of all together, and of the worst parameter.
        self.gradient_error = self.parameter_error = 0.0
        self.worst_parameter = ""


def judge(plain, true_losses, mixed, thresholds, notes=None):
    """The verdict: the fp32 run, float64's first losses, {precision: mixed run}, {precision: why it was left out}."""
    numbers = {"first_loss": plain.losses[0], "last_loss": plain.losses[-1], "steps": len(plain.losses)}
    numbers["curve_difference"] = curve_difference(plain.losses, true_losses)
    numbers.update(_gradient_numbers("", plain))
    for name, run in mixed.items():
        numbers.update({name + ".first_loss": run.losses[0], name + ".last_loss": run.losses[-1]})
        numbers.update({name + ".first_loss_off": curve_difference(run.losses, true_losses[:1])})
        numbers.update({name + ".output_dtype": run.output_dtype, **_gradient_numbers(name + ".", run)})
        if run.scale is not None:
            numbers.update({name + ".scale": run.scale, name + ".skipped_steps": run.skipped})
    numbers.update({name: "not tried: " + why for name, why in (notes or {}).items() if why})
    keys = {"device": plain.ran_on, "numbers": numbers, "thresholds": dict(thresholds)}
    wrong = [f"fp32: {text}" for text in complaints(plain, thresholds)]
    if not numbers["curve_difference"] <= thresholds["curve_difference"]:
        pairs = ", ".join(f"{ours:.6g} / {true:.6g}" for ours, true in zip(plain.losses, true_losses))
        wrong.append("fp32: the first losses are not float64's: " + pairs)
    # TF32 has as many bits of mantissa as fp16.
    wrong += [f"fp32: {text}" for text in _wrong_gradients(plain, "fp16" if plain.in_tf32 else "fp32", thresholds)]
    for name, run in mixed.items():
        found = [*mixed_complaints(name, run, true_losses[0], thresholds), *complaints(run, thresholds)]
        wrong += [f"{name}: {text}" for text in found]
    if wrong:
        return failed(wrong[0], evidence="\n".join(wrong), cause="training-diverged", **keys)
    tried = ", ".join(["fp32", *mixed])
    fall = f"{plain.losses[0]:.3g} → {plain.losses[-1]:.3g}"
    return passed(f"on {plain.ran_on} in {tried}: loss {fall} in {len(plain.losses)} steps", **keys)


def complaints(run, thresholds):
    """What is wrong with one run by itself."""
    first, last = run.losses[0], run.losses[-1]
    share = thresholds["last_over_first"]
    if not all(samples.finite(loss) for loss in run.losses):
        yield "the loss is not finite: " + ", ".join(f"{loss:.3g}" for loss in run.losses)
    elif not last < share * first:
        yield f"in {len(run.losses)} steps the loss does not fall to {share:g} of the first: {first:.3g} → {last:.3g}"
    if run.without_gradient:
        yield "no gradient reached " + ", ".join(run.without_gradient)
    if run.scale is None:
        return
    if not (samples.finite(run.scale) and run.scale > 0):
        yield f"the loss scale has become {run.scale}"
    if run.skipped > thresholds["skipped_steps"]:
        yield f"loss scaling skipped {run.skipped} of {len(run.losses)} steps"
    if run.overflow_kept:
        yield "a step with an infinite gradient was applied: loss scaling does not see overflows"


def mixed_complaints(name, run, true_loss, thresholds):
    """What is wrong with a run in mixed precision that only its precision, and float64, can tell."""
    nothing = learning.autocast_complaint(run.output_dtype, "torch." + precisions.DTYPES[name])
    if nothing:
        yield nothing
    if not curve_difference(run.losses, [true_loss]) <= thresholds["first_loss_mixed"]:
        yield f"the first loss is not float64's: {run.losses[0]:.6g} / {true_loss:.6g}"
    yield from _wrong_gradients(run, name, thresholds)


def _wrong_gradients(run, name, thresholds):
    """What is wrong with the gradients of the first step, in the precision of that name."""
    # A CPU may keep half-precision sums in half precision, too.
    factor = thresholds["cpu_gradient_factor"] if run.ran_on == "cpu" and name == "bf16" else 1
    most = factor * thresholds["gradient_" + name]
    if not run.gradient_error <= most:
        yield f"the first gradients are not float64's: F = {run.gradient_error:.3g}, above {most:g}"
    most = factor * thresholds["parameter_gradient_" + name]
    if not run.parameter_error <= most:
        found = f"F = {run.parameter_error:.3g}, above {most:g}"
        yield f"the first gradient of {run.worst_parameter} is not float64's: {found}"


def _gradient_numbers(prefix, run):
    found = {"gradient_error": run.gradient_error, "parameter_gradient_error": run.parameter_error}
    return {prefix + key: value for key, value in dict(found, worst_parameter=run.worst_parameter).items()}


def _compare_gradients(run, true, thresholds):
    """Note how far the first gradients are from float64's: all together, and the worst parameter's.

    Where a parameter's gradient is small, its error counts against `gradient_floor` of all together.
    """
    whole = math.sqrt(sum(float(gradient.norm()) ** 2 for gradient in true.gradients.values()))
    squares = 0.0
    for name, expected in true.gradients.items():
        found, size = run.gradients.get(name), float(expected.norm())
        off = numerics.errors(found, expected)[0] * size if size else 0.0
        squares += off**2
        error = off / max(size, thresholds["gradient_floor"] * whole)
        if not error <= run.parameter_error:
            run.parameter_error, run.worst_parameter = error, name
    run.gradient_error = math.sqrt(squares) / whole


def curve_difference(losses, true_losses) -> float:
    """The largest relative difference of the first losses; infinite where one is not finite."""
    apart = [abs(ours - true) / abs(true) for ours, true in zip(losses, true_losses)]
    return max(apart) if all(samples.finite(each) for each in apart) else float("inf")


def train(torch, task, device, steps: int, precision: str = ""):
    """Train a fresh model; `precision` is "" (the model's own), fp16 (with loss scaling) or bf16."""
    model = task.model.to(device)
    inputs, targets = task.inputs.to(device), task.targets.to(device)
    optimizer = task.optimizer(model.parameters())
    scaler = learning.scaler(torch, init_scale=INITIAL_SCALE) if precision == "fp16" else None
    run = Run([], str(next(model.parameters()).device))
    for step in range(steps):
        loss, run.output_dtype = _forward(torch, task, model, (inputs, targets), precision)
        run.losses.append(float(loss.detach()))
        optimizer.zero_grad()
        before = _backward(scaler, loss, optimizer)
        if step == 0:
            run.without_gradient = _without_gradient(model)
            run.gradients = _gradients(model)
        run.skipped += _update(scaler, optimizer, before)
    if scaler is not None:
        run.scale = float(scaler.get_scale())
        loss, _ = _forward(torch, task, model, (inputs, targets), precision)
        optimizer.zero_grad()
        run.overflow_kept = not _update(scaler, optimizer, _backward(scaler, loss * float("inf"), optimizer))
    return run


def _forward(torch, task, model, batch, precision):
    """(loss, the dtype of the network's output)."""
    inputs, targets = batch
    if not precision:
        output = model(inputs)
        return task.loss(output, targets), str(output.dtype)
    with torch.autocast(inputs.device.type, dtype=precisions.dtype(torch, precision)):
        output = model(inputs)
    return task.loss(output.float(), targets), str(output.dtype)


def _backward(scaler, loss, optimizer):
    """Gradients, unscaled again where there is loss scaling; the scale they were computed with, or None."""
    if scaler is None:
        loss.backward()
        return None
    before = scaler.get_scale()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    return before


def _update(scaler, optimizer, before) -> bool:
    """The optimiser's step; whether loss scaling skipped it (the scale falls where a gradient is not finite)."""
    if scaler is None:
        optimizer.step()
        return False
    scaler.step(optimizer)
    scaler.update()
    return scaler.get_scale() < before


def _gradients(model):
    """The gradient of every parameter that has one; a copy, because torch 1.13 clears gradients in place."""
    found = ((name, parameter.grad) for name, parameter in model.named_parameters())
    return {name: gradient.detach().cpu().double().clone() for name, gradient in found if gradient is not None}


def _without_gradient(model):
    """Names of parameters that have no gradient, or nothing but zeros."""
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not bool(parameter.grad.detach().abs().sum() != 0)
    ]


def _why_not(torch, device, precision) -> str:
    """Why a mixed precision is not tried on this device, or ""."""
    if precision == "fp16" and device.type != "cuda":
        return "loss scaling is for CUDA devices"
    if precisions.too_old(torch, device, precision):
        return "this card has no bfloat16"
    return ""


class _Images:
    """Images whose class is the quadrant that is brighter, in noise: learnable, and nothing to download."""

    def __init__(self, torch, dtype=None):
        dtype = dtype or torch.float32
        generator = torch.Generator().manual_seed(SEED)
        half = CNN_SIDE // 2
        self._torch = torch
        self.targets = torch.arange(CNN_BATCH) % CNN_CLASSES
        images = torch.randn(CNN_BATCH, 3, CNN_SIDE, CNN_SIDE, generator=generator)
        for index, label in enumerate(self.targets.tolist()):
            row, column = divmod(label, 2)
            images[index, :, row * half : (row + 1) * half, column * half : (column + 1) * half] += 1.5
        self.inputs = images.to(dtype)
        torch.manual_seed(SEED)
        nn = torch.nn
        # No bias before a normalisation: it has no gradient but rounding.
        self.model = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * (CNN_SIDE // 8) ** 2, CNN_CLASSES),
        ).to(dtype)

    def optimizer(self, parameters):
        return self._torch.optim.SGD(parameters, lr=0.02, momentum=0.9)

    def loss(self, output, targets):
        return self._torch.nn.functional.cross_entropy(output, targets)


class _Sequences:
    """Sequences with a constant difference, modulo a prime: each term follows from the two before it."""

    def __init__(self, torch, dtype=None):
        dtype = dtype or torch.float32
        generator = torch.Generator().manual_seed(SEED)
        self._torch = torch
        starts = torch.randint(0, TEXT_TOKENS, (TEXT_BATCH, 1), generator=generator)
        strides = 1 + torch.arange(TEXT_BATCH).reshape(-1, 1) % 3
        tokens = (starts + strides * torch.arange(TEXT_LENGTH + 1)) % TEXT_TOKENS
        self.inputs, self.targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        torch.manual_seed(SEED)
        self.model = _language_model(torch).to(dtype)

    def optimizer(self, parameters):
        # A large epsilon keeps AdamW from turning gradients that are only rounding into whole steps.
        return self._torch.optim.AdamW(parameters, lr=0.01, eps=1e-4)

    def loss(self, output, targets):
        return self._torch.nn.functional.cross_entropy(output.flatten(0, 1), targets.flatten())


def _language_model(torch):
    class LanguageModel(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = torch.nn.Embedding(TEXT_TOKENS, TEXT_WIDTH)
            self.positions = torch.nn.Parameter(0.1 * torch.randn(TEXT_LENGTH, TEXT_WIDTH))
            self.layers = torch.nn.ModuleList(
                torch.nn.TransformerEncoderLayer(TEXT_WIDTH, 4, 2 * TEXT_WIDTH, dropout=0.0, batch_first=True)
                for _ in range(2)
            )
            self.head = torch.nn.Linear(TEXT_WIDTH, TEXT_TOKENS)
            self.register_buffer("mask", torch.ones(TEXT_LENGTH, TEXT_LENGTH, dtype=torch.bool).triu(1))

        def forward(self, inputs):
            hidden = self.tokens(inputs) + self.positions
            for layer in self.layers:
                hidden = layer(hidden, src_mask=self.mask)
            return self.head(hidden)

    return LanguageModel()
