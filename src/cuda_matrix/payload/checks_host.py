"""Owns the checks that need no torch: the Python, the driver, the CUDA runtimes on disk.

Must not import torch, nor know how the driver is asked (nvidia) or where libraries lie (libraries).
"""

from __future__ import annotations

import os
import sys

from . import libraries, nvidia, versions
from .cgroup import read_text
from .context import failed, passed, skipped, unknown, warned


def python(_context):
    """A Python of 3.7 or newer: it is running this."""
    version = versions.python()
    numbers = {"version": version, "path": sys.executable}
    return passed(f"Python {version}", numbers=numbers, thresholds={"minimum": "3.7"})


def driver(context):
    """Step 1 of the diagnosis: does the driver answer, and for which cards?"""
    query = nvidia.query(nvidia.find(os.environ.get("PATH", "")))
    kernel = nvidia.kernel_driver(read_text(nvidia.PROC_VERSION))
    nodes = nvidia.device_nodes()
    context.fact("nvidia_smi", query.fact)
    context.fact("driver", query.driver or kernel)
    if query.gpus:
        context.fact("gpus", query.gpus)
    return judge_driver(query, kernel, nodes, context.gpu_needed)


def judge_driver(query, kernel, nodes, gpu_needed):
    """The verdict on what was seen: an nvidia-smi answer, the kernel module's version, device files."""
    numbers = {
        "driver": query.driver or kernel,
        "gpus": len(query.gpus),
        "compute_capability": ", ".join(sorted({gpu["compute_capability"] or "unknown" for gpu in query.gpus})) or None,
        "device_nodes": len(nodes),
    }
    if query.gpus:
        names = ", ".join(gpu["name"] for gpu in query.gpus)
        return passed(f"driver {query.driver}: {names}", numbers=numbers)
    seen = "; ".join(
        [
            "nvidia-smi: " + query.fact.splitlines()[0],
            f"{nvidia.PROC_VERSION}: {kernel or 'not there'}",
            f"/dev/nvidia*: {', '.join(nodes) or 'none'}",
        ]
    )
    if query.path is None and nodes and kernel:
        text = f"driver {kernel} is here, but no nvidia-smi (driver capability `utility`): the cards were not queried"
        return warned(text, numbers=numbers, evidence=seen)
    if query.path is not None:
        summary = "nvidia-smi failed"
        report = failed if gpu_needed else warned
        return report(summary, numbers=numbers, evidence=query.message or seen, log=query.message + "\n" + seen)
    if gpu_needed:
        return failed("no GPU here", numbers=numbers, evidence=seen, cause="gpu-not-exposed")
    return skipped("no NVIDIA driver here, and none is required", numbers=numbers, evidence=seen)


def runtimes(context):
    """Step 3 of the diagnosis: which CUDA runtimes lie on disk, and which one LD_LIBRARY_PATH selects."""
    found = libraries.runtimes(libraries.site_directories(sys.path))
    context.fact("cuda_runtimes", found)
    library_path = os.environ.get("LD_LIBRARY_PATH", "")
    first = libraries.on_path(library_path)
    versions = sorted({runtime["version"] or "of unknown version" for runtime in found})
    numbers = {
        "runtimes": len(found),
        "versions": ", ".join(versions),
        "library_path": library_path,
        "library_path_selects": first,
    }
    if not found:
        text = "no libcudart in the usual places"
        return unknown(text, numbers=numbers) if context.gpu_needed else skipped(text, numbers=numbers)
    evidence = "\n".join(runtime["path"] for runtime in found)
    return passed("CUDA runtime " + ", ".join(versions), numbers=numbers, evidence=evidence)
