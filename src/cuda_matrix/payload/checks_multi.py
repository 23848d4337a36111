"""Owns the checks of several cards: copies between them, byte for byte, and a collective with exact sums.

A broken path between cards hangs, or corrupts without an error: every byte is compared, and every rank is a process of
its own with a time limit. Must not know how fast the cards are connected.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

from . import complaints
from .context import failed, passed, skipped, warned

SEED = 20240514
COPY_BYTES = (1 << 24) + 3  # 16 MiB and an odd rest
MAX_CARDS = 8
SUM_SIZES = (1, 1023, 1 << 20)  # elements
VALUES = 1000  # elements are 0 … 999 plus the rank: their sums are exact in float32 too
POLL_S = 0.05
P2P_OFF = {"NCCL_P2P_DISABLE": "1"}
MARK = "cuda-matrix-rank "
# What a rank says when another one has died: true, and not why.
CONSEQUENCES = ("Connection reset by peer", "Connection closed by peer", "Broken pipe", "remote process exited")


def p2p(context):
    """Every pair of cards in both directions, then through a third; each copy compared byte for byte."""
    import torch

    count = min(torch.cuda.device_count(), MAX_CARDS) if context.on_gpu else 0
    if not context.on_gpu:
        return skipped("needs a GPU", device=context.device)
    if count < 2:
        return skipped("one card: there is nothing to copy between", device=context.device, numbers={"cards": count})
    names = [f"cuda:{index}" for index in range(count)]
    access = {
        (one, other): bool(torch.cuda.can_device_access_peer(one, other))
        for one in range(count)
        for other in range(count)
        if one != other
    }
    return judge_copies(copies(torch, names), access, context.thresholds)


def copies(torch, names):
    """{route: bytes that are wrong}; a route is a tuple of indices of `names`."""
    generator = torch.Generator().manual_seed(SEED)
    original = torch.randint(0, 256, (COPY_BYTES,), generator=generator, dtype=torch.uint8)
    count = len(names)
    routes = [(one, other) for one in range(count) for other in range(count) if one != other]
    routes += [(one, (one + 1) % count, (one + 2) % count) for one in range(count) if count > 2]
    wrong = {}
    for route in routes:
        data = torch.empty_like(original, device=names[route[0]]).copy_(original)
        for step in route[1:]:
            data = torch.empty_like(data, device=names[step]).copy_(data)
        wrong[route] = int((data.cpu() != original).sum())
    return wrong


def judge_copies(wrong, access, thresholds):
    """The verdict: wrong bytes by route, and which pairs have peer access."""
    cards = 1 + max(max(route) for route in wrong)
    numbers = {
        "cards": cards,
        "routes": len(wrong),
        "bytes_each": COPY_BYTES,
        "peer_access_pairs": sum(access.values()),
        "pairs": len(access),
        "wrong_bytes": max(wrong.values()),
    }
    keys = {"device": "cuda:0", "numbers": numbers, "thresholds": dict(thresholds)}
    bad = {route: count for route, count in wrong.items() if count > thresholds["wrong_bytes"]}
    if bad:
        direct = [route for route in bad if any(access.get(pair) for pair in zip(route, route[1:]))]
        lines = [
            f"{' → '.join(map(str, route))}: {count} of {COPY_BYTES} bytes are wrong" for route, count in bad.items()
        ]
        if direct:
            keys["cause"] = "nccl-p2p-acs"
        how = "with direct peer access" if direct else "through the host"
        return failed(f"copies between cards arrive damaged ({how})", evidence="\n".join(lines[:16]), **keys)
    text = f"{len(wrong)} routes between {cards} cards, every byte right"
    return passed(f"{text}; peer access in {sum(access.values())} of {len(access)} pairs", **keys)


def nccl(context):
    """All-reduce of integers with exact sums, one process a card; on a hang or a wrong sum once more without P2P."""
    if not context.on_gpu:
        return skipped("needs a GPU", device=context.device)
    import torch

    if not torch.distributed.is_available() or not torch.distributed.is_nccl_available():
        return skipped("this torch was built without NCCL", device=context.device)
    world = min(torch.cuda.device_count(), MAX_CARDS)
    limit_s = min(context.thresholds["attempt_s"], 0.45 * context.limit_s)
    return judge_attempts(retried("nccl", world, limit_s), world, context.thresholds)


def retried(backend: str, world: int, limit_s: float):
    """The attempts in order: one; where it hung or gave wrong sums between several cards, a second with P2P off."""
    attempts = [attempt(backend, world, limit_s, {})]
    if world > 1 and attempts[0]["ending"] in ("hang", "wrong"):
        attempts.append(attempt(backend, world, limit_s, P2P_OFF))
    return attempts


def judge_attempts(attempts, world: int, thresholds):
    """The verdict on one attempt, or on two of which the second was without P2P."""
    first, last = attempts[0], attempts[-1]
    numbers = {
        "world_size": world,
        "ending": first["ending"],
        "seconds": first["seconds"],
        "wrong_sums": first["wrong"],
    }
    keys = {"device": "cuda:0", "numbers": numbers, "thresholds": dict(thresholds)}
    if len(attempts) > 1:
        numbers.update(ending_without_p2p=last["ending"], wrong_sums_without_p2p=last["wrong"])
    if first["ending"] == "right":
        return passed(f"all-reduce over {world} process(es): every sum exact", **keys)
    told = {"hang": "hangs", "wrong": "gives wrong sums", "died": "fails"}
    if last["ending"] == "right":
        text = f"P2P is broken: all-reduce {told[first['ending']]}, and is right with NCCL_P2P_DISABLE=1"
        return warned(text, evidence=f"{text}\n{first['words']}".strip(), cause="nccl-p2p-acs", **keys)
    cause = {"hang": "nccl-timeout", "wrong": "numerics-wrong"}.get(last["ending"])
    if cause:
        keys["cause"] = cause
    text = f"all-reduce over {world} process(es) {told[last['ending']]}"
    text += ", with NCCL_P2P_DISABLE=1 as well" if len(attempts) > 1 else ""
    return failed(text, evidence=last["words"] or text, **keys)


def attempt(backend: str, world: int, limit_s: float, variables: dict) -> dict:
    """Start the ranks and wait: {ending: right|wrong|hang|died, seconds, wrong (sums), words (of the first bad rank)}.

    Fresh interpreters, since CUDA does not survive a fork. They stay in this process's group, and die with it.
    """
    folder = tempfile.mkdtemp(prefix="cuda-matrix-ranks-")
    started = time.monotonic()
    processes = []
    try:
        for rank in range(world):
            job = {"backend": backend, "rank": rank, "world": world, "limit_s": limit_s, "folder": folder}
            processes.append(_start(job, variables))
        late = not _wait(processes, started + limit_s)
        _end(processes)
        reports = [_report(folder, rank, process.returncode) for rank, process in enumerate(processes)]
    finally:
        _end(processes)
        shutil.rmtree(folder, ignore_errors=True)
    seconds = round(time.monotonic() - started, 2)
    return {"seconds": seconds, **ending(reports, late, limit_s)}


def ending(reports, late: bool, limit_s: float) -> dict:
    """What the ranks' reports amount to: {ending, wrong, words}. A rank that died explains one that then waited."""
    sums = [report["wrong"] for report in reports if report["wrong"] is not None]
    bad = [report for report in reports if report["wrong"] is None]
    died = [report for report in bad if report["code"] not in (0, None)]
    if died:
        died.sort(key=lambda report: (report["code"] > 0, any(each in report["words"] for each in CONSEQUENCES)))
        return {"ending": "died", "wrong": sum(sums), "words": "\n".join(report["words"] for report in died[:3])}
    if late:
        words = f"{len(bad)} of {len(reports)} ranks had not ended after {limit_s:.1f} s"
        return {"ending": "hang", "wrong": sum(sums), "words": "\n".join([words, *(each["words"] for each in bad[:1])])}
    if bad:
        return {"ending": "died", "wrong": sum(sums), "words": "a rank ended without a report\n" + bad[0]["words"]}
    if sum(sums):
        return {"ending": "wrong", "wrong": sum(sums), "words": f"{sum(sums)} sums are not the exact ones"}
    return {"ending": "right", "wrong": 0, "words": ""}


def _start(job, variables):
    payload = os.path.dirname(os.path.abspath(__file__))
    package = os.path.basename(payload)
    code = (
        "import importlib, sys; sys.path.insert(0, sys.argv[1]); "
        f"importlib.import_module('{package}.{__name__.rpartition('.')[2]}').rank_main(sys.argv[2])"
    )
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", **variables}
    with open(_log_path(job["folder"], job["rank"]), "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-B", "-u", "-c", code, os.path.dirname(payload), json.dumps(job)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
        )


def _wait(processes, end: float) -> bool:
    """Whether all ended in time; where one has failed, the others are not waited for."""
    while time.monotonic() < end:
        codes = [process.poll() for process in processes]
        if all(code is not None for code in codes):
            return True
        if any(code not in (None, 0) for code in codes):
            time.sleep(10 * POLL_S)  # whoever fails next may say why
            return True
        time.sleep(POLL_S)
    return False


def _end(processes):
    """Kill what still runs; a rank that was killed here has the exit code None."""
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()
            process.returncode = None


def _log_path(folder, rank):
    return os.path.join(folder, f"rank-{rank}.log")


def _report(folder, rank, code):
    """{wrong: wrong sums, or None without a report; code; words}: what one rank has left."""
    with open(_log_path(folder, rank), "rb") as stream:
        lines = stream.read().decode("utf-8", "replace").splitlines()
    said = [line for line in lines if not line.startswith(MARK)]
    marked = [line[len(MARK) :] for line in lines if line.startswith(MARK)]
    report = json.loads(marked[-1]) if marked else {}
    words = report.get("error") or "\n".join(said[-5:])
    if code is not None and code < 0:
        words = f"ended by signal {-code}\n{words}".strip()
    return {"wrong": report.get("wrong"), "code": code, "words": f"rank {rank}: {words}"[: complaints.LENGTH_LIMIT]}


def rank_main(text: str) -> None:
    """One rank's whole life, in an interpreter of its own: join, sum, report on stdout."""
    job = json.loads(text)
    try:
        wrong = _sum(job)
    except Exception as error:
        print(MARK + json.dumps({"error": "\n".join(complaints.exception_chain(error))}), flush=True)
        os._exit(1)
    print(MARK + json.dumps({"wrong": wrong}), flush=True)
    os._exit(0)  # a broken communicator may hang in its own end, after all was said


def _sum(job) -> int:
    """How many elements of all sums are not exact."""
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
        timeout=timedelta(seconds=10 * job["limit_s"]),  # the parent's limit counts, and it knows a hang by it
    )
    wrong = 0
    for dtype in (torch.int64, torch.float32):
        for size in SUM_SIZES:
            base = torch.arange(size, device=device) % VALUES
            data = (base + rank).to(dtype)
            distributed.all_reduce(data)
            expected = (base * world + world * (world - 1) // 2).to(dtype)
            wrong += int((data != expected).sum())
    return wrong
