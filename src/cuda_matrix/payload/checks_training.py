"""Owns the training check: a small convolutional network learns a made-up problem, and its loss falls."""

from __future__ import annotations

from . import samples
from .context import failed, passed

SEED = 20240502
STEPS = 30
BATCH = 64
CLASSES = 4
SIDE = 32  # pixels
MUST_FALL_TO = 0.8  # of the first loss


def cnn(context):
    """Train for a few steps on seeded synthetic images; the last loss must be finite and well below the first."""
    import torch

    device = torch.device(context.device)
    torch.manual_seed(SEED)
    images, labels = _data(torch)
    model = _model(torch).to(device)
    ran_on = str(next(model.parameters()).device)
    losses = _train(torch, model, images.to(device), labels.to(device))
    return judge(losses, ran_on)


def judge(losses, ran_on):
    """The verdict on the losses of every step, in order."""
    first, last = losses[0], losses[-1]
    numbers = {"first_loss": first, "last_loss": last, "steps": len(losses), "batch": BATCH, "image_side": SIDE}
    keys = {"device": ran_on, "numbers": numbers, "thresholds": {"last_over_first": MUST_FALL_TO}}
    if not all(samples.finite(loss) for loss in losses):
        text = f"losses: {losses}"
        return failed("the loss is not finite", evidence=text, cause="training-diverged", **keys)
    if not last < MUST_FALL_TO * first:
        text = f"loss {first:.3g} → {last:.3g} in {len(losses)} steps"
        return failed("the loss does not fall", evidence=text, cause="training-diverged", **keys)
    return passed(f"on {ran_on}: loss {first:.3g} → {last:.3g} in {len(losses)} steps", **keys)


def _data(torch):
    """Images whose class is the quadrant that is brighter, in noise: learnable, and nothing to download."""
    generator = torch.Generator().manual_seed(SEED)
    labels = torch.arange(BATCH) % CLASSES
    images = torch.randn(BATCH, 3, SIDE, SIDE, generator=generator)
    half = SIDE // 2
    for index in range(BATCH):
        row, column = divmod(int(labels[index]), 2)
        images[index, :, row * half : (row + 1) * half, column * half : (column + 1) * half] += 1.5
    return images, labels


def _model(torch):
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * (SIDE // 4) ** 2, CLASSES),
    )


def _train(torch, model, images, labels):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
