"""Owns the DataLoader check: large batches arrive whole from workers, and which of three settings is faster here.

Workers hand over batches through /dev/shm. Must not know how Docker sets its size: it looks at what happens.
"""

from __future__ import annotations

import os
import re
import time

from . import complaints
from .context import failed, passed, unknown

BIG_ITEM = 1 << 20  # int32 values: 4 MiB
BIG_BATCH = 18  # items: 72 MiB, more than Docker's own /dev/shm of 64 MB
BIG_COUNT = 5 * BIG_BATCH
BIG_WORKERS = 2
SMALL_ITEM = 3 * 64 * 64  # int32 values: a small picture
SMALL_BATCH = 16
SMALL_LEAST, SMALL_MOST = 4 * SMALL_BATCH, 64 * SMALL_BATCH  # items of an epoch
EPOCH_S = 1.0  # seconds that an epoch takes without workers; their start shall not be all that is measured
EPOCHS = 2  # the second shows what persistent workers save
LONG_EPOCH_S = 5.0  # seconds after which there is no second epoch
STUCK_S = 40  # seconds without a batch after which the DataLoader gives up
EVIDENCE_LIMIT = 2000  # characters
SHM = "/dev/shm"  # noqa: S108 - where it is, not a file of ours

# The articles' settings for an RTX 3090, their default of eight workers, and torch's own default.
SETTINGS = {
    "3090": {"num_workers": 4, "pin_memory": True, "prefetch_factor": 2, "persistent_workers": True},
    "eight": {"num_workers": 8},
    "none": {"num_workers": 0},
}
OUT_OF_SHM = (
    r"\bbus error\b|insufficient shared memory|shm.{0,200}No space left|No space left.{0,200}shm"
    r"|unable to (open|mmap|write|allocate|resize).{0,60}shared memory"
)
# (what the exception or the worker says, what it means, cause); the first that matches
DEATHS = (
    (OUT_OF_SHM, "a worker ran out of shared memory", "shm-too-small"),
    (r"killed by signal: Killed", "a worker was killed, as the memory limit does", "host-oom-kill"),
    (r"killed by signal|exited unexpectedly", "a worker died", None),
    (
        r"DataLoader timed out",
        f"no batch came within {STUCK_S} s: a worker hangs, or the machine is far too busy",
        None,
    ),
    (r"Too many open files|received 0 items of ancdata", "the limit of open files is too low for workers", None),
)


class Numbered:
    """A dataset whose item i is i, i + 1, i + 2, …: any item that is lost, doubled or damaged shows."""

    def __init__(self, count: int, size: int):
        self._count = count
        self._size = size

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        import torch

        return torch.arange(index, index + self._size, dtype=torch.int32)


class Pictures(Numbered):
    """The same with about a millisecond of work an item, as decoding and augmenting a picture is."""

    def __getitem__(self, index):
        import torch

        picture = torch.arange(3 * 256 * 256, dtype=torch.float32).reshape(1, 3, 256, 256)
        picture = torch.nn.functional.interpolate(picture.flip(-1), size=(224, 224), mode="bilinear")
        ((picture - 0.45) / 0.225).mean()
        return super().__getitem__(index)


class Arrivals:
    """Which items have come, and whether each was whole."""

    def __init__(self, count: int, size: int):
        self._count = count
        self._size = size
        self._seen = {}
        self.damaged = []

    def add(self, torch, batch) -> None:
        """Take one batch."""
        steps = torch.arange(self._size, dtype=torch.int32)
        for item in batch:
            index = int(item[0])
            self._seen[index] = self._seen.get(index, 0) + 1
            if not torch.equal(item, steps + index):
                self.damaged.append(index)

    def wrong(self) -> str:
        """What is wrong with what has come, or ""."""
        lost = [index for index in range(self._count) if index not in self._seen]
        doubled = sorted(index for index, times in self._seen.items() if times > 1)
        foreign = sorted(index for index in self._seen if not 0 <= index < self._count)
        parts = (("lost", lost), ("doubled", doubled), ("damaged", sorted(self.damaged)), ("unknown", foreign))
        return "; ".join(f"{len(found)} items {name} (the first: {found[0]})" for name, found in parts if found)


def settings(context):
    """Two workers with batches of 72 MiB, verified; then two epochs of small pictures with each setting."""
    import torch

    pinned = bool(torch.cuda.is_available())
    numbers = {"shm_free_mb": _free_mb(), "cpus": _cpus(), "pinned_memory": pinned}
    numbers["batch_mb"] = round(BIG_BATCH * BIG_ITEM * 4 / 1e6, 1)
    wrong = _attempt(lambda: _large_batches(torch))
    rates = {}
    count = _count()
    for name, chosen in SETTINGS.items():
        if wrong is not None:
            break
        arrived = [0, 0.0]
        known = {key: value for key, value in chosen.items() if pinned or key != "pin_memory"}
        wrong = _attempt(lambda known=known, arrived=arrived: _epochs(torch, known, count, arrived))
        if wrong is None:
            rates[name] = arrived[0] / arrived[1]
    numbers["items_an_epoch"] = count
    return judge(numbers, rates, wrong, context.thresholds)


def judge(numbers, rates, wrong, thresholds):
    """The verdict: items/s by setting; `wrong` is (what is wrong, evidence), or None."""
    numbers = {**numbers, **{f"{name}.items_per_s": round(rate, 1) for name, rate in rates.items()}}
    keys = {"device": "cpu", "numbers": numbers, "thresholds": dict(thresholds)}
    if wrong is not None:
        text, words = wrong
        meaning, line, cause = blame(words)
        if cause:
            keys["cause"] = cause
        summary = f"{meaning} ({numbers['shm_free_mb']} MB were free in {SHM})" if meaning else text
        return failed(summary, evidence=line or words[:EVIDENCE_LIMIT], **keys)
    if not rates:
        return unknown("no setting was measured", **keys)
    fastest = max(rates, key=rates.get)
    said = ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items())
    text = f"every item arrived once and whole; items/s: {said}; the fastest here: {fastest}"
    behind = rates.get("3090", 0.0) / rates[fastest]
    numbers.update({"3090_over_fastest": round(behind, 3), "wrong_items": 0})
    return passed(text, **keys)


def blame(words: str):
    """(what a failure of a DataLoader means, the line that says so, cause or None); (None, "", None) if not known."""
    for pattern, meaning, cause in DEATHS:
        found = re.search(pattern, words, re.IGNORECASE)
        if found:
            return meaning, complaints.line_of(words, found), cause
    return None, "", None


def _attempt(action):
    """(what is wrong, every word about it), or None."""
    heard = complaints.Stderr()  # a worker that dies tells why on stderr; the exception says only that it has ended
    try:
        with heard:
            wrong = action()
    except (RuntimeError, OSError, AssertionError) as error:
        chain = complaints.exception_chain(error)
        return "the DataLoader raised " + type(error).__name__, "\n".join([*chain, heard.text])
    return (wrong, wrong) if wrong else None


def _large_batches(torch):
    """What is wrong with batches larger than Docker's /dev/shm, or ""."""
    loader = _loader(
        torch, Numbered(BIG_COUNT, BIG_ITEM), BIG_BATCH, {"num_workers": BIG_WORKERS, "prefetch_factor": 2}
    )
    arrivals = Arrivals(BIG_COUNT, BIG_ITEM)
    for batch in loader:
        arrivals.add(torch, batch)
    return arrivals.wrong()


def _count():
    """Items of an epoch that takes about EPOCH_S without workers."""
    pictures = Pictures(SMALL_BATCH, SMALL_ITEM)
    pictures[0]
    started = time.perf_counter()
    for index in range(SMALL_BATCH):
        pictures[index]
    batches = int(EPOCH_S / (time.perf_counter() - started))
    return max(SMALL_LEAST, min(SMALL_MOST, batches * SMALL_BATCH))


def _epochs(torch, chosen, count, arrived):
    """What is wrong, or ""; `arrived` gets [items, seconds], workers' start included."""
    loader = _loader(torch, Pictures(count, SMALL_ITEM), SMALL_BATCH, {**chosen, "shuffle": True})
    for _ in range(EPOCHS):
        arrivals = Arrivals(count, SMALL_ITEM)
        started = time.perf_counter()
        batches = list(loader)
        seconds = time.perf_counter() - started
        for batch in batches:
            arrivals.add(torch, batch)
        if arrivals.wrong():
            return arrivals.wrong()
        arrived[0] += count
        arrived[1] += seconds
        if seconds > LONG_EPOCH_S:
            break
    return ""


def _loader(torch, dataset, batch, chosen):
    """Workers by fork, as in every version of torch and Python up to 3.13: the same thing is measured everywhere."""
    if chosen["num_workers"]:
        chosen = {**chosen, "timeout": STUCK_S, "multiprocessing_context": "fork"}
    return torch.utils.data.DataLoader(dataset, batch_size=batch, **chosen)


def _free_mb():
    try:
        status = os.statvfs(SHM)
    except OSError:
        return None
    return round(status.f_bavail * status.f_frsize / 1e6, 1)


def _cpus():
    return len(os.sched_getaffinity(0))
