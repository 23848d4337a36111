"""Owns the check libs.stack: which packages stand beside torch, and whether each of them can be used with it.

Each is imported in a child of its own: a segfault or a hang is charged to that package. What is absent is noted, and is
a failure only where the configuration expects it. Must not know what is tried with a package (stack_trials).
"""

from __future__ import annotations

import re
import time

from . import distributions, isolated, stack_trials
from .context import failed, passed, skipped, warned

_PACKAGE_S = 45.0  # for one package, cold start included
_RESERVE_S = 3.0  # of the item's limit, to report
_OWN_KEYS = ("torch", "cuda", "cudnn", "python")  # of `expect`: image.expect compares them
_ABI = (
    r"undefined symbol\W{1,3}_Z\w{0,4}(2at|3c10|5torch)|operator torchvision::\w+ does not exist"
    r"|couldn.t load custom c\+\+ ops|compiled with different cuda|could not run 'torchvision::"
)
_CAUSES = (
    ("numpy-abi", r"_ARRAY_API|numpy is not available|compiled using numpy 1"),
    ("torch-abi-mismatch", _ABI),
)


def stack(context):
    """Every known or expected package that is here: imported and used once."""
    import torch

    started = time.monotonic()
    packages = distributions.installed()
    expected = {
        distributions.normalised(name): wanted for name, wanted in context.expect.items() if name not in _OWN_KEYS
    }
    rows = []
    for name, module, trial in _wanted(packages, expected):
        row = {"name": name, "version": _version(name, module, packages), "seconds": 0.0, "error": "", "said": ""}
        row["expected"] = expected.get(distributions.normalised(name)) not in (None, "none")
        row["present"] = distributions.importable(module)
        left = min(_PACKAGE_S, context.limit_s - _RESERVE_S - (time.monotonic() - started))
        row["tried"] = row["present"] and left > 0
        if row["tried"]:
            device = torch.device(context.device if context.on_gpu else "cpu")
            answer = isolated.call(lambda trial=trial, device=device: trial(torch, device) or {}, left)
            row["seconds"], row["error"], row["said"] = round(answer.seconds, 2), answer.error, answer.output
        rows.append(row)
    return judge(rows, context.thresholds)


def judge(rows: list, thresholds: dict) -> dict:
    """The verdict: what is broken or expected and absent fails; nothing to try is no pass."""
    numbers = {}
    for row in rows:
        numbers[row["name"]] = row["version"] if row["present"] else "absent"
        if row["tried"]:
            numbers[row["name"] + "_s"] = row["seconds"]
    keys = {"numbers": numbers, "thresholds": thresholds}
    broken = [row for row in rows if row["error"]]
    absent = [row for row in rows if row["expected"] and not row["present"]]
    if broken:
        keys["evidence"] = "\n".join("{name} {version}: {error}".format(**row) for row in broken)
        keys["log"] = "\n".join(row["said"] for row in broken)
        cause = cause_of(broken)
        if cause:
            keys["cause"] = cause
        return failed(", ".join(row["name"] for row in broken) + " cannot be used with this torch", **keys)
    if absent:
        text = ", ".join(row["name"] for row in absent)
        return failed(f"expected, but not here: {text}", evidence=text, cause="expectation-mismatch", **keys)
    tried = [row for row in rows if row["tried"]]
    late = [row["name"] for row in rows if row["present"] and not row["tried"]]
    if late:
        return warned("the time was up before " + ", ".join(late), **keys)
    if not tried:
        return skipped("none of the packages that usually stand beside torch is here", **keys)
    return passed("used once each: " + ", ".join("{name} {version}".format(**row) for row in tried), **keys)


def cause_of(broken) -> str:
    """The cause that a broken package's own words name, or ""."""
    for row in broken:
        for cause, pattern in _CAUSES:
            if re.search(pattern, row["error"] + "\n" + row["said"], re.IGNORECASE):
                return cause
    return ""


def _wanted(packages, expected):
    """(name to report, module, trial) of every known package, and of whatever else the configuration expects."""
    known = set()
    for module, trial in stack_trials.TRIALS.items():
        names = stack_trials.DISTRIBUTIONS.get(module, (module,))
        known.update(distributions.normalised(name) for name in names)
        name = next((each for each in names if each in packages or each in expected), names[0])
        yield name, module, trial
    for name in sorted(set(expected) - known):
        if expected[name] == "none":
            continue
        distribution = packages.get(name)
        modules = distributions.top_level(distribution) if distribution else []
        module = modules[0] if modules else name.replace("-", "_")
        yield name, module, _import_only(module)


def _import_only(module):
    def trial(_torch, _device):
        import importlib

        importlib.import_module(module)

    return trial


def _version(name, module, packages):
    distribution = packages.get(distributions.normalised(name)) or packages.get(distributions.normalised(module))
    return distribution.version if distribution else "of unknown version"
