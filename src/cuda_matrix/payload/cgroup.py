"""Owns what the cgroup (v1 or v2) says: memory limit, CPU quota, and how often the memory limit has killed.

Inside a container the group's own files are at the mount's root; outside, below it. Must not know who asks.
"""

from __future__ import annotations

_ROOT = "/sys/fs/cgroup"


def read_text(path: str, limit: int = 65536) -> str:
    """The first bytes of a small file, or "" where it cannot be read."""
    try:
        with open(path, "rb") as stream:
            return stream.read(limit).decode("utf-8", "replace")
    except OSError:
        return ""


def _places(controller):
    """Directories to look at: the container's view first, then the path that /proc/self/cgroup names."""
    below_v1 = below_v2 = ""
    for line in read_text("/proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if not names:
            below_v2 = path
        elif controller in names.split(","):
            below_v1 = path
    v1 = f"{_ROOT}/{controller}"
    return [_ROOT, _ROOT + below_v2, v1, v1 + below_v1]


def _first(controller, *names):
    for place in _places(controller):
        for name in names:
            text = read_text(f"{place}/{name}")
            if text:
                return text
    return ""


def kills() -> int:
    """How often the memory limit has killed in this group; 0 where no counter can be read."""
    for line in _first("memory", "memory.events", "memory.oom_control").splitlines():
        key, _, value = line.partition(" ")
        if key == "oom_kill" and value.strip().isdigit():
            return int(value)
    return 0


def memory_limit_bytes():
    """The group's memory limit, or None where there is none."""
    text = _first("memory", "memory.max", "memory.limit_in_bytes").strip()
    # v1 says "no limit" with the largest page-aligned number
    return int(text) if text.isdigit() and int(text) < 1 << 60 else None


def cpu_quota():
    """CPUs' worth of time that the group may use, or None where there is no quota."""
    parts = _first("cpu", "cpu.max").split()
    if not parts:
        parts = (_first("cpu", "cpu.cfs_quota_us") + " " + _first("cpu", "cpu.cfs_period_us")).split()
    if len(parts) == 2 and parts[0].isdigit() and parts[1].isdigit() and int(parts[1]) > 0:
        return int(parts[0]) / int(parts[1])
    return None
