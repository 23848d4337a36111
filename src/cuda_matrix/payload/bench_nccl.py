"""Owns the bandwidth between cards: all-reduce over one process a card, verified before it is timed.

Must not know how ranks are started (ranks), nor whether a hang comes from P2P: the check multi-gpu.nccl finds that out.
"""

from __future__ import annotations

import time

from . import complaints, figures, ranks, samples, timing
from .context import failed, skipped

SIZES = (32 << 20, 128 << 20, 512 << 20)  # bytes
WARM_UP, ROUNDS, ROUND_SAMPLES = 5, 3, 5
SAMPLE_S, MAX_STEPS = 0.05, 20  # more sums in place would leave the range of fp32
LIMIT_SHARE = 0.9  # of the item's time


def busbw(context):
    """All-reduce in fp32 over every card."""
    import torch

    reason = ranks.why_no_nccl(torch)
    if reason:
        return skipped(reason, device=context.device)
    world = min(torch.cuda.device_count(), ranks.MAX_CARDS)
    if world < 2:
        text = "one card: there is nothing to reduce between"
        return skipped(text, device=context.device, numbers={"cards": world})
    return judge(context, reports("nccl", world, SIZES, LIMIT_SHARE * context.limit_s), world)


def judge(context, found: dict, world: int) -> dict:
    """The verdict on what `reports` gives."""
    numbers = {"cards": world, "wrong_sums": found["wrong"]}
    keys = {"device": context.device, "numbers": numbers}
    if found["error"]:
        cause = {"cause": "nccl-timeout"} if found["late"] else {}
        return failed("all-reduce " + ("hangs" if found["late"] else "fails"), evidence=found["error"], **cause, **keys)
    if found["wrong"]:
        text = "{} sums of all-reduce are not the exact ones".format(found["wrong"])
        return failed(text, evidence=text, cause="numerics-wrong", **keys)
    bandwidths = {}
    for size, rounds in found["seconds"].items():
        if samples.impossible([each for values in rounds for each in values]):
            continue
        seconds = samples.median([each for values in rounds for each in values])
        bandwidths[size] = bus_bytes(size, world) / seconds / 1e9
        numbers[f"busbw_{size >> 20}_mib"] = round(bandwidths[size], 2)
    best = max(bandwidths, key=bandwidths.get) if bandwidths else max(found["seconds"])
    measurement = timing.Measurement(found["seconds"][best], found["steps"][best])
    numbers["bytes"] = best
    what = f"all-reduce of {best >> 20} MiB over {world} cards"
    return figures.judged(context, measurement, bus_bytes(best, world) / 1e9, numbers, context.device, what)


def bus_bytes(size: int, world: int) -> float:
    """What an all-reduce of that many bytes moves over the bus of each card, at best: 2(n-1)/n of them."""
    return size * 2.0 * (world - 1) / world


def reports(backend: str, world: int, sizes, limit_s: float) -> dict:
    """Run the ranks: {seconds: {bytes: rounds of seconds}, steps: {bytes: steps}, wrong, error, late}."""
    outcome = ranks.run("bench_nccl:measured", world, {"backend": backend, "sizes": sizes}, limit_s)
    silent = outcome.silent()
    words = [report.words for report in outcome.dead() or silent]
    late = outcome.late and bool(silent)
    if late and not outcome.dead():
        words.insert(0, f"{len(silent)} of {world} ranks had not ended after {limit_s:.0f} s")
    found = (outcome.reports[0].answer or {}).get("sizes", [])
    return {
        "seconds": {each["bytes"]: each["rounds"] for each in found},
        "steps": {each["bytes"]: each["steps"] for each in found},
        "wrong": sum(answer["wrong"] for answer in outcome.answers()),
        "error": "\n".join(words)[: complaints.LENGTH_LIMIT],
        "late": late,
    }


def measured(job) -> dict:
    """Called in a rank: verify, then time every size; all ranks count wrong sums, the first one has the times."""
    import torch

    device = ranks.joined(torch, job)
    wrong = 0
    found = []
    for size in job["sizes"]:
        data, expected = ranks.numbered(torch, job, size // 4, torch.float32, device)
        torch.distributed.all_reduce(data)
        wrong += int((data != expected).sum())
        del expected
        found.append({"bytes": size, **_time(torch, torch.distributed, data)})
    return {"wrong": wrong, "sizes": found if job["rank"] == 0 else []}


def _time(torch, distributed, data) -> dict:
    """{rounds: rounds of seconds per all-reduce, steps in each}: every rank takes the same number of steps."""

    def sample(steps):
        data.fill_(1.0)
        if data.device.type == "cuda":
            torch.cuda.synchronize(data.device)
        started = time.perf_counter()
        for _ in range(steps):
            distributed.all_reduce(data)
        if data.device.type == "cuda":
            torch.cuda.synchronize(data.device)
        return (time.perf_counter() - started) / steps

    per_step = min(sample(1) for _ in range(WARM_UP))
    steps = torch.tensor([max(1.0, min(float(MAX_STEPS), SAMPLE_S / per_step))], device=data.device)
    distributed.broadcast(steps, 0)
    count = int(steps.item())
    return {"rounds": [[sample(count) for _ in range(ROUND_SAMPLES)] for _ in range(ROUNDS)], "steps": count}
