"""Owns the bandwidth between cards: all-reduce over one process a card, verified before it is timed.

The processes are fresh interpreters with a time limit, since CUDA does not survive a fork and a broken path hangs.
Must not know whether a hang comes from P2P: the check multi-gpu.nccl finds that out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

from . import checks_multi, complaints, figures, samples, timing
from .context import failed, skipped

SIZES = (32 << 20, 128 << 20, 512 << 20)  # bytes
VALUES = 1000  # elements are 0 … 999 plus the rank: their sums are exact in fp32
WARM_UP, ROUNDS, ROUND_SAMPLES = 5, 3, 5
SAMPLE_S, MAX_STEPS = 0.05, 20  # more sums in place would leave the range of fp32
LIMIT_SHARE = 0.9  # of the item's time
MARK = "cuda-matrix-bandwidth "
POLL_S = 0.05
LEAVE_S = 10.0


def busbw(context):
    """All-reduce in fp32 over every card."""
    if not context.on_gpu:
        return skipped("needs a GPU", device=context.device)
    import torch

    if not torch.distributed.is_available() or not torch.distributed.is_nccl_available():
        return skipped("this torch was built without NCCL", device=context.device)
    world = min(torch.cuda.device_count(), checks_multi.MAX_CARDS)
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
    folder = tempfile.mkdtemp(prefix="cuda-matrix-bandwidth-")
    ends = time.monotonic() + limit_s
    ranks = []
    try:
        for rank in range(world):
            job = {"backend": backend, "rank": rank, "world": world, "folder": folder, "sizes": sizes}
            ranks.append(_start(job))
        late = not _ended(ranks, ends)
        _kill(ranks)
        found = [_report(folder, rank) for rank in range(world)]
    finally:
        _kill(ranks)
        shutil.rmtree(folder, ignore_errors=True)
    errors = [report["error"] for report in found if report.get("error")]
    if late and not errors:
        errors = [f"the ranks had not ended after {limit_s:.0f} s"]
    sizes_found = found[0].get("sizes", [])
    return {
        "seconds": {each["bytes"]: each["rounds"] for each in sizes_found},
        "steps": {each["bytes"]: each["steps"] for each in sizes_found},
        "wrong": sum(report.get("wrong", 0) for report in found),
        "error": "\n".join(errors)[: complaints.LENGTH_LIMIT],
        "late": late,
    }


def rank_main(text: str) -> None:
    """One rank's whole life, in an interpreter of its own: join, verify, measure, report on stdout."""
    job = json.loads(text)
    try:
        report = _measure(job)
        _leave_together(job)
    except Exception as error:
        report = {"error": "\n".join(complaints.exception_chain(error))}
    sys.stdout.write("\n" + MARK + json.dumps(report) + "\n")
    sys.stdout.flush()
    os._exit(1 if "error" in report else 0)  # a broken communicator may hang in its own end, after all was said


def _leave_together(job):
    """Wait for the others: a rank that leaves breaks the connections of one that is still at its last sum."""
    with open(os.path.join(job["folder"], "done-{}".format(job["rank"])), "w"):
        pass
    until = time.monotonic() + LEAVE_S
    while time.monotonic() < until:
        done = [name for name in os.listdir(job["folder"]) if name.startswith("done-")]
        if len(done) == job["world"]:
            return
        time.sleep(POLL_S)


def _measure(job) -> dict:
    from datetime import timedelta

    import torch
    from torch import distributed

    rank, world = job["rank"], job["world"]
    device = torch.device("cuda", rank) if job["backend"] == "nccl" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group(
        job["backend"],
        init_method="file://" + os.path.join(job["folder"], "rendezvous"),
        rank=rank,
        world_size=world,
        timeout=timedelta(hours=1),  # the parent's limit counts
    )
    wrong = 0
    found = []
    for size in job["sizes"]:
        base = torch.arange(size // 4, device=device) % VALUES
        data = (base + rank).to(torch.float32)
        distributed.all_reduce(data)
        wrong += int((data != (base * world + world * (world - 1) // 2).to(torch.float32)).sum())
        del base
        found.append({"bytes": size, **_time(torch, distributed, data)})
    return {"wrong": wrong, "sizes": found if rank == 0 else []}


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


def _start(job):
    payload = os.path.dirname(os.path.abspath(__file__))
    code = (
        "import importlib, sys; sys.path.insert(0, sys.argv[1]); "
        f"importlib.import_module('{os.path.basename(payload)}.bench_nccl').rank_main(sys.argv[2])"
    )
    with open(_log_path(job["folder"], job["rank"]), "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-B", "-u", "-c", code, os.path.dirname(payload), json.dumps(job)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
        )


def _ended(ranks, ends: float) -> bool:
    """Whether all ended in time, or one has failed, after which the others are not waited for."""
    while time.monotonic() < ends:
        codes = [rank.poll() for rank in ranks]
        if all(code is not None for code in codes):
            return True
        if any(code not in (None, 0) for code in codes):
            time.sleep(10 * POLL_S)  # whoever fails next may say why
            return True
        time.sleep(POLL_S)
    return False


def _kill(ranks):
    for rank in ranks:
        if rank.poll() is None:
            rank.kill()
            rank.wait()


def _log_path(folder, rank):
    return os.path.join(folder, f"rank-{rank}.log")


def _report(folder, rank) -> dict:
    """What one rank has said; where it has said nothing, its last lines are the error."""
    with open(_log_path(folder, rank), "rb") as stream:
        lines = stream.read().decode("utf-8", "replace").splitlines()
    marked = [line[len(MARK) :] for line in lines if line.startswith(MARK)]
    report = json.loads(marked[-1]) if marked else {"error": "\n".join(lines[-5:]) or "it ended and said nothing"}
    if report.get("error"):
        report["error"] = f"rank {rank}: {report['error']}"[: complaints.LENGTH_LIMIT]
    return report
