"""Owns the start-up benchmarks: seconds that a fresh Python needs to import torch, and to its first verified kernel.

Every sample is an interpreter started anew; its files are in the page cache, since this payload has imported torch
before. How long the very first import took is among the numbers. Must not know how a step is timed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from . import samples
from .context import failed, ran_elsewhere, result, unknown

# How long a benchmark may go on starting processes, in seconds: it ends before the next one would exceed them.
BUDGET_S = {"smoke": 1.5, "standard": 5.0, "full": 20.0}
MAX_PROCESSES = 10
MARK = "cuda-matrix-startup "

# Argument: the device. Nothing of this payload is on its path, and not the current directory either.
_PROGRAM = """
import json, sys, time
sys.path = [entry for entry in sys.path if entry]
started = time.perf_counter()
import torch
imported = time.perf_counter()
found = {"import_s": imported - started}
if len(sys.argv) > 1:
    left = torch.arange(4096, dtype=torch.float32).remainder(7).reshape(64, 64)
    on_device = left.to(sys.argv[1])
    copied = time.perf_counter()
    product = on_device @ on_device
    found["equal"] = bool(torch.equal(product.cpu().double(), left.double() @ left.double()))
    found["device"] = str(product.device)
    found["to_device_s"] = copied - imported
    found["kernel_s"] = time.perf_counter() - copied
sys.stdout.write("\\nMARK" + json.dumps(found) + "\\n")
sys.stdout.flush()
"""


def imported(context):
    """Seconds of `import torch` in fresh processes."""
    answers, wrong = _started(context, [])
    numbers = {"first_s": _rounded(context.import_seconds)}
    return judge(context, [each["import_s"] for each in answers], numbers, wrong)


def first_kernel(context):
    """Seconds from starting a process to its first product on the device, verified."""
    answers, wrong = _started(context, [context.device])
    numbers = {}
    for name in ("import_s", "to_device_s", "kernel_s"):
        values = [each[name] for each in answers if name in each]
        numbers[name] = _rounded(samples.median(values)) if values else None
    elsewhere = [each["device"] for each in answers if each["device"] != context.device]
    if elsewhere:
        return ran_elsewhere(context.device, device=elsewhere[0], numbers=numbers)
    if not all(each["equal"] for each in answers):
        text = "the first product of a fresh process is wrong"
        return failed(text, evidence=text, cause="numerics-wrong", device=context.device, numbers=numbers)
    return judge(context, [each["process_s"] for each in answers], numbers, wrong)


def judge(context, seconds, numbers: dict, wrong: str) -> dict:
    """The result of fresh processes that took so long; `wrong`: what the one said that failed."""
    thresholds = {"cv_warn": context.thresholds["cv_warn"]}
    keys = {"device": context.device or "cpu", "numbers": numbers, "thresholds": thresholds}
    numbers["processes"] = len(seconds)
    if wrong:
        return failed("a fresh process did not get there", evidence=wrong, **keys)
    if not seconds:
        return unknown("there was no time to start a process", **keys)
    impossible = samples.impossible(seconds)
    if impossible:
        return result("invalid", impossible, evidence=impossible, **keys)
    summary = samples.summarise(seconds)
    status, text = "pass", "{:.3g} s, the median of {} fresh processes".format(summary["median"], summary["n"])
    # One process is a sample like any other: only a spread that was seen can be doubted.
    if summary["n"] >= samples.MIN_SAMPLES and summary["cv"] > thresholds["cv_warn"]:
        status, text = "warn", text + ": they vary by {:.0%}".format(summary["cv"])
    return result(status, text, samples=summary, **keys)


def _started(context, arguments):
    """(what each fresh process answered, ""), or what was answered until one failed, and that one's words."""
    began = time.monotonic()
    budget = BUDGET_S.get(context.profile, BUDGET_S["standard"])
    program = _PROGRAM.replace("MARK", MARK)
    answers = []
    while len(answers) < MAX_PROCESSES:
        started = time.perf_counter()
        left = context.limit_s - (time.monotonic() - began) - 1.0
        if answers and time.monotonic() - began + answers[-1]["process_s"] > min(budget, left):
            break
        try:
            # -B as the payload itself: an image is left as it was.
            command = [sys.executable, "-B", "-c", program, *arguments]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=max(left, 1.0), check=False
            )
        except subprocess.TimeoutExpired:
            return answers, f"a fresh process did not end within {left:.0f} s"
        seconds = time.perf_counter() - started
        answer = said(done.stdout)
        if answer is None:
            return answers, _last_words(done)
        answers.append({**answer, "process_s": seconds})
    return answers, ""


def said(output: bytes):
    """What the program has written, among whatever torch prints; None where it did not get so far."""
    for line in reversed(output.decode("utf-8", "replace").splitlines()):
        if line.startswith(MARK):
            return json.loads(line[len(MARK) :])
    return None


def _last_words(done) -> str:
    lines = [line.strip() for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1][:2000] if lines else f"exit code {done.returncode}, without a word"


def _rounded(seconds):
    return None if seconds is None else round(seconds, 3)
