"""Owns how fast a DataLoader with the articles' settings feeds: images/s, and whether that keeps ResNet-50 busy.

The images are cut, flipped and normalised by the workers, and not decoded. It is the host's work: the device is cpu.
Must not know how workers fail (checks_dataloader).
"""

from __future__ import annotations

import math
import os
import time

from . import cgroup, checks_dataloader, complaints, figures, samples, timing
from .context import exception_line, failed, result

SEED = 20240508
BATCH = 64
STORED, STORED_SIDE, SIDE = 64, 256, 224  # images in memory, their side and that of what is cut out, in pixels
MANY = 1 << 40  # images of an epoch: it never ends while we measure
MAX_WORKERS = 16
PREFETCH = 2  # batches that each worker prepares ahead
STUCK_S = 30  # seconds without a batch after which the DataLoader gives up
SAMPLE_S = 0.4  # and at least two batches of every worker: they come in bursts
CONSUMER = "resnet50.train"


class Images:
    """Image i: a cut of 224×224 out of stored random bytes, its place and whether it is flipped by i; and i."""

    def __init__(self, torch):
        self._torch = torch
        generator = torch.Generator().manual_seed(SEED)
        shape = (STORED, 3, STORED_SIDE, STORED_SIDE)
        self._stored = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        self._mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)  # ImageNet's
        self._deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

    def __len__(self):
        return MANY

    def __getitem__(self, index):
        left, top = index * 7 % (STORED_SIDE - SIDE + 1), index * 3 % (STORED_SIDE - SIDE + 1)
        image = self._stored[index % STORED, :, top : top + SIDE, left : left + SIDE]
        if index % 2:
            image = image.flip(-1)
        return image.to(self._torch.float32).div(255.0).sub(self._mean).div(self._deviation), index


def rate(context):
    """Batches by the clock, three rounds."""
    import torch

    count = workers()
    pinned = context.on_gpu
    numbers = {"workers": count, "batch": BATCH, "prefetch_factor": PREFETCH, "pinned": pinned, "persistent": True}
    images = Images(torch)
    heard = complaints.Stderr()  # a worker that dies says why on stderr; the exception says only that it has ended
    try:
        with heard:
            feed = iter(loader(torch, images, count, pinned))
            wrong = complaint(torch, images, next(feed))
            rounds = [] if wrong else _rounds(feed, count, timing.PLANS.get(context.profile, timing.PLANS["standard"]))
            del feed
    except (RuntimeError, OSError) as error:
        words = "\n".join([*complaints.exception_chain(error), heard.text])
        meaning, line, cause = checks_dataloader.blame(words)
        keys = {"cause": cause} if cause else {}
        text = meaning or "the DataLoader raised " + type(error).__name__
        return failed(text, evidence=line or exception_line(error), device="cpu", numbers=numbers, **keys)
    if wrong:
        return failed(wrong, evidence=wrong, device="cpu", numbers=numbers)
    return judge(rounds, numbers, context.results.get(CONSUMER) or {}, context.thresholds)


def workers() -> int:
    """One worker a CPU that this container may use."""
    count = float(len(os.sched_getaffinity(0)))
    quota = cgroup.cpu_quota()
    if quota is not None:
        count = min(count, math.ceil(quota))
    return max(1, min(MAX_WORKERS, int(count)))


def loader(torch, images, count, pinned):
    """The articles' settings; workers by fork, as in every Python up to 3.13."""
    return torch.utils.data.DataLoader(
        images,
        batch_size=BATCH,
        num_workers=count,
        pin_memory=pinned,
        prefetch_factor=PREFETCH,
        persistent_workers=True,
        timeout=STUCK_S,
        multiprocessing_context="fork",
    )


def complaint(torch, images, batch) -> str:
    """What is wrong with the first batch, or ""."""
    pictures, indexes = batch
    if indexes.tolist() != list(range(BATCH)):
        return f"the first batch has the images {indexes.tolist()[:5]} …, not 0 to {BATCH - 1} in order"
    for index in (0, 1, BATCH - 1):
        if not torch.equal(pictures[index].cpu(), images[index][0]):
            return f"image {index} of the first batch is not what was stored"
    return ""


def judge(rounds, numbers: dict, consumer: dict, thresholds: dict) -> dict:
    """The verdict on seconds per batch; `consumer` is the result of what has to be fed."""
    limits = {name: thresholds[name] for name in ("cv_warn_cpu", "cv_invalid_cpu")}
    keys = {"device": "cpu", "numbers": numbers, "thresholds": limits}
    rates, wrong = figures.rated(rounds, BATCH, "images/s", True)
    if wrong:
        return result("invalid", wrong, evidence=wrong, **keys)
    summary = samples.summarise([each for values in rates for each in values])
    text = "{:.4g} images/s from {workers} workers".format(summary["median"], **numbers)
    needed = (consumer.get("samples") or {}).get("median")
    if needed is None or not str(consumer.get("device")).startswith("cuda"):
        numbers["feeds_training"] = f"not compared: {CONSUMER} has no speed on a GPU here"
    else:
        numbers["training_images_per_s"] = round(needed, 1)
        numbers["feeds_training"] = summary["median"] >= needed
        text += ", {} for the {:.4g} of {}".format(
            "enough" if numbers["feeds_training"] else "too few", needed, CONSUMER
        )
    answer = result("pass", text, samples=summary, **keys)
    return figures.worsen(answer, *samples.judge_spread(summary, limits["cv_warn_cpu"], limits["cv_invalid_cpu"]))


def _rounds(feed, count, plan):
    """Seconds per batch, by round. What workers had prepared before the clock started is used up first."""
    timer = timing.CpuTimer(lambda: next(feed))
    for _ in range(2 * PREFETCH * count):
        started = time.perf_counter()
        next(feed)
        if time.perf_counter() - started > 1e-3:  # it had to be waited for
            break
    steps = max(2 * count, timer.steps_in(SAMPLE_S, timer.sample(2 * count)))
    return [timing.sample_round(timer, steps, plan) for _ in range(plan.rounds)]
