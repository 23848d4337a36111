"""Owns the training checks: a small CNN and a two-layer transformer learn a made-up problem, in every precision.

The loss must fall, every parameter must get a gradient, the first losses in fp32 must be those of float64 on the CPU,
and fp16 must work with loss scaling. Must not know how fast any of it is.
"""

from __future__ import annotations

from . import learning, precisions, samples
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


def judge(plain, true_losses, mixed, thresholds, notes=None):
    """The verdict: the fp32 run, float64's first losses, {precision: mixed run}, {precision: why it was left out}."""
    numbers = {"first_loss": plain.losses[0], "last_loss": plain.losses[-1], "steps": len(plain.losses)}
    numbers["curve_difference"] = curve_difference(plain.losses, true_losses)
    for name, run in mixed.items():
        numbers.update({name + ".first_loss": run.losses[0], name + ".last_loss": run.losses[-1]})
        if run.scale is not None:
            numbers.update({name + ".scale": run.scale, name + ".skipped_steps": run.skipped})
    numbers.update({name: "not tried: " + why for name, why in (notes or {}).items() if why})
    keys = {"device": plain.ran_on, "numbers": numbers, "thresholds": dict(thresholds)}
    wrong = [f"fp32: {text}" for text in complaints(plain, thresholds)]
    if not numbers["curve_difference"] <= thresholds["curve_difference"]:
        pairs = ", ".join(f"{ours:.6g} / {true:.6g}" for ours, true in zip(plain.losses, true_losses))
        wrong.append("fp32: the first losses are not float64's: " + pairs)
    for name, run in mixed.items():
        wrong += [f"{name}: {text}" for text in complaints(run, thresholds)]
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
        loss = _forward(torch, task, model, (inputs, targets), precision)
        run.losses.append(float(loss.detach()))
        optimizer.zero_grad()
        if scaler is None:
            loss.backward()
            optimizer.step()
        else:
            run.skipped += _scaled_step(scaler, loss, optimizer)
            run.scale = float(scaler.get_scale())
        if step == 0:
            run.without_gradient = _without_gradient(model)
    if scaler is not None:
        loss = _forward(torch, task, model, (inputs, targets), precision)
        optimizer.zero_grad()
        run.overflow_kept = not _scaled_step(scaler, loss * float("inf"), optimizer)
    return run


def _forward(torch, task, model, batch, precision):
    inputs, targets = batch
    if not precision:
        return task.loss(model(inputs), targets)
    with torch.autocast(inputs.device.type, dtype=precisions.dtype(torch, precision)):
        output = model(inputs)
    return task.loss(output.float(), targets)


def _scaled_step(scaler, loss, optimizer) -> bool:
    """One step with loss scaling; whether it was skipped (the scale falls where a gradient is not finite)."""
    before = scaler.get_scale()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    return scaler.get_scale() < before


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
