"""Owns fresh interpreters that run one function of this payload side by side, and what each of them has said.

Fresh, since CUDA does not survive a fork, and since some variables are read once a process. They stay in this process's
group and die with it. Must not know what the function does, nor what its answer means.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time

from . import complaints, scratch

MAX_CARDS = 8
MARK = "cuda-matrix-rank "
_POLL_S = 0.05
_LAST_WORDS_S = 0.5  # that the others have after one has failed: whoever fails next may say why
_LEAVE_S = 10.0  # how long a rank that is done waits for the others
# What a rank says when another one has died: true, and not why.
_CONSEQUENCES = ("Connection reset by peer", "Connection closed by peer", "Broken pipe", "remote process exited")


class Report:
    """What one rank has left: its `answer` (a JSON object), or None and its `words`.

    `code`: its exit code, negative for a signal; None where it had to be killed.
    """

    def __init__(self, answer=None, code=0, words: str = ""):
        self.answer = answer
        self.code = code
        self.words = words


class Outcome:
    """The reports of all ranks, in their order; `late` where some had not ended within the limit; `seconds` of all."""

    def __init__(self, reports, late: bool, seconds: float):
        self.reports = reports
        self.late = late
        self.seconds = seconds

    def answers(self) -> list:
        """Of those that have one."""
        return [report.answer for report in self.reports if report.answer is not None]

    def silent(self) -> list:
        """The reports without an answer, in order."""
        return [report for report in self.reports if report.answer is None]

    def dead(self) -> list:
        """The reports of ranks that ended by themselves and without an answer: first who died, then who felt it."""
        found = [report for report in self.silent() if report.code not in (0, None)]
        return sorted(found, key=lambda each: (each.code > 0, any(words in each.words for words in _CONSEQUENCES)))


def run(function: str, world: int, job: dict, limit_s: float, variables=None) -> Outcome:
    """Start `world` interpreters with `function` ("module:function") and wait for all, or for the first that fails.

    Each calls it with the job, to which `rank`, `world`, `limit_s` and `folder` (shared by all) are added; what it
    returns is the answer. `variables` are set in their environment.
    """
    started = time.monotonic()
    processes = []
    with scratch.Folder("ranks") as folder:
        try:
            for rank in range(world):
                whole = {**job, "rank": rank, "world": world, "limit_s": limit_s, "folder": folder}
                processes.append(_start(function, whole, variables or {}))
            late = not _wait(processes, started + limit_s)
        finally:
            codes = _end(processes)
        reports = [_report(folder, rank, code) for rank, code in enumerate(codes)]
    return Outcome(reports, late, round(time.monotonic() - started, 2))


def _start(function, job, variables):
    payload = os.path.dirname(os.path.abspath(__file__))
    package = os.path.basename(payload)
    code = (
        "import importlib, sys; sys.path.insert(0, sys.argv[1]); "
        f"importlib.import_module('{package}.ranks').main(sys.argv[2], sys.argv[3])"
    )
    with open(_log_path(job["folder"], job["rank"]), "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-B", "-u", "-c", code, os.path.dirname(payload), function, json.dumps(job)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", **variables},
        )


def _wait(processes, end: float) -> bool:
    """Whether all ended in time; where one has failed, the others are not waited for."""
    while time.monotonic() < end:
        codes = [process.poll() for process in processes]
        if all(code is not None for code in codes):
            return True
        if any(code not in (None, 0) for code in codes):
            time.sleep(_LAST_WORDS_S)
            return True
        time.sleep(_POLL_S)
    return False


def _end(processes) -> list:
    """Kill what still runs; the exit codes, None for a rank that was killed here."""
    codes = []
    for process in processes:
        codes.append(process.poll())
        if codes[-1] is None:
            process.kill()
            process.wait()
    return codes


def _log_path(folder, rank):
    return os.path.join(folder, f"rank-{rank}.log")


def _report(folder, rank, code) -> Report:
    """What one rank has left: its answer, or the exception's words, or the last lines that it printed."""
    with open(_log_path(folder, rank), "rb") as stream:
        lines = stream.read().decode("utf-8", "replace").splitlines()
    said = [line for line in lines if not line.startswith(MARK)]
    marked = [line[len(MARK) :] for line in lines if line.startswith(MARK)]
    message = json.loads(marked[-1]) if marked else {}
    words = message.get("error") or "\n".join(said[-5:]) or "it said nothing"
    if code is not None and code < 0:
        words = f"ended by signal {-code}\n{words}"
    return Report(message.get("answer"), code, f"rank {rank}: {words}"[: complaints.LENGTH_LIMIT])


def main(function: str, text: str) -> None:
    """One rank's whole life, in an interpreter of its own: call the function, say its answer, leave with the others."""
    job = json.loads(text)
    module_name, _, function_name = function.partition(":")
    try:
        module = importlib.import_module("." + module_name, __package__)
        message = {"answer": getattr(module, function_name)(job)}
    except Exception as error:
        message = {"error": "\n".join(complaints.exception_chain(error))}
    sys.stdout.write("\n" + MARK + json.dumps(message) + "\n")
    sys.stdout.flush()
    if "error" in message:
        os._exit(1)
    _leave_together(job)
    os._exit(0)  # a broken communicator may hang in its own end, after all was said


def _leave_together(job):
    """Wait for the others: a rank that leaves breaks the connections of one that is still at its last sum."""
    with open(os.path.join(job["folder"], "done-{}".format(job["rank"])), "w"):
        pass
    until = time.monotonic() + _LEAVE_S
    while time.monotonic() < until:
        done = [name for name in os.listdir(job["folder"]) if name.startswith("done-")]
        if len(done) == job["world"]:
            return
        time.sleep(_POLL_S)


def why_no_nccl(torch) -> str:
    """Why ranks cannot meet over NCCL with this torch, or ""."""
    if torch.distributed.is_available() and torch.distributed.is_nccl_available():
        return ""
    return "this torch was built without NCCL"


def joined(torch, job):
    """Called in a rank: join the others over the job's `backend`; this rank's device."""
    from datetime import timedelta

    device = torch.device("cuda", job["rank"]) if job["backend"] == "nccl" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(
        job["backend"],
        init_method="file://" + os.path.join(job["folder"], "rendezvous"),
        rank=job["rank"],
        world_size=job["world"],
        timeout=timedelta(seconds=10 * job["limit_s"]),  # the parent's limit counts, and it knows a hang by it
    )
    return device


def numbered(torch, job, size: int, dtype, device):
    """(a tensor of `size` elements, exact sums of it over all ranks): 0 … 999 plus the rank, exact in float32 too."""
    world = job["world"]
    base = torch.arange(size, device=device) % 1000
    return (base + job["rank"]).to(dtype), (base * world + world * (world - 1) // 2).to(dtype)
