"""Owns the checks container.*: what the container's own limits and accounts are, as far as its inside can see them.

Must not know which passwords everybody knows (passwords), nor how a cgroup is read (cgroup).
"""

from __future__ import annotations

import os
import re
import shutil

from . import cgroup, libraries, nvidia, passwords
from .context import failed, passed, skipped, unknown, warned

SHM = "/dev/shm"  # noqa: S108 - its size is the finding; nothing is written there
_GIB = 1 << 30
_MIB = 1 << 20


def shm(context):
    """Shared memory: loader workers and NCCL pass their data through it."""
    try:
        seen = os.statvfs(SHM)
    except OSError as error:
        return judge_shm(None, None, context.thresholds, str(error))
    size, free = seen.f_frsize * seen.f_blocks, seen.f_frsize * seen.f_bavail
    return judge_shm(size, free, context.thresholds)


def judge_shm(size_bytes, free_bytes, thresholds, error=""):
    """Less than the least that PyTorch's loaders ask for is a remark: nothing has failed yet."""
    if size_bytes is None:
        text = f"{SHM} cannot be looked at"
        return warned(text, evidence=error, thresholds=thresholds, cause="shm-too-small")
    numbers = {"size_gib": round(size_bytes / _GIB, 3), "free_gib": round(free_bytes / _GIB, 3)}
    keys = {"numbers": numbers, "thresholds": thresholds}
    if size_bytes < thresholds["size_gib"] * _GIB:
        text = f"{SHM} has {size_bytes / _MIB:.0f} MiB"
        return warned(text, evidence=text, cause="shm-too-small", **keys)
    if free_bytes < thresholds["free_gib"] * _GIB:
        text = f"{SHM} has {free_bytes / _MIB:.0f} MiB free of {size_bytes / _MIB:.0f} MiB"
        return warned(text, evidence=text, cause="shm-too-small", **keys)
    return passed("{size_gib:.1f} GiB of shared memory".format(**numbers), **keys)


def memlock(context):
    """How much memory a process may lock: InfiniBand and GPUDirect want all of it."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    limit = None if soft == resource.RLIM_INFINITY else soft
    cards = len([path for path in nvidia.device_nodes() if re.search(r"nvidia\d+$", path)])
    return judge_memlock(limit, cards, context.thresholds)


def judge_memlock(limit_bytes, cards, thresholds):
    """A small limit matters between cards and machines only; CUDA's own pinned memory does not count against it."""
    numbers = {"limit_mib": None if limit_bytes is None else round(limit_bytes / _MIB, 3), "cards": cards}
    keys = {"numbers": numbers, "thresholds": thresholds}
    if limit_bytes is None:
        return passed("unlimited", **keys)
    text = f"{limit_bytes / _MIB:.3g} MiB may be locked"
    if limit_bytes < thresholds["limit_mib"] * _MIB and cards > 1:
        evidence = f"ulimit -l: {limit_bytes // 1024} KiB, {cards} cards"
        return warned(text + ", too little for NCCL over InfiniBand", evidence=evidence, **keys)
    return passed(text + ("" if cards > 1 else ", which one card does not need"), **keys)


def cpu_quota(context):
    """The CPU time that the container gets, against the threads that torch starts."""
    import torch

    try:
        cpus = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        cpus = os.cpu_count() or 1
    openmp = [os.path.basename(path) for path in libraries.mapped_paths() if re.search(r"/lib(gomp|iomp5|omp)\b", path)]
    seen = {
        "cpus": cpus,
        "quota": cgroup.cpu_quota(),
        "threads": torch.get_num_threads(),
        "openmp": sorted(openmp),
        "asked": os.environ.get("OMP_NUM_THREADS") or os.environ.get("MKL_NUM_THREADS"),
    }
    return judge_cpu_quota(seen, context.thresholds)


def judge_cpu_quota(seen, thresholds):
    """More threads than CPU time stand still in turns; one thread on many CPUs is a sign of two OpenMP runtimes."""
    quota, threads = seen["quota"], seen["threads"]
    numbers = {
        "cpus": seen["cpus"],
        "quota_cpus": quota,
        "threads": threads,
        "openmp_runtimes": len(seen["openmp"]),
        "openmp": ", ".join(seen["openmp"]),
        "asked_threads": seen["asked"],
    }
    keys = {"numbers": numbers, "thresholds": thresholds}
    if quota is not None and threads > thresholds["threads_per_quota"] * quota:
        text = f"torch starts {threads} threads for {quota:.3g} CPUs' worth of time"
        return warned(text, evidence=f"cgroup quota {quota:.3g} CPUs, torch.get_num_threads() {threads}", **keys)
    usable = seen["cpus"] if quota is None else min(seen["cpus"], quota)
    if threads == 1 and not seen["asked"] and usable >= thresholds["cpus_for_one_thread"]:
        text = f"torch uses one thread on {usable:.3g} CPUs"
        evidence = f"torch.get_num_threads() 1; OpenMP runtimes loaded: {numbers['openmp'] or 'none'}"
        return warned(text, evidence=evidence, **keys)
    time = "no quota" if quota is None else f"a quota of {quota:.3g} CPUs"
    return passed(f"{threads} threads on {seen['cpus']} CPUs, {time}", **keys)


def root_user(_context):
    """Who the container runs as: a note, since most images run as root on purpose."""
    user, group = os.geteuid(), os.getegid()
    numbers = {"uid": user, "gid": group, "home_writable": os.access(os.path.expanduser("~"), os.W_OK)}
    who = "root, as most images do" if user == 0 else f"user {user}"
    return passed(f"runs as {who}", numbers=numbers)


def default_password(context):
    """Accounts, Jupyter and variables with a password that everybody knows. No secret is ever shown."""
    accounts = passwords.accounts()
    seen = {
        "weak": accounts.weak,
        "tried": accounts.tried,
        "reason": accounts.reason,
        "sshd": shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin") is not None,
        "jupyter": {path: passwords.jupyter_open(path) for path in passwords.jupyter_files(os.environ)},
        "variables": passwords.variables(os.environ),
    }
    return judge_passwords(seen, context.thresholds)


def judge_passwords(seen, thresholds):
    """Where somebody can log in with it, a known password fails; where nobody can, it is a remark."""
    opened = {path: why for path, why in seen["jupyter"].items() if why}
    numbers = {
        "accounts": seen["tried"],
        "weak_accounts": len(seen["weak"]),
        "sshd_here": seen["sshd"],
        "jupyter_files": len(seen["jupyter"]),
        "open_jupyter_files": len(opened),
        "weak_variables": len(seen["variables"]),
    }
    keys = {"numbers": numbers, "thresholds": thresholds}
    lines = [f"the account {name} has no password, or one that everybody knows" for name in seen["weak"]]
    lines += [f"{path}: {why}" for path, why in sorted(opened.items())]
    lines += [f"the variable {name} holds a password that everybody knows" for name in seen["variables"]]
    if lines:
        keys["evidence"] = "\n".join(lines)
        reachable = bool(opened) or bool(seen["weak"] and seen["sshd"])
        report = failed if reachable else warned
        return report(lines[0] + ("" if reachable else "; nothing here lets it in from outside"), **keys)
    if seen["reason"]:
        report = unknown if "crypt" in seen["reason"] else skipped
        return report("nothing found, but the accounts were not compared: " + seen["reason"], **keys)
    return passed(f"no known password on {seen['tried']} accounts, in Jupyter's files or in variables", **keys)
